//! What hangs on the root, end to end: documents change, expire and are revoked under a running device, through
//! delegations; and what a refresh costs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vigil_tests::device::Daemon;
use vigil_tests::files::Fault;
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::vendor::{TENANT, Vendor};
use vigil_tests::wait_for;

/// What a refresh of an unchanged repository may cost.
const REFRESH_BYTES: u64 = 10 * 1024;
/// What vigil-updaterd may need to verify a repository of 10,000 targets.
const PEAK_KIB: u64 = 12 * 1024;

/// What the vendor does in these tests.
trait Publish {
    fn add(&self, name: &str, content: &Value) -> anyhow::Result<()>;
    /// A list whose operator may do everything, for so long.
    fn set_operators(&self, lasts: Duration) -> anyhow::Result<()>;
}

impl Publish for Room {
    fn add(&self, name: &str, content: &Value) -> anyhow::Result<()> {
        let file = self.directory.path().join("document.json");
        std::fs::write(&file, content.to_string())?;
        self.vendor.publish(&["add", name, &file.display().to_string()]).map(drop)
    }

    fn set_operators(&self, lasts: Duration) -> anyhow::Result<()> {
        let expires = Timestamp::now() + SignedDuration::try_from(lasts)?;
        let operator = json!({
            "name": "olga", "key": public_key(&self.vendor)?, "scopes": ["observe", "operate", "update"],
            "devices": ["*"], "expires": "2099-01-01T00:00:00Z",
        });
        let list = json!({ "v": 1, "tenant": TENANT, "expires": expires, "operators": [operator] });
        let file = self.directory.path().join("operators.json");
        std::fs::write(&file, list.to_string())?;
        self.vendor
            .publish(&["operators", "set", "--tenant", TENANT, "--file", &file.display().to_string()])
            .map(drop)
    }
}

/// The operator's public key, as the list that the vendor began with names it.
fn public_key(vendor: &Vendor) -> anyhow::Result<Value> {
    let targets = vendor.repository().join("targets/operators");
    for entry in std::fs::read_dir(targets)? {
        let list: Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        if list["operators"][0]["key"].is_string() {
            return Ok(list["operators"][0]["key"].clone());
        }
    }
    anyhow::bail!("the vendor has no operators list")
}

