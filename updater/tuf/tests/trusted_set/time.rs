//! The floor under the clock.

use jiff::Timestamp;
use serde_json::json;
use vigil_tuf::Role;

use crate::repository::{Client, Repository, at, now};

fn issued(repository: &mut Repository, when: &str) {
    repository.timestamp["issued"] = json!(when);
    repository.bump(Role::Timestamp);
    repository.publish();
}

#[test]
fn the_newest_issue_time_is_a_floor_under_a_clock_that_starts_in_1970() {
    let mut repository = Repository::new();
    issued(&mut repository, "2026-05-31T00:00:00Z");
    let mut client = Client::new(&repository);
    client.refresh(&repository, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(client.stored.time_floor, Some(at("2026-05-31T00:00:00Z")));

    // What expired before the floor stays expired, whatever the clock says, after a restart and without the timestamp.
    client.stored.timestamp = None;
    client.restart();
    repository.snapshot["expires"] = json!("2026-05-30T00:00:00Z");
    repository.bump(Role::Snapshot);
    repository.bump(Role::Timestamp);
    repository.publish();
    let error = client.refresh(&repository, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!((error.code(), error.role()), ("expired", Some(Role::Snapshot)));
    assert_eq!(client.set.effective_now(Timestamp::UNIX_EPOCH), at("2026-05-31T00:00:00Z"));
    assert_eq!(client.set.effective_now(now()), now());
}

#[test]
fn the_floor_does_not_sink_with_a_later_timestamp() {
    let mut repository = Repository::new();
    issued(&mut repository, "2026-05-31T00:00:00Z");
    let mut client = Client::refreshed(&repository);
    issued(&mut repository, "2026-05-01T00:00:00Z");
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.stored.time_floor, Some(at("2026-05-31T00:00:00Z")));
    client.stored.time_floor = None;
    issued(&mut repository, "2026-05-02T00:00:00Z");
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.stored.time_floor, None, "what did not change is not stored again");
}

#[test]
fn a_timestamp_issued_after_its_own_expiry_is_refused() {
    let mut repository = Repository::new();
    issued(&mut repository, "2099-01-01T00:00:00Z");
    assert_eq!(Client::new(&repository).refused(&repository), ("malformed", Some(Role::Timestamp)));
}

#[test]
fn a_refused_timestamp_moves_no_floor() {
    let mut repository = Repository::new();
    issued(&mut repository, "2026-05-31T00:00:00Z");
    repository.signers.insert(Role::Timestamp, vec![9]);
    repository.serve(Role::Timestamp);
    let mut client = Client::new(&repository);
    client.refused(&repository);
    assert_eq!((client.stored.time_floor, client.set.time_floor()), (None, Timestamp::UNIX_EPOCH));
}

#[test]
fn revoking_the_timestamp_key_recovers_from_a_floor_in_the_far_future() {
    let mut repository = Repository::new();
    repository.timestamp["expires"] = json!("2199-01-01T00:00:00Z");
    issued(&mut repository, "2099-01-01T00:00:00Z");
    let mut client = Client::new(&repository);
    assert_eq!(client.refused(&repository).0, "expired");
    assert_eq!(client.stored.time_floor, Some(at("2099-01-01T00:00:00Z")));

    repository.set_keys(Role::Timestamp, &[9], 1);
    repository.rotate_root();
    issued(&mut repository, "2026-05-31T00:00:00Z");
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.stored.time_floor, Some(at("2026-05-31T00:00:00Z")));
    client.restart();
    assert_eq!(client.set.time_floor(), at("2026-05-31T00:00:00Z"));
}

#[test]
fn an_image_root_that_revokes_the_timestamp_key_recovers_from_it_too() {
    let mut repository = Repository::new();
    repository.timestamp["expires"] = json!("2199-01-01T00:00:00Z");
    issued(&mut repository, "2099-01-01T00:00:00Z");
    let mut client = Client::new(&repository);
    assert_eq!(client.refused(&repository).0, "expired");

    repository.set_keys(Role::Timestamp, &[9], 1);
    repository.rotate_root();
    issued(&mut repository, "2026-05-31T00:00:00Z");
    client.image_root.clone_from(&repository.files["2.root.json"]);
    client.restart();
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.stored.time_floor, Some(at("2026-05-31T00:00:00Z")));
}
