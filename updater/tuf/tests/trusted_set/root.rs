//! The chain of roots: section 5.3.

use serde_json::json;
use vigil_tuf::{MAX_ROOT_ROTATIONS, Role};

use crate::repository::{Client, Repository, now, sign};

#[test]
fn a_new_root_needs_the_keys_of_the_old_one_and_its_own() {
    for (signers, accepted) in [(vec![1, 5], true), (vec![5, 1], true), (vec![1], false), (vec![5], false)] {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        repository.set_keys(Role::Root, &[5], 1);
        repository.signers.insert(Role::Root, signers.clone());
        repository.rotate_root();
        if accepted {
            client.refresh(&repository, now()).unwrap();
            assert_eq!(client.versions(), [Some(2), Some(1), Some(1), Some(1)]);
            assert_eq!(client.stored.root.as_ref(), repository.files.get("2.root.json"));
        } else {
            assert_eq!(client.refused(&repository), ("threshold", Some(Role::Root)), "{signers:?}");
            assert_eq!((client.set.version(Role::Root), &client.stored.root), (Some(1), &None));
        }
    }
}

#[test]
fn thresholds_above_one_hold_for_the_old_and_the_new_keys() {
    // Two of 1, 5, 6 before; two of 6, 7, 8 after.
    for (signers, accepted) in
        [(vec![1, 5, 7, 8], true), (vec![5, 6, 7], true), (vec![1, 7, 8], false), (vec![1, 5, 7], false)]
    {
        let mut repository = Repository::new();
        repository.set_keys(Role::Root, &[1, 5, 6], 2);
        repository.publish_root();
        let mut client = Client::refreshed(&repository);
        repository.set_keys(Role::Root, &[6, 7, 8], 2);
        repository.signers.insert(Role::Root, signers.clone());
        repository.rotate_root();
        assert_eq!(client.refresh(&repository, now()).is_ok(), accepted, "{signers:?}");
    }
}

#[test]
fn the_trusted_root_offered_as_its_own_successor_is_none_and_the_refresh_goes_on() {
    let mut repository = Repository::new();
    let root = repository.files["1.root.json"].clone();
    repository.files.insert("2.root.json".to_owned(), root);
    let client = Client::refreshed(&repository);
    assert_eq!(client.requests, ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]);
    assert_eq!((client.set.version(Role::Root), client.stored.root), (Some(1), None));
}

#[test]
fn a_root_of_any_other_version_than_the_next_is_refused() {
    for version in [3, 7] {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        repository.root["version"] = json!(version);
        let root = repository.sign(Role::Root, &repository.root);
        repository.files.insert("2.root.json".to_owned(), root);
        assert_eq!(client.refused(&repository), ("version", Some(Role::Root)));
    }
}

#[test]
fn roots_are_followed_one_by_one_and_only_the_last_may_not_be_expired() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.root["expires"] = json!("2020-01-01T00:00:00Z");
    repository.rotate_root();
    assert_eq!(client.refused(&repository), ("expired", Some(Role::Root)));
    // It is trusted and persisted all the same (5.3.8 comes before 5.3.10). Of what follows only the timestamp was asked for,
    // whose signature shows that it is the publisher who is late; it is not taken.
    assert_eq!(client.set.version(Role::Root), Some(2));
    assert_eq!(client.requests, ["2.root.json", "3.root.json", "timestamp.json"]);
    assert_eq!(client.set.version(Role::Timestamp), Some(1), "as it was before");
    assert!(client.stored.root.is_some());
    repository.root["expires"] = json!("2027-01-01T00:00:00Z");
    repository.rotate_root();
    client.restart();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.set.version(Role::Root), Some(3));
}

#[test]
fn one_refresh_follows_a_bounded_number_of_roots_and_the_next_goes_on() {
    let mut repository = Repository::new();
    for _ in 0..40 {
        repository.rotate_root();
    }
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.set.version(Role::Root), Some(1 + u64::from(MAX_ROOT_ROTATIONS)));
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.set.version(Role::Root), Some(41));
}

#[test]
fn an_expired_root_at_the_bound_trusts_no_timestamp() {
    let mut repository = Repository::new();
    repository.root["expires"] = json!("2020-01-01T00:00:00Z");
    for _ in 0..40 {
        repository.rotate_root();
    }
    let mut client = Client::new(&repository);
    assert_eq!(client.refused(&repository), ("expired", Some(Role::Root)));
    assert_eq!(client.set.version(Role::Timestamp), None);
}