#[test]
fn an_expired_operators_list_lets_only_observe_and_is_an_incident_until_a_new_one_comes() -> anyhow::Result<()>
{
    let mut room = Room::at_a_broker("")?;
    room.set_operators(Duration::from_secs(25))?;
    room.device.power_on()?;
    room.wait_ready()?;
    assert_eq!(room.send("ping", &[])?, "ok");

    room.wait("the list to expire", |status| {
        status["trust"]["operators_expired"].as_bool().filter(|expired| *expired)
    })?;
    assert_eq!(room.send("diagnose", &[])?, "operators_expired");
    assert_eq!(room.send("ping", &[])?, "ok");
    let incident = || -> Option<Value> {
        let output = room.operator().ok()?.run(&["status", "room-1", "--wait", "2"]).ok()?;
        let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
        shown["topics"].get("incident/operators-expired").cloned()
    };
    let open = wait_for("the incident", LIMIT, incident)?;
    assert_eq!((&open["state"], &open["severity"]), (&json!("open"), &json!("major")), "{open}");

    room.set_operators(Duration::from_secs(3600))?;
    room.wait("the new list", |status| (status["trust"]["operators_expired"] == false).then_some(()))?;
    assert_eq!(room.send("diagnose", &[])?, "ok");
    wait_for("the incident to be closed", LIMIT, || incident().is_none().then_some(()))?;
    let known = room.directory.path().join("known.json").display().to_string();
    let output = room.operator()?.run(&["check", "room-1", "--accept-new", "--known", &known])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn a_partners_profile_is_followed_through_a_delegation_and_changes_under_a_running_device()
-> anyhow::Result<()> {
    let mut room = Room::at_a_broker(
        "[network]\nprofiles = [\"meet\"]\nprobe_gateway = false\nprobe_timeout = \"1s\"\n",
    )?;
    room.vendor.publish(&["role", "add", "partners", "--kind", "partners"])?;
    room.vendor.publish(&["role", "add", "operators", "--kind", "operators"])?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let profile = |port: u16| {
        let endpoint = json!({ "name": "web", "host": "127.0.0.1", "port": port, "tls": false });
        json!({ "v": 1, "name": "meet", "title": "Meet", "endpoints": [endpoint] })
    };
    let open = listener.local_addr()?.port();
    room.add("partners/meet.json", &profile(open))?;
    room.device.power_on()?;
    let sha256 =
        |status: &Value| status["trust"]["documents"]["partners/meet.json"].as_str().map(str::to_owned);
    let first = room.wait("the profile", sha256)?;
    let tcp = |room: &Room| -> anyhow::Result<Value> {
        let diagnosis = room.device.vigil(&["diagnose"])?;
        let evidence = diagnosis["evidence"].as_array().cloned().unwrap_or_default();
        let found = evidence.into_iter().find(|e| e["layer"] == "tcp" && e["partner"] == "meet.web");
        Ok(found.map(|evidence| evidence["outcome"].clone()).unwrap_or_default())
    };
    assert_eq!(tcp(&room)?, "ok");

    let closed = vigil_tests::free_port()?;
    room.add("partners/meet.json", &profile(closed))?;
    room.wait("the new profile", |status| sha256(status).filter(|sha256| *sha256 != first))?;
    assert_eq!(tcp(&room)?, "failed");

    room.vendor.publish(&["remove", "partners/meet.json"])?;
    room.wait("the profile to be revoked", |status| sha256(status).is_none().then_some(()))?;
    assert_eq!(tcp(&room)?, Value::Null);
    Ok(())
}

#[test]
fn an_unchanged_repository_costs_two_requests_and_little_and_ten_thousand_targets_little_memory()
-> anyhow::Result<()> {
    let mut room = Room::at_a_broker("")?;
    let many = room.directory.path().join("many");
    std::fs::create_dir(&many)?;
    for number in 0..10_000 {
        std::fs::write(many.join(format!("{number}.txt")), number.to_string())?;
    }
    room.vendor.publish(&["role", "add", "bin", "--bins", "256"])?;
    room.vendor.publish(&["add", "many", &many.display().to_string()])?;
    room.set_operators(Duration::from_secs(3600))?;
    room.device.power_on()?;
    room.wait("the operators list", |status| status["operators"]["count"].as_u64())?;

    let refreshed = |status: &Value| status["trust"]["refreshed_at"].as_i64();
    let before = room.wait("a refresh", refreshed)?;
    room.vendor.files.take_served();
    room.wait("the next refresh", |status| refreshed(status).filter(|at| *at > before))?;
    let served = room.vendor.files.take_served();
    let bytes: u64 = served.iter().map(|served| served.bytes).sum();
    // The next root is asked for as well, and is not there.
    println!("an unchanged refresh: {} files of {bytes} bytes, and a 404", served.len());
    assert_eq!(
        served.len() as u64,
        served.iter().filter(|served| served.path == "metadata/timestamp.json").count() as u64
    );
    assert!(bytes / served.len() as u64 <= REFRESH_BYTES, "{bytes} bytes");

    let peak = room.device.daemon(Daemon::Updaterd)?.peak_kib()?;
    println!("vigil-updaterd's peak with 10,000 targets in 256 bins: {peak} KiB");
    assert!(peak <= PEAK_KIB, "{peak} KiB");
    Ok(())
}

#[test]
fn a_repository_that_is_withheld_is_told_and_what_was_trusted_stays_trusted() -> anyhow::Result<()> {
    let mut room = Room::at_a_broker("")?;
    room.device.power_on()?;
    room.wait("a refresh", |status| status["trust"]["refreshed_at"].as_i64())?;
    assert!(!room.wait("the trust", |status| status["trust"]["frozen"].as_bool())?);
    room.wait_ready()?;
    room.vendor.files.misbehave("metadata", Fault::Unavailable);
    room.wait("the refresh to fail", |_| (!room.audited("refresh.failed").is_empty()).then_some(()))?;
    assert_eq!(room.send("ping", &[])?, "ok", "what was trusted stays trusted");
    Ok(())
}

/// A publisher whose clock is ten years ahead signs a timestamp; the way back is in docs/trust.md: a root without that key.
#[test]
fn a_time_that_was_signed_wrongly_is_healed_by_a_new_root_on_both_sides() -> anyhow::Result<()> {
    let mut room = Room::at_a_broker("")?;
    let proven = |room: &Room| -> i64 {
        let text = std::fs::read_to_string(room.device.disk.join("data/proven.json")).unwrap_or_default();
        serde_json::from_str::<Value>(&text).ok().and_then(|value| value["at"].as_i64()).unwrap_or(0)
    };
    // As the list that the vendor begins with, and with an operator whose key outlasts the error.
    room.set_operators(Duration::from_secs(86_400 * 365))?;
    room.device.power_on()?;
    room.wait_ready()?;
    wait_for("a proven time", LIMIT, || (proven(&room) > 0).then_some(()))?;

    let keys = room.vendor.repository().with_file_name("keys");
    let output = std::process::Command::new("faketime")
        .args(["-f", "+3650d"])
        .arg(vigil_tests::binaries()?.join("vigil-publish"))
        .args(["timestamp", "--repo"])
        .arg(room.vendor.repository())
        .arg("--keys")
        .arg(&keys)
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let far = Timestamp::now().as_second() + 3000 * 86_400;
    wait_for("the wrong time to be proven", LIMIT, || (proven(&room) > far).then_some(()))?;

    room.vendor.publish(&["key", "new", "timestamp-2"])?;
    let repository = room.vendor.repository().display().to_string();
    room.vendor.publish(&[
        "key",
        "revoke",
        "timestamp",
        "--replace-by",
        "timestamp-2",
        "--repo",
        &repository,
    ])?;
    room.vendor.publish(&["timestamp"])?;
    wait_for("vigild to be healed", LIMIT, || (proven(&room) < far).then_some(()))?;
    room.device.daemon(Daemon::Vigild)?.stop()?;
    room.device.start_vigild()?;
    room.wait_ready()?;
    wait_for("a command to be obeyed", LIMIT, || (room.send("ping", &[]).ok()? == "ok").then_some(()))
}
