//! Delegated targets: section 5.6.7 and TAP 15.

use serde_json::json;
use vigil_tuf::{Fetched, MAX_STATED_BYTES, Role, RoleName, Search, Source};

use crate::repository::{Client, Repository, at, key_id, now};

/// A repository where `partners` may sign `partners/*`, and has one target.
fn delegating() -> Repository {
    let mut repository = Repository::new();
    repository.delegate(None, "partners", 5, json!({"paths": ["partners/*"]}));
    repository.add_delegated_target("partners", "partners/meet.json", b"a profile");
    repository.publish();
    repository
}

fn republish(repository: &mut Repository) {
    repository.publish_next();
}

/// The code of the error that a search for the partner's profile ends with.
fn refused(repository: &Repository) -> &'static str {
    let mut client = Client::refreshed(repository);
    let error = client.search(repository, "partners/meet.json").unwrap_err();
    assert_eq!(client.set.target("partners/meet.json"), None);
    assert_eq!(client.set.next_request(), None, "an error ends the search");
    assert!(client.set.is_refreshed(), "and takes nothing from the refresh");
    error.code()
}

#[test]
fn a_delegated_target_is_found_and_its_role_fetched_once() {
    let repository = delegating();
    let mut client = Client::refreshed(&repository);
    let target = client.search(&repository, "partners/meet.json").unwrap().unwrap();
    assert_eq!((target.length, client.requests.as_slice()), (9, &["1.partners.json".to_owned()][..]));
    client.set.verify_target("partners/meet.json", b"a profile").unwrap();

    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.requests, ["2.root.json", "timestamp.json"]);
    assert_eq!(client.set.target("partners/meet.json"), None, "a refresh forgets what was found");
    assert!(client.search(&repository, "partners/meet.json").unwrap().is_some());
    assert_eq!(client.requests, Vec::<String>::new());
    assert!(client.set.lists(&RoleName::Delegated("partners".to_owned())));
    assert!(!client.set.lists(&RoleName::Delegated("partner".to_owned())));
}

#[test]
fn a_role_may_be_missing_in_the_store_and_not_in_the_repository() {
    let repository = delegating();
    let mut client = Client::refreshed(&repository);
    client.set.begin_search("partners/meet.json", Search::Online).unwrap();
    let in_store = client.set.next_request().unwrap();
    assert_eq!((in_store.source, in_store.may_be_missing), (Source::Store, true));
    client.set.feed(Fetched::Missing, now()).unwrap();
    let in_repository = client.set.next_request().unwrap();
    assert_eq!((in_repository.source, in_repository.may_be_missing), (Source::Repository, false));
    assert_eq!(client.set.feed(Fetched::Missing, now()).unwrap_err().code(), "missing");
}

#[test]
fn what_was_found_is_found_again_after_a_restart_without_the_repository_expired_or_not() {
    let mut repository = delegating();
    repository.delegated.get_mut("partners").unwrap().0["expires"] = json!("2026-06-02T00:00:00Z");
    republish(&mut repository);
    let mut client = Client::refreshed(&repository);
    client.search(&repository, "partners/meet.json").unwrap().unwrap();
    client.restart();
    assert_eq!(client.set.begin_search("partners/meet.json", Search::Online).unwrap_err().code(), "idle");
    client.set.begin_search("partners/meet.json", Search::Stored).unwrap();
    client.bring(&Repository::new(), at("2026-08-01T00:00:00Z")).unwrap();
    assert!(client.set.target("partners/meet.json").is_some());
    assert_eq!(client.requests, Vec::<String>::new());

    client.delegated.clear();
    client.set.begin_search("partners/meet.json", Search::Stored).unwrap();
    assert_eq!(client.bring(&repository, now()).unwrap_err().code(), "missing");
}

#[test]
fn a_search_that_fails_forgets_what_the_one_before_it_found() {
    let mut repository = delegating();
    let mut client = Client::refreshed(&repository);
    client.search(&repository, "partners/meet.json").unwrap().unwrap();
    client.delegated.clear();
    repository.files.remove("1.partners.json");
    assert_eq!(client.search(&repository, "partners/meet.json").unwrap_err().code(), "missing");
    assert_eq!(client.set.target("partners/meet.json"), None);
}

