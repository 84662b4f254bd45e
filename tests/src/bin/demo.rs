//! The demo: one device and everything around it, real processes, real files; every step is checked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use vigil_tests::device::{Device, Options};
use vigil_tests::files::Fault;
use vigil_tests::fleet::Operator;
use vigil_tests::pki::Pki;
use vigil_tests::vendor::Vendor;
use vigil_tests::{broker, image, wait_for_answer};

const HELP: &str = "\
cargo demo: one device, its broker, its vendor's repository; from power-on to a rolled-back release

Usage: cargo demo [--keep] [--dir DIR] [--mib N]

  --keep     leave it running and print commands to try from a second terminal
  --dir DIR  where to put the device's disk and the repository (default: a new directory under /tmp)
  --mib N    MiB of real content in each image (default 64)

Exit codes: 0 every step did what it should, 1 a step failed (it is named), 2 wrong usage.";

const DEVICE: &str = "bar-0042";

struct Arguments {
    keep: bool,
    directory: Option<PathBuf>,
    mib: u64,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments { keep: false, directory: None, mib: 64 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keep" => parsed.keep = true,
            "--dir" => parsed.directory = Some(arguments.next().ok_or("--dir needs a directory")?.into()),
            "--mib" => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                parsed.mib = number.ok_or("--mib needs a number")?;
            }
            "-h" | "--help" => return Ok(None),
            other => return Err(format!("{other}: no such option")),
        }
    }
    Ok(Some(parsed))
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut steps = Steps::default();
    match play(&arguments, &mut steps) {
        Ok(()) => {
            let seconds = began.elapsed().as_secs_f32();
            anstream::println!(
                "\n{GOOD}all {} steps did what they should{GOOD:#}, in {seconds:.1} s",
                steps.done
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            anstream::eprintln!("\n{BAD}step {} failed: {}{BAD:#}\n{error:#}", steps.done + 1, steps.current);
            ExitCode::FAILURE
        }
    }
}

const GOOD: anstyle::Style = anstyle::AnsiColor::Green.on_default().bold();
const BAD: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const DIM: anstyle::Style = anstyle::Style::new().dimmed();

#[derive(Default)]
struct Steps {
    done: u32,
    current: String,
}

impl Steps {
    /// Does a step and prints what happened and how long it took.
    fn step<T>(&mut self, what: &str, act: impl FnOnce(&mut Said) -> anyhow::Result<T>) -> anyhow::Result<T> {
        what.clone_into(&mut self.current);
        let began = Instant::now();
        let mut said = Said::default();
        let result = act(&mut said)?;
        self.done += 1;
        let seconds = began.elapsed().as_secs_f32();
        anstream::println!("{GOOD}✔{GOOD:#} {:>2}  {what:<58} {DIM}{seconds:>6.1} s{DIM:#}", self.done);
        for line in said.0 {
            anstream::println!("       {DIM}{line}{DIM:#}");
        }
        Ok(result)
    }
}

#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn say(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }
}

fn play(arguments: &Arguments, steps: &mut Steps) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("vigil-demo-").tempdir()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory)?;
    let directory = std::fs::canonicalize(&directory)?;
    println!("Vigil: one device, its broker and its vendor's repository, in {}\n", directory.display());

    steps.step("the binaries are built", |said| {
        said.say(vigil_tests::binaries()?.display().to_string());
        Ok(())
    })?;
    let pki = Pki::new(&directory.join("pki"))?;
    let port = steps.step("a broker listens (TLS, client certificates)", |said| {
        let port = broker::embedded(&pki)?;
        said.say(format!("mqtts://localhost:{port}"));
        Ok(port)
    })?;
    let images = steps.step("three images are made of this machine's files", |said| {
        let bytes = arguments.mib << 20;
        let path = |number: u32| directory.join(format!("image-{number}"));
        image::build(&path(1), "1.0.0", image::SOUND, bytes)?;
        image::build(&path(2), "2.0.0", image::SOUND, bytes + (1 << 20))?;
        image::build(&path(3), "3.0.0", image::CAMERA_MISSING, bytes + (2 << 20))?;
        said.say(format!(
            "{:.1} MB each; the third one's self-test fails",
            megabytes(std::fs::metadata(path(1))?.len())
        ));
        Ok([path(1), path(2), path(3)])
    })?;
    let vendor = steps.step("the vendor makes keys, a TUF repository, an operator", |said| {
        let vendor = Vendor::new(&directory.join("vendor"))?;
        said.say(vendor.files.url());
        Ok(vendor)
    })?;
    steps.step("releases 2 and 3 are published (hashed zstd frames)", |said| {
        for (number, image) in [(2, &images[1]), (3, &images[2])] {
            vendor.release(&format!("{number}.0.0"), number, image, "operator")?;
        }
        vendor.publish(&["verify"])?;
        said.say("vigil-publish verify: every signature and every frame");
        Ok(())
    })?;
    let mut options = Options::new(DEVICE, port, &pki);
    options.slot_bytes = (arguments.mib + 32) << 20;
    let partner = std::net::TcpListener::bind("127.0.0.1:0")?;
    options.more = format!(
        "[network]\nprobe_timeout = \"2s\"\n\n[[network.partners]]\nname = \"meeting-cloud\"\nhost = \"localhost\"\nport = {}\ntls = false\n",
        partner.local_addr()?.port()
    );
    let mut device = steps.step("a device leaves the factory: release 1 in slot A, own keys", |_| {
        Device::new(&directory.join("device"), options, &vendor, &pki, &images[0])
    })?;
    let operator = Operator::new(&pki, &vendor, port, "olga")?;
    let result = walk(steps, &mut device, &operator, &vendor, &pki, port, &directory);
    if result.is_ok() && arguments.keep {
        keep(&mut device, &operator, &directory)?;
    }
    if result.is_err() {
        // What went wrong is in the daemons' logs, which would go with the directory.
        for name in ["vigild.log", "updaterd.log"] {
            let log = std::fs::read_to_string(device.disk.join("log").join(name)).unwrap_or_default();
            let start = log.floor_char_boundary(log.len().saturating_sub(3000));
            eprintln!("--- the end of {name}\n{}", &log[start..]);
        }
    }
    result
}

