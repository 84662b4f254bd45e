//! Key files.

use std::process::Command;

use crate::desk::{Desk, mode};

fn openssl(desk: &Desk, arguments: &[&str]) -> Option<std::process::Output> {
    Command::new("openssl").current_dir(desk.directory.path()).args(arguments).output().ok()
}

#[test]
fn encrypted_role_keys_sign_with_their_passphrase_alone() {
    let desk = Desk::empty();
    std::fs::write(desk.path("right"), "correct horse\n").unwrap();
    std::fs::write(desk.path("wrong"), "battery staple\n").unwrap();
    desk.good(&["init", "--repo", "repo", "--keys", "keys", "--passphrase-file", "right"]);
    let pem = std::fs::read_to_string(desk.path("keys/root.pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(mode(&desk.path("keys/root.pem")), 0o600);
    let timestamp = ["timestamp", "--repo", "repo", "--keys", "keys"];
    assert!(desk.refused(&timestamp).contains("is encrypted; give --passphrase-file"));
    let wrong = desk.refused(&[&timestamp[..], &["--passphrase-file", "wrong"]].concat());
    assert!(wrong.contains("timestamp.pem does not open with this passphrase"), "{wrong}");
    desk.good(&[&timestamp[..], &["--passphrase-file", "right"]].concat());
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn a_public_half_of_another_key_is_noticed_before_anything_is_signed() {
    let desk = Desk::new();
    desk.good(&["key", "new", "other", "--keys", "other"]);
    std::fs::copy(desk.path("other/other.pem"), desk.path("keys/timestamp.pem")).unwrap();
    let refused = desk.refused(&["timestamp", "--repo", "repo", "--keys", "keys"]);
    assert!(refused.contains("timestamp.pub is not the public half of"), "{refused}");
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn openssl_opens_an_encrypted_key_with_the_right_passphrase_alone() {
    let desk = Desk::empty();
    std::fs::write(desk.path("right"), "correct horse\n").unwrap();
    std::fs::write(desk.path("wrong"), "battery staple\n").unwrap();
    desk.good(&["key", "new", "alice", "--keys", "keys", "--passphrase-file", "right"]);
    let read = ["pkey", "-in", "keys/alice.pem", "-pubout", "-passin"];
    let Some(output) = openssl(&desk, &[&read[..], &["file:right"]].concat()) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, std::fs::read(desk.path("keys/alice.pub")).unwrap());
    assert!(!openssl(&desk, &[&read[..], &["file:wrong"]].concat()).unwrap().status.success());
}

#[test]
fn keys_that_openssl_made_are_taken_in() {
    let desk = Desk::empty();
    let Some(_) = openssl(&desk, &["genpkey", "-algorithm", "ed25519", "-out", "theirs.pem"]) else { return };
    std::fs::write(desk.path("pass"), "correct horse\n").unwrap();
    let encrypt = ["pkcs8", "-topk8", "-in", "theirs.pem", "-out", "locked.pem", "-passout", "file:pass"];
    assert!(openssl(&desk, &encrypt).unwrap().status.success());
    openssl(&desk, &["pkey", "-in", "theirs.pem", "-pubout", "-out", "theirs.pub"]).unwrap();
    openssl(&desk, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem"]).unwrap();
    openssl(&desk, &["pkey", "-in", "ec.pem", "-pubout", "-out", "ec.pub"]).unwrap();
    let import = |name, file| ["key", "import", name, file, "--keys", "keys"];
    let plain = desk.good(&import("plain", "theirs.pem"));
    assert_eq!(mode(&desk.path("keys/plain.pem")), 0o600);
    let locked = desk.good(&[&import("locked", "locked.pem")[..], &["--passphrase-file", "pass"]].concat());
    let public = desk.good(&import("public", "theirs.pub"));
    assert!(!desk.path("keys/public.pem").exists());
    assert_eq!([&locked["tuf_id"], &public["tuf_id"]], [&plain["tuf_id"]; 2]);
    assert!(std::fs::read_to_string(desk.path("keys/locked.pem")).unwrap().contains("ENCRYPTED"));
    let ecdsa = desk.good(&import("ecdsa", "ec.pub"));
    assert!(ecdsa["key"].is_null() && ecdsa["tuf_id"].is_string());
    assert!(desk.refused(&import("ecdsa2", "ec.pem")).contains("not an Ed25519 key"));
    assert!(desk.refused(&import("plain", "theirs.pem")).contains("not overwritten"));
    assert!(desk.refused(&import("root", "theirs.pem")).contains("name of a role's key"));
}

#[test]
fn a_key_as_securesystemslib_writes_it_is_taken_in() {
    let desk = Desk::empty();
    let text = r#"{"keyid": "ignored", "keytype": "ed25519", "scheme": "ed25519",
        "keyval": {"public": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"}}"#;
    std::fs::write(desk.path("key.json"), text).unwrap();
    let key = desk.good(&["key", "import", "rfc8032", "key.json", "--keys", "keys"]);
    // SHA-256 of the canonical JSON of keytype, scheme and keyval, by securesystemslib 1.6.0.
    assert_eq!(key["tuf_id"], "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
}
