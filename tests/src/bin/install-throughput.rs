//! How fast a release is installed, beside the pipeline that anybody would write: `curl | zstd -d | dd conv=fsync` of the
//! same image from the same server onto the same disk; each with and without reading the slot back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use vigil_tests::courier::Courier;
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::image::{self, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::vendor::{PRODUCT, Vendor};
use vigil_tests::{free_port, wait_for};
use vigil_wire::State;

/// The least that is enough.
const RATIO: f64 = 0.9;
/// `vigil-updaterd`'s memory at most, in KiB.
const PEAK_KIB: u64 = 24 * 1024;
const LIMIT: Duration = Duration::from_secs(600);
/// What the pipeline fetches: the image as one zstd stream. Frames of releases build on what was written before them.
const STREAM: &str = "blobs/stream.zst";

/// Installs a release and times it beside curl | zstd -d | dd, both with and without reading the slot back.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 at least 0.9 of the pipeline's speed and under 24 MB, 1 not.")]
struct Arguments {
    /// The image's size in MB
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Installs and pipelines, in turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where slots and repository lie
    #[arg(long, default_value = "target", value_name = "DIR")]
    directory: PathBuf,
    /// zstd's level
    #[arg(long, default_value_t = 15)]
    level: u32,
}

/// One way of doing it, in seconds.
#[derive(Clone, Copy, Default)]
struct Times {
    written: f64,
    read_back: f64,
}

impl Times {
    fn both(self) -> f64 {
        self.written + self.read_back
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("install-throughput: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let directory = tempfile::Builder::new().prefix("throughput-").tempdir_in(&arguments.directory)?;
    let vendor = Vendor::new(&directory.path().join("vendor"))?;
    let pki = Pki::new(&directory.path().join("pki"))?;
    let factory = directory.path().join("factory.img");
    image::build(&factory, "1.0.0", SOUND, 1 << 20)?;
    let release = directory.path().join("release.img");
    image::build(&release, "2.0.0", SOUND, arguments.megabytes * 1_000_000)?;
    let size = release.metadata()?.len();
    eprintln!("compressing {} MB", size / 1_000_000);
    publish(&vendor, &release, arguments.level)?;
    let stream = vendor.repository().join(STREAM);
    shell(&format!("zstd -q -T0 -{} {} -o {}", arguments.level, release.display(), stream.display()))?;
    println!(
        "image {} MB, in one stream {} MB, {} rounds",
        size / 1_000_000,
        stream.metadata()?.len() / 1_000_000,
        arguments.rounds
    );
    let url = format!("{}{STREAM}", vendor.files.url());

    let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), (0, 0));
    for round in 1..=arguments.rounds {
        let mut options = Options::new("room-1", free_port()?, &pki);
        options.slot_bytes = size.next_multiple_of(1 << 20) + (1 << 20);
        let path = directory.path().join(format!("device-{round}"));
        let mut device = Device::new(&path, options, &vendor, &pki, &factory)?;
        // Both write over blocks that are there.
        fill(&device.slot("B"))?;
        let times = pipeline(&url, &device.slot("B"), size)?;
        eprintln!("round {round}: pipeline {:.2} s, read back {:.2} s", times.written, times.read_back);
        theirs.push(times);
        fill(&device.slot("B"))?;
        let times = install(&mut device, &vendor)?;
        eprintln!("round {round}: install  {:.2} s, read back {:.2} s", times.written, times.read_back);
        ours.push(times);
        peak.0 = peak.0.max(device.daemon(Daemon::Updaterd)?.peak_kib()?);
        peak.1 = peak.1.max(device.daemon(Daemon::Vigild)?.peak_kib()?);
        ensure!(
            image::sha256(&device.slot("B"), size)? == image::sha256(&release, size)?,
            "the slot is wrong"
        );
        device.power_off();
        std::fs::remove_dir_all(&path)?;
    }
    let megabytes = size as f64 / 1e6;
    let mut enough = true;
    println!("{:<20} {:>10} {:>22} {:>6}", "MB/s of the image", "vigil", "curl | zstd -d | dd", "ratio");
    for (what, time) in [
        ("written", (|times: &Times| times.written) as fn(&Times) -> f64),
        ("and read back", |times| times.both()),
    ] {
        let (own, other) = (median(&ours, time), median(&theirs, time));
        let ratio = other / own;
        println!("{what:<20} {:>10.1} {:>22.1} {ratio:>6.2}", megabytes / own, megabytes / other);
        enough &= ratio >= RATIO;
    }
    println!("peak memory (VmHWM)  vigil-updaterd {} KiB, vigild {} KiB", peak.0, peak.1);
    Ok(enough && peak.0 < PEAK_KIB)
}

fn publish(vendor: &Vendor, release: &Path, level: u32) -> anyhow::Result<()> {
    let (image, level) = (format!("rootfs={}", release.display()), level.to_string());
    vendor.publish(&[
        "release",
        "add",
        "--product",
        PRODUCT,
        "--version",
        "2.0.0",
        "--sequence",
        "2",
        "--hardware",
        "r1",
        "--image",
        &image,
        "--install-policy",
        "automatic",
        "--level",
        &level,
    ])?;
    Ok(())
}

fn median(times: &[Times], of: fn(&Times) -> f64) -> f64 {
    let mut seconds: Vec<f64> = times.iter().map(of).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Gives the slot its blocks on the disk.
fn fill(slot: &Path) -> anyhow::Result<()> {
    let size = slot.metadata()?.len();
    shell(&format!("dd if=/dev/zero of={} bs=1M count={} conv=notrunc,fsync", slot.display(), size >> 20))
}

fn shell(script: &str) -> anyhow::Result<()> {
    let output = Command::new("bash").args(["-c", &format!("set -o pipefail; {script}")]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn timed(script: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    shell(script)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn pipeline(url: &str, slot: &Path, size: u64) -> anyhow::Result<Times> {
    let slot = slot.display();
    let written = timed(&format!(
        "curl -sSf {url} | zstd -dc | dd of={slot} bs=1M iflag=fullblock conv=notrunc,fsync"
    ))?;
    // Past the page cache, as ours is.
    let drop = format!("dd if={slot} iflag=nocache count=0");
    let read_back = timed(&format!("{drop} && head -c {size} {slot} | openssl dgst -sha256"))?;
    Ok(Times { written, read_back })
}

fn install(device: &mut Device, vendor: &Vendor) -> anyhow::Result<Times> {
    device.power_on()?;
    wait_for("the first refresh", LIMIT, || {
        device.vigil(&["status"]).ok()?["trust"]["refreshed_at"].is_number().then_some(())
    })?;
    let mut courier = Courier::connect(&device.updater_socket(), &vendor.repository())?;
    let refusal = courier.install_by_policy("2.0.0")?;
    ensure!(refusal.is_empty(), "refused: {refusal}");
    let mut reached = |state: State| {
        wait_for(state.name(), LIMIT, || {
            let status = courier.status().ok()?;
            use State::{Activating, Checking, Invalidating, Rebooting, Staged, Verifying, Writing};
            let order = [Checking, Invalidating, Writing, Verifying, Staged, Activating, Rebooting];
            let place = |state| order.iter().position(|known| *known == state).unwrap_or(order.len());
            (status.state == State::Failed || place(status.state) >= place(state)).then_some(status)
        })
    };
    // vigild was not told, and looks every 15 s.
    reached(State::Invalidating)?;
    let begun = Instant::now();
    let status = reached(State::Verifying)?;
    let written = begun.elapsed().as_secs_f64();
    ensure!(status.state != State::Failed, "{status:?}");
    let status = reached(State::Staged)?;
    ensure!(status.state != State::Failed, "{status:?}");
    File::open(device.slot("B"))?.sync_all()?;
    Ok(Times { written, read_back: begun.elapsed().as_secs_f64() - written })
}
