//! What a start makes of its stored files.

use serde_json::json;
use vigil_tuf::{Role, Stored, TrustedSet};

use crate::repository::{Client, Repository, now, sign};

#[test]
fn an_unsound_image_root_is_an_error() {
    let repository = Repository::new();
    for bytes in [b"".to_vec(), b"{}".to_vec(), sign(&repository.root, &[2]), sign(&repository.root, &[])] {
        assert!(TrustedSet::load(&bytes, Stored::default()).is_err());
    }
    assert!(TrustedSet::load(&sign(&repository.root, &[1]), Stored::default()).is_ok());
}

#[test]
fn the_newer_of_image_root_and_stored_root_is_used() {
    let mut repository = Repository::new();
    let mut client = Client::new(&repository);
    repository.rotate_root();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.restart(), Vec::<String>::new());
    assert_eq!(client.set.version(Role::Root), Some(2));

    repository.rotate_root();
    client.image_root.clone_from(&repository.files["3.root.json"]);
    client.restart();
    assert_eq!(client.set.version(Role::Root), Some(3));
}

#[test]
fn of_two_roots_of_one_version_the_images_counts() {
    let repository = Repository::new();
    let mut other = Repository::new();
    other.set_keys(Role::Root, &[9], 1);
    other.publish_root();
    let stored = Stored { root: Some(other.files["1.root.json"].clone()), ..Stored::default() };
    let (set, _) = TrustedSet::load(&repository.files["1.root.json"], stored).unwrap();
    assert!(!set.root().keys.contains_key("key-9"));
}

#[test]
fn a_damaged_stored_file_is_dropped_named_and_fetched_again() {
    let repository = Repository::new();
    for (role, requests) in [(Role::Timestamp, 2), (Role::Snapshot, 3), (Role::Targets, 3)] {
        let mut client = Client::refreshed(&repository);
        let slot = match role {
            Role::Timestamp => &mut client.stored.timestamp,
            Role::Snapshot => &mut client.stored.snapshot,
            _ => &mut client.stored.targets,
        };
        slot.as_mut().unwrap().truncate(100);
        let dropped = client.restart();
        assert_eq!(dropped.len(), 1);
        assert!(dropped[0].contains(role.name()), "{dropped:?}");
        client.refresh(&repository, now()).unwrap();
        assert_eq!(client.requests.len(), requests, "{role}");
        assert_eq!(client.restart(), Vec::<String>::new());
    }
}

#[test]
fn a_damaged_stored_root_falls_back_to_the_images() {
    let repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    client.stored.root = Some(b"garbage".to_vec());
    assert_eq!(client.restart().len(), 1);
    assert_eq!(client.versions(), [Some(1); 4]);
}

#[test]
fn stored_files_that_the_root_does_not_vouch_for_are_dropped() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.timestamp["version"] = json!(7);
    client.stored.timestamp = Some(sign(&repository.timestamp, &[9]));
    assert_eq!(client.restart().len(), 1);
    assert_eq!(client.set.version(Role::Timestamp), None);
}
