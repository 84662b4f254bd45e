use super::*;
use ed25519_dalek::SigningKey;
use serde_json::json;

const PREFIX: &str = "vigil/v1";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}
fn public() -> PublicKey {
    PublicKey::from(key().verifying_key())
}

fn message(topic: &str, seq: u64) -> Vec<u8> {
    let mut body =
        json!({"v": 1, "device": "bar-1", "seq": seq, "at": "2026-06-01T12:00:00Z", "topic": topic});
    if topic == "presence" {
        body["status"] = "online".into();
        body["session"] = 7.into();
    }
    body.to_string().into_bytes()
}

fn presence(status: &str, seq: u64, session: u64) -> Vec<u8> {
    json!({"v": 1, "device": "bar-1", "seq": seq, "at": "2026-06-01T12:00:00Z", "status": status, "session": session})
        .to_string()
        .into_bytes()
}

fn digest_over(retained: &BTreeMap<String, Vec<u8>>) -> Digest {
    let topics = retained.iter().map(|(topic, payload)| {
        let seq = serde_json::from_slice::<Head>(payload).unwrap().seq;
        (topic.clone(), TopicDigest { seq, sha256: sha256_hex(payload) })
    });
    let checkpoint = Checkpoint { origin: format!("{PREFIX}/bar-1/audit"), size: 42, root: [9; 32] };
    Digest {
        v: 1,
        device: "bar-1".into(),
        seq: 20,
        at: "2026-06-01T12:00:01Z".parse().unwrap(),
        session: 7,
        nonce: "n".into(),
        clock_doubtful: false,
        topics: topics.collect(),
        checkpoint: checkpoint.sign(&key()),
    }
}

fn signed(digest: &Digest, key: &SigningKey) -> Vec<u8> {
    Envelope::sign(DIGEST_TYPE, &serde_json::to_vec(digest).unwrap(), key).to_json().into_bytes()
}

/// A healthy device: every topic at sequence 5, and a digest over them.
fn healthy() -> BTreeMap<String, Vec<u8>> {
    let mut retained: BTreeMap<_, _> = ["presence", "inventory", "health", "update", "config"]
        .map(|topic| (topic.to_owned(), message(topic, 5)))
        .into();
    let digest = signed(&digest_over(&retained), &key());
    retained.insert("digest".into(), digest);
    retained
}

fn judge(retained: &BTreeMap<String, Vec<u8>>) -> Report {
    check(PREFIX, "bar-1", &public(), retained)
}
fn outcome(retained: &BTreeMap<String, Vec<u8>>, topic: &str) -> Outcome {
    judge(retained).rows.iter().find(|row| row.topic == topic).unwrap().outcome
}

#[test]
fn a_healthy_device_is_fine_in_every_row() {
    let report = judge(&healthy());
    assert!(report.is_fine(), "{report:?}");
    assert_eq!((report.rows.len(), report.audit_size), (7, Some(42)));
    assert!(report.rows.iter().all(|row| row.outcome == Outcome::Ok));
}

#[test]
fn a_changed_byte_under_the_same_number_is_forged() {
    let mut retained = healthy();
    retained.get_mut("health").unwrap().push(b' ');
    assert_eq!(outcome(&retained, "health"), Outcome::Forged);
    assert!(!judge(&retained).is_fine());
}

#[test]
fn an_older_message_is_stale_a_newer_one_is_fine_until_its_time_is_up() {
    let mut retained = healthy();
    retained.insert("health".into(), message("health", 4));
    assert_eq!(outcome(&retained, "health"), Outcome::Stale);
    retained.insert("health".into(), message("health", 6));
    let mut report = judge(&retained);
    assert!(report.is_fine());
    let overdue = report.unproven();
    assert_eq!(overdue, BTreeSet::from(["health".to_owned()]));
    report.give_up_on(&overdue);
    assert!(!report.is_fine());
    assert!(report.rows.iter().any(|row| row.outcome == Outcome::Forged && row.topic == "health"));
}

#[test]
fn a_topic_that_the_digest_does_not_name_waits_for_one() {
    let mut retained = healthy();
    let config = retained.remove("config").unwrap();
    let digest = digest_over(
        &retained.iter().filter(|(t, _)| *t != "digest").map(|(t, p)| (t.clone(), p.clone())).collect(),
    );
    retained.insert("digest".into(), signed(&digest, &key()));
    retained.insert("config".into(), config);
    assert_eq!(outcome(&retained, "config"), Outcome::Newer);
}

#[test]
fn a_withheld_topic_is_missing() {
    let mut retained = healthy();
    retained.remove("update");
    assert_eq!(outcome(&retained, "update"), Outcome::Missing);
}

#[test]
fn another_devices_message_is_forged_even_under_a_higher_number() {
    let mut retained = healthy();
    let stolen = String::from_utf8(message("health", 9)).unwrap().replace("bar-1", "bar-2");
    retained.insert("health".into(), stolen.into_bytes());
    assert_eq!(outcome(&retained, "health"), Outcome::Forged);
}

#[test]
fn a_digest_by_another_key_of_another_device_or_of_another_kind_vouches_for_nothing() {
    let mut retained = healthy();
    let stranger = SigningKey::from_bytes(&[4; 32]);
    let states = healthy().into_iter().filter(|(topic, _)| topic != "digest").collect();
    let mut digest = digest_over(&states);
    retained.insert("digest".into(), signed(&digest, &stranger));
    let report = judge(&retained);
    assert!(report.rows.iter().all(|row| row.outcome == Outcome::Forged), "{report:?}");
    assert!(report.digest.is_none());

    digest.device = "bar-2".into();
    retained.insert("digest".into(), signed(&digest, &key()));
    assert_eq!(outcome(&retained, "digest"), Outcome::Forged);

    let wrong = Envelope::sign("application/vnd.vigil.command+json", b"{}", &key()).to_json();
    retained.insert("digest".into(), wrong.into_bytes());
    assert_eq!(outcome(&retained, "digest"), Outcome::Forged);

    retained.remove("digest");
    assert_eq!(outcome(&retained, "digest"), Outcome::Missing);
}