#[test]
fn revoked_timestamp_or_snapshot_keys_let_versions_go_back() {
    for role in [Role::Timestamp, Role::Snapshot] {
        let mut repository = Repository::new();
        for signed in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            repository.signed(signed)["version"] = json!(999_999);
        }
        repository.publish();
        let mut client = Client::refreshed(&repository);
        repository.set_keys(role, &[9], 1);
        repository.rotate_root();
        for signed in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            repository.signed(signed)["version"] = json!(2);
        }
        repository.publish();
        client.refresh(&repository, now()).unwrap();
        assert_eq!(client.versions(), [Some(2); 4]);
        client.restart();
        assert_eq!(client.versions(), [Some(2); 4]);
    }
}

#[test]
fn a_key_that_is_only_added_lets_nothing_go_back() {
    let mut repository = Repository::new();
    repository.timestamp["version"] = json!(999_999);
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.set_keys(Role::Timestamp, &[2, 9], 1);
    repository.rotate_root();
    repository.timestamp["version"] = json!(2);
    repository.publish();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Timestamp)));
}

#[test]
fn a_file_with_too_few_signatures_for_the_new_root_is_fetched_again() {
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        let mut repository = Repository::new();
        // Nothing but the version says which file is meant.
        repository.hashes = false;
        repository.publish();
        let mut client = Client::refreshed(&repository);
        let seed = repository.signers[&role][0];
        repository.set_keys(role, &[seed, 9], 2);
        repository.rotate_root();
        repository.serve(role);
        client.refresh(&repository, now()).unwrap();
        assert_eq!(client.restart(), Vec::<String>::new(), "{role}");
    }
}

#[test]
fn an_expired_root_offered_as_its_own_successor_ends_the_refresh() {
    let mut repository = Repository::new();
    repository.root["expires"] = json!("2020-01-01T00:00:00Z");
    repository.publish_root();
    let root = repository.files["1.root.json"].clone();
    repository.files.insert("2.root.json".to_owned(), root);
    let mut client = Client::new(&repository);
    assert_eq!(client.refused(&repository), ("expired", Some(Role::Root)));
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
    assert_eq!(client.set.version(Role::Timestamp), None);
}

#[test]
fn under_an_expired_root_only_who_signs_the_timestamp_is_called_late() {
    let mut repository = Repository::new();
    repository.root["expires"] = json!("2020-01-01T00:00:00Z");
    repository.publish_root();
    let stranger = String::from_utf8(repository.files["timestamp.json"].clone()).unwrap();
    let stranger = stranger.replacen("\"sig\":\"", "\"sig\":\"00", 1);
    repository.files.insert("timestamp.json".to_owned(), stranger.into_bytes());
    let mut client = Client::new(&repository);
    assert_eq!(client.refused(&repository), ("threshold", Some(Role::Timestamp)));
}

#[test]
fn the_old_files_and_floor_are_forgotten_before_the_root_that_revokes_their_keys_is_stored() {
    for (role, expected) in [
        (Role::Timestamp, vec!["floor", "forget timestamp", "forget snapshot", "persist root"]),
        (Role::Snapshot, vec!["forget timestamp", "forget snapshot", "persist root"]),
    ] {
        let mut repository = Repository::new();
        repository.timestamp["issued"] = json!("2026-05-31T00:00:00Z");
        repository.publish();
        let mut client = Client::refreshed(&repository);
        repository.set_keys(role, &[9], 1);
        repository.rotate_root();
        client.set.begin_refresh();
        let root = repository.files["2.root.json"].clone();
        let outputs = client.set.feed(vigil_tuf::Fetched::Bytes(&root), now()).unwrap();
        let words: Vec<_> = outputs
            .iter()
            .map(|output| match output {
                vigil_tuf::Output::Forget { role } => format!("forget {role}"),
                vigil_tuf::Output::Persist { role, .. } => format!("persist {role}"),
                vigil_tuf::Output::TimeFloor(_) => "floor".to_owned(),
            })
            .collect();
        assert_eq!(words, expected);
    }
}

#[test]
fn targets_by_a_revoked_key_are_not_trusted_any_more() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.set_keys(Role::Targets, &[9], 1);
    repository.rotate_root();
    assert_eq!(client.refused(&repository), ("threshold", Some(Role::Targets)));
    assert_eq!(client.set.target("operators/acme.json"), None);
    repository.publish_next();
    client.refresh(&repository, now()).unwrap();
    assert!(client.set.target("operators/acme.json").is_some());
}

#[test]
fn a_root_that_lacks_a_role_or_has_a_threshold_of_zero_is_refused() {
    for role in Role::ALL {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        repository.bump(Role::Root);
        let mut root = repository.root.clone();
        root["roles"][role.name()]["threshold"] = json!(0);
        repository.files.insert("2.root.json".to_owned(), sign(&root, &[1]));
        assert_eq!(client.refused(&repository), ("malformed", Some(Role::Root)));
        root["roles"].as_object_mut().unwrap().remove(role.name());
        repository.files.insert("2.root.json".to_owned(), sign(&root, &[1]));
        assert_eq!(client.refused(&repository), ("malformed", Some(Role::Root)));
    }
}
