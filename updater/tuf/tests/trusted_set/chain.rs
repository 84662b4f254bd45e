//! Timestamp, snapshot and targets: sections 5.4 to 5.7.

use serde_json::json;
use vigil_tuf::{Fetched, Role};

use crate::repository::{Client, EXPIRES, Repository, at, now};

const ROLES: [Role; 3] = [Role::Timestamp, Role::Snapshot, Role::Targets];

#[test]
fn a_first_refresh_fetches_each_file_once() {
    let repository = Repository::new();
    let client = Client::refreshed(&repository);
    assert_eq!(client.requests, ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]);
    assert_eq!(client.versions(), [Some(1); 4]);
    assert_eq!(client.stored.targets.as_ref(), repository.files.get("1.targets.json"));
}

#[test]
fn an_unchanged_refresh_is_two_requests_even_after_a_restart() {
    let repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
    assert_eq!(client.restart(), Vec::<String>::new());
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_new_timestamp_over_known_files_fetches_nothing_else() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.bump(Role::Timestamp);
    repository.publish();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
    assert_eq!(client.versions(), [Some(1), Some(2), Some(1), Some(1)]);
}

#[test]
fn without_consistent_snapshots_names_carry_no_version() {
    let mut repository = Repository::new();
    repository.root["consistent_snapshot"] = json!(false);
    repository.publish_root();
    let client = Client::refreshed(&repository);
    assert_eq!(client.requests, ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"]);
    assert_eq!(client.set.target_path("operators/acme.json").unwrap(), "operators/acme.json");
}

#[test]
fn lengths_and_hashes_of_metadata_are_optional() {
    let mut repository = Repository::new();
    repository.hashes = false;
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.publish_next();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.versions(), [Some(1), Some(2), Some(2), Some(2)]);
}

#[test]
fn a_timestamp_that_goes_back_is_refused() {
    let mut repository = Repository::new();
    repository.bump(Role::Timestamp);
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.timestamp["version"] = json!(1);
    repository.publish();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Timestamp)));
    assert_eq!(client.set.version(Role::Timestamp), Some(2));
    client.restart();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Timestamp)));
}

#[test]
fn a_timestamp_of_the_same_version_is_not_taken_and_is_no_error() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.timestamp["meta"]["snapshot.json"] = json!({"version": 100});
    repository.serve(Role::Timestamp);
    client.refresh(&repository, now()).unwrap();
    assert_ne!(client.stored.timestamp.as_ref(), repository.files.get("timestamp.json"));
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_refresh_that_was_cut_off_goes_on_under_the_same_timestamp() {
    let repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    client.stored.snapshot = None;
    client.stored.targets = None;
    client.restart();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.requests, ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]);
}

#[test]
fn a_timestamp_that_lists_an_older_snapshot_is_refused() {
    let mut repository = Repository::new();
    repository.bump(Role::Snapshot);
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.snapshot["version"] = json!(1);
    repository.bump(Role::Timestamp);
    repository.publish();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Timestamp)));
    assert_eq!(client.versions(), [Some(1), Some(1), Some(2), Some(1)]);
    repository.snapshot["version"] = json!(3);
    repository.publish();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.set.version(Role::Snapshot), Some(3));
}

#[test]
fn targets_may_not_go_back_in_the_snapshot() {
    let mut repository = Repository::new();
    repository.bump(Role::Targets);
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.publish_next();
    repository.targets["version"] = json!(1);
    repository.publish();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Snapshot)));
    assert_eq!(client.versions(), [Some(1), Some(2), Some(1), Some(2)]);
    repository.targets["version"] = json!(3);
    // The timestamp of that version is trusted already, so the repair needs a new one.
    repository.bump(Role::Timestamp);
    repository.publish();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.versions(), [Some(1), Some(3), Some(2), Some(3)]);
}

#[test]
fn no_file_may_vanish_from_the_snapshot() {
    let mut repository = Repository::new();
    repository.snapshot["meta"]["partner.json"] = json!({"version": 4});
    repository.publish();
    let mut client = Client::refreshed(&repository);
    repository.snapshot["meta"].as_object_mut().unwrap().remove("partner.json");
    repository.publish_next();
    assert_eq!(client.refused(&repository), ("rollback", Some(Role::Snapshot)));
    repository.snapshot["meta"]["partner.json"] = json!({"version": 4});
    repository.publish_next();
    client.refresh(&repository, now()).unwrap();
}

