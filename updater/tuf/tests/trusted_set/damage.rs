//! No damaged file is ever new trust.

use proptest::prelude::*;
use serde_json::json;
use vigil_tuf::{Fetched, MAX_STATED_BYTES, Role};

use crate::repository::{Client, Repository, now};

/// A client at version 1 and a repository at version 2 of everything, and the file of each role.
fn next_version() -> (Client, Repository) {
    let mut repository = Repository::new();
    let client = Client::refreshed(&repository);
    repository.rotate_root();
    repository.publish_next();
    (client, repository)
}

fn path(role: Role) -> String {
    if role == Role::Timestamp { "timestamp.json".to_owned() } else { format!("2.{role}.json") }
}

fn refused_with(role: Role, bytes: Vec<u8>) {
    let (mut client, mut repository) = next_version();
    repository.files.insert(path(role), bytes);
    assert_eq!(client.refused(&repository).1, Some(role));
    assert_eq!(client.set.version(role), Some(1));
    client.restart();
    assert_eq!(client.set.version(role), Some(1));
}

fn any_role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}

/// What a damaged file without a stated hash may still be: the same content, written differently.
fn same_meaning(before: &[u8], after: &[u8]) -> bool {
    let signed =
        |bytes: &[u8]| Some(serde_json::from_slice::<serde_json::Value>(bytes).ok()?.get("signed")?.clone());
    signed(after).is_some_and(|after| signed(before) == Some(after))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_flipped_bit_is_never_accepted_as_other_content(role in any_role(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let (mut client, mut repository) = next_version();
        let good = repository.files[&path(role)].clone();
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1_u8 << bit;
        repository.files.insert(path(role), bad.clone());
        if let Err(error) = client.refresh(&repository, now()) {
            prop_assert_eq!(error.role(), Some(role));
            prop_assert_eq!(client.set.version(role), Some(1));
        } else {
            // Hex digits of a signature may change their case; where a hash is listed not even that is accepted.
            prop_assert!(same_meaning(&good, &bad));
            prop_assert!(matches!(role, Role::Root | Role::Timestamp));
        }
    }

    #[test]
    fn a_truncated_file_is_refused(role in any_role(), at in any::<prop::sample::Index>()) {
        let (_, repository) = next_version();
        let mut bytes = repository.files[&path(role)].clone();
        bytes.truncate(at.index(bytes.len()));
        refused_with(role, bytes);
    }

    #[test]
    fn garbage_is_refused(role in any_role(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        refused_with(role, bytes);
    }

    #[test]
    fn the_file_of_another_role_is_refused(role in any_role(), other in any_role()) {
        prop_assume!(role != other);
        let (_, repository) = next_version();
        refused_with(role, repository.files[&path(other)].clone());
    }

    #[test]
    fn json_of_any_shape_does_not_panic(role in any_role(), text in "[\\[\\]{}:,\"a-z0-9_. \\\\-]{0,80}") {
        let bytes = format!("{{\"signed\":{text},\"signatures\":[]}}");
        refused_with(role, bytes.into_bytes());
    }
}

#[test]
fn an_oversized_file_is_refused_by_its_length_alone() {
    for role in Role::ALL {
        let (mut client, repository) = next_version();
        client.set.begin_refresh();
        let mut request = client.set.next_request().unwrap();
        // The new root and the one after it come before the timestamp.
        for _ in 0..4 {
            if request.role == role {
                break;
            }
            let file = repository.files.get(&request.path);
            client.set.feed(file.map_or(Fetched::Missing, |bytes| Fetched::Bytes(bytes)), now()).unwrap();
            request = client.set.next_request().unwrap();
        }
        let bytes = vec![b' '; request.max_len as usize + 1];
        let error = client.set.feed(Fetched::Bytes(&bytes), now()).unwrap_err();
        assert_eq!((error.code(), error.role()), ("length", Some(role)));
        assert_eq!(client.set.version(role), Some(1));
    }
}

#[test]
fn the_limit_is_the_stated_length_or_the_default() {
    let mut repository = Repository::new();
    let length = repository.files["1.snapshot.json"].len() as u64;
    let limits = |repository: &Repository| {
        let mut client = Client::new(repository);
        client.set.begin_refresh();
        let limits = Role::ALL.into_iter().map(|role| {
            let request = client.set.next_request().unwrap();
            assert_eq!(request.role, role);
            let file = repository.files.get(&request.path);
            client.set.feed(file.map_or(Fetched::Missing, |bytes| Fetched::Bytes(bytes)), now())?;
            Ok::<_, vigil_tuf::Error>(request.max_len)
        });
        limits.collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(
        limits(&repository).unwrap()[..3],
        [vigil_tuf::MAX_ROOT_BYTES, vigil_tuf::MAX_TIMESTAMP_BYTES, length]
    );
    repository.hashes = false;
    repository.publish();
    assert_eq!(
        limits(&repository).unwrap()[2..],
        [vigil_tuf::MAX_SNAPSHOT_BYTES, vigil_tuf::MAX_TARGETS_BYTES]
    );
}

#[test]
fn a_file_that_states_an_absurd_length_of_the_next_is_refused_itself() {
    for (length, taken) in [(MAX_STATED_BYTES, Some(1)), (MAX_STATED_BYTES + 1, None)] {
        let mut repository = Repository::new();
        repository.timestamp["meta"]["snapshot.json"]["length"] = json!(length);
        repository.serve(Role::Timestamp);
        let mut client = Client::new(&repository);
        assert_eq!(client.refused(&repository), ("length", Some(Role::Snapshot)));
        assert_eq!(client.set.version(Role::Timestamp), taken, "{length}");

        let mut repository = Repository::new();
        repository.snapshot["meta"]["targets.json"]["length"] = json!(length);
        repository.serve(Role::Snapshot);
        repository.timestamp["meta"]["snapshot.json"] = json!({"version": 1});
        repository.serve(Role::Timestamp);
        let mut client = Client::new(&repository);
        assert_eq!(client.refused(&repository), ("length", Some(Role::Targets)));
        assert_eq!(client.set.version(Role::Snapshot), taken, "{length}");
    }
}

#[test]
fn duplicate_keys_and_floats_are_refused_even_when_signed() {
    for role in Role::ALL {
        let (_, repository) = next_version();
        let text = String::from_utf8(repository.files[&path(role)].clone()).unwrap();
        refused_with(role, text.replacen("\"version\":2", "\"version\":2,\"version\":2", 1).into_bytes());
        refused_with(role, text.replacen("\"version\":2", "\"version\":2.0", 1).into_bytes());
        refused_with(role, text.replacen("\"signatures\":", "\"signed\":{},\"signatures\":", 1).into_bytes());
    }
}

#[test]
fn another_major_version_of_the_specification_is_refused() {
    for (spec_version, accepted) in
        [("1.0", true), ("1.1.0", true), ("2.0.0", false), ("10.0.0", false), ("", false)]
    {
        let mut repository = Repository::new();
        repository.timestamp["spec_version"] = json!(spec_version);
        repository.serve(Role::Timestamp);
        assert_eq!(Client::new(&repository).refresh(&repository, now()).is_ok(), accepted, "{spec_version}");
    }
}
