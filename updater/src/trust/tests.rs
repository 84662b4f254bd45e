//! Rounds against a repository in memory.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;
use vigil_protocol::trusted::{REMEDIES, operators_target, partner_target};
use vigil_tuf::{Fetched, Role};

use super::*;

#[path = "../../tuf/tests/trusted_set/repository.rs"]
#[allow(dead_code)]
mod repository;

use repository::Repository;

const REMEDY: &str =
    r#"{"v":1,"remedies":[{"id":"cable","signals":["camera.missing"],"title":"Plug it in"}]}"#;

fn operators(name: &str) -> String {
    let key = vigil_protocol::keys::PublicKey::from(repository::key(9).verifying_key());
    json!({"v": 1, "tenant": "acme", "expires": "2026-12-01T00:00:00Z", "operators": [
        {"name": name, "key": key, "scopes": ["observe"], "devices": ["*"], "expires": "2026-12-01T00:00:00Z"}
    ]})
    .to_string()
}

fn profile(title: &str) -> String {
    json!({"v": 1, "name": "meet", "title": title, "endpoints": [{"name": "web", "host": "meet.example"}]})
        .to_string()
}

/// A vendor who has documents in the top-level role and in delegated ones, and a device of theirs.
struct Room {
    repository: Repository,
    documents: BTreeMap<String, Vec<u8>>,
    state: TempDir,
    trust: Trust,
    requests: Vec<String>,
    boot: Duration,
}

impl Room {
    fn new() -> Self {
        let mut repository = Repository::new();
        repository.delegate(None, "partners", 5, json!({"paths": ["partners/*"]}));
        repository.delegate(None, "care", 6, json!({"paths": ["operators/*", "remedies.json"]}));
        repository.targets["targets"] = json!({});
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("root.json"), &repository.files["1.root.json"]).unwrap();
        let boot = Duration::from_secs(100);
        let trust = open(&state, boot);
        let mut room =
            Self { repository, documents: BTreeMap::new(), state, trust, requests: Vec::new(), boot };
        room.put("care", &operators_target("acme"), &operators("alice"));
        room.put("care", REMEDIES, REMEDY);
        room.put("partners", &partner_target("meet"), &profile("Meet"));
        room.publish();
        room.trust.follow(vec!["meet".to_owned()]).unwrap();
        room
    }

    fn put(&mut self, role: &str, name: &str, content: &str) {
        self.repository.add_delegated_target(role, name, content.as_bytes());
        self.documents.insert(name.to_owned(), content.as_bytes().to_vec());
    }

    fn withdraw(&mut self, role: &str, name: &str) {
        self.repository.delegated.get_mut(role).unwrap().0["targets"].as_object_mut().unwrap().remove(name);
    }

    /// Publishes a new version of everything.
    fn publish(&mut self) {
        for (signed, _) in self.repository.delegated.values_mut() {
            signed["version"] = json!(signed["version"].as_u64().unwrap() + 1);
        }
        self.repository.publish_next();
    }

    fn now(&self) -> Now {
        Now { wall: repository::now(), boot: self.boot }
    }

    fn restart(&mut self) {
        self.trust = open(&self.state, self.boot);
    }

    fn refresh(&mut self) -> Result<Progress, TrustError> {
        self.trust.begin_refresh(self.now());
        self.bring()
    }

    /// Brings whatever is wanted, until nothing is.
    fn bring(&mut self) -> Result<Progress, TrustError> {
        self.requests.clear();
        let mut progress = Progress::More;
        while let Some(wanted) = self.trust.wanted() {
            let file = match &wanted {
                Wanted::Metadata(request) => {
                    self.requests.push(request.path.clone());
                    self.repository.files.get(&request.path)
                }
                Wanted::Target { name, .. } => {
                    self.requests.push(name.clone());
                    self.documents.get(name)
                }
            };
            let fetched = file.map_or(Fetched::Missing, |bytes| Fetched::Bytes(bytes));
            progress = self.trust.take(&wanted, fetched, self.now())?;
        }
        Ok(progress)
    }

    fn operator(&self) -> Option<&str> {
        Some(&self.trust.operators()?.operators.first()?.name)
    }

    fn title(&self) -> Option<String> {
        let bytes = self.trust.document(&partner_target("meet")).unwrap()?;
        Some(vigil_protocol::trusted::PartnerProfile::parse(&bytes).unwrap().title)
    }

    fn kept(&self) -> Vec<&str> {
        self.trust.kept.keys().map(String::as_str).collect()
    }
}