fn walk(
    steps: &mut Steps,
    device: &mut Device,
    operator: &Operator,
    vendor: &Vendor,
    pki: &Pki,
    port: u16,
    directory: &Path,
) -> anyhow::Result<()> {
    steps.step("power on: the device is online, with real health", |said| {
        device.power_on()?;
        let status = wait_for_answer(
            "the device to be online and know its operators",
            Duration::from_secs(30),
            || {
                let status = device.vigil(&["status"]).map_err(|error| format!("{error:#}"))?;
                let online = status.pointer("/broker/connected") == Some(&Value::Bool(true));
                let is_ready = online && status.pointer("/operators/count").is_some();
                if is_ready { Ok(status) } else { Err(status.to_string()) }
            },
        )?;
        let health = device.vigil(&["health"])?;
        said.say(format!("device key {}", text(&status, "/device_key")));
        said.say(format!(
            "load {}, {:.0} MB of memory available, up {} s",
            health.pointer("/load/0").unwrap_or(&Value::Null),
            megabytes(health.pointer("/memory_available_bytes").and_then(Value::as_u64).unwrap_or(0)),
            health.pointer("/uptime_seconds").unwrap_or(&Value::Null),
        ));
        Ok(())
    })?;
    let key = text(&device.vigil(&["status"])?, "/device_key");

    steps.step("an operator asks for a signed diagnosis", |said| {
        let (code, answer) = operator.send(DEVICE, "diagnose", &[])?;
        ensure!(code == 0, "vigil-fleet ended with {code}: {answer}");
        said.say(format!("verdict: {}", find(&answer, "domain").unwrap_or_default()));
        said.say(find(&answer, "summary").unwrap_or_default());
        Ok(())
    })?;

    install(steps, device, operator, "2.0.0", "confirmed")?;
    steps.step("release 2 runs in slot B, and the floor has risen", |said| {
        let update = device.vigil(&["update"])?;
        ensure!(text(&update, "/running_slot") == "B", "{update}");
        ensure!(text(&update, "/running/version") == "2.0.0", "{update}");
        ensure!(update.pointer("/floor") == Some(&Value::from(2)), "{update}");
        said.say("slot B, release 2.0.0, floor 2");
        Ok(())
    })?;

    install(steps, device, operator, "3.0.0", "rolled_back")?;
    steps.step("release 3 failed its gate, and release 2 runs again", |said| {
        let update = device.vigil(&["update"])?;
        ensure!(text(&update, "/running_slot") == "B", "{update}");
        ensure!(text(&update, "/last_failure/cause") == "gate", "{update}");
        said.say(format!(
            "cause: {}: {}",
            text(&update, "/last_failure/cause"),
            text(&update, "/last_failure/message")
        ));
        Ok(())
    })?;

    steps.step("a forged command is refused", |said| {
        let stranger = directory.join("stranger.pem");
        let made = operator.run(&["keygen", &stranger.display().to_string()])?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let stranger = Operator::new(pki, vendor, port, "mallory")?.with_key(stranger);
        let (code, answer) = stranger.send(DEVICE, "update.install", &["--arg", "version=3.0.0"])?;
        ensure!(code != 0 && find(&answer, "reason").as_deref() == Some("unknown_key"), "{code}: {answer}");
        said.say("vigild: unknown_key");
        Ok(())
    })?;

    steps.step("a tampered release is refused", |said| {
        vendor.files.misbehave("blobs/", Fault::Garbage);
        let (code, answer) =
            operator.send(DEVICE, "update.install", &["--arg", "version=3.0.0", "--timeout", "300s"])?;
        vendor.files.behave();
        ensure!(code != 0 && find(&answer, "cause").as_deref() == Some("fetch_corrupt"), "{code}: {answer}");
        let update = device.vigil(&["update"])?;
        ensure!(text(&update, "/running_slot") == "B", "{update}");
        said.say(text(&update, "/last_failure/message"));
        Ok(())
    })?;

    steps.step("the digest over everything the broker keeps is verified", |said| {
        let output = operator.run(&["check", DEVICE, "--device-key", &key])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        said.say("vigil-fleet check: every retained message is the device's newest word");
        Ok(())
    })?;
    steps.step("the audit log is verified", |said| {
        let state = device.disk.join("data").display().to_string();
        let report = device.vigil(&["audit", "verify", "--state", &state])?;
        ensure!(report.get("verified") == Some(&Value::Bool(true)), "{report}");
        said.say(format!(
            "{} entries, root {}",
            report.pointer("/report/size").unwrap_or(&Value::Null),
            text(&report, "/report/root")
        ));
        Ok(())
    })
}

