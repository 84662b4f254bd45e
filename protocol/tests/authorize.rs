//! What separates an obeyed command from a refused one, to the byte and to the second.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests, too.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use vigil_protocol::authorize::{Device, Refusal, authorize, authorize_accepted};
use vigil_protocol::command::{Command, Reason, Scope, Target};
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::operators::{Operator, Operators};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Olga may do anything with any device.
fn operators() -> Operators {
    Operators {
        v: 1,
        tenant: "acme".into(),
        expires: at("2026-07-01T00:00:00Z"),
        operators: vec![Operator {
            name: "olga".into(),
            key: PublicKey::from(key(1).verifying_key()),
            scopes: vec![Scope::Observe, Scope::Operate, Scope::Update, Scope::Admin],
            devices: vec!["*".into()],
            groups: vec![],
            expires: at("2026-06-20T00:00:00Z"),
        }],
        thresholds: [].into(),
    }
}

fn command() -> Command {
    Command {
        v: 1,
        id: "c-1".into(),
        kind: "ping".into(),
        args: [].into(),
        tenant: "acme".into(),
        target: Target::Device("bar-1".into()),
        issued: at("2026-06-01T12:00:00Z"),
        expires: at("2026-06-01T12:10:00Z"),
        nonce: None,
    }
}

fn signed(command: &Command) -> Vec<u8> {
    let payload = serde_json::to_vec(command).unwrap();
    Envelope::sign(COMMAND_TYPE, &payload, &key(1)).to_json().into_bytes()
}

fn outcome(bytes: &[u8], now: &str) -> Result<String, Refusal> {
    let device = Device::new("bar-1", "acme", &[]);
    authorize(bytes, Some(&operators()), &device, at(now)).map(|authorized| authorized.operator)
}

fn reason(bytes: &[u8], now: &str) -> Result<String, Reason> {
    outcome(bytes, now).map_err(|refusal| refusal.reason)
}

const NOON: &str = "2026-06-01T12:00:00Z";

#[test]
fn an_envelope_of_32768_bytes_is_obeyed_and_one_byte_more_is_oversize() {
    let mut bytes = signed(&command());
    bytes.resize(32_768, b' ');
    assert_eq!(reason(&bytes, NOON), Ok("olga".into()));
    bytes.push(b' ');
    let refusal = outcome(&bytes, NOON).unwrap_err();
    assert_eq!(refusal.reason, Reason::Oversize);
    assert_eq!(refusal.message, "the envelope has 32769 bytes, more than the 32768 allowed");
    assert_eq!((refusal.claimed_id, refusal.claimed_kind), (None, None));
    // Small enough, but no envelope.
    assert_eq!(reason(b"{}", NOON), Err(Reason::Malformed));
}

#[test]
fn a_payload_of_another_format_or_with_an_id_that_is_no_name_is_malformed_whoever_signed_it() {
    for (v, id) in [(0, "c-1"), (2, "c-1"), (1, ""), (1, "../c-1"), (1, "c/1")] {
        let bytes = signed(&Command { v, id: id.into(), ..command() });
        let refusal = outcome(&bytes, NOON).unwrap_err();
        assert_eq!(refusal.reason, Reason::Malformed, "format {v}, id {id:?}");
        assert_eq!(refusal.claimed_id, None);
    }
}

#[test]
fn a_refusal_names_the_id_and_at_most_64_bytes_of_the_kind_that_were_claimed() {
    let kind = "é".repeat(40);
    let refusal = outcome(&signed(&Command { kind, ..command() }), NOON).unwrap_err();
    assert_eq!(refusal.reason, Reason::Unsupported);
    assert_eq!(refusal.claimed_id.as_deref(), Some("c-1"));
    // Thirty of two bytes each, and three for the ellipsis.
    assert_eq!(refusal.claimed_kind, Some("é".repeat(30) + "…"));
}

#[test]
fn a_command_may_be_valid_for_seven_days_to_the_second_and_for_no_less_than_nothing() {
    let lasting = |expires: &str| signed(&Command { expires: at(expires), ..command() });
    assert_eq!(reason(&lasting("2026-06-08T12:00:00Z"), NOON), Ok("olga".into()));
    assert_eq!(reason(&lasting("2026-06-08T12:00:01Z"), NOON), Err(Reason::Expired));
    // Of no length, it is valid before it is issued, as far as clocks may differ.
    assert_eq!(reason(&lasting("2026-06-01T12:00:00Z"), "2026-06-01T11:59:59Z"), Ok("olga".into()));
    assert_eq!(reason(&lasting("2026-06-01T11:59:59Z"), "2026-06-01T11:59:58Z"), Err(Reason::Expired));
}

