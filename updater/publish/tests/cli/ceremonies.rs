//! Several people sign, one at a time.

use serde_json::Value;

use crate::desk::Desk;
use crate::device::Device;

/// Alice and Bob hold the root, two of two; each in a directory of their own. The online keys are in `keys`.
pub(crate) fn two_people() -> Desk {
    let desk = Desk::empty();
    for person in ["alice", "bob"] {
        desk.good(&["key", "new", person, "--keys", person]);
    }
    let init = ["init", "--repo", "repo", "--keys", "keys", "--threshold", "root=2"];
    let keys = ["--role-key", "root=@alice/alice.pub", "--role-key", "root=@bob/bob.pub"];
    let made = desk.good(&[&init[..], &keys].concat());
    assert_eq!(made["published"], false);
    desk
}

/// Both sign at the repository.
pub(crate) fn both_sign(desk: &Desk) -> Value {
    desk.good(&["sign", "--repo", "repo", "--keys", "alice"]);
    desk.good(&["sign", "--repo", "repo", "--keys", "bob"]);
    // The online keys, wherever the root was the last to be signed.
    desk.good(&["sign", "--repo", "repo", "--keys", "keys"])
}

#[test]
fn the_first_root_waits_for_two_people_of_whom_one_is_offline() {
    let desk = two_people();
    assert!(!desk.path("repo/metadata/1.root.json").exists());
    let again = desk.refused(&["init", "--repo", "repo", "--keys", "keys-2"]);
    assert!(again.contains("repository already"), "{again}");
    let shown = desk.good(&["show", "--repo", "repo"]);
    let need = &shown["staged"][0]["needs"][0];
    assert_eq!((&need["threshold"], &need["signed"]), (&Value::from(2), &Value::from(0)));
    let names: Vec<_> = need["missing"].as_array().unwrap().iter().map(|key| &key["name"]).collect();
    assert_eq!(names, ["alice", "bob"]);

    // Alice has a machine with nothing on it but her key and a copy of the file.
    std::fs::create_dir(desk.path("stick")).unwrap();
    std::fs::copy(desk.path("repo.staged/1.root.json"), desk.path("stick/1.root.json")).unwrap();
    let signed = desk.good(&["sign", "stick/1.root.json", "--keys", "alice"]);
    let changes = signed["signed"][0]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|line| line == "+ threshold of root: 2"), "{changes:?}");
    assert!(
        desk.refused(&["sign", "stick/1.root.json", "--keys", "alice"]).contains("asks for signatures by")
    );

    let one = desk.good(&["sign", "--repo", "repo", "--from", "stick/1.root.json", "--keys", "keys"]);
    assert_eq!((&one["published"], &one["staged"][0]["needs"][0]["signed"]), (&false.into(), &1.into()));
    let two = desk.good(&["sign", "--repo", "repo", "--keys", "bob"]);
    // Both have signed the root; snapshot and timestamp are for the online keys.
    assert_eq!(two["staged"][0]["role"], "snapshot");
    let done = desk.good(&["sign", "--repo", "repo", "--keys", "keys"]);
    assert_eq!(done["published"], true);
    assert!(!desk.path("repo.staged").exists());
    desk.good(&["verify", "--repo", "repo"]);
    Device::new(&desk.path("repo")).refresh().unwrap();
    let root = std::fs::read_to_string(desk.path("repo/metadata/1.root.json")).unwrap();
    assert!(!root.contains("\"sig\": \"\""), "no request for a signature is published");
}

#[test]
fn a_signature_by_a_foreign_key_is_refused() {
    let desk = two_people();
    desk.good(&["key", "new", "mallory", "--keys", "mallory"]);
    let file = "repo.staged/1.root.json";
    assert!(desk.refused(&["sign", file, "--keys", "mallory"]).contains("none is in mallory"));
    // At the repository her key changes nothing.
    let nothing = desk.good(&["sign", "--repo", "repo", "--keys", "mallory"]);
    assert_eq!(nothing["staged"][0]["needs"][0]["signed"], 0);

    // She puts it in by herself.
    let mut forged: Value = serde_json::from_slice(&std::fs::read(desk.path(file)).unwrap()).unwrap();
    let id = desk.good(&["key", "new", "other", "--keys", "mallory"])["tuf_id"].clone();
    forged["signatures"].as_array_mut().unwrap().push(serde_json::json!({"keyid": id, "sig": "00"}));
    std::fs::write(desk.path("1.root.json"), forged.to_string()).unwrap();
    let refused = desk.refused(&["sign", "--repo", "repo", "--from", "1.root.json"]);
    assert!(refused.contains("no key of root; nothing was taken"), "{refused}");

    // And under Alice's id.
    forged["signatures"].as_array_mut().unwrap().pop();
    forged["signatures"][0]["sig"] = "00".repeat(64).into();
    std::fs::write(desk.path("1.root.json"), forged.to_string()).unwrap();
    let refused = desk.refused(&["sign", "--repo", "repo", "--from", "1.root.json"]);
    assert!(refused.contains("is not over its content; nothing was taken"), "{refused}");
}

