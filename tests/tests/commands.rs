//! Commands from end to end: what is answered at once, what is held, stopped, tried and taken back.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::Value;
use vigil_tests::device::Daemon;
use vigil_tests::free_port;
use vigil_tests::room::{DEVICE, Room};

struct Hall {
    room: Room,
    call: PathBuf,
    restarted: PathBuf,
}

/// A room whose image has programs, and a sign that a call is on.
fn hall() -> Hall {
    let signs = tempfile::tempdir().unwrap().keep();
    let (call, restarted) = (signs.join("call"), signs.join("restarted"));
    let more = format!(
        "[room]\nrestart_app = [\"/bin/touch\", {restarted:?}]\nlocate = [\"/bin/sh\", \"-c\", \"echo no lamp >&2; exit 3\"]\n\
         call_file = {call:?}\n"
    );
    let mut room = Room::with(|options| {
        options.more = more;
        options.broker.push_str("max_commands_per_minute = 40\n");
    })
    .unwrap();
    room.device.power_on().unwrap();
    room.wait_ready().unwrap();
    Hall { room, call, restarted }
}

impl Hall {
    fn send(&self, kind: &str, more: &[&str]) -> String {
        self.room.send(kind, more).unwrap()
    }

    fn wait_for_answer(&self, id: &str) -> Value {
        vigil_tests::wait_for("the final answer to be audited", vigil_tests::room::LIMIT, || {
            let finished = self.room.audited("command.finished");
            finished.into_iter().find(|entry| entry["detail"]["id"] == id)
        })
        .unwrap()["detail"]
            .clone()
    }