fn open(state: &TempDir, boot: Duration) -> Trust {
    let now = Now { wall: repository::now(), boot };
    let (trust, dropped) = Trust::open(state.path(), &state.path().join("root.json"), "acme", now).unwrap();
    assert_eq!(dropped, Vec::<String>::new());
    trust
}

#[test]
fn a_round_brings_the_metadata_and_every_document_that_the_device_keeps() {
    let mut room = Room::new();
    assert_eq!(room.refresh().unwrap(), Progress::Refreshed);
    assert_eq!(room.operator(), Some("alice"));
    assert_eq!(room.kept(), ["operators/acme.json", "partners/meet.json", "remedies.json"]);
    assert_eq!(room.trust.document(REMEDIES).unwrap().unwrap(), REMEDY.as_bytes());
    assert_eq!(room.requests.len(), 4 + 2 + 3, "{:?}", room.requests);
    assert!(!room.trust.is_busy());
}

#[test]
fn an_unchanged_repository_costs_two_requests_also_after_a_restart() {
    let mut room = Room::new();
    room.refresh().unwrap();
    assert_eq!(room.refresh().unwrap(), Progress::Refreshed);
    assert_eq!(room.requests, ["2.root.json", "timestamp.json"]);
    room.restart();
    room.trust.follow(vec!["meet".to_owned()]).unwrap();
    assert_eq!((room.operator(), room.title().as_deref()), (Some("alice"), Some("Meet")));
    room.refresh().unwrap();
    assert_eq!(room.requests, ["2.root.json", "timestamp.json"]);
}

#[test]
fn a_changed_document_is_fetched_and_a_withdrawn_one_is_revoked() {
    let mut room = Room::new();
    room.refresh().unwrap();
    room.put("care", &operators_target("acme"), &operators("bob"));
    room.withdraw("care", REMEDIES);
    room.publish();
    room.refresh().unwrap();
    assert_eq!(room.operator(), Some("bob"));
    assert_eq!(room.kept(), ["operators/acme.json", "partners/meet.json"]);
    let notes: Vec<_> = room.trust.take_notes().into_iter().map(|(_, message)| message).collect();
    assert!(notes.contains(&"remedies.json is revoked".to_owned()), "{notes:?}");

    room.withdraw("care", &operators_target("acme"));
    room.publish();
    room.refresh().unwrap();
    assert_eq!(room.operator(), None, "a tenant without a list has no operators");
    room.restart();
    assert_eq!(room.operator(), None);
}

#[test]
fn another_tenants_list_means_nothing() {
    let mut room = Room::new();
    room.put("care", &operators_target("acme"), &operators("mallory").replace("acme", "other"));
    room.publish();
    let error = room.refresh().unwrap_err();
    assert!(error.to_string().contains("tenant \"other\""), "{error}");
    assert_eq!(room.operator(), None);
}

#[test]
fn a_bad_profile_leaves_the_old_one_and_holds_nothing_else_up() {
    let mut room = Room::new();
    room.refresh().unwrap();
    room.put("partners", &partner_target("meet"), "{}");
    room.put("care", &operators_target("acme"), &operators("bob"));
    room.publish();
    assert_eq!(room.refresh().unwrap(), Progress::Refreshed);
    assert_eq!((room.operator(), room.title().as_deref()), (Some("bob"), Some("Meet")));
    let (kind, message) = room.trust.take_notes().pop().unwrap();
    assert_eq!(kind, "trust.problem");
    assert!(message.contains("partners/meet.json stays as it was"), "{message}");
}