#[test]
fn a_search_ends_a_refresh_that_is_under_way_even_if_it_is_refused() {
    let mut client = Client::refreshed(&delegating());
    client.set.begin_refresh();
    assert_eq!(client.set.begin_search("partners/meet.json", Search::Online).unwrap_err().code(), "idle");
    assert_eq!(client.set.next_request(), None);
}

#[test]
fn a_role_is_asked_only_for_what_its_patterns_cover() {
    let mut repository = delegating();
    repository.add_delegated_target("partners", "operators/evil.json", b"x");
    repository.add_delegated_target("partners", "partners/deep/x.json", b"x");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    for name in ["operators/evil.json", "partners/deep/x.json"] {
        assert_eq!(client.search(&repository, name).unwrap(), None, "{name}");
        assert_eq!(client.requests, Vec::<String>::new());
    }
}

#[test]
fn the_top_level_role_comes_before_every_delegation() {
    let mut repository = delegating();
    repository.add_target("partners/meet.json", b"the vendor's own");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.search(&repository, "partners/meet.json").unwrap().unwrap().length, 16);
    assert_eq!(client.requests, Vec::<String>::new());
}

#[test]
fn the_search_goes_down_before_it_goes_on() {
    let mut repository = Repository::new();
    let all = || json!({"paths": ["*"]});
    repository.delegate(None, "a", 5, all());
    repository.delegate(None, "b", 6, all());
    repository.delegate(Some("a"), "a1", 7, all());
    repository.delegate(Some("a"), "a2", 8, all());
    repository.add_delegated_target("a2", "x", b"of a2");
    repository.add_delegated_target("b", "x", b"of b, later");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.search(&repository, "x").unwrap().unwrap().length, 5);
    assert_eq!(client.requests, ["1.a.json", "1.a1.json", "1.a2.json"]);
    assert_eq!(client.search(&repository, "y").unwrap(), None);
    assert_eq!(client.requests, ["1.b.json"], "the others are stored");
}

#[test]
fn a_terminating_role_ends_the_search() {
    let mut repository = Repository::new();
    repository.delegate(None, "a", 5, json!({"paths": ["*"]}));
    repository.delegate(Some("a"), "a1", 6, json!({"paths": ["*"], "terminating": true}));
    repository.delegate(Some("a"), "a2", 7, json!({"paths": ["*"]}));
    repository.delegate(None, "b", 8, json!({"paths": ["*"]}));
    repository.add_delegated_target("a2", "x", b"x");
    repository.add_delegated_target("b", "x", b"x");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.search(&repository, "x").unwrap(), None);
    assert_eq!(client.requests, ["1.a.json", "1.a1.json"]);
}

#[test]
fn circles_end() {
    let mut repository = Repository::new();
    let all = || json!({"paths": ["*"]});
    repository.delegate(None, "a", 5, all());
    repository.delegate(Some("a"), "b", 6, all());
    repository.delegate(Some("b"), "a", 5, all());
    repository.delegate(Some("b"), "b", 6, all());
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.search(&repository, "x").unwrap(), None);
    assert_eq!(client.requests, ["1.a.json", "1.b.json"]);
}

#[test]
fn a_search_through_ever_more_roles_is_given_up_without_an_answer() {
    let mut repository = Repository::new();
    let mut parent: Option<String> = None;
    for number in 0..40 {
        let name = format!("r{number}");
        repository.delegate(parent.as_deref(), &name, 5, json!({"paths": ["*"]}));
        parent = Some(name);
    }
    repository.add_delegated_target("r31", "near", b"x");
    repository.add_delegated_target("r39", "far", b"x");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert!(client.search(&repository, "near").unwrap().is_some());
    assert_eq!(client.search(&repository, "far").unwrap_err().code(), "delegations");
}

#[test]
fn bins_by_hash_prefix_and_succinct_bins_are_found() {
    // SHA-256 of "a" begins with ca97.
    let mut repository = Repository::new();
    repository.delegate(None, "other", 5, json!({"path_hash_prefixes": ["cb", "CA", "ca98"]}));
    repository.delegate(None, "bin", 5, json!({"path_hash_prefixes": ["00", "ca"]}));
    repository.add_delegated_target("bin", "a", b"x");
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert!(client.search(&repository, "a").unwrap().is_some());
    assert_eq!(client.requests, ["1.bin.json"]);

    let mut repository = Repository::new();
    repository.delegate(None, "bin-ca", 5, json!({"paths": []}));
    repository.add_delegated_target("bin-ca", "a", b"x");
    let keys = repository.targets["delegations"]["keys"].clone();
    let succinct = json!({"keyids": [key_id(5)], "threshold": 1, "bit_length": 8, "name_prefix": "bin"});
    repository.targets["delegations"] = json!({"keys": keys, "succinct_roles": succinct});
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert!(client.search(&repository, "a").unwrap().is_some());
    assert_eq!(client.requests, ["1.bin-ca.json"]);
}

