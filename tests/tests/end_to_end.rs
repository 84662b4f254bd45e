//! A device, a real Mosquitto with client certificates and ACL, an operator, and a real client that records every
//! message; and what everyone else can make of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use vigil_protocol::{schema, topic};
use vigil_tests::broker::Mosquitto;
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::fleet::Operator;
use vigil_tests::image::{self, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::process::Process;
use vigil_tests::vendor::Vendor;
use vigil_tests::{binaries, wait_for};

const PREFIX: &str = "vigil/v1";
const DEVICE: &str = "room-1";
const LIMIT: Duration = Duration::from_secs(30);

/// `mosquitto_sub`, recording.
struct Recorder {
    file: PathBuf,
    _process: Process,
}

/// A message as the recorder saw it.
struct Recorded {
    topic: String,
    payload: String,
}

impl Recorder {
    fn start(directory: &Path, pki: &Pki, port: u16) -> anyhow::Result<Self> {
        let (certificate, key) = pki.client("recorder")?;
        let file = directory.join("recording.jsonl");
        let mut command = Command::new("mosquitto_sub");
        command.args([
            "-V",
            "5",
            "-h",
            "localhost",
            "-q",
            "1",
            "-t",
            "vigil/v1/#",
            "-F",
            "%j",
            "-p",
            &port.to_string(),
        ]);
        command.arg("--cafile").arg(pki.ca()).arg("--cert").arg(certificate).arg("--key").arg(key);
        let process = Process::start("mosquitto_sub", command, &file)
            .context("mosquitto_sub is needed; run tests/run, which installs it")?;
        Ok(Self { file, _process: process })
    }

    fn messages(&self) -> anyhow::Result<Vec<Recorded>> {
        let text = std::fs::read_to_string(&self.file)?;
        let values = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Ok(values
            .filter(|value| value["topic"].is_string())
            .map(|value| Recorded { topic: text(&value, "topic"), payload: text(&value, "payload") })
            .collect())
    }

    /// The newest message of the device's topic that is as wanted, among those after the first `after`.
    fn wait(
        &self,
        what: &str,
        rest: &str,
        after: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let topic = format!("{PREFIX}/{DEVICE}/{rest}");
        wait_for(what, LIMIT, || {
            let messages = self.messages().ok()?;
            let messages = messages.iter().skip(after).rev().filter(|message| message.topic == topic);
            messages
                .filter_map(|message| serde_json::from_str(&message.payload).ok())
                .find(|value| wanted(value))
        })
    }

    fn count(&self) -> usize {
        self.messages().map_or(0, |messages| messages.len())
    }

    fn wait_presence(&self, status: &str, after: usize) -> anyhow::Result<Value> {
        self.wait(&format!("presence {status}"), "presence", after, |value| value["status"] == status)
    }
}

/// A script of `tests/peers`.
fn peer(script: &str, arguments: &[&Path]) -> anyhow::Result<Output> {
    let python = match std::env::var_os("VIGIL_VENV") {
        Some(venv) => Path::new(&venv).join("bin/python3"),
        None => "python3".into(),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    Ok(Command::new(python).arg(script).args(arguments).stdin(Stdio::null()).output()?)
}

fn succeeded(what: &str, output: &Output) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&output.stderr));
    vigil_tests::fleet::last_json(&text).with_context(|| format!("{what}: {text}"))
}

fn connected(device: &Device) -> anyhow::Result<Value> {
    wait_for("the device to be connected and to know its operators", LIMIT, || {
        let status = device.vigil(&["status"]).ok()?;
        (status["broker"]["connected"] == true && !status["operators"].is_null()).then_some(status)
    })
}

