//! What an operator sends: a command in its envelope, with its topic and the time it is good for.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use vigil_protocol::command::{Command, Kind, Target};
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope, EnvelopeError};
use vigil_protocol::limits;
use vigil_protocol::topic::{Topics, group_command, is_name};

use crate::failure::Failure;

/// A command, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is asked.
    pub command: Command,
    /// As it travels.
    pub envelope: Vec<u8>,
}

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The command's id; a random one unless given.
    pub id: Option<&'a str>,
    /// Its kind.
    pub kind: &'a str,
    /// Its arguments.
    pub args: BTreeMap<String, Value>,
    /// The tenant.
    pub tenant: &'a str,
    /// Device or group.
    pub target: Target,
    /// How long it is valid.
    pub lifetime: Duration,
    /// The nonce of the device's session, for one that does not trust its clock.
    pub nonce: Option<String>,
}

impl Order {
    /// Signs what was asked for.
    pub fn sign(request: Request<'_>, key: &SigningKey, now: Timestamp) -> Result<Self, Failure> {
        let command = Self::command(request, now)?;
        let payload = serde_json::to_vec(&command).map_err(|error| Failure::Usage(error.to_string()))?;
        Self::checked(command, Envelope::sign(COMMAND_TYPE, &payload, key).to_json().into_bytes())
    }

    /// What was asked for, as it would be signed.
    pub fn command(request: Request<'_>, now: Timestamp) -> Result<Command, Failure> {
        let id = match request.id {
            Some(id) if is_name(id) => id.to_owned(),
            Some(id) => return Err(Failure::Usage(format!("--id {id:?}: use 1 to 64 of A-Z a-z 0-9 . _ -"))),
            None => random_id()?,
        };
        if Kind::from_name(request.kind).is_none() {
            let known = Kind::ALL.map(Kind::name).join(", ");
            return Err(Failure::Usage(format!("no command of kind {:?}; there are {known}", request.kind)));
        }
        let longest = Duration::from_secs(limits::COMMAND_LIFETIME_SECONDS.unsigned_abs());
        if request.lifetime.is_zero() || request.lifetime > longest {
            return Err(Failure::Usage("--expires: a command is valid for 1s to 7 days (168h)".to_owned()));
        }
        let lifetime = SignedDuration::from_secs(request.lifetime.as_secs().cast_signed());
        // Whole seconds: devices compare no more than these.
        let issued = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let expires = issued
            .checked_add(lifetime)
            .map_err(|_| Failure::Usage("--expires lies beyond the end of time".to_owned()))?;
        check_target(&request.target)?;
        Ok(Command {
            v: 1,
            id,
            kind: request.kind.to_owned(),
            args: request.args,
            tenant: request.tenant.to_owned(),
            target: request.target,
            issued,
            expires,
            nonce: request.nonce,
        })
    }

    /// Reads an envelope that was signed elsewhere. Its signature is the device's to verify.
    pub fn ready(envelope: Vec<u8>) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Usage(format!("the envelope: {what}"));
        let parsed = Envelope::parse(&envelope, COMMAND_TYPE, limits::COMMAND_BYTES)
            .map_err(|error| wrong(error.to_string()))?;
        let payload = parsed.payload_bytes().map_err(|error| wrong(error.to_string()))?;
        let command: Command =
            serde_json::from_slice(&payload).map_err(|error| wrong(format!("no command in it: {error}")))?;
        if !is_name(&command.id) {
            return Err(wrong("the command's id is no name".to_owned()));
        }
        Self::checked(command, envelope)
    }

    /// Adds one more signature over the same bytes.
    pub fn cosign(self, key: &SigningKey, now: Timestamp) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Usage(format!("the envelope: {what}"));
        if self.command.expires <= now {
            return Err(wrong(format!("it expired at {}; sign a new one", self.command.expires)));
        }
        let mut envelope = self.parsed().map_err(|error| wrong(error.to_string()))?;
        envelope.cosign(key).map_err(|error| wrong(error.to_string()))?;
        Self::checked(self.command, envelope.to_json().into_bytes())
    }

    /// How many signatures it carries. Whose they are, and whether they verify, is the device's to say.
    pub fn signatures(&self) -> usize {
        self.parsed().map_or(0, |envelope| envelope.signatures.len())
    }

    /// The envelope as a value.
    pub fn parsed(&self) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(&self.envelope, COMMAND_TYPE, limits::COMMAND_BYTES)
    }

    fn checked(command: Command, envelope: Vec<u8>) -> Result<Self, Failure> {
        check_target(&command.target)?;
        if envelope.len() > limits::COMMAND_BYTES {
            return Err(Failure::Usage(format!("a command has at most {} bytes", limits::COMMAND_BYTES)));
        }
        Ok(Self { command, envelope })
    }

    /// Where it is published.
    pub fn topic(&self, prefix: &str) -> Result<String, Failure> {
        match &self.command.target {
            Target::Device(device) => Topics::new(prefix, device)
                .map(|topics| topics.command())
                .map_err(|error| Failure::Usage(error.to_string())),
            Target::Group(group) => Ok(group_command(prefix, group)),
        }
    }

    /// Where answers come from: results, diagnoses and the progress of updates.
    pub fn answers(&self, prefix: &str) -> Vec<String> {
        let device = match &self.command.target {
            Target::Device(device) => device.as_str(),
            Target::Group(_) => "+",
        };
        let id = &self.command.id;
        let mut filters =
            vec![format!("{prefix}/{device}/result/{id}"), format!("{prefix}/{device}/diagnosis/{id}")];
        if self.command.kind == Kind::UpdateInstall.name() {
            filters.push(format!("{prefix}/{device}/update"));
        }
        filters
    }
}

