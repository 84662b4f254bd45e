//! What a scenario may say.

use serde::Deserialize;
use vigil_protocol::command::{Reason, Status};
use vigil_tests::hostile::packet::Properties;

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What the broker tries, in a sentence.
    pub(super) about: String,
    /// What it does, one after the other.
    pub(super) steps: Vec<Step>,
    /// There are too many refusals to tell each: they are counted, none is lost.
    #[serde(default)]
    pub(super) counted: bool,
}

/// One thing that the broker does, or that happens.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// It delivers a command.
    Command(Box<Signed>),
    /// It delivers the envelope of an earlier one, by its id.
    Again(Again),
    /// It publishes something else.
    Publish(Plain),
    /// It sends bytes.
    Bytes(Bytes),
    /// It closes the connection; the next one is as told.
    Reconnect(Next),
    /// The will of the first connection of this scenario lands, late.
    LateWill,
    /// The device loses power.
    Restart,
    /// And its store of command ids with it.
    LoseIds,
    /// The vendor publishes another operators list.
    Operators(List),
    /// vigild's clock is off by so many seconds.
    Clock(i64),
    /// vigil-updaterd's is, by hours at least: it holds it against the times of what it has verified.
    UpdaterClock(i64),
}

/// A command. Without more, it is a legitimate ping by olga, which must be carried out. Texts in it and in properties
/// may be long: see `vigil_tests::hostile::repeated`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Signed {
    /// Its id, which the scenario's name is put before.
    pub(super) id: String,
    /// Who signs it: see `people`.
    pub(super) by: Vec<String>,
    pub(super) kind: String,
    pub(super) args: toml::Table,
    pub(super) tenant: String,
    pub(super) device: String,
    /// Instead of a device.
    pub(super) group: Option<String>,
    /// Seconds from now.
    pub(super) issued: i64,
    /// Seconds from now.
    pub(super) expires: i64,
    /// `ours` is the one of the device's digest.
    pub(super) nonce: Option<String>,
    /// Replaces fields of the payload, before it is signed.
    pub(super) merge: toml::Table,
    /// Texts of the payload's JSON, and what stands in place of each, before it is signed.
    pub(super) payload: Vec<(String, String)>,
    /// The same in the envelope's JSON, which nobody signs; `‹olga›` is the id of her key.
    pub(super) envelope: Vec<(String, String)>,
    /// What is done to it afterwards.
    pub(super) spoil: Option<Spoil>,
    pub(super) via: Via,
    /// So often.
    pub(super) times: usize,
    /// The reason with which it is refused.
    pub(super) refused: Option<Reason>,
    /// How it ends, if it is not refused.
    pub(super) ends: Status,
    /// The reason with which it ends.
    pub(super) reason: Reason,
    /// The broker took no answer: the last one is said again on the next connection.
    pub(super) said_again: bool,
    /// The device closes the connection instead of reading it.
    pub(super) closes: bool,
}

impl Default for Signed {
    fn default() -> Self {
        Self {
            id: "a".into(),
            by: vec!["olga".into()],
            kind: "ping".into(),
            args: toml::Table::new(),
            tenant: "acme".into(),
            device: "room-1".into(),
            group: None,
            issued: 0,
            expires: 600,
            nonce: None,
            merge: toml::Table::new(),
            payload: Vec::new(),
            envelope: Vec::new(),
            spoil: None,
            via: Via::default(),
            times: 1,
            refused: None,
            ends: Status::Succeeded,
            reason: Reason::Ok,
            said_again: false,
            closes: false,
        }
    }
}

/// How something is delivered.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Via {
    /// What follows the device in the topic, or after a slash the whole topic.
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) dup: bool,
    pub(super) retain: bool,
    /// The packet id; without it each has a new one.
    pub(super) id: Option<u16>,
    pub(super) properties: Properties,
    /// In pieces of so many bytes, each a write of its own.
    pub(super) pieces: Option<usize>,
}

impl Default for Via {
    fn default() -> Self {
        Self {
            topic: "command".into(),
            qos: 1,
            dup: false,
            retain: false,
            id: None,
            properties: Properties::new(),
            pieces: None,
        }
    }
}