#[test]
fn a_delegated_role_is_verified_like_any_other() {
    let mut repository = delegating();
    repository.delegated.get_mut("partners").unwrap().1 = vec![4];
    republish(&mut repository);
    assert_eq!(
        refused(&repository),
        "threshold",
        "the key of the delegating role is not the delegated one's"
    );

    let mut repository = delegating();
    repository.delegated.get_mut("partners").unwrap().0["expires"] = json!("2026-05-31T00:00:00Z");
    republish(&mut repository);
    assert_eq!(refused(&repository), "expired");

    let mut repository = delegating();
    repository.delegated.get_mut("partners").unwrap().0["_type"] = json!("snapshot");
    republish(&mut repository);
    assert_eq!(refused(&repository), "malformed");

    let mut repository = delegating();
    repository.files.get_mut("1.partners.json").unwrap().push(b' ');
    assert_eq!(refused(&repository), "length");

    let mut repository = delegating();
    let file = repository.files.get_mut("1.partners.json").unwrap();
    *file.last_mut().unwrap() = b' ';
    assert_eq!(refused(&repository), "hash");

    let mut repository = delegating();
    repository.files.remove("1.partners.json");
    assert_eq!(refused(&repository), "missing");

    let mut repository = delegating();
    repository.hashes = false;
    republish(&mut repository);
    let old = repository.files["1.partners.json"].clone();
    repository.delegated.get_mut("partners").unwrap().0["version"] = json!(2);
    republish(&mut repository);
    repository.files.insert("2.partners.json".to_owned(), old);
    assert_eq!(refused(&repository), "version");

    let mut repository = delegating();
    repository.snapshot["meta"].as_object_mut().unwrap().remove("partners.json");
    repository.delegated.clear();
    republish(&mut repository);
    assert_eq!(refused(&repository), "missing");
}

#[test]
fn a_delegated_role_of_an_absurd_length_is_not_fetched() {
    for (length, requests) in [(MAX_STATED_BYTES, vec!["1.partners.json"]), (MAX_STATED_BYTES + 1, vec![])] {
        let mut repository = delegating();
        repository.snapshot["meta"]["partners.json"]["length"] = json!(length);
        repository.serve(Role::Snapshot);
        repository.timestamp["meta"]["snapshot.json"] = json!({"version": 1});
        repository.serve(Role::Timestamp);
        let mut client = Client::refreshed(&repository);
        let error = client.search(&repository, "partners/meet.json").unwrap_err();
        assert_eq!(error.code(), "length");
        assert_eq!(client.requests, requests, "{length}");
    }
}

#[test]
fn a_delegated_role_needs_as_many_keys_as_its_delegation_says() {
    let mut repository = delegating();
    let delegations = &mut repository.targets["delegations"];
    delegations["keys"][key_id(6)] = delegations["keys"][key_id(5)].clone();
    delegations["roles"][0]["keyids"] = json!([key_id(5), key_id(6)]);
    delegations["roles"][0]["threshold"] = json!(2);
    republish(&mut repository);
    assert_eq!(refused(&repository), "threshold", "one key under two ids is one key");

    let mut repository = delegating();
    repository.delegate(None, "other", 6, json!({"paths": ["other"]}));
    repository.targets["delegations"]["roles"][0]["keyids"] = json!([key_id(5), key_id(6)]);
    repository.targets["delegations"]["roles"][0]["threshold"] = json!(2);
    repository.delegated.get_mut("partners").unwrap().1 = vec![5, 6];
    republish(&mut repository);
    let mut client = Client::refreshed(&repository);
    assert!(client.search(&repository, "partners/meet.json").unwrap().is_some());
}

