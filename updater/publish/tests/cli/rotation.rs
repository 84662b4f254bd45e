//! Keys come and go, and devices follow.

use jiff::{SignedDuration, Timestamp};
use vigil_publish::keys;
use vigil_publish::passphrase::Passphrase;
use vigil_publish::public::NamedKey;
use vigil_publish::sealed::Sealed;
use vigil_tuf::{Role, document};

use crate::ceremonies::{both_sign, two_people};
use crate::desk::Desk;
use crate::device::Device;

const AT: [&str; 4] = ["--repo", "repo", "--keys", "keys"];

fn run(desk: &Desk, command: &[&str]) -> serde_json::Value {
    desk.good(&[command, &AT].concat())
}

#[test]
fn a_device_follows_a_root_that_old_and_new_people_sign() {
    let desk = two_people();
    both_sign(&desk);
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    desk.good(&["key", "new", "carol", "--keys", "carol"]);
    let rotate = ["root", "rotate", "--add", "root=@carol/carol.pub", "--remove", "root=bob"];
    let staged = run(&desk, &rotate);
    let needs = staged["staged"][0]["needs"].as_array().unwrap();
    assert_eq!(needs.len(), 2, "of the old root and of the new: {needs:?}");
    desk.good(&["sign", "--repo", "repo", "--keys", "alice"]);
    // Carol alone is not enough: two of the old root must agree.
    assert_eq!(desk.good(&["sign", "--repo", "repo", "--keys", "carol"])["published"], false);
    device.refresh().unwrap();
    assert_eq!(device.set.version(Role::Root), Some(1));
    assert_eq!(desk.good(&["sign", "--repo", "repo", "--keys", "bob"])["published"], true);
    device.refresh().unwrap();
    assert_eq!(device.set.version(Role::Root), Some(2));
    // Only the root is new: nothing else needed a signature.
    assert_eq!(device.set.version(Role::Timestamp), Some(1));
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn a_rotation_without_changes_makes_the_root_last_longer() {
    let desk = Desk::new();
    run(&desk, &["root", "rotate", "--root-days", "1000"]);
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    let years = Timestamp::now() + SignedDuration::from_hours(24 * 999);
    assert!(device.set.root().version == 2 && device.set.root().expires > years);
    // It is remembered for the next.
    run(&desk, &["root", "rotate"]);
    device.refresh().unwrap();
    assert!(device.set.root().version == 3 && device.set.root().expires > years);
}

#[test]
fn a_lost_key_of_each_role_is_replaced_and_devices_go_on() {
    for role in ["timestamp", "snapshot", "targets"] {
        let desk = Desk::new();
        std::fs::write(desk.path("note"), "one").unwrap();
        run(&desk, &["add", "note.txt", "note"]);
        let mut device = Device::new(&desk.path("repo"));
        device.refresh().unwrap();
        std::fs::remove_file(desk.path(&format!("keys/{role}.pem"))).unwrap();
        desk.good(&["key", "new", "spare", "--keys", "keys"]);
        let refused = desk.refused(&[&["key", "revoke", role][..], &AT].concat());
        assert!(refused.contains(&format!("root rotate --add {role}=KEY")), "{refused}");
        let revoked = run(&desk, &["key", "revoke", role, "--replace-by", "spare"]);
        assert_eq!((&revoked["published"], &revoked["roles"][0]), (&true.into(), &role.into()));
        device.refresh().unwrap();
        assert_eq!(device.set.version(Role::Root), Some(2));
        assert!(device.set.target("note.txt").is_some());
        run(&desk, &["timestamp"]);
        run(&desk, &["add", "two.txt", "note"]);
        device.refresh().unwrap();
        assert!(device.set.target("two.txt").is_some(), "{role}");
        desk.good(&["verify", "--repo", "repo"]);
    }
}

#[test]
fn devices_that_a_stolen_timestamp_key_sent_far_ahead_come_back() {
    let desk = Desk::new();
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    // The thief signs version 1,000,000, issued in a year, and serves it.
    let path = desk.path("repo/metadata/timestamp.json");
    let good = std::fs::read(&path).unwrap();
    let (mut timestamp, _) = Sealed::parse(&good).unwrap().document::<document::Timestamp>().unwrap();
    timestamp.version = 1_000_000;
    timestamp.issued = timestamp.issued.map(|issued| issued + SignedDuration::from_hours(24 * 10));
    let key = keys::load(&desk.path("keys"), "timestamp", &Passphrase::default()).unwrap();
    let id = NamedKey::from_ed25519("timestamp", &key.verifying_key()).unwrap().id;
    let mut forged = Sealed::of(&timestamp).unwrap();
    forged.sign(&id, &key);
    std::fs::write(&path, forged.published_bytes().unwrap()).unwrap();
    device.refresh().unwrap();
    assert!(device.set.time_floor() > Timestamp::now());
    std::fs::write(&path, &good).unwrap();
    assert_eq!(device.refresh().unwrap_err().code(), "rollback");

    desk.good(&["key", "new", "timestamp-2", "--keys", "keys"]);
    run(&desk, &["key", "revoke", "timestamp", "--replace-by", "timestamp-2"]);
    device.refresh().unwrap();
    assert_eq!(device.set.version(Role::Timestamp), Some(2));
    assert!(device.set.time_floor() <= Timestamp::now());
    // The thief's key is worth nothing any more.
    std::fs::write(&path, forged.published_bytes().unwrap()).unwrap();
    assert_eq!(device.refresh().unwrap_err().code(), "threshold");
}

#[test]
fn keys_are_named_unmistakably() {
    let desk = Desk::new();
    let refused = desk.refused(&[&["key", "revoke", "nobody"][..], &AT].concat());
    assert!(refused.contains("no key of any role"), "{refused}");
    let spare = desk.good(&["key", "new", "spare", "--keys", "keys"]);
    run(&desk, &["root", "rotate", "--add", "snapshot=spare"]);
    let id = spare["tuf_id"].as_str().unwrap();
    run(&desk, &["key", "revoke", &id[..12]]);
    assert_eq!(
        desk.good(&["show", "--repo", "repo"])["roles"]["snapshot"]["keys"]["keyids"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let impossible = ["root", "rotate", "--threshold", "targets=2"];
    assert!(desk.refused(&[&impossible[..], &AT].concat()).contains("left with 1 keys"));
}