#[test]
fn a_partners_role_that_is_withheld_or_forged_holds_nothing_else_up() {
    for forge in [false, true] {
        let mut room = Room::new();
        room.put("care", &operators_target("acme"), &operators("bob"));
        room.publish();
        let version = room.repository.delegated["partners"].0["version"].clone();
        let path = format!("{version}.partners.json");
        if forge {
            room.repository.files.insert(path, b"{}".to_vec());
        } else {
            room.repository.files.remove(&path);
        }
        assert_eq!(room.refresh().unwrap(), Progress::Refreshed);
        assert_eq!((room.operator(), room.title()), (Some("bob"), None));
    }
}

#[test]
fn an_operators_list_that_cannot_be_had_fails_the_round_and_the_next_goes_on() {
    let mut room = Room::new();
    room.refresh().unwrap();
    room.put("care", &operators_target("acme"), &operators("bob"));
    room.publish();
    let bytes = room.documents.remove(&operators_target("acme")).unwrap();
    assert!(room.refresh().is_err());
    assert!(!room.trust.is_busy());
    assert_eq!(room.operator(), Some("alice"), "until its own expiry");
    room.documents.insert(operators_target("acme"), bytes);
    assert_eq!(room.refresh().unwrap(), Progress::Refreshed);
    assert_eq!(room.operator(), Some("bob"));
}

#[test]
fn profiles_that_nobody_follows_and_roles_that_are_not_listed_are_removed() {
    let mut room = Room::new();
    room.refresh().unwrap();
    let stray = room.state.path().join("trust/delegated/gone.json");
    std::fs::write(&stray, b"{}").unwrap();
    room.trust.follow(Vec::new()).unwrap();
    room.refresh().unwrap();
    assert_eq!(room.kept(), ["operators/acme.json", "remedies.json"]);
    assert!(!stray.exists());
    assert!(room.state.path().join("trust/delegated/partners.json").exists(), "it may be followed again");
}

#[test]
fn only_so_many_partners_and_only_by_name_are_followed() {
    let mut room = Room::new();
    assert!(room.trust.follow(vec!["../operators/acme".to_owned()]).is_err());
    assert!(room.trust.follow((0..17).map(|number| format!("p{number}")).collect()).is_err());
    assert!(room.trust.follow((0..16).map(|number| format!("p{number}")).collect()).is_ok());
}

#[test]
fn a_stored_document_that_was_tampered_with_is_dropped_and_fetched_again() {
    let mut room = Room::new();
    room.refresh().unwrap();
    let file = room.state.path().join("trust/documents/operators%2Facme.json");
    std::fs::write(&file, operators("mallory")).unwrap();
    let now = room.now();
    let (trust, dropped) =
        Trust::open(room.state.path(), &room.state.path().join("root.json"), "acme", now).unwrap();
    assert_eq!((trust.operators(), dropped.len()), (None, 1));
    room.trust = trust;
    room.refresh().unwrap();
    assert_eq!(room.operator(), Some("alice"));
}

#[test]
fn a_round_that_takes_too_long_is_given_up() {
    let mut room = Room::new();
    room.trust.begin_refresh(room.now());
    room.boot += ROUND_DEADLINE + Duration::from_secs(1);
    assert!(matches!(room.bring(), Err(TrustError::Courier(_))));
    assert!(!room.trust.is_busy());
    assert_eq!(room.refresh().unwrap(), Progress::Refreshed);

    // Not even a document that is not needed may hold a round up for ever.
    room.put("partners", &partner_target("meet"), &profile("Other"));
    room.publish();
    let bytes = room.documents.remove(&partner_target("meet"));
    room.trust.begin_refresh(room.now());
    while !matches!(room.trust.wanted(), Some(Wanted::Target { .. })) {
        let Some(Wanted::Metadata(request)) = room.trust.wanted() else { panic!("nothing is wanted") };
        let file = room.repository.files.get(&request.path);
        let fetched = file.map_or(Fetched::Missing, |bytes| Fetched::Bytes(bytes));
        let now = room.now();
        room.trust.take(&Wanted::Metadata(request.clone()), fetched, now).unwrap();
    }
    room.boot += ROUND_DEADLINE + Duration::from_secs(1);
    assert!(room.trust.is_overdue(room.now()));
    assert!(room.trust.fetch_failed("slow", room.now()).is_err());
    assert!(!room.trust.is_busy() && bytes.is_some());
}