fn check_target(target: &Target) -> Result<(), Failure> {
    let (Target::Device(name) | Target::Group(name)) = target;
    if is_name(name) {
        return Ok(());
    }
    Err(Failure::Usage(format!("{name:?} is no name of a device or group")))
}

/// A target in words.
pub fn target(target: &Target) -> String {
    match target {
        Target::Device(device) => format!("the device {device}"),
        Target::Group(group) => format!("the group {group}"),
    }
}

fn random_id() -> Result<String, Failure> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| Failure::Failed(format!("no random bytes: {error}")))?;
    Ok(data_encoding::HEXLOWER.encode(&random))
}

/// Reads `name=value`; a value that is JSON's number, boolean, object or array is one, everything else is text.
pub fn argument(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=VALUE")?;
    let value = match serde_json::from_str::<Value>(value) {
        Ok(Value::Null | Value::String(_)) | Err(_) => Value::String(value.to_owned()),
        Ok(other) => other,
    };
    Ok((name.to_owned(), value))
}

/// Reads `90s`, `10m`, `2h` or `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "expected a number and a unit, as in 90s, 10m, 2h or 1d";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| RIGHT)?;
    let factor = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(RIGHT.to_owned()),
    };
    // A year is more than anything here waits; a wait without end could overflow the clock.
    number
        .checked_mul(factor)
        .filter(|seconds| *seconds <= 366 * 86400)
        .map(Duration::from_secs)
        .ok_or_else(|| RIGHT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vigil_protocol::authorize::{Device, authorize};
    use vigil_protocol::command::Scope;
    use vigil_protocol::keys::PublicKey;
    use vigil_protocol::operators::{Operator, Operators};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }
    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }
    fn request(kind: &str, target: Target) -> Request<'_> {
        Request {
            id: None,
            kind,
            args: [].into(),
            tenant: "acme",
            target,
            lifetime: Duration::from_mins(10),
            nonce: None,
        }
    }

    #[test]
    fn what_is_signed_here_is_authorized_by_a_device() {
        let order = Order::sign(request("ping", Target::Device("bar-1".into())), &key(), now()).unwrap();
        let operator = Operator {
            name: "olga".into(),
            key: PublicKey::from(key().verifying_key()),
            scopes: vec![Scope::Observe],
            devices: vec!["*".into()],
            groups: vec![],
            expires: "2026-07-01T00:00:00Z".parse().unwrap(),
        };
        let operators = Operators {
            v: 1,
            tenant: "acme".into(),
            expires: operator.expires,
            operators: vec![operator],
            thresholds: [].into(),
        };
        let device = Device::new("bar-1", "acme", &[]);
        let authorized = authorize(&order.envelope, Some(&operators), &device, now()).unwrap();
        assert_eq!((authorized.operator.as_str(), authorized.command), ("olga", order.command.clone()));
        assert_eq!(Order::ready(order.envelope.clone()).unwrap(), order);
        assert_eq!(order.topic("vigil/v1").unwrap(), "vigil/v1/bar-1/command");
    }

    #[test]
    fn a_second_operator_signs_the_very_same_command_while_it_is_valid() {
        let first = Order::sign(request("ping", Target::Device("bar-1".into())), &key(), now()).unwrap();
        let other = SigningKey::from_bytes(&[2; 32]);
        let both = first.clone().cosign(&other, now()).unwrap();
        assert_eq!((both.signatures(), &both.command), (2, &first.command));
        let keys = [key(), other.clone()].map(|key| PublicKey::from(key.verifying_key()));
        assert_eq!(both.parsed().unwrap().signers(keys.iter()), [0, 1]);
        let late = first.command.expires;
        assert!(first.cosign(&other, late).is_err());
    }

    #[test]
    fn a_group_is_asked_on_its_topic_and_answers_from_every_device() {
        let order =
            Order::sign(request("update.install", Target::Group("floor-3".into())), &key(), now()).unwrap();
        assert_eq!(order.topic("vigil/v1").unwrap(), "vigil/v1/group/floor-3/command");
        assert_eq!(order.answers("vigil/v1")[0], format!("vigil/v1/+/result/{}", order.command.id));
        assert_eq!(order.answers("vigil/v1").len(), 3);
    }

    #[test]
    fn a_wrong_name_kind_or_lifetime_is_refused_before_it_is_signed() {
        let sign = |request| Order::sign(request, &key(), now());
        assert!(sign(request("ping", Target::Device("+".into()))).is_err());
        assert!(sign(request("dance", Target::Device("bar-1".into()))).is_err());
        let mut long = request("ping", Target::Device("bar-1".into()));
        long.lifetime = Duration::from_hours(8 * 24);
        assert!(sign(long).is_err());
        let mut named = request("ping", Target::Device("bar-1".into()));
        named.id = Some("a/b");
        assert!(sign(named).is_err());
        assert!(Order::ready(b"{}".to_vec()).is_err());
    }

    #[test]
    fn an_argument_is_json_where_it_reads_as_json_and_text_otherwise() {
        let value = |text: &str| argument(text).unwrap().1;
        assert_eq!(value("a=3"), json!(3));
        assert_eq!(value("a=true"), json!(true));
        assert_eq!(value("a={\"b\":1}"), json!({"b": 1}));
        assert_eq!(value("a=1.2.3"), json!("1.2.3"));
        assert_eq!(value("a=null"), json!("null"));
        assert_eq!(value("a=b=c"), json!("b=c"));
        assert!(argument("a").is_err() && argument("=3").is_err());
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("1d"), Ok(Duration::from_hours(24)));
        for wrong in ["", "m", "-1s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