#[test]
fn a_device_lives_through_a_day_and_everything_it_says_is_as_documented() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let pki = Pki::new(&path.join("pki"))?;
    let vendor = Vendor::new(&path.join("vendor"))?;
    let mut broker = Mosquitto::start(&path.join("broker"), &pki, &["olga", "recorder"])?;
    let recorder = Recorder::start(path, &pki, broker.port)?;
    let operator = Operator::new(&pki, &vendor, broker.port, "olga")?;
    let factory = path.join("1.0.0.img");
    image::build(&factory, "1.0.0", SOUND, 2 << 20)?;
    let mut options = Options::new(DEVICE, broker.port, &pki);
    options.slot_bytes = 16 << 20;
    let mut device = Device::new(&path.join("device"), options, &vendor, &pki, &factory)?;
    assert_eq!(device.power_on()?, "A");

    // It comes online and says how it is.
    let status = connected(&device)?;
    let key = status["device_key"].as_str().context("no device key")?.to_owned();
    recorder.wait_presence("online", 0)?;
    let health = recorder.wait("health", "health", 0, |_| true)?;
    assert!(health["memory_used_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{health}");
    assert!(health["uptime_seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{health}");
    assert!(health["load"][0].is_number() && !health["disks"][0].is_null(), "{health}");
    let inventory = recorder.wait("inventory", "inventory", 0, |_| true)?;
    assert_eq!(inventory["product"], "demo-bar", "{inventory}");

    // It obeys its operator.
    let (code, answer) = operator.send(DEVICE, "ping", &[])?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = operator.send(DEVICE, "diagnose", &[])?;
    assert_eq!(code, 0, "{answer}");
    let results = recorder.messages()?;
    assert!(
        results.iter().any(|message| message.topic.contains("/diagnosis/")),
        "no diagnosis was published"
    );

    // It does not obey a stranger, and says who was refused and why.
    vendor.publish(&["key", "new", "stranger"])?;
    let stranger =
        Operator::new(&pki, &vendor, broker.port, "olga")?.with_key(path.join("vendor/keys/stranger.pem"));
    let (code, answer) = stranger.send(DEVICE, "ping", &[])?;
    assert_eq!(code, 1, "{answer}");
    assert!(answer.to_string().contains("unknown_key"), "{answer}");
    let log = device.vigil(&["audit", "show", "--limit", "100"])?;
    let refused =
        log["entries"].as_array().into_iter().flatten().find(|entry| entry["event"] == "command.refused");
    assert_eq!(refused.context("the refusal is not in the audit log")?["detail"]["reason"], "unknown_key");

    // It installs a release for its operator, and for nobody else's word.
    let release = path.join("2.0.0.img");
    image::build(&release, "2.0.0", SOUND, 2 << 20)?;
    vendor.release("2.0.0", 2, &release, "operator")?;
    let install = operator.run(&["send", DEVICE, "update.install", "--arg", "version=2.0.0", "--no-wait"])?;
    ensure!(install.status.success(), "{install:?}");
    let update =
        device.run_until(&["confirmed", "failed", "rolled_back"], Duration::from_secs(90), |_| {})?;
    assert_eq!(update["state"], "confirmed", "{update}");
    assert_eq!(update["running_slot"], "B", "{update}");
    connected(&device)?;
    recorder.wait("the confirmation", "update", 0, |update| update["state"] == "confirmed")?;
    let result = wait_for("the install's final answer", LIMIT, || {
        let messages = recorder.messages().ok()?;
        let results = messages.iter().filter(|message| message.topic.contains("/result/"));
        let mut values = results.filter_map(|message| serde_json::from_str::<Value>(&message.payload).ok());
        values.find(|value| value["kind"] == "update.install" && value["status"] == "succeeded")
    })?;
    assert_eq!(result["output"]["release"], "2.0.0", "{result}");

    // Its signature covers what the broker keeps of it.
    let check = operator.run(&["check", DEVICE, "--device-key", &key])?;
    succeeded("vigil-fleet check", &check)?;

    // It dies, and the broker says so; it goes, and says so itself; the broker dies, and it comes back.
    let before = recorder.count();
    device.daemon(Daemon::Vigild)?.kill();
    recorder.wait_presence("lost", before)?;
    let before = recorder.count();
    device.start_vigild()?;
    connected(&device)?;
    recorder.wait_presence("online", before)?;
    let before = recorder.count();
    let ended = device.daemon(Daemon::Vigild)?.stop()?;
    ensure!(ended.success(), "{ended}");
    recorder.wait_presence("offline", before)?;
    device.start_vigild()?;
    connected(&device)?;
    broker.kill();
    wait_for("the device to notice", LIMIT, || {
        (device.vigil(&["status"]).ok()?["broker"]["connected"] == false).then_some(())
    })?;
    broker.resume()?;
    connected(&device)?;
    wait_for("the device to answer again", LIMIT, || {
        let (code, _) = operator.send(DEVICE, "ping", &["--timeout", "5s"]).ok()?;
        (code == 0).then_some(())
    })?;
    assert!(device.ended().is_none());
    succeeded("vigil-fleet check", &operator.run(&["check", DEVICE, "--device-key", &key])?)?;

    // Everything that was said is as documented.
    let messages = recorder.messages()?;
    ensure!(messages.len() > 30, "only {} messages were recorded", messages.len());
    let plan = path.join("plan.jsonl");
    std::fs::write(&plan, plan_of(&messages)?)?;
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/schemas");
    let seen = succeeded("validate.py", &peer("validate.py", &[&plan, &schemas])?)?;
    let families = [
        "presence",
        "inventory",
        "health",
        "update",
        "config",
        "digest-payload",
        "command-payload",
        "result",
        "diagnosis",
    ];
    for family in families {
        assert!(seen[family].as_u64().is_some_and(|count| count > 0), "no {family} was recorded: {seen}");
    }

    // Its log is believed by its own tool and by a stranger's.
    device.daemon(Daemon::Vigild)?.stop()?;
    let state = device.disk.join("data");
    let mut verify = Command::new(binaries()?.join("vigil"));
    let report = succeeded(
        "vigil audit verify",
        &verify.args(["--json", "audit", "verify", "--state"]).arg(&state).output()?,
    )?;
    assert_eq!(report["verified"], true, "{report}");
    let files = [state.join("audit"), state.join("identity/device.pub")];
    let stranger = succeeded("audit_log.py", &peer("audit_log.py", &[&files[0], &files[1]])?)?;
    assert_eq!(stranger["size"], report["report"]["size"]);

    // One changed byte and neither believes it.
    let segment = std::fs::read_dir(&files[0])?.flatten().map(|entry| entry.path());
    let segment = segment.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).min();
    let segment = segment.context("the log has no segment")?;
    let forged = std::fs::read_to_string(&segment)?.replacen("unknown_key", "unknown_kez", 1);
    std::fs::write(&segment, forged)?;
    let mut verify = Command::new(binaries()?.join("vigil"));
    let output = verify.args(["--json", "audit", "verify", "--state"]).arg(&state).output()?;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(!peer("audit_log.py", &[&files[0], &files[1]])?.status.success());
    Ok(())
}

/// The recording as `validate.py` reads it: each message with the schema that its topic's form names.
fn plan_of(messages: &[Recorded]) -> anyhow::Result<String> {
    let mut plan = String::new();
    for Recorded { topic, payload } in messages {
        let (_, rest) = topic::parse(PREFIX, topic).with_context(|| format!("a message at {topic}"))?;
        let schema = schema::schema_of_topic(rest).with_context(|| format!("no schema for {topic}"))?;
        let inner = match rest {
            "digest" => Some("digest-payload"),
            "command" => Some("command-payload"),
            _ => None,
        };
        let line = json!({ "topic": topic, "schema": schema, "inner": inner, "payload": payload });
        plan.push_str(&line.to_string());
        plan.push('\n');
    }
    Ok(plan)
}