/// What is done to an envelope by somebody who has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Spoil {
    /// The payload asks for another kind.
    OtherKind,
    /// One bit of the signature.
    SignatureBit,
    /// The group's order added to the signature's second half: the same point, other bytes.
    Malleable,
    /// 64 zero bytes.
    ZeroSignature,
    /// Half of the signature.
    HalfSignature,
    /// The key id of somebody whom the list does not name.
    StrangersHint,
    /// The key id of somebody else on the list.
    ColleaguesHint,
    /// An empty key id.
    NoHint,
    /// The list of signatures is empty.
    NoSignatures,
    /// The one signature, often.
    SeventeenSignatures,
    /// The one signature, twice.
    TwiceSigned,
    /// Declared, and signed, to be another kind of payload.
    OtherType,
    /// Declared to be another kind of payload, after it was signed.
    Relabelled,
    /// Half of the envelope.
    Cut,
    /// Blanks after it, more than an envelope may have bytes.
    Padded,
    /// A second envelope after it.
    Trailed,
    /// A byte order mark before it.
    ByteOrderMark,
    /// The envelope in UTF-16.
    Utf16,
    /// The payload is a thousand arrays in each other.
    Nested,
    /// The payload names two targets; signed so.
    TwoTargets,
    /// The payload in the other alphabet of base64: the same bytes.
    OtherAlphabet,
    /// The envelope with other white space: the same payload.
    OtherSpacing,
    /// The payload is no base64.
    NoBase64,
    /// The payload's bytes are no UTF-8; signed so.
    NoUtf8,
    /// A member of the envelope is missing.
    NoPayload,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Again {
    /// The earlier command's.
    pub(super) id: String,
    #[serde(default)]
    pub(super) via: Via,
    #[serde(default = "once")]
    pub(super) times: usize,
    /// Other than for being a replay.
    #[serde(default = "replayed")]
    pub(super) refused: Reason,
}

fn once() -> usize {
    1
}

fn replayed() -> Reason {
    Reason::Replayed
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plain {
    #[serde(default)]
    pub(super) via: Via,
    /// What it says, long or not; `{session}` and `{next_session}` stand for numbers.
    #[serde(default)]
    pub(super) payload: String,
    /// Instead: what the device last said there.
    pub(super) echo: Option<String>,
    /// Instead: so many bytes.
    pub(super) bytes: Option<usize>,
    #[serde(default = "once")]
    pub(super) times: usize,
    pub(super) refused: Option<Reason>,
    #[serde(default)]
    pub(super) closes: bool,
    /// What the device then publishes, by what follows it in the topic.
    pub(super) answered: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bytes {
    pub(super) hex: String,
    #[serde(default = "once")]
    pub(super) times: usize,
    pub(super) refused: Option<Reason>,
    /// The device closes the connection.
    #[serde(default)]
    pub(super) closes: bool,
    /// The broker does.
    #[serde(default)]
    pub(super) then_close: bool,
}

/// The next connection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Next {
    pub(super) session_present: bool,
    /// The reason code of its CONNACK.
    pub(super) reason: u8,
    pub(super) properties: Properties,
    /// All bytes that answer CONNECT, instead.
    pub(super) connack: Option<String>,
    /// The reason code of each subscription.
    pub(super) suback: u8,
    pub(super) acknowledge: Acknowledges,
    /// The device closes it.
    pub(super) closes: bool,
    /// The device subscribes; where the broker makes that impossible, not.
    pub(super) serves: bool,
}

impl Default for Next {
    fn default() -> Self {
        Self {
            session_present: false,
            reason: 0,
            properties: Properties::new(),
            connack: None,
            suback: 1,
            acknowledge: Acknowledges::Once,
            closes: false,
            serves: true,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Acknowledges {
    Once,
    Twice,
    Never,
    Another(u16),
    Reason(u8),
    AsQosTwo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum List {
    Usual,
    /// The list has expired.
    Expired,
    /// It is withdrawn.
    None,
}