#[test]
fn the_brokers_will_is_accepted_for_this_session_and_stale_for_an_earlier_one() {
    let mut retained = healthy();
    retained.insert("presence".into(), presence("lost", 5, 7));
    assert_eq!(outcome(&retained, "presence"), Outcome::Will);
    assert!(judge(&retained).is_fine());
    retained.insert("presence".into(), presence("lost", 5, 6));
    assert_eq!(outcome(&retained, "presence"), Outcome::Stale);
}

#[test]
fn a_good_bye_after_the_digest_needs_no_newer_digest_but_a_birth_does() {
    let mut retained = healthy();
    retained.insert("presence".into(), presence("offline", 6, 7));
    let mut report = judge(&retained);
    report.give_up_on(&report.unproven());
    assert!(report.is_fine(), "{report:?}");
    retained.insert("presence".into(), presence("online", 6, 8));
    let mut report = judge(&retained);
    report.give_up_on(&report.unproven());
    assert!(!report.is_fine(), "{report:?}");
    retained.insert("presence".into(), presence("offline", 5, 7));
    assert_eq!(outcome(&retained, "presence"), Outcome::Forged);
}

#[test]
fn a_checkpoint_by_another_key_or_of_another_log_is_forged() {
    let states: BTreeMap<_, _> = healthy().into_iter().filter(|(topic, _)| topic != "digest").collect();
    for (origin, seed) in [("vigil/v1/bar-1/audit", 4), ("vigil/v1/bar-2/audit", 3)] {
        let mut digest = digest_over(&states);
        digest.checkpoint = Checkpoint { origin: origin.into(), size: 1, root: [0; 32] }
            .sign(&SigningKey::from_bytes(&[seed; 32]));
        let mut retained = states.clone();
        retained.insert("digest".into(), signed(&digest, &key()));
        assert_eq!(outcome(&retained, "audit"), Outcome::Forged);
    }
}

#[test]
fn neither_digest_nor_log_goes_back_behind_an_earlier_check() {
    let mut report = judge(&healthy());
    report.hold_against(20, 42, None);
    assert!(report.is_fine());
    report.hold_against(21, 43, None);
    let stale: Vec<_> = report.rows.iter().filter(|row| row.outcome == Outcome::Stale).collect();
    assert_eq!(stale.len(), 2, "{report:?}");
}

#[test]
fn an_audit_log_that_was_deleted_rewritten_or_put_back_is_named() {
    let other = "ab".repeat(32);
    let told = |size: u64, root: Option<&str>| {
        let mut report = judge(&healthy());
        report.hold_against(1, size, root);
        let row = report.rows.iter().find(|row| row.topic == "audit").unwrap();
        (row.outcome, row.note.clone())
    };
    let own = judge(&healthy()).audit_root.unwrap();
    assert_eq!(told(42, Some(&own)).0, Outcome::Ok);
    let (outcome, note) = told(42, Some(&other));
    assert!(outcome == Outcome::Forged && note.contains("was rewritten"), "{note}");
    let (outcome, note) = told(43, Some(&other));
    assert!(outcome == Outcome::Stale && note.contains("put back to an old copy"), "{note}");
    // Grown past it, only a proof tells.
    let report = judge(&healthy());
    assert!(report.has_grown_since(41) && !report.has_grown_since(42) && !report.has_grown_since(0));
}

#[test]
fn a_closed_incident_is_one_that_the_broker_does_not_keep() {
    const INCIDENT: &str = "incident/operators-expired";
    let mut retained = healthy();
    retained.remove("digest");
    let mut digest = digest_over(&retained);
    digest.topics.insert(INCIDENT.into(), TopicDigest { seq: 6, sha256: sha256_hex(b"") });
    retained.insert("digest".into(), signed(&digest, &key()));
    assert_eq!(outcome(&retained, INCIDENT), Outcome::Ok);
    retained.insert(INCIDENT.into(), Vec::new());
    assert_eq!(outcome(&retained, INCIDENT), Outcome::Ok, "the tombstone as it comes");
    retained.insert(INCIDENT.into(), message(INCIDENT, 5));
    assert_eq!(outcome(&retained, INCIDENT), Outcome::Stale, "kept although it is closed");
    retained.insert("health".into(), Vec::new());
    assert_eq!(outcome(&retained, "health"), Outcome::Missing, "nothing else may be empty");
    retained.insert("digest".into(), Vec::new());
    assert_eq!(outcome(&retained, "digest"), Outcome::Forged);
}

#[test]
fn garbage_of_any_size_is_forged_and_never_a_panic() {
    let mut retained = healthy();
    let nested = "[".repeat(100_000).into_bytes();
    for garbage in [vec![0xff; 300_000], nested, b"null".to_vec(), b"{\"seq\":-1}".to_vec()] {
        for topic in ["presence", "health", "digest"] {
            let mut changed = retained.clone();
            changed.insert(topic.into(), garbage.clone());
            assert_eq!(outcome(&changed, topic), Outcome::Forged);
        }
    }
    retained.insert("result/\u{1b}[2J".into(), vec![1; 10]);
    assert!(judge(&retained).is_fine());
}