#[test]
fn a_delegated_role_may_not_go_back_or_vanish() {
    let mut repository = delegating();
    repository.delegated.get_mut("partners").unwrap().0["version"] = json!(2);
    republish(&mut repository);
    let mut client = Client::refreshed(&repository);
    repository.delegated.get_mut("partners").unwrap().0["version"] = json!(1);
    republish(&mut repository);
    assert_eq!(client.refused(&repository).0, "rollback");

    let mut repository = delegating();
    let mut client = Client::refreshed(&repository);
    repository.snapshot["meta"].as_object_mut().unwrap().remove("partners.json");
    repository.delegated.clear();
    republish(&mut repository);
    assert_eq!(client.refused(&repository).0, "rollback");
}

#[test]
fn a_stored_role_that_is_damaged_or_old_is_fetched_again() {
    let mut repository = delegating();
    let mut client = Client::refreshed(&repository);
    client.search(&repository, "partners/meet.json").unwrap();
    client.delegated.get_mut("partners.json").unwrap().truncate(10);
    client.search(&repository, "partners/meet.json").unwrap().unwrap();
    assert_eq!(client.requests, ["1.partners.json"]);

    repository.delegated.get_mut("partners").unwrap().0["version"] = json!(2);
    repository.add_delegated_target("partners", "partners/meet.json", b"another profile");
    republish(&mut repository);
    client.refresh(&repository, now()).unwrap();
    assert_eq!(client.search(&repository, "partners/meet.json").unwrap().unwrap().length, 15);
    assert_eq!(client.requests, ["2.partners.json"]);
    client.search(&repository, "partners/meet.json").unwrap().unwrap();
    assert_eq!(client.requests, Vec::<String>::new());
}

#[test]
fn names_of_roles_cannot_leave_their_directory() {
    let mut repository = Repository::new();
    for (name, stem) in [("../x/é", "..%2Fx%2F%C3%A9"), ("a b", "a%20b"), ("..", "..")] {
        repository.delegate(None, name, 5, json!({"paths": [format!("{}/*", name.len())]}));
        assert_eq!(RoleName::Delegated(name.to_owned()).file_stem(), stem);
    }
    repository.publish();
    let mut client = Client::refreshed(&repository);
    assert_eq!(client.search(&repository, "7/x").unwrap(), None);
    assert_eq!(client.requests, ["1...%2Fx%2F%C3%A9.json"]);
}

#[test]
fn delegations_that_make_no_sense_are_refused() {
    let good = json!({"name": "p", "keyids": [], "threshold": 1, "terminating": true, "paths": ["*"]});
    let with = |field: &str, value: serde_json::Value| {
        let mut role = good.clone();
        role[field] = value;
        role
    };
    let mut without_paths = good.clone();
    without_paths.as_object_mut().unwrap().remove("paths");
    let bits = |bits: u32| json!({"keys": {}, "succinct_roles": {"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "b"}});
    let roles = |roles: Vec<serde_json::Value>| json!({"keys": {}, "roles": roles});
    let mut both = bits(1);
    both["roles"] = json!([]);
    let bins = |field: &str, value: serde_json::Value| {
        let mut bins = bits(1);
        bins["succinct_roles"][field] = value;
        bins
    };
    let bad = [
        roles(vec![with("name", json!("root"))]),
        roles(vec![with("name", json!(""))]),
        roles(vec![with("name", json!("n".repeat(201)))]),
        roles(vec![with("threshold", json!(0))]),
        roles(vec![with("threshold", json!(-1))]),
        roles(vec![with("path_hash_prefixes", json!(["a"]))]),
        roles(vec![with("terminating", json!(null))]),
        roles(vec![without_paths]),
        roles(vec![good.clone(), good.clone()]),
        json!({"keys": {}}),
        json!({"roles": []}),
        bits(0),
        bits(33),
        bins("threshold", json!(0)),
        bins("name_prefix", json!("")),
        bins("name_prefix", json!("n".repeat(201))),
        both,
    ];
    for delegations in bad {
        let mut repository = Repository::new();
        repository.targets["delegations"] = delegations.clone();
        repository.publish();
        assert_eq!(Client::new(&repository).refused(&repository).0, "malformed", "{delegations}");
    }
    let longest = with("name", json!("n".repeat(200)));
    for delegations in [roles(vec![]), roles(vec![good.clone()]), roles(vec![longest]), bits(1), bits(32)] {
        let mut repository = Repository::new();
        repository.targets["delegations"] = delegations;
        repository.publish();
        Client::refreshed(&repository);
    }
}