#[test]
fn a_snapshot_without_targets_and_a_timestamp_without_a_snapshot_are_refused() {
    for (role, file) in [(Role::Snapshot, "targets.json"), (Role::Timestamp, "snapshot.json")] {
        let mut repository = Repository::new();
        repository.signed(role)["meta"].as_object_mut().unwrap().remove(file);
        repository.serve(role);
        if role == Role::Snapshot {
            repository.timestamp["meta"]["snapshot.json"] = json!({"version": 1});
            repository.serve(Role::Timestamp);
        }
        assert_eq!(Client::new(&repository).refused(&repository), ("malformed", Some(role)));
    }
}

#[test]
fn what_is_served_must_have_the_version_that_is_listed() {
    for (role, by) in [(Role::Snapshot, Role::Timestamp), (Role::Targets, Role::Snapshot)] {
        let mut repository = Repository::new();
        repository.hashes = false;
        repository.publish();
        let file = format!("1.{role}.json");
        repository.bump(role);
        let newer = repository.serve(role);
        repository.files.insert(file, newer);
        let mut client = Client::new(&repository);
        assert_eq!(client.refused(&repository), ("version", Some(role)));
        assert_eq!(client.set.version(by), Some(1));
        assert_eq!(client.set.version(role), None);
    }
}

#[test]
fn what_is_served_must_have_the_length_and_hash_that_are_listed() {
    for role in [Role::Snapshot, Role::Targets] {
        let mut repository = Repository::new();
        // Validly signed, but another file: an unknown field was added.
        repository.signed(role)["more"] = json!("x");
        repository.serve(role);
        assert_eq!(Client::new(&repository).refused(&repository).1, Some(role));

        let mut repository = Repository::new();
        repository.signed(role)["more"] = json!("x");
        repository.publish();
        repository.signed(role)["more"] = json!("y");
        repository.serve(role);
        assert_eq!(Client::new(&repository).refused(&repository), ("hash", Some(role)));

        repository.publish();
        Client::new(&repository).refresh(&repository, now()).unwrap();
    }
}

#[test]
fn sha512_alone_will_do_and_an_unknown_hash_alone_will_not() {
    use sha2::Digest;
    let mut repository = Repository::new();
    let sha512 = |bytes: &[u8]| data_encoding::HEXLOWER.encode(&sha2::Sha512::digest(bytes));
    let snapshot = repository.files["1.snapshot.json"].clone();
    for (hashes, accepted) in [
        (json!({"sha512": sha512(&snapshot)}), true),
        (json!({"sha512": sha512(b"other")}), false),
        (json!({"md5": "d41d8cd98f00b204e9800998ecf8427e"}), false),
        (json!({}), false),
        (json!({"sha512": sha512(&snapshot), "md5": "x"}), true),
    ] {
        repository.timestamp["meta"]["snapshot.json"]["hashes"] = hashes;
        repository.serve(Role::Timestamp);
        let result = Client::new(&repository).refresh(&repository, now());
        assert_eq!(result.map_err(|error| error.code()), if accepted { Ok(()) } else { Err("hash") });
    }
}

#[test]
fn each_role_is_refused_when_it_has_expired_and_the_one_before_stays() {
    for role in ROLES {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        repository.signed(role)["expires"] = json!("2026-06-01T00:00:00Z");
        repository.publish_next();
        assert_eq!(client.refused(&repository), ("expired", Some(role)), "{role}");
        assert_eq!(client.set.version(role), Some(1));
        repository.signed(role)["expires"] = json!("2026-06-01T00:00:01Z");
        repository.publish_next();
        client.refresh(&repository, now()).unwrap();
    }
}

#[test]
fn a_known_file_that_has_expired_is_asked_for_again() {
    let mut repository = Repository::new();
    repository.targets["expires"] = json!("2026-06-02T00:00:00Z");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    let later = now() + jiff::Span::new().hours(48);
    assert!(client.set.targets_expired(later) && !client.set.targets_expired(now()));
    assert_eq!(client.refresh(&repository, later).unwrap_err().code(), "expired");
    assert_eq!(client.requests.last().unwrap(), "1.targets.json");
    repository.targets["expires"] = json!(EXPIRES);
    repository.publish_next();
    client.refresh(&repository, later).unwrap();
}

#[test]
fn a_known_timestamp_that_has_expired_is_refused_when_it_is_all_there_is() {
    let mut repository = Repository::new();
    repository.timestamp["expires"] = json!("2026-06-02T00:00:00Z");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    let last = at("2026-06-01T23:59:59Z");
    client.refresh(&repository, last).unwrap();
    let error = client.refresh(&repository, at("2026-06-02T00:00:00Z")).unwrap_err();
    assert_eq!((error.code(), error.role()), ("expired", Some(Role::Timestamp)));
    assert!(!client.set.is_refreshed());
}