#[test]
fn a_command_is_obeyed_from_300_seconds_before_its_issue_until_it_expires() {
    let bytes = signed(&command());
    assert_eq!(reason(&bytes, "2026-06-01T11:54:59Z"), Err(Reason::NotYetValid));
    assert_eq!(reason(&bytes, "2026-06-01T11:55:00Z"), Ok("olga".into()));
    assert_eq!(reason(&bytes, "2026-06-01T12:09:59Z"), Ok("olga".into()));
    assert_eq!(reason(&bytes, "2026-06-01T12:10:00Z"), Err(Reason::Expired));
    assert_eq!(reason(&bytes, "2026-06-01T12:10:01Z"), Err(Reason::Expired));
}

#[test]
fn a_key_and_a_list_mean_nothing_from_the_moment_in_which_they_expire() {
    let judge = |key_expires: &str, list_expires: &str| {
        let mut list = operators();
        list.operators[0].expires = at(key_expires);
        list.expires = at(list_expires);
        let bytes = signed(&Command { kind: "reboot".into(), ..command() });
        authorize(&bytes, Some(&list), &Device::new("bar-1", "acme", &[]), at(NOON))
            .map(|authorized| authorized.operator)
            .map_err(|refusal| refusal.reason)
    };
    let later = "2026-06-01T12:00:01Z";
    assert_eq!(judge(later, later), Ok("olga".into()));
    assert_eq!(judge(NOON, later), Err(Reason::OperatorExpired));
    assert_eq!(judge(later, NOON), Err(Reason::OperatorsExpired));
}

#[test]
fn an_accepted_command_that_is_still_valid_is_judged_as_of_now_and_not_as_of_its_last_second() {
    let mut list = operators();
    list.operators[0].expires = at("2026-06-01T12:09:59.2Z");
    let bytes = signed(&command());
    let device = Device::new("bar-1", "acme", &[]);
    let judge = |now: &str| {
        authorize_accepted(&bytes, Some(&list), &device, at(now)).map(drop).map_err(|refusal| refusal.reason)
    };
    assert_eq!(judge("2026-06-01T12:09:59.1Z"), Ok(()));
    assert_eq!(judge("2026-06-01T12:09:59.5Z"), Err(Reason::OperatorExpired));
    // Now it has expired, and its last second was within the key's time.
    assert_eq!(judge("2026-06-01T12:10:00Z"), Ok(()));
}

#[test]
fn a_signature_by_two_keys_of_which_one_is_listed_is_the_listed_ones() {
    let mut envelope = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command()).unwrap(), &key(9));
    envelope.cosign(&key(1)).unwrap();
    assert_eq!(reason(envelope.to_json().as_bytes(), NOON), Ok("olga".into()));
}

#[test]
fn a_threshold_counts_operators_and_more_than_enough_are_all_named() {
    let payload = serde_json::to_vec(&Command { kind: "config.apply".into(), ..command() }).unwrap();
    let mut list = operators();
    for (seed, name) in [(2, "otto"), (3, "oona")] {
        let operator = Operator {
            name: name.into(),
            key: PublicKey::from(key(seed).verifying_key()),
            ..list.operators[0].clone()
        };
        list.operators.push(operator);
    }
    let judge = |list: &Operators, signers: &[u8]| {
        let mut envelope = Envelope::sign(COMMAND_TYPE, &payload, &key(signers[0]));
        for signer in &signers[1..] {
            envelope.cosign(&key(*signer)).unwrap();
        }
        let device = Device::new("bar-1", "acme", &[]);
        authorize(envelope.to_json().as_bytes(), Some(list), &device, at(NOON))
            .map(|authorized| authorized.operator)
            .map_err(|refusal| refusal.message)
    };
    list.thresholds = [("config.apply".to_owned(), 2)].into();
    assert_eq!(
        judge(&list, &[1]),
        Err("config.apply must be signed by 2 operators, this is signed by 1".to_owned())
    );
    assert_eq!(judge(&list, &[1, 2]), Ok("olga+otto".into()));
    assert_eq!(judge(&list, &[1, 2, 3]), Ok("olga+otto+oona".into()));
    // A threshold of none is one of one.
    list.thresholds = [("config.apply".to_owned(), 0)].into();
    assert_eq!(judge(&list, &[1]), Ok("olga".into()));
    assert_eq!(judge(&list, &[9]), Err("not signed by a key of this tenant's operators list".to_owned()));
}