#[test]
fn a_manifest_is_sought_through_the_delegations_after_a_refresh() {
    let mut room = Room::new();
    room.repository.delegate(None, "bar", 7, json!({"paths": ["releases/bar/*"]}));
    room.put("bar", "releases/bar/1.0.0.json", "{}");
    room.publish();
    let name = "releases/bar/1.0.0.json";
    assert_eq!(room.trust.seek(name, room.now()).unwrap(), Progress::More, "it refreshes first");
    room.bring().unwrap();
    assert_eq!(room.trust.sought(), None);
    room.trust.seek(name, room.now()).unwrap();
    assert_eq!(room.bring().unwrap(), Progress::Sought);
    assert_eq!((room.trust.sought(), room.requests.as_slice()), (Some(name), &["2.bar.json".to_owned()][..]));
    assert!(room.trust.set().target(name).is_some());
    room.trust.seek("releases/bar/9.json", room.now()).unwrap();
    assert_eq!(
        (room.trust.sought(), room.trust.set().target("releases/bar/9.json")),
        (Some("releases/bar/9.json"), None)
    );
}

#[test]
fn the_status_says_when_nothing_newer_comes_and_when_the_list_has_expired() {
    let mut room = Room::new();
    room.repository.timestamp["issued"] = json!("2026-05-31T00:00:00Z");
    room.publish();
    room.refresh().unwrap();
    let fresh = room.trust.status(room.now());
    assert_eq!((fresh.frozen, fresh.operators_expired, fresh.clock_behind), (false, false, false));
    assert_eq!(fresh.metadata["root"], 1);
    assert!(fresh.refreshed_at.is_some());

    let at = |wall: &str| Now { wall: wall.parse().unwrap(), boot: room.boot };
    let status = room.trust.status(at("2026-12-15T00:00:00Z"));
    assert_eq!((status.frozen, status.operators_expired), (false, true));
    assert!(room.trust.status(at("2027-01-01T00:00:00Z")).frozen);
    let status = room.trust.status(Now { wall: Timestamp::UNIX_EPOCH, boot: room.boot });
    assert_eq!((status.clock_behind, status.frozen), (true, false));
}

#[test]
fn with_a_clock_in_1970_a_withheld_repository_is_frozen_after_the_time_its_timestamp_allowed() {
    let mut room = Room::new();
    room.repository.timestamp["issued"] = json!("2026-05-31T00:00:00Z");
    room.repository.timestamp["expires"] = json!("2026-06-14T00:00:00Z");
    room.publish();
    room.refresh().unwrap();
    assert_eq!(room.trust.set().version(Role::Timestamp), Some(3));
    let day = Duration::from_secs(24 * 3600);
    let in_1970 = |boot| Now { wall: Timestamp::UNIX_EPOCH, boot };
    let began = room.boot;
    assert!(!room.trust.status(in_1970(began + 13 * day)).frozen);
    assert!(room.trust.status(in_1970(began + 15 * day)).frozen);
    // Switched off and on again after a week: the week counts.
    room.trust.keep_time(in_1970(began + 7 * day)).unwrap();
    let (trust, _) =
        Trust::open(room.state.path(), &room.state.path().join("root.json"), "acme", in_1970(Duration::ZERO))
            .unwrap();
    assert!(!trust.status(in_1970(6 * day)).frozen);
    assert!(trust.status(in_1970(8 * day)).frozen);
}