    fn overlay_version(&self) -> u64 {
        let output = self.room.operator().unwrap().run(&["status", DEVICE]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let status = vigil_tests::fleet::last_json(&text).unwrap();
        find(&status, "overlay_version").and_then(Value::as_u64).unwrap()
    }
}

/// The first value of that name, at any depth.
fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => {
            fields.get(name).or_else(|| fields.values().find_map(|field| find(field, name)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}

#[test]
fn what_disturbs_waits_for_the_end_of_a_call_unless_it_is_forced_or_stopped() {
    let mut hall = hall();
    assert_eq!(hall.send("restart_app", &[]), "ok");
    assert!(std::fs::remove_file(&hall.restarted).is_ok());
    // A program that fails says why; a kind without a program is answered by name, like one whose room is not built.
    assert_eq!(hall.send("locate", &[]), "internal");
    assert_eq!(hall.send("reboot", &[]), "unsupported");
    assert_eq!(hall.send("audit.acknowledge", &[]), "unsupported");
    assert_eq!(hall.send("report.upload", &[]), "unsupported");

    std::fs::write(&hall.call, "").unwrap();
    assert_eq!(hall.send("restart_app", &["--id", "held-1", "--no-wait"]), "");
    assert_eq!(hall.send("restart_app", &["--id", "held-2", "--no-wait"]), "");
    assert_eq!(hall.send("restart_app", &["--arg", "force=true"]), "ok");
    assert!(std::fs::remove_file(&hall.restarted).is_ok());
    assert_eq!(hall.send("cancel", &["--arg", "command=held-1"]), "ok");
    assert_eq!(hall.wait_for_answer("held-1")["reason"], "cancelled");
    assert_eq!(hall.send("cancel", &["--arg", "command=held-1"]), "not_now");
    assert!(!hall.restarted.exists());
    std::fs::remove_file(&hall.call).unwrap();
    assert_eq!(hall.wait_for_answer("held-2")["reason"], "ok");
    assert!(hall.restarted.exists());

    // What is held when the power goes is interrupted, and not done later.
    std::fs::write(&hall.call, "").unwrap();
    std::fs::remove_file(&hall.restarted).unwrap();
    assert_eq!(hall.send("restart_app", &["--id", "held-3", "--no-wait"]), "");
    hall.room
        .wait("the command to be held", |_| {
            let accepted = hall.room.audited("command.accepted");
            accepted.iter().any(|entry| entry["detail"]["id"] == "held-3").then_some(())
        })
        .unwrap();
    hall.room.device.daemon(Daemon::Vigild).unwrap().kill();
    hall.room.device.start_vigild().unwrap();
    assert_eq!(hall.wait_for_answer("held-3")["reason"], "interrupted");
    std::fs::remove_file(&hall.call).unwrap();
    hall.room.wait_ready().unwrap();
    assert_eq!(hall.send("ping", &[]), "ok");
    assert!(!hall.restarted.exists());
}

#[test]
fn settings_stay_only_if_the_broker_is_reached_with_them() {
    let hall = hall();
    let apply = |patch: &str, version: u64, id: &str| {
        let patch = format!("patch={patch}");
        let version = format!("expected_version={version}");
        let arguments = ["--arg", &patch, "--arg", &version, "--arg", "confirm_within=10", "--id", id];
        hall.send("config.apply", &arguments)
    };
    assert_eq!(apply(r#"{"log":{"level":"debug"}}"#, 0, "apply-1"), "ok");
    assert_eq!(hall.overlay_version(), 1);
    assert_eq!(apply(r#"{"log":{"level":"warn"}}"#, 0, "apply-2"), "version_conflict");
    assert_eq!(apply(r#"{"log":{"level":"loud"}}"#, 1, "apply-3"), "bad_argument");
    assert_eq!(apply(r#"{"device":{"tenant":"rival"}}"#, 1, "apply-4"), "bad_argument");
    // Nobody listens there: after its time the device is back where it was, and says so.
    let nowhere = format!(r#"{{"broker":{{"url":"mqtts://localhost:{}"}}}}"#, free_port().unwrap());
    assert_eq!(apply(&nowhere, 1, "apply-5"), "reverted");
    hall.room.wait_ready().unwrap();
    assert_eq!(hall.overlay_version(), 1);
    assert_eq!(hall.room.audited("config.reverted").len(), 1);
    assert_eq!(apply(r#"{"log":{"level":null}}"#, 1, "apply-6"), "ok");
    assert_eq!(hall.overlay_version(), 2);
}

#[test]
fn settings_on_trial_are_given_up_across_restarts_as_well() {
    let mut hall = hall();
    let nowhere = format!(r#"patch={{"broker":{{"url":"mqtts://localhost:{}"}}}}"#, free_port().unwrap());
    let arguments = ["--arg", &nowhere, "--arg", "expected_version=0", "--id", "apply-1", "--no-wait"];
    assert_eq!(hall.send("config.apply", &arguments), "");
    let on_trial = |status: &Value| (status["broker"]["connected"] == false).then_some(());
    hall.room.wait("the new settings to be tried", on_trial).unwrap();
    // It has as many starts as power cuts may come in a row: then the former settings are back.
    for _ in 0..3 {
        hall.room.device.daemon(Daemon::Vigild).unwrap().kill();
        hall.room.device.start_vigild().unwrap();
        hall.room.status().unwrap();
    }
    hall.room.wait_ready().unwrap();
    assert_eq!(hall.wait_for_answer("apply-1")["reason"], "reverted");
    assert_eq!(hall.overlay_version(), 0);
}

#[test]
fn a_refresh_says_everything_again_and_too_many_commands_are_refused() {
    let hall = hall();
    let before = hall.room.status().unwrap()["broker"]["outbox"]["states"].clone();
    assert_eq!(hall.send("refresh", &[]), "ok");
    hall.room
        .wait("all states to be said again", |status| {
            let states = &status["broker"]["outbox"]["states"];
            (states["repeated"].as_u64()? >= before["repeated"].as_u64()? + 7).then_some(())
        })
        .unwrap();
    assert_eq!(hall.send("update.check", &[]), "ok");
    let reasons: Vec<_> = (0..45).map(|_| hall.send("ping", &[])).collect();
    assert!(reasons.contains(&"rate_limited".to_owned()), "{reasons:?}");
    assert!(reasons.iter().filter(|reason| *reason == "ok").count() >= 30, "{reasons:?}");
    let outbox = &hall.room.status().unwrap()["broker"]["outbox"];
    for class in ["messages", "states"] {
        let count = |name: &str| outbox[class][name].as_u64().unwrap();
        assert!(count("produced") >= count("acknowledged") + count("compacted"), "{outbox}");
        assert_eq!(count("dropped_full") + count("dropped_too_large"), 0, "{outbox}");
    }
}

#[test]
fn a_diagnosis_outlives_a_kill_while_the_broker_is_away_and_the_account_balances() {
    let mut hall = hall();
    hall.room.broker().unwrap().kill();
    hall.room.wait("the connection to be lost", disconnected).unwrap();
    hall.room.device.vigil(&["diagnose"]).unwrap();
    let outbox = |status: &Value| status["broker"]["outbox"].clone();
    let before = outbox(&hall.room.status().unwrap());
    assert_eq!(waiting(&before["messages"]), 1, "{before}");
    hall.room.device.daemon(Daemon::Vigild).unwrap().kill();
    hall.room.device.start_vigild().unwrap();
    hall.room.broker().unwrap().resume().unwrap();
    let after = hall
        .room
        .wait("everything to be said", |status| {
            let broker = &status["broker"];
            (broker["connected"] == true && broker["waiting"] == false).then(|| outbox(status))
        })
        .unwrap();
    let count =
        |name: &str| (before["messages"][name].as_u64().unwrap(), after["messages"][name].as_u64().unwrap());
    let (acknowledged, produced) = (count("acknowledged"), count("produced"));
    assert_eq!((acknowledged.1, produced.1), (acknowledged.0 + 1, produced.0), "{after}");
    for class in ["messages", "states"] {
        assert_eq!(
            (waiting(&after[class]), after[class]["dropped_unsaved"].as_u64()),
            (0, Some(0)),
            "{after}"
        );
    }
    let flash = hall.room.status().unwrap()["broker"]["flash"].clone();
    assert_eq!(flash["keeps"], "all");
    assert!(
        flash["available_bytes"].as_u64() < flash["daily_bytes"].as_u64().map(|bytes| bytes / 2),
        "{flash}"
    );
}

fn disconnected(status: &Value) -> Option<()> {
    (status["broker"]["connected"] == false).then_some(())
}

fn waiting(account: &Value) -> u64 {
    let count = |name: &str| account[name].as_u64().unwrap();
    let dropped = count("dropped_full") + count("dropped_too_large") + count("dropped_unsaved");
    count("produced") - count("acknowledged") - count("compacted") - dropped
}
