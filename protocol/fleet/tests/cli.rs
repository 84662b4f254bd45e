//! The command line as scripts see it: exit codes, streams and files, without a broker.
// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use vigil_protocol::command::{Kind, Target};
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope};
use vigil_protocol::keys::PublicKey;

/// Runs `vigil-fleet` in a home of its own, so that the tester's settings have no say.
fn fleet(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vigil-fleet"))
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_key_is_made_once_and_signs_an_envelope_for_the_device() {
    let home = tempfile::tempdir().unwrap();
    let made = fleet(home.path(), &["keygen", "olga.pem", "--tenant", "acme"]);
    assert_eq!(code(&made), 0, "{}", said(&made));
    assert!(said(&made).contains("operators set") && said(&made).contains("name=olga"));
    assert_eq!(code(&fleet(home.path(), &["keygen", "olga.pem"])), 1);

    let options = ["--tenant", "acme", "--operator-key", "olga.pem", "--print-envelope"];
    let sent = fleet(
        home.path(),
        &[&["send", "bar-1", "update.install", "--arg", "version=2.0.0"], &options[..]].concat(),
    );
    assert_eq!(code(&sent), 0, "{}", said(&sent));
    let envelope = Envelope::parse(sent.stdout.trim_ascii(), COMMAND_TYPE, 32 * 1024).unwrap();
    let pem = std::fs::read_to_string(home.path().join("olga.pem")).unwrap();
    let public = PublicKey::from(SigningKey::from_pkcs8_pem(&pem).unwrap().verifying_key());
    assert_eq!(envelope.signers(std::iter::once(&public)), [0]);
    let payload = envelope.payload_bytes().unwrap();
    let command: vigil_protocol::command::Command = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        (command.target, command.args["version"].as_str()),
        (Target::Device("bar-1".into()), Some("2.0.0"))
    );
}

#[test]
fn the_public_half_of_a_key_is_shown_and_no_private_one() {
    let home = tempfile::tempdir().unwrap();
    let made = fleet(home.path(), &["--json", "key", "new", "olga.pem"]);
    assert_eq!(code(&made), 0, "{}", said(&made));
    let shown = fleet(home.path(), &["--json", "key", "show", "olga.pem"]);
    assert_eq!((code(&shown), &shown.stdout), (0, &made.stdout));
    let of_the_settings = fleet(home.path(), &["key", "show", "--operator-key", "olga.pem"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(said(&of_the_settings).contains(made["public_key"].as_str().unwrap()));
    assert!(!said(&of_the_settings).contains("PRIVATE"));
    assert_eq!(code(&fleet(home.path(), &["key", "show"])), 2);
}

#[test]
fn an_envelope_is_signed_without_a_broker_and_what_is_signed_is_shown_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| fleet(home.path(), arguments);
    for name in ["olga.pem", "otto.pem"] {
        assert_eq!(code(&run(&["key", "new", name])), 0);
    }
    let signed = run(&[
        "sign",
        "floor-4",
        "reboot",
        "--group",
        "--arg",
        "force=true",
        "--expires",
        "2h",
        "--nonce",
        "n",
        "--tenant",
        "acme",
        "--operator-key",
        "olga.pem",
    ]);
    // A nonce is one device's.
    assert_eq!(code(&signed), 2, "{}", said(&signed));
    let signed = run(&[
        "sign",
        "bar-1",
        "reboot",
        "--arg",
        "force=true",
        "--expires",
        "2h",
        "--nonce",
        "n",
        "--tenant",
        "acme",
        "--operator-key",
        "olga.pem",
    ]);
    assert_eq!(code(&signed), 0, "{}", said(&signed));
    let shown = String::from_utf8_lossy(&signed.stderr).into_owned();
    for part in ["kind      reboot", "argument  force = true", "target    the device bar-1", "nonce     n"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    std::fs::write(home.path().join("reboot.json"), &signed.stdout).unwrap();
    let add = ["sign", "--add", "reboot.json", "--yes", "--operator-key", "otto.pem"];
    let both = run(&add);
    assert_eq!(code(&both), 0, "{}", said(&both));
    let envelope = Envelope::parse(both.stdout.trim_ascii(), COMMAND_TYPE, 32 * 1024).unwrap();
    assert_eq!(envelope.signatures.len(), 2);
    assert_eq!(code(&run(&[&add[..], &["bar-2"]].concat())), 2);
}

#[test]
fn the_help_names_every_kind_of_command_and_no_other_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let help = said(&fleet(home.path(), &["send", "--help"]));
    let words: Vec<&str> = help.split_whitespace().collect();
    for kind in Kind::ALL {
        let listed = words.iter().any(|word| word.trim_matches([',', ']']) == kind.name());
        assert!(listed, "{} in {help}", kind.name());
    }
    assert_eq!(code(&fleet(home.path(), &["send", "bar-1", "dance"])), 2);
    assert_eq!(code(&fleet(home.path(), &["update", "bar-1", "2.0"])), 2);
    assert_eq!(code(&fleet(home.path(), &["update", "bar-1", "2.0.0", "--pause"])), 2);
    assert_eq!(code(&fleet(home.path(), &["config", "set", "bar-1"])), 2);
}

#[test]
fn wrong_usage_and_missing_settings_are_exit_code_2_and_say_what_to_set() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| fleet(home.path(), arguments);
    assert_eq!(code(&run(&["no-such-command"])), 2);
    let nowhere = run(&["ls"]);
    assert_eq!(code(&nowhere), 2);
    assert!(said(&nowhere).contains("VIGIL_FLEET_BROKER"), "{}", said(&nowhere));
    let broker = ["--broker", "mqtt://127.0.0.1"];
    assert!(said(&run(&[&["ls"], &broker[..]].concat())).contains("--allow-plaintext"));
    assert_eq!(code(&run(&[&["status", "a/b"], &broker[..]].concat())), 2);
}

#[test]
fn an_unreachable_broker_is_exit_code_3_also_in_json() {
    let home = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: the connection is refused at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("mqtt://127.0.0.1:{port}");
    let output = fleet(home.path(), &["--json", "--allow-plaintext", "--broker", &url, "ls"]);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["exit_code"], 3);
}