#[test]
fn a_staged_file_that_is_altered_between_two_signatures_is_refused() {
    let desk = two_people();
    desk.good(&["sign", "--repo", "repo", "--keys", "alice"]);
    let file = desk.path("repo.staged/1.root.json");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::copy(&file, desk.path("1.root.json")).unwrap();
    let altered = good.replacen("\"threshold\": 2", "\"threshold\": 1", 1);
    assert_ne!(altered, good);
    std::fs::write(&file, &altered).unwrap();
    for arguments in [&["sign", "--repo", "repo", "--keys", "bob"][..], &["show", "--repo", "repo"]] {
        let refused = desk.refused(arguments);
        assert!(refused.contains("1.root.json was changed after alice"), "{refused}");
    }
    std::fs::write(&file, &good).unwrap();
    // The copy that comes back must be what is staged, too.
    std::fs::write(desk.path("1.root.json"), &altered).unwrap();
    let refused = desk.refused(&["sign", "--repo", "repo", "--from", "1.root.json"]);
    assert!(refused.contains("has not the content of any file"), "{refused}");
    both_sign(&desk);
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn what_is_signed_is_shown_even_if_the_file_hides_whom_it_asks() {
    let desk = two_people();
    let file = desk.path("repo.staged/1.root.json");
    let mut hidden: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    hidden["signatures"] = serde_json::json!([]);
    std::fs::write(&file, hidden.to_string()).unwrap();
    let signed = desk.good(&["sign", "--repo", "repo", "--keys", "alice"]);
    assert_eq!(signed["staged"][0]["needs"][0]["signed"], 1);
    assert_eq!(signed["signed"][0]["role"], "root");
}

#[test]
fn a_staged_root_that_skips_a_version_is_refused() {
    let desk = two_people();
    let file = desk.path("repo.staged/1.root.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"version\": 1", "\"version\": 3", 1)).unwrap();
    assert!(desk.refused(&["sign", "--repo", "repo", "--keys", "alice"]).contains("no device gets there"));
}

#[test]
fn the_daily_timestamp_does_not_come_in_the_way_of_what_is_staged() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("daily")).unwrap();
    for end in ["pem", "pub"] {
        std::fs::rename(
            desk.path(&format!("keys/timestamp.{end}")),
            desk.path(&format!("daily/timestamp.{end}")),
        )
        .unwrap();
    }
    std::fs::write(desk.path("note"), "one").unwrap();
    let staged = desk.good(&["add", "note.txt", "note", "--repo", "repo", "--keys", "keys", "--stage"]);
    assert_eq!(staged["staged"][0]["role"], "timestamp");
    let mut device = Device::new(&desk.path("repo"));
    for _ in 0..2 {
        desk.good(&["timestamp", "--repo", "repo", "--keys", "daily"]);
    }
    device.refresh().unwrap();
    assert!(device.set.target("note.txt").is_none());
    assert_eq!(desk.good(&["sign", "--repo", "repo", "--keys", "daily"])["versions"]["timestamp"], 4);
    device.refresh().unwrap();
    assert!(device.set.target("note.txt").is_some());
}

#[test]
fn targets_wait_for_a_second_person_and_nobody_sees_them_until_then() {
    let desk = Desk::empty();
    for person in ["alice", "bob"] {
        desk.good(&["key", "new", person, "--keys", person]);
    }
    let init = ["init", "--repo", "repo", "--keys", "keys", "--threshold", "targets=2"];
    let roles = ["--role-key", "targets=@alice/alice.pub", "--role-key", "targets=@bob/bob.pub"];
    desk.good(&[&init[..], &roles].concat());
    both_sign(&desk);
    std::fs::write(desk.path("note"), "one").unwrap();
    let add = ["add", "note.txt", "note", "--repo", "repo", "--keys"];
    // Without any key of the role it must be meant.
    assert!(desk.refused(&[&add[..], &["keys"]].concat()).contains("alice.pem or bob.pem"));
    desk.good(&[&add[..], &["keys", "--stage"]].concat());
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    assert!(device.set.target("note.txt").is_none());

    // A second change joins the first, and what was signed of that is void.
    desk.good(&["sign", "--repo", "repo", "--keys", "alice"]);
    std::fs::write(desk.path("note"), "two").unwrap();
    let staged = desk.good(&["add", "two.txt", "note", "--repo", "repo", "--keys", "keys", "--stage"]);
    assert_eq!(staged["staged"][0]["needs"][0]["signed"], 0);
    both_sign(&desk);
    device.refresh().unwrap();
    assert!(device.set.target("note.txt").is_some() && device.set.target("two.txt").is_some());

    // What is discarded never was.
    desk.good(&["remove", "two.txt", "--repo", "repo", "--keys", "keys", "--stage"]);
    assert_eq!(desk.good(&["discard", "--repo", "repo"])["discarded"], 1);
    assert_eq!(both_sign(&desk)["roles"], serde_json::json!({}));
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["targets"], 2);
}
