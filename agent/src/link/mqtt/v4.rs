//! MQTT 3.1.1, for brokers that have no 5. What it has no words for is left out: the will's delay, the expiry of a session
//! and of a message, limits in CONNECT, and the reason why something was not taken.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, PubComp, PubRec, Publish,
    Subscribe, SubscribeFilter, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};

use super::{Ending, Heard, Message, Outgoing, PACKET_BYTES, Receipt, Refusal, Say};
use crate::link::session::{Granted, LinkOptions, Settings};

/// CONNACK and its length; with another one it is that of MQTT 5 (section 3.2, both), which rumqttc would take for it.
const CONNACK: [u8; 2] = [0x20, 2];

pub(super) fn write(say: Say<'_>, to: &mut BytesMut) -> Result<(), String> {
    let packet = match say {
        Say::Connect(options, settings) => Packet::Connect(connect(options, settings)),
        Say::Publish(outgoing) => Packet::Publish(publish(outgoing)),
        Say::Subscribe { id, filters } => {
            let filters =
                filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce)).collect();
            Packet::Subscribe(Subscribe { pkid: id, filters })
        }
        Say::Acknowledge(id) => Packet::PubAck(PubAck::new(id)),
        Say::Received(id) => Packet::PubRec(PubRec::new(id)),
        Say::Completed(id) => Packet::PubComp(PubComp::new(id)),
        Say::Ping => Packet::PingReq,
        Say::GoodBye => Packet::Disconnect,
    };
    packet.write(to, usize::MAX).map(drop).map_err(|error| error.to_string())
}

fn connect(options: &LinkOptions, settings: &Settings) -> Connect {
    let will = LastWill {
        topic: settings.will_topic.clone(),
        message: settings.will.clone().into(),
        qos: QoS::AtLeastOnce,
        retain: true,
    };
    let mut connect = Connect::new(options.client_id.clone());
    connect.keep_alive = options.keep_alive.as_secs() as u16;
    // How long a session is kept is the broker's own affair; only not at all can be asked for.
    connect.clean_session = options.session_expiry.is_zero();
    connect.last_will = Some(will);
    connect.login = options.credentials.clone().map(|(username, password)| Login { username, password });
    connect
}

fn publish(outgoing: Outgoing) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: outgoing.retain,
        topic: outgoing.topic,
        pkid: outgoing.id,
        payload: outgoing.payload.into(),
    }
}

pub(super) fn read(from: &mut BytesMut) -> Result<Option<Heard>, String> {
    if from.len() >= CONNACK.len() && from[0] == CONNACK[0] && from[1] != CONNACK[1] {
        from.clear();
        let reason = "the broker answers in another version than 3.1.1".to_owned();
        return Ok(Some(Heard::Ended(Refusal { reason, ending: Ending::OtherVersion })));
    }
    let before = from.len();
    match Packet::read(from, PACKET_BYTES) {
        Ok(packet) => Ok(Some(heard(packet))),
        // Said of the stream, it asks for more; said of a packet that was taken off it, the packet is broken.
        Err(Error::InsufficientBytes(more)) if from.len() == before => {
            from.reserve(more);
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn heard(packet: Packet) -> Heard {
    match packet {
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
            // It has no way to say that it keeps nothing.
            Heard::Accepted(Granted {
                session_present: ack.session_present,
                retain: true,
                ..Granted::default()
            })
        }
        Packet::ConnAck(ack) => Heard::Ended(refused(&ack)),
        Packet::Publish(publish) => {
            let receipt = match publish.qos {
                QoS::AtMostOnce => Receipt::None,
                QoS::AtLeastOnce => Receipt::Once(publish.pkid),
                QoS::ExactlyOnce => Receipt::TwoSteps(publish.pkid),
            };
            Heard::Message(Message { topic: publish.topic, payload: publish.payload, receipt })
        }
        // It does not say whether it has kept what was published: a broker that will not have it closes the connection,
        // or acknowledges and forgets it (MQTT 3.1.1, section 3.3.5).
        Packet::PubAck(ack) => Heard::Acknowledged { id: ack.pkid, declined: None },
        Packet::SubAck(ack) => Heard::Subscribed {
            id: ack.pkid,
            refused: ack
                .return_codes
                .iter()
                .map(|code| (*code == SubscribeReasonCode::Failure).then(|| "failure".to_owned()))
                .collect(),
        },
        Packet::PubRel(release) => Heard::Released { id: release.pkid },
        Packet::PingResp => Heard::Pong,
        Packet::UnsubAck(_) => Heard::Nothing,
        Packet::PubRec(_) => Heard::Misplaced("PUBREC"),
        Packet::PubComp(_) => Heard::Misplaced("PUBCOMP"),
        Packet::Connect(_) => Heard::Misplaced("CONNECT"),
        Packet::Subscribe(_) => Heard::Misplaced("SUBSCRIBE"),
        Packet::Unsubscribe(_) => Heard::Misplaced("UNSUBSCRIBE"),
        Packet::PingReq => Heard::Misplaced("PINGREQ"),
        Packet::Disconnect => Heard::Misplaced("DISCONNECT"),
    }
}

fn refused(ack: &ConnAck) -> Refusal {
    let ending = match ack.code {
        ConnectReturnCode::RefusedProtocolVersion => Ending::OtherVersion,
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => Ending::Passing,
        ConnectReturnCode::BadClientId
        | ConnectReturnCode::BadUserNamePassword
        | ConnectReturnCode::NotAuthorized => Ending::Lasting,
    };
    Refusal { reason: format!("the broker refused the connection: {:?}", ack.code), ending }
}
