//! Whether a device obeys an envelope: a pure decision, made by `vigild`, again by `vigil-updaterd`, and ahead of
//! time by the operator's tools. Replay is decided separately, by whoever keeps the ids.

use jiff::{SignedDuration, Timestamp};

use crate::command::{Command, Kind, Reason, Scope, Target};
use crate::envelope::{COMMAND_TYPE, Envelope, EnvelopeError};
use crate::limits;
use crate::operators::{Operator, Operators};
use crate::topic::is_name;

/// The device a command is held against.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// The device's id.
    pub id: &'a str,
    /// The one tenant it is bound to.
    pub tenant: &'a str,
    /// The groups that its configuration names.
    pub groups: &'a [String],
    /// The nonce of its session with the broker, for whoever has one.
    pub nonce: Option<&'a str>,
    /// Whether its clock may say anything: then a command must carry the nonce, and its times are not looked at.
    pub clock_doubtful: bool,
}

impl<'a> Device<'a> {
    /// A device whose clock is sound and that has no session.
    pub fn new(id: &'a str, tenant: &'a str, groups: &'a [String]) -> Self {
        Self { id, tenant, groups, nonce: None, clock_doubtful: false }
    }
}

/// A command that may run, once its id is known to be new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// The command.
    pub command: Command,
    /// Its kind, one that this version knows.
    pub kind: Kind,
    /// Who signed it, by name; several names are joined by `+`.
    pub operator: String,
}

/// A command that may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// For a person.
    pub message: String,
    /// The id that the refused envelope claims, if it is a name. Nobody has vouched for it.
    pub claimed_id: Option<String>,
    /// The kind that the refused envelope claims.
    pub claimed_kind: Option<String>,
}

/// Decides whether `device` may run the command in `bytes` at the time `now`. `operators` is the verified list of
/// the device's tenant, if it has one.
pub fn authorize(
    bytes: &[u8],
    operators: Option<&Operators>,
    device: &Device<'_>,
    now: Timestamp,
) -> Result<Authorized, Refusal> {
    let envelope = Envelope::parse(bytes, COMMAND_TYPE, limits::COMMAND_BYTES).map_err(|error| Refusal {
        reason: match error {
            EnvelopeError::TooLarge(..) => Reason::Oversize,
            _ => Reason::Malformed,
        },
        message: error.to_string(),
        claimed_id: None,
        claimed_kind: None,
    })?;
    let command = read_command(&envelope).map_err(|message| Refusal {
        reason: Reason::Malformed,
        message,
        claimed_id: None,
        claimed_kind: None,
    })?;
    match decide_envelope(&envelope, &command, operators, device, now) {
        Ok((kind, operator)) => Ok(Authorized { command, kind, operator }),
        Err((reason, message)) => {
            let kind = vigil_text::clean(&command.kind, 64);
            Err(Refusal { reason, message, claimed_id: Some(command.id), claimed_kind: Some(kind) })
        }
    }
}

/// Decides once more about a command that was accepted in time. What it began may outlast its validity, so that one
/// that has expired since is judged as of its last second: whatever else the newest list says of its signer counts.
pub fn authorize_accepted(
    bytes: &[u8],
    operators: Option<&Operators>,
    device: &Device<'_>,
    now: Timestamp,
) -> Result<Authorized, Refusal> {
    let refusal = match authorize(bytes, operators, device, now) {
        Err(refusal) if refusal.reason == Reason::Expired => refusal,
        result => return result,
    };
    let last_second = || {
        let envelope = Envelope::parse(bytes, COMMAND_TYPE, limits::COMMAND_BYTES).ok()?;
        read_command(&envelope).ok()?.expires.checked_sub(SignedDuration::from_secs(1)).ok()
    };
    match last_second() {
        Some(then) => authorize(bytes, operators, device, then.min(now)),
        None => Err(refusal),
    }
}

