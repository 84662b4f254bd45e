//! Who counts as a signer: section 4.2.1 and the verification of signatures.

use serde_json::{Value, json};
use vigil_tuf::Role;

use crate::repository::{Client, Repository, key_id, now};

/// Publishes what `change` made of the timestamp's file.
fn with_timestamp(repository: &mut Repository, change: impl FnOnce(&mut Value)) {
    let mut file: Value = serde_json::from_slice(&repository.files["timestamp.json"]).unwrap();
    change(&mut file);
    repository.files.insert("timestamp.json".to_owned(), file.to_string().into_bytes());
}

fn two_of_two() -> Repository {
    let mut repository = Repository::new();
    repository.set_keys(Role::Timestamp, &[2, 5], 2);
    repository.publish_root();
    repository.publish();
    repository
}

#[test]
fn a_threshold_is_met_by_different_keys_only() {
    let mut repository = two_of_two();
    Client::new(&repository).refresh(&repository, now()).unwrap();
    for signers in [vec![2], vec![5], vec![2, 3], vec![]] {
        repository.signers.insert(Role::Timestamp, signers.clone());
        repository.serve(Role::Timestamp);
        assert_eq!(
            Client::new(&repository).refused(&repository),
            ("threshold", Some(Role::Timestamp)),
            "{signers:?}"
        );
    }
    repository.signers.insert(Role::Timestamp, vec![9, 5, 3, 2]);
    repository.serve(Role::Timestamp);
    Client::new(&repository).refresh(&repository, now()).unwrap();
}

#[test]
fn each_role_is_refused_unless_its_own_keys_signed_it() {
    for role in Role::ALL {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        let own = repository.signers.insert(role, vec![9]).unwrap();
        repository.rotate_root();
        repository.publish_next();
        assert_eq!(client.refused(&repository), ("threshold", Some(role)));
        repository.signers.insert(role, own);
        repository.publish_root();
        repository.publish_next();
        client.refresh(&repository, now()).unwrap();
    }
}

#[test]
fn a_key_under_two_ids_counts_once() {
    let mut repository = two_of_two();
    repository.root["keys"][key_id(5)] = repository.root["keys"][key_id(2)].clone();
    repository.publish_root();
    with_timestamp(&mut repository, |file| {
        file["signatures"][1]["sig"] = file["signatures"][0]["sig"].clone();
    });
    assert_eq!(Client::new(&repository).refused(&repository), ("threshold", Some(Role::Timestamp)));
}

#[test]
fn an_id_listed_twice_in_a_role_counts_once() {
    let mut repository = Repository::new();
    repository.root["roles"]["timestamp"] = json!({"keyids": [key_id(2), key_id(2)], "threshold": 2});
    repository.publish_root();
    assert_eq!(Client::new(&repository).refused(&repository), ("threshold", Some(Role::Timestamp)));
}

#[test]
fn a_key_that_is_among_the_signatures_twice_is_refused_even_if_enough_others_signed() {
    let mut repository = two_of_two();
    for signers in [vec![2, 5, 5], vec![2, 2], vec![5, 2, 9, 9]] {
        repository.signers.insert(Role::Timestamp, signers.clone());
        repository.serve(Role::Timestamp);
        let refused = Client::new(&repository).refused(&repository);
        assert_eq!(refused, ("malformed", Some(Role::Timestamp)), "{signers:?}");
    }
}

#[test]
fn a_bad_signature_does_not_spoil_a_good_one() {
    let mut repository = Repository::new();
    with_timestamp(&mut repository, |file| {
        let signatures = file["signatures"].as_array_mut().unwrap();
        for (id, sig) in [("a", ""), ("b", "zz"), ("c", &*"00".repeat(64))] {
            signatures.insert(0, json!({"keyid": id, "sig": sig}));
        }
    });
    Client::new(&repository).refresh(&repository, now()).unwrap();
}

#[test]
fn keys_of_other_types_are_kept_and_never_count() {
    let other = json!({"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": "-----BEGIN…"}});
    let mut repository = two_of_two();
    repository.root["keys"][key_id(5)] = other.clone();
    repository.publish_root();
    assert_eq!(Client::new(&repository).refused(&repository), ("threshold", Some(Role::Timestamp)));

    repository.root["roles"]["timestamp"]["threshold"] = json!(1);
    repository.publish_root();
    let client = Client::refreshed(&repository);
    assert_eq!(json!(client.set.root().keys[&key_id(5)]), other);
}

#[test]
fn an_ed25519_key_that_is_no_sound_point_never_counts() {
    for public in ["00".repeat(32), "01".to_owned() + &"00".repeat(31), "abcd".to_owned(), "xyz".to_owned()] {
        let mut repository = Repository::new();
        repository.root["keys"][key_id(2)]["keyval"]["public"] = json!(public);
        repository.publish_root();
        with_timestamp(&mut repository, |file| {
            // R is the identity and s is zero: any message verifies under a key of small order, unless it is refused.
            file["signatures"][0]["sig"] = json!("01".to_owned() + &"00".repeat(63));
        });
        assert_eq!(Client::new(&repository).refused(&repository), ("threshold", Some(Role::Timestamp)));
    }
}

#[test]
fn unknown_fields_are_part_of_what_is_signed() {
    let mut repository = Repository::new();
    repository.timestamp["x-note"] = json!({"b": 1, "a": ["\u{e9}", "e\u{301}", "\"\\\n"]});
    repository.serve(Role::Timestamp);
    Client::new(&repository).refresh(&repository, now()).unwrap();
    with_timestamp(&mut repository, |file| file["signed"]["x-note"]["b"] = json!(2));
    assert_eq!(Client::new(&repository).refused(&repository), ("threshold", Some(Role::Timestamp)));
}

#[test]
fn fields_outside_of_what_is_signed_are_ignored() {
    let mut repository = Repository::new();
    with_timestamp(&mut repository, |file| {
        file["comment"] = json!("x");
        file["signatures"][0]["method"] = json!("y");
    });
    Client::new(&repository).refresh(&repository, now()).unwrap();
}

#[test]
fn a_file_with_endless_signatures_is_refused() {
    for (more, accepted) in [(255, true), (256, false)] {
        let mut repository = Repository::new();
        with_timestamp(&mut repository, |file| {
            let more = (0..more).map(|n| json!({"keyid": format!("k{n}"), "sig": ""}));
            file["signatures"].as_array_mut().unwrap().extend(more);
        });
        let result = Client::new(&repository).refresh(&repository, now());
        assert_eq!(result.as_ref().err().map(vigil_tuf::Error::code), (!accepted).then_some("malformed"));
    }
}
