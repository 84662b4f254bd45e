//! What a device says to its broker and what the broker means, whichever version of MQTT it is said in. What differs
//! between the versions stands in the file of each. The packets are rumqttc's; its event loop is not used.

mod v4;
mod v5;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vigil_protocol::limits;

use super::redirect::Reference;
use super::session::{Granted, LinkOptions, Settings};

/// The protocol's overhead over a payload: topic, properties, header.
const PACKET_OVERHEAD: usize = 1024;
/// The largest packet that is taken from a broker.
pub(super) const PACKET_BYTES: usize = if limits::COMMAND_BYTES > limits::PAYLOAD_BYTES {
    limits::COMMAND_BYTES + PACKET_OVERHEAD
} else {
    limits::PAYLOAD_BYTES + PACKET_OVERHEAD
};
/// Commands that the broker may send ahead of our acknowledgements.
const RECEIVE_MAXIMUM: u16 = 8;
/// What all our payloads are.
const CONTENT_TYPE: &str = "application/json";

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Version {
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V4,
}

/// A message for us.
#[derive(Clone, Debug)]
pub struct Message {
    /// Under which topic it came.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// Its packet id, and how the broker wants to hear of it.
    pub(super) receipt: Receipt,
}

/// How a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// Not at all (QoS 0).
    None,
    /// Once (QoS 1).
    Once(u16),
    /// In two steps (QoS 2).
    TwoSteps(u16),
}

/// Why a connection has ended, or has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For people.
    pub(super) reason: String,
    pub(super) ending: Ending,
}

/// What the end of a connection says of the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    Passing,
    /// Trying again soon will not help: the broker does not want us, or not so many.
    Lasting,
    /// The broker has said nothing to CONNECT, or has closed the connection.
    Silence,
    /// The broker does not speak this version.
    OtherVersion,
    /// Another client has come with our id.
    TakenOver,
    /// The broker sends us to another one.
    Elsewhere(Reference),
}

/// What a packet of the broker means.
#[derive(Debug)]
pub(super) enum Heard {
    /// CONNACK: the connection is up.
    Accepted(Granted),
    /// CONNACK: it is not; or DISCONNECT.
    Ended(Refusal),
    /// PUBLISH.
    Message(Message),
    /// PUBACK, with the reason if the broker does not take what was published.
    Acknowledged { id: u16, declined: Option<String> },
    /// SUBACK, with the reason for each subscription that was refused, in order.
    Subscribed { id: u16, refused: Vec<Option<String>> },
    /// PUBREL: the second step of QoS 2.
    Released { id: u16 },
    /// PINGRESP.
    Pong,
    /// Nothing that a device acts on.
    Nothing,
    /// What only a client says, or what was not agreed on.
    Misplaced(&'static str),
}

/// Something to publish, at least once.
pub(super) struct Outgoing {
    pub(super) id: u16,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    /// How long anybody wants it; a version without a word for it leaves it out.
    pub(super) expiry: Option<Duration>,
}

/// What a device says.
pub(super) enum Say<'a> {
    Connect(&'a LinkOptions, &'a Settings),
    Publish(Outgoing),
    Subscribe { id: u16, filters: &'a [String] },
    Acknowledge(u16),
    Received(u16),
    Completed(u16),
    Ping,
    GoodBye,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V5, Self::V4];

    /// Puts what is said behind what is there already.
    pub(super) fn write(self, say: Say<'_>, to: &mut BytesMut) -> Result<(), String> {
        match self {
            Self::V5 => v5::write(say, to),
            Self::V4 => v4::write(say, to),
        }
    }

    /// Takes the next whole packet, none if there is not enough for one.
    pub(super) fn read(self, from: &mut BytesMut) -> Result<Option<Heard>, String> {
        match self {
            Self::V5 => v5::read(from),
            Self::V4 => v4::read(from),
        }
    }
}