fn read_command(envelope: &Envelope) -> Result<Command, String> {
    let payload = envelope.payload_bytes().map_err(|error| error.to_string())?;
    let command: Command = serde_json::from_slice(&payload)
        .map_err(|error| format!("not a command: {}", vigil_text::json_fault(&error)))?;
    if command.v != 1 {
        return Err(format!("command of format {}; this version reads format 1", command.v));
    }
    if !is_name(&command.id) {
        return Err("the command's id is no name of 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
    }
    Ok(command)
}

fn decide_envelope(
    envelope: &Envelope,
    command: &Command,
    operators: Option<&Operators>,
    device: &Device<'_>,
    now: Timestamp,
) -> Result<(Kind, String), (Reason, String)> {
    let listed = operators.map(|list| list.operators.as_slice()).unwrap_or_default();
    let signers = envelope.signers(listed.iter().map(|operator| &operator.key));
    decide(command, &signers, operators, device, now).map_err(|(reason, message)| {
        let named = envelope
            .signatures
            .iter()
            .any(|signature| listed.iter().any(|operator| operator.key.id() == signature.keyid));
        match reason {
            Reason::UnknownKey if named => (Reason::BadSignature, "the signature does not verify".to_owned()),
            _ => (reason, message),
        }
    })
}

/// The decision itself, over a command that the operators at the positions `signers` of the list have signed, or
/// would sign. Gives the kind and the names of those who may, or the reason against it, as a code and for a person.
///
/// A device asks [`authorize`], which finds out by the signatures who has signed.
pub fn decide(
    command: &Command,
    signers: &[usize],
    operators: Option<&Operators>,
    device: &Device<'_>,
    now: Timestamp,
) -> Result<(Kind, String), (Reason, String)> {
    let refuse = |reason: Reason, message: &str| Err((reason, message.to_owned()));

    // Who signed comes first: nothing else in the payload is worth looking at before someone vouches for it.
    let Some(operators) = operators else {
        return refuse(
            Reason::NoOperators,
            "no verified operators list; the device has not reached its repository",
        );
    };
    if operators.tenant != device.tenant {
        return refuse(Reason::NoOperators, "the operators list is another tenant's");
    }
    let signers: Vec<&Operator> =
        signers.iter().filter_map(|position| operators.operators.get(*position)).collect();
    if signers.is_empty() {
        return refuse(Reason::UnknownKey, "not signed by a key of this tenant's operators list");
    }
    if command.tenant != device.tenant {
        return refuse(Reason::WrongTenant, "signed for another tenant");
    }
    let for_us = match &command.target {
        Target::Device(id) => id == device.id,
        Target::Group(group) => device.groups.contains(group),
    };
    if !for_us {
        return refuse(Reason::WrongTarget, "signed for another device or group");
    }
    decide_nonce(command, device)?;
    // The nonce says that the command is of now.
    decide_time(command, if device.clock_doubtful { command.issued } else { now })?;
    let Some(kind) = Kind::from_name(&command.kind) else {
        return refuse(Reason::Unsupported, "this version does not know the kind of command");
    };
    if operators.expires <= now && kind.scope() != Scope::Observe {
        return refuse(Reason::OperatorsExpired, "the operators list has expired; only 'observe' is allowed");
    }

    let mut best = (Reason::NotPermitted, "the key is not granted this scope, or not for this device");
    let mut names = Vec::new();
    for operator in signers {
        if !operator.scopes.contains(&kind.scope()) || !operator.covers(device.id, device.groups) {
            continue;
        }
        if operator.expires <= now {
            best = (Reason::OperatorExpired, "the operator's key has expired");
            continue;
        }
        // A person with two keys is still one person.
        if !names.contains(&operator.name.as_str()) {
            names.push(operator.name.as_str());
        }
    }
    let threshold = operators.thresholds.get(kind.name()).copied().unwrap_or(1).max(1) as usize;
    match names.len() {
        0 => refuse(best.0, best.1),
        count if count < threshold => Err((
            Reason::TooFewSignatures,
            format!("{} must be signed by {threshold} operators, this is signed by {count}", kind.name()),
        )),
        _ => Ok((kind, names.join("+"))),
    }
}

fn decide_nonce(command: &Command, device: &Device<'_>) -> Result<(), (Reason, String)> {
    match (&command.nonce, device.nonce) {
        (Some(nonce), Some(ours)) if nonce != ours => {
            Err((Reason::WrongNonce, "signed for another session of this device; read its newest digest".to_owned()))
        }
        (None, _) if device.clock_doubtful => Err((
            Reason::NonceRequired,
            "the device does not trust its clock; sign the nonce of its newest digest (vigil-fleet send --nonce)"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn decide_time(command: &Command, now: Timestamp) -> Result<(), (Reason, String)> {
    let lifetime = command.expires.as_second() - command.issued.as_second();
    if !(0..=limits::COMMAND_LIFETIME_SECONDS).contains(&lifetime) {
        return Err((Reason::Expired, "valid for longer than 7 days, or for less than no time".to_owned()));
    }
    if command.expires <= now {
        return Err((
            Reason::Expired,
            format!("expired at {}; the device's clock says {now:.0}", command.expires),
        ));
    }
    if command.issued.as_second() > now.as_second() + limits::COMMAND_SKEW_SECONDS {
        return Err((
            Reason::NotYetValid,
            format!("issued at {}; the device's clock says {now:.0}", command.issued),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PublicKey;
    use ed25519_dalek::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }
    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
    fn now() -> Timestamp {
        at("2026-06-01T12:00:00Z")
    }

    fn operators() -> Operators {
        Operators {
            v: 1,
            tenant: "acme".into(),
            expires: at("2026-07-01T00:00:00Z"),
            operators: vec![
                Operator {
                    name: "olga".into(),
                    key: PublicKey::from(key(1).verifying_key()),
                    scopes: vec![Scope::Observe, Scope::Operate],
                    devices: vec!["*".into()],
                    groups: vec![],
                    expires: at("2026-06-20T00:00:00Z"),
                },
                Operator {
                    name: "otto".into(),
                    key: PublicKey::from(key(2).verifying_key()),
                    scopes: vec![Scope::Update],
                    devices: vec![],
                    groups: vec!["floor-3".into()],
                    expires: at("2026-06-20T00:00:00Z"),
                },
            ],
            thresholds: [("config.apply".to_owned(), 2)].into(),
        }
    }

    fn command(kind: &str) -> Command {
        Command {
            v: 1,
            id: "c-1".into(),
            kind: kind.into(),
            args: [].into(),
            tenant: "acme".into(),
            target: Target::Device("bar-1".into()),
            issued: at("2026-06-01T11:59:00Z"),
            expires: at("2026-06-01T12:10:00Z"),
            nonce: None,
        }
    }

    fn outcome_at(
        command: &Command,
        signer: u8,
        groups: &[String],
        now: Timestamp,
    ) -> Result<String, Reason> {
        let envelope = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(command).unwrap(), &key(signer));
        let device = Device::new("bar-1", "acme", groups);
        authorize(envelope.to_json().as_bytes(), Some(&operators()), &device, now)
            .map(|authorized| authorized.operator)
            .map_err(|refusal| refusal.reason)
    }

    fn outcome(command: &Command, signer: u8) -> Result<String, Reason> {
        outcome_at(command, signer, &["floor-3".to_owned()], now())
    }

    #[test]
    fn a_signed_command_within_its_scope_is_allowed_and_names_its_operator() {
        assert_eq!(outcome(&command("ping"), 1), Ok("olga".into()));
        assert_eq!(outcome(&command("diagnose"), 1), Ok("olga".into()));
        assert_eq!(outcome(&command("update.install"), 2), Ok("otto".into()));
    }

    #[test]
    fn a_key_is_refused_beyond_its_scope_and_its_groups() {
        assert_eq!(outcome(&command("update.install"), 1), Err(Reason::NotPermitted));
        assert_eq!(outcome(&command("ping"), 2), Err(Reason::NotPermitted));
        assert_eq!(outcome_at(&command("update.install"), 2, &[], now()), Err(Reason::NotPermitted));
    }

    #[test]
    fn a_stranger_is_refused_whatever_he_asks() {
        assert_eq!(outcome(&command("ping"), 9), Err(Reason::UnknownKey));
        assert_eq!(outcome(&command("no.such.kind"), 9), Err(Reason::UnknownKey));
    }

    #[test]
    fn a_command_for_another_tenant_device_or_group_is_refused() {
        let mut other = command("ping");
        other.tenant = "rival".into();
        assert_eq!(outcome(&other, 1), Err(Reason::WrongTenant));
        let mut other = command("ping");
        other.target = Target::Device("bar-2".into());
        assert_eq!(outcome(&other, 1), Err(Reason::WrongTarget));
        other.target = Target::Group("floor-4".into());
        assert_eq!(outcome(&other, 1), Err(Reason::WrongTarget));
        other.target = Target::Group("floor-3".into());
        assert_eq!(outcome(&other, 1), Ok("olga".into()));
    }

    #[test]
    fn time_is_held_against_issue_expiry_and_the_longest_lifetime() {
        let ping = command("ping");
        let judge = |now: &str| outcome_at(&ping, 1, &[], at(now));
        assert_eq!(judge("2026-06-01T12:09:59Z"), Ok("olga".into()));
        assert_eq!(judge("2026-06-01T12:10:00Z"), Err(Reason::Expired));
        assert_eq!(judge("2026-06-01T11:54:00Z"), Ok("olga".into()));
        assert_eq!(judge("2026-06-01T11:53:59Z"), Err(Reason::NotYetValid));
        assert_eq!(judge("1970-01-01T00:00:00Z"), Err(Reason::NotYetValid));
        let mut eternal = command("ping");
        eternal.expires = at("2026-06-08T12:00:00Z");
        assert_eq!(outcome(&eternal, 1), Err(Reason::Expired));
    }

    #[test]
    fn an_expired_operator_or_list_is_refused_but_an_expired_list_still_lets_observe() {
        let mut late = command("diagnose");
        late.issued = at("2026-06-20T00:00:00Z");
        late.expires = at("2026-06-20T01:00:00Z");
        assert_eq!(outcome_at(&late, 1, &[], at("2026-06-20T00:00:01Z")), Err(Reason::OperatorExpired));

        let judge = |kind: &str| {
            let mut list = operators();
            list.expires = at("2026-05-01T00:00:00Z");
            let envelope =
                Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command(kind)).unwrap(), &key(1));
            let device = Device::new("bar-1", "acme", &[]);
            authorize(envelope.to_json().as_bytes(), Some(&list), &device, now()).map_err(|r| r.reason)
        };
        assert_eq!(judge("diagnose").err(), Some(Reason::OperatorsExpired));
        assert!(judge("ping").is_ok());
    }

    #[test]
    fn a_command_that_expires_while_it_runs_goes_on_only_as_long_as_its_signer_may() {
        let judge = |list: &Operators, command: &Command, now: &str| {
            let envelope = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(command).unwrap(), &key(1));
            let device = Device::new("bar-1", "acme", &[]);
            authorize_accepted(envelope.to_json().as_bytes(), Some(list), &device, at(now))
                .map_err(|r| r.reason)
        };
        let (list, diagnose) = (operators(), command("diagnose"));
        assert!(judge(&list, &diagnose, "2026-06-01T12:00:00Z").is_ok());
        assert!(judge(&list, &diagnose, "2026-06-03T00:00:00Z").is_ok());
        let mut revoked = list.clone();
        revoked.operators.remove(0);
        assert_eq!(judge(&revoked, &diagnose, "2026-06-03T00:00:00Z").err(), Some(Reason::UnknownKey));
        let mut narrowed = list.clone();
        narrowed.operators[0].scopes = vec![Scope::Observe];
        assert_eq!(judge(&narrowed, &diagnose, "2026-06-03T00:00:00Z").err(), Some(Reason::NotPermitted));
        let mut ended = list.clone();
        ended.operators[0].expires = at("2026-06-01T12:09:59Z");
        assert_eq!(judge(&ended, &diagnose, "2026-06-03T00:00:00Z").err(), Some(Reason::OperatorExpired));
        let mut eternal = diagnose;
        eternal.expires = at("2026-06-08T12:00:00Z");
        assert_eq!(judge(&list, &eternal, "2026-06-09T00:00:00Z").err(), Some(Reason::Expired));
    }

    #[test]
    fn a_kind_of_tomorrow_is_answered_unsupported_by_name() {
        assert_eq!(outcome(&command("room.dance"), 1), Err(Reason::Unsupported));
    }

    #[test]
    fn a_kind_with_a_threshold_needs_so_many_operators_who_each_may() {
        let mut list = operators();
        list.operators[0].scopes.push(Scope::Admin);
        let payload = serde_json::to_vec(&command("config.apply")).unwrap();
        let mut envelope = Envelope::sign(COMMAND_TYPE, &payload, &key(1));
        let judge = |envelope: &Envelope, list: &Operators| {
            let device = Device::new("bar-1", "acme", &[]);
            authorize(envelope.to_json().as_bytes(), Some(list), &device, now())
                .map(|authorized| authorized.operator)
                .map_err(|refusal| refusal.reason)
        };
        assert_eq!(judge(&envelope, &list), Err(Reason::TooFewSignatures));
        envelope.signatures.extend(Envelope::sign(COMMAND_TYPE, &payload, &key(2)).signatures);
        // The second signer has not the scope.
        assert_eq!(judge(&envelope, &list), Err(Reason::TooFewSignatures));
        list.operators[1].scopes.push(Scope::Admin);
        list.operators[1].devices.push("bar-1".into());
        assert_eq!(judge(&envelope, &list), Ok("olga+otto".to_owned()));
        // Two keys of one person are one person.
        list.operators[1].name = "olga".into();
        assert_eq!(judge(&envelope, &list), Err(Reason::TooFewSignatures));
    }

    #[test]
    fn the_decision_ahead_of_the_signature_is_the_one_after_it() {
        let list = operators();
        let groups = ["floor-3".to_owned()];
        let device = Device::new("bar-1", "acme", &groups);
        for kind in ["ping", "diagnose", "update.install", "config.apply", "room.dance"] {
            let command = command(kind);
            for (signer, positions) in [(1, &[0][..]), (2, &[1]), (9, &[])] {
                let ahead = decide(&command, positions, Some(&list), &device, now());
                let ahead = ahead.map(|(_, operator)| operator).map_err(|(reason, _)| reason);
                assert_eq!(ahead, outcome(&command, signer), "{kind} by {signer}");
            }
        }
        let nobody = decide(&command("ping"), &[7], Some(&list), &device, now());
        assert_eq!(nobody.map_err(|(reason, _)| reason), Err(Reason::UnknownKey));
    }

    #[test]
    fn a_listed_key_under_a_signature_that_is_not_its_own_is_a_bad_signature() {
        let mut envelope =
            Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command("ping")).unwrap(), &key(9));
        envelope.signatures[0].keyid = PublicKey::from(key(1).verifying_key()).id();
        let device = Device::new("bar-1", "acme", &[]);
        let refusal =
            authorize(envelope.to_json().as_bytes(), Some(&operators()), &device, now()).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadSignature);
    }

    #[test]
    fn a_device_that_doubts_its_clock_demands_the_nonce_and_then_ignores_the_time() {
        let mut command = command("ping");
        let judge = |command: &Command, nonce: Option<&str>, clock_doubtful: bool| {
            let bytes =
                Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(command).unwrap(), &key(1)).to_json();
            let device = Device { nonce, clock_doubtful, ..Device::new("bar-1", "acme", &[]) };
            authorize(bytes.as_bytes(), Some(&operators()), &device, at("1970-01-01T00:00:09Z"))
                .map(drop)
                .map_err(|refusal| refusal.reason)
        };
        assert_eq!(judge(&command, Some("n"), true), Err(Reason::NonceRequired));
        assert_eq!(judge(&command, Some("n"), false), Err(Reason::NotYetValid));
        command.nonce = Some("n".into());
        assert_eq!(judge(&command, Some("n"), true), Ok(()));
        assert_eq!(judge(&command, Some("m"), true), Err(Reason::WrongNonce));
        assert_eq!(judge(&command, Some("m"), false), Err(Reason::WrongNonce));
        // Without a session there is no nonce to hold it against: the time decides, as for vigil-updaterd.
        assert_eq!(judge(&command, None, false), Err(Reason::NotYetValid));
    }

    #[test]
    fn without_a_list_or_with_another_tenants_nothing_runs() {
        let envelope = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command("ping")).unwrap(), &key(1));
        let bytes = envelope.to_json();
        let mut device = Device::new("bar-1", "acme", &[]);
        let reason = authorize(bytes.as_bytes(), None, &device, now()).unwrap_err().reason;
        assert_eq!(reason, Reason::NoOperators);
        device.tenant = "rival";
        let reason = authorize(bytes.as_bytes(), Some(&operators()), &device, now()).unwrap_err().reason;
        assert_eq!(reason, Reason::NoOperators);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_no_changed_byte_is_obeyed(position in 0_usize..400, value in 0_u8..255) {
            let envelope =
                Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command("ping")).unwrap(), &key(1));
            let mut bytes = envelope.payload_bytes().unwrap();
            let position = position % bytes.len();
            if bytes[position] != value {
                bytes[position] = value;
                let mut changed = envelope;
                changed.payload = data_encoding::BASE64.encode(&bytes);
                let device = Device::new("bar-1", "acme", &[]);
                assert!(authorize(changed.to_json().as_bytes(), Some(&operators()), &device, now()).is_err());
            }
        }
    }
}