#[test]
fn expired_files_still_guard_against_going_back() {
    let mut repository = Repository::new();
    for role in ROLES {
        repository.signed(role)["expires"] = json!("2026-06-02T00:00:00Z");
        repository.signed(role)["version"] = json!(5);
    }
    repository.publish();
    let mut client = Client::refreshed(&repository);
    client.restart();
    for role in ROLES {
        repository.signed(role)["expires"] = json!(EXPIRES);
        repository.signed(role)["version"] = json!(4);
    }
    repository.publish();
    let later = now() + jiff::Span::new().hours(48);
    assert_eq!(client.refresh(&repository, later).unwrap_err().code(), "rollback");
}

#[test]
fn a_missing_file_is_named() {
    for (file, role) in [
        ("timestamp.json", Role::Timestamp),
        ("1.snapshot.json", Role::Snapshot),
        ("1.targets.json", Role::Targets),
    ] {
        let mut repository = Repository::new();
        repository.files.remove(file);
        let mut client = Client::new(&repository);
        let error = client.refresh(&repository, now()).unwrap_err();
        assert_eq!((error.code(), error.role()), ("missing", Some(role)));
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn a_target_is_verified_by_length_and_hash() {
    let client = Client::refreshed(&Repository::new());
    let name = "operators/acme.json";
    let target = client.set.target(name).unwrap();
    assert_eq!((target.length, target.custom.as_ref()), (13, Some(&json!({"n": 1}))));
    let path = format!("operators/{}.acme.json", target.sha256().unwrap());
    assert_eq!(client.set.target_path(name), Some(path));
    client.set.verify_target(name, b"the operators").unwrap();
    assert_eq!(client.set.verify_target(name, b"the operatorz").unwrap_err().code(), "hash");
    assert_eq!(client.set.verify_target(name, b"the operators ").unwrap_err().code(), "length");
    assert_eq!(client.set.verify_target("operators/other.json", b"").unwrap_err().code(), "missing");
}

#[test]
fn targets_with_unsafe_names_are_not_found() {
    let mut repository = Repository::new();
    repository.add_target("../etc/shadow", b"x");
    repository.publish();
    let client = Client::refreshed(&repository);
    assert_eq!(client.set.target("../etc/shadow"), None);
    assert_eq!(client.set.targets().map(|(name, _)| name).collect::<Vec<_>>(), ["operators/acme.json"]);
}

#[test]
fn nothing_is_taken_before_a_refresh_begins_or_after_it_ends() {
    let repository = Repository::new();
    let mut client = Client::new(&repository);
    let timestamp = repository.files["timestamp.json"].clone();
    assert_eq!(client.set.feed(Fetched::Bytes(&timestamp), now()).unwrap_err().code(), "idle");
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.set.feed(Fetched::Bytes(&timestamp), now()).unwrap_err().code(), "idle");
}

#[test]
fn a_refresh_that_is_given_up_keeps_what_it_verified_and_takes_nothing_more() {
    let mut repository = Repository::new();
    let mut client = Client::refreshed(&repository);
    repository.publish_next();
    client.set.begin_refresh();
    client.set.feed(Fetched::Missing, now()).unwrap();
    let timestamp = repository.files["timestamp.json"].clone();
    client.set.feed(Fetched::Bytes(&timestamp), now()).unwrap();
    client.set.stop();
    assert_eq!(client.set.next_request(), None);
    let snapshot = repository.files["2.snapshot.json"].clone();
    assert_eq!(client.set.feed(Fetched::Bytes(&snapshot), now()).unwrap_err().code(), "idle");
    assert_eq!(client.versions(), [Some(1), Some(2), Some(1), Some(1)]);
    assert!(!client.set.is_refreshed());
    client.refresh(&repository, now()).unwrap();
}

#[test]
fn each_role_says_when_it_expires_as_soon_as_it_is_there() {
    let mut repository = Repository::new();
    let days = ["2026-07-01", "2026-07-02", "2026-07-03", "2026-07-04"].map(|day| format!("{day}T00:00:00Z"));
    for (role, day) in Role::ALL.into_iter().zip(&days) {
        repository.signed(role)["expires"] = json!(day);
    }
    repository.publish_root();
    repository.publish();
    let mut client = Client::new(&repository);
    assert_eq!(Role::ALL.map(|role| client.set.expires(role)), [Some(at(&days[0])), None, None, None]);
    client.refresh(&repository, now()).unwrap();
    assert_eq!(Role::ALL.map(|role| client.set.expires(role)), days.each_ref().map(|day| Some(at(day))));
}
