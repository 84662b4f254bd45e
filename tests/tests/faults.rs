//! What goes wrong around a device, and that it lives on: no broker, damaged stores, a repository that misbehaves, an
//! updater that is gone or hangs, a configuration with a mistake.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vigil_tests::device::Daemon;
use vigil_tests::files::Fault;
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::vendor::Vendor;
use vigil_tests::{binaries, wait_for};

/// What is looked at in these tests.
trait Watch {
    fn wait_available(&self, wanted: bool) -> anyhow::Result<()>;
    fn metadata_version(&self, role: &str) -> u64;
}

impl Watch for Room {
    /// Waits until vigild says that the updater is there, or is not. A silent one is given two minutes by vigild.
    fn wait_available(&self, wanted: bool) -> anyhow::Result<()> {
        wait_for(&format!("the update's 'available' to be {wanted}"), Duration::from_secs(150), || {
            (self.device.vigil(&["update"]).ok()?["available"] == wanted).then_some(())
        })
    }

    fn metadata_version(&self, role: &str) -> u64 {
        self.device.vigil(&["status"]).unwrap_or_default()["metadata"][role].as_u64().unwrap_or(0)
    }
}

#[test]
fn without_a_broker_the_device_does_its_work_and_says_what_it_waits_for() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on()?;
    wait_for("the operators list", LIMIT, || (!room.status().ok()?["operators"].is_null()).then_some(()))?;
    let status = wait_for("a failed attempt", LIMIT, || {
        let status = room.status().ok()?;
        status["broker"]["last_error"].is_string().then_some(status)
    })?;
    assert_eq!(status["broker"]["connected"], false, "{status}");
    assert_eq!(status["update"]["state"], "idle", "{status}");
    room.lives()
}

#[test]
fn a_damaged_store_is_put_aside_and_recorded_and_the_daemon_starts() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on()?;
    room.status()?;
    room.device.daemon(Daemon::Vigild)?.stop()?;
    let data = room.device.disk.join("data");
    for name in ["commands.json", "session.json"] {
        let path = data.join(name);
        let whole =
            std::fs::read(&path).unwrap_or_else(|_| br#"{"v":1,"replay":{"watermark":null}}"#.to_vec());
        std::fs::write(&path, &whole[..whole.len() / 2])?;
    }
    room.device.start_vigild()?;
    room.status()?;
    let findings = room.audited("store.damaged");
    for name in ["commands.json", "session.json"] {
        let told = findings
            .iter()
            .any(|entry| entry["detail"]["finding"].as_str().is_some_and(|text| text.contains(name)));
        assert!(told, "{name}: {findings:?}");
        let aside = std::fs::read_dir(&data)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}.damaged")));
        assert!(aside, "{name} was not kept");
    }
    room.lives()
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_file_and_line() -> anyhow::Result<()> {
    let room = Room::alone("")?;
    for (program, name, mistake) in [
        ("vigild", "vigil.toml", "\n[health]\nintervall = \"2s\"\n"),
        ("vigild", "vigil.toml", "\n[health]\ninterval = \"soon\"\n"),
        ("vigild", "vigil.toml", "\nthis is no TOML\n"),
        ("vigil-updaterd", "updater.toml", "\n[trial]\ndeadline_secs = 3\n"),
        ("vigil-updaterd", "updater.toml", "\nthis is no TOML\n"),
    ] {
        let whole = std::fs::read_to_string(room.device.disk.join("etc").join(name))?;
        // Whole sections that the mistake's own section would repeat are left out.
        let section = mistake.lines().find(|line| line.starts_with('[')).unwrap_or("[none]");
        let kept: Vec<&str> =
            whole.split("\n\n").filter(|part| !part.trim_start().contains(section)).collect();
        let path = room.directory.path().join(name);
        let text = format!("{}\n{mistake}", kept.join("\n\n"));
        std::fs::write(&path, &text)?;
        let wrong = mistake.trim_end().lines().last().unwrap_or_default();
        let line = text.lines().position(|line| line == wrong).context("no such line")? + 1;
        let output = Command::new(binaries()?.join(program))
            .arg("--config")
            .arg(&path)
            .arg("--check-config")
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        let place = format!("{}:{line}: ", path.display());
        assert!(said.contains(&place), "{program} does not name {place}: {said}");
    }
    Ok(())
}

#[test]
fn whatever_the_repository_serves_the_device_lives_on_and_believes_the_next_honest_answer()
-> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on()?;
    wait_for("the first metadata", LIMIT, || (room.metadata_version("timestamp") > 0).then_some(()))?;
    for fault in
        [Fault::Garbage, Fault::Half, Fault::Missing, Fault::Stall, Fault::Unavailable, Fault::Longer]
    {
        let failures = room.audited("refresh.failed").len();
        let before = room.metadata_version("timestamp");
        room.vendor.files.misbehave("timestamp.json", fault.clone());
        room.vendor.set_operators(&[operator(&room.vendor)?])?;
        wait_for(&format!("the refresh to fail: {fault:?}"), LIMIT, || {
            (room.audited("refresh.failed").len() > failures).then_some(())
        })?;
        room.lives()?;
        assert_eq!(room.metadata_version("timestamp"), before, "{fault:?} was believed");
        room.vendor.files.behave();
        wait_for(&format!("an honest refresh after {fault:?}"), LIMIT, || {
            (room.metadata_version("timestamp") > before).then_some(())
        })?;
    }
    room.lives()
}

/// The vendor's operator, as `vigil-publish operators set` takes it.
fn operator(vendor: &Vendor) -> anyhow::Result<String> {
    use ed25519_dalek::SigningKey;
    use ed25519_dalek::pkcs8::DecodePrivateKey;
    let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(vendor.operator_key())?)?;
    let key = data_encoding::BASE64.encode(key.verifying_key().as_bytes());
    Ok(format!("name=olga,key={key},scopes=observe+operate+update+admin,devices=*"))
}

#[test]
fn an_updater_that_is_gone_is_said_to_be_unavailable_until_it_is_back() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on()?;
    room.wait_available(true)?;
    room.device.daemon(Daemon::Updaterd)?.kill();
    room.wait_available(false)?;
    ensure!(!room.audited("updater.unavailable").is_empty(), "it is not in the audit log");
    room.device.start_updaterd()?;
    room.wait_available(true)?;
    room.lives()
}

#[test]
fn an_updater_that_hangs_is_said_to_be_unavailable_and_answers_again_when_it_goes_on() -> anyhow::Result<()> {
    let mut room = Room::elsewhere(|options| {
        // A process that is stopped in the middle of a turn says nothing of how long turns take.
        options.environment.push((Daemon::Updaterd, "VIGIL_TURNS".to_owned(), String::new()));
    })?;
    room.device.power_on()?;
    room.wait_available(true)?;
    let pid = room.device.daemon(Daemon::Updaterd)?.pid();
    let pid = Pid::from_raw(pid.cast_signed()).context("no pid")?;
    kill_process(pid, Signal::STOP)?;
    let hung = room.wait_available(false);
    kill_process(pid, Signal::CONT)?;
    hung?;
    room.wait_available(true)?;
    room.lives()
}