/// An install, with its progress, through the restarts that it asks for.
fn install(
    steps: &mut Steps,
    device: &mut Device,
    operator: &Operator,
    version: &str,
    end: &str,
) -> anyhow::Result<()> {
    steps.step(&format!("release {version} is installed and tried: {end}"), |said| {
        let argument = format!("version={version}");
        let sent = operator
            .command(&["send", DEVICE, "update.install", "--arg", &argument, "--no-wait"])?
            .output()?;
        ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        wait_for_answer("the install to begin", Duration::from_secs(20), || {
            let update = device.vigil(&["update"]).map_err(|error| format!("{error:#}"))?;
            if text(&update, "/target/version") == version { Ok(()) } else { Err(update.to_string()) }
        })?;
        let bar = ProgressBar::new(100);
        bar.set_style(ProgressStyle::with_template("       {msg:<14} {bar:40} {percent:>3} %")?);
        let mut states: Vec<String> = Vec::new();
        device.run_until(&[end], Duration::from_secs(120), |update| {
            let state = text(update, "/state");
            // While the device restarts nobody knows.
            if !state.is_empty() && states.last() != Some(&state) {
                states.push(state.clone());
            }
            bar.set_message(state);
            let bytes = |name: &str| update.pointer(&format!("/progress/{name}")).and_then(Value::as_u64);
            if let (Some(done), Some(total)) = (bytes("done_bytes"), bytes("total_bytes")) {
                bar.set_position(done * 100 / total.max(1));
            }
        })?;
        bar.finish_and_clear();
        said.say(format!("seen: {}", states.join(" → ")));
        Ok(())
    })
}

fn keep(device: &mut Device, operator: &Operator, directory: &Path) -> anyhow::Result<()> {
    let binaries = vigil_tests::binaries()?;
    let run = device.run_directory();
    let fleet = |arguments: &[&str]| -> anyhow::Result<String> {
        let command = operator.command(arguments)?;
        let words: Vec<_> = command.get_args().map(|argument| argument.display().to_string()).collect();
        Ok(format!("{}/vigil-fleet {}", binaries.display(), words.join(" ")))
    };
    println!("\nIt goes on running. From a second terminal:\n");
    println!("  {}/vigil --run-dir {} status", binaries.display(), run.display());
    println!("  {}/vigil --run-dir {} diagnose", binaries.display(), run.display());
    println!("  {}/vigil --run-dir {} audit show", binaries.display(), run.display());
    println!("  curl --unix-socket {}/status.sock http://vigil/v1/health", run.display());
    println!("  {}", fleet(&["ls"])?);
    println!("  {}", fleet(&["watch", DEVICE])?);
    println!("  {}", fleet(&["send", DEVICE, "ping"])?);
    println!("\nEverything is in {}. Ctrl-C ends it.", directory.display());
    loop {
        device.restart_if_asked()?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The text under the first key of that name, however deep.
fn find(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(map) => match map.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => map.values().find_map(|value| find(value, key)),
        },
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
