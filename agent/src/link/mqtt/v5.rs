//! MQTT 5.

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter,
    LastWill, LastWillProperties, Login, Packet, PingReq, PubAck, PubAckReason, PubComp, PubRec, Publish,
    PublishProperties, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};

use super::{
    CONTENT_TYPE, Ending, Heard, Message, Outgoing, PACKET_BYTES, RECEIVE_MAXIMUM, Receipt, Refusal, Say,
};
use crate::link::redirect::Reference;
use crate::link::session::{Granted, LinkOptions, Settings};

/// The CONNACK of MQTT 3.1.1 has no properties: whoever answers so does not speak 5 (section 3.2, both).
const CONNACK_OF_3_1_1: [u8; 2] = [0x20, 2];
/// DISCONNECT without a reason code is the normal one (section 3.14.2.1); rumqttc does not read it.
const BARE_DISCONNECT: [u8; 2] = [0xe0, 0];

pub(super) fn write(say: Say<'_>, to: &mut BytesMut) -> Result<(), String> {
    let packet = match say {
        Say::Connect(options, settings) => connect(options, settings),
        Say::Publish(outgoing) => Packet::Publish(publish(outgoing)),
        Say::Subscribe { id, filters } => {
            let filters = filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
            Packet::Subscribe(Subscribe { pkid: id, ..Subscribe::new_many(filters, None) })
        }
        Say::Acknowledge(id) => Packet::PubAck(PubAck::new(id, None)),
        Say::Received(id) => Packet::PubRec(PubRec::new(id, None)),
        Say::Completed(id) => Packet::PubComp(PubComp::new(id, None)),
        Say::Ping => Packet::PingReq(PingReq),
        Say::GoodBye => Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)),
    };
    packet.write(to, None).map(drop).map_err(|error| error.to_string())
}

fn connect(options: &LinkOptions, settings: &Settings) -> Packet {
    let properties = ConnectProperties {
        session_expiry_interval: Some(options.session_expiry.as_secs() as u32),
        receive_maximum: Some(RECEIVE_MAXIMUM),
        max_packet_size: Some(PACKET_BYTES as u32),
        ..ConnectProperties::new()
    };
    let connect = Connect {
        keep_alive: options.keep_alive.as_secs() as u16,
        client_id: options.client_id.clone(),
        clean_start: false,
        properties: Some(properties),
    };
    let mut will =
        LastWill::new(settings.will_topic.clone(), settings.will.clone(), QoS::AtLeastOnce, true, None);
    will.properties = Some(LastWillProperties {
        delay_interval: Some(settings.will_delay.as_secs() as u32),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some(CONTENT_TYPE.to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: vec![],
    });
    let login = options.credentials.clone().map(|(username, password)| Login { username, password });
    Packet::Connect(connect, Some(will), login)
}

fn publish(outgoing: Outgoing) -> Publish {
    let properties = PublishProperties {
        content_type: Some(CONTENT_TYPE.to_owned()),
        message_expiry_interval: outgoing.expiry.map(|expiry| expiry.as_secs() as u32),
        ..PublishProperties::default()
    };
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: outgoing.retain,
        topic: outgoing.topic.into(),
        pkid: outgoing.id,
        payload: outgoing.payload.into(),
        properties: Some(properties),
    }
}

pub(super) fn read(from: &mut BytesMut) -> Result<Option<Heard>, String> {
    if from.starts_with(&BARE_DISCONNECT) {
        from.advance(BARE_DISCONNECT.len());
        let bare = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        return Ok(Some(Heard::Ended(disconnected(&bare))));
    }
    if from.starts_with(&CONNACK_OF_3_1_1) {
        from.clear();
        let reason = "the broker does not speak MQTT 5".to_owned();
        return Ok(Some(Heard::Ended(Refusal { reason, ending: Ending::OtherVersion })));
    }
    let before = from.len();
    match Packet::read(from, Some(PACKET_BYTES as u32)) {
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
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => accepted(&ack),
        Packet::ConnAck(ack) => Heard::Ended(refused(&ack)),
        Packet::Publish(publish) => message(publish),
        Packet::PubAck(ack) => Heard::Acknowledged {
            id: ack.pkid,
            declined: match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(format!("the broker took no publication: {reason:?}")),
            },
        },
        Packet::SubAck(ack) => Heard::Subscribed {
            id: ack.pkid,
            refused: ack
                .return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(_) => None,
                    reason => Some(format!("{reason:?}")),
                })
                .collect(),
        },
        Packet::PubRel(release) => Heard::Released { id: release.pkid },
        Packet::PingResp(_) => Heard::Pong,
        Packet::Disconnect(disconnect) => Heard::Ended(disconnected(&disconnect)),
        Packet::UnsubAck(_) => Heard::Nothing,
        Packet::PubRec(_) => Heard::Misplaced("PUBREC"),
        Packet::PubComp(_) => Heard::Misplaced("PUBCOMP"),
        Packet::Auth(_) => Heard::Misplaced("AUTH"),
        Packet::Connect(..) => Heard::Misplaced("CONNECT"),
        Packet::Subscribe(_) => Heard::Misplaced("SUBSCRIBE"),
        Packet::Unsubscribe(_) => Heard::Misplaced("UNSUBSCRIBE"),
        Packet::PingReq(_) => Heard::Misplaced("PINGREQ"),
    }
}

fn message(publish: Publish) -> Heard {
    // None was allowed in CONNECT (section 3.3.2.3.4).
    if publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some()) {
        return Heard::Misplaced("a topic alias");
    }
    let receipt = match publish.qos {
        QoS::AtMostOnce => Receipt::None,
        QoS::AtLeastOnce => Receipt::Once(publish.pkid),
        QoS::ExactlyOnce => Receipt::TwoSteps(publish.pkid),
    };
    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
    Heard::Message(Message { topic, payload: publish.payload, receipt })
}

/// What no broker may grant (sections 3.2.2.3.3 and 3.2.2.3.6): the device would be connected and mute.
fn accepted(ack: &ConnAck) -> Heard {
    let properties = ack.properties.as_ref();
    if properties.is_some_and(|granted| granted.receive_max == Some(0)) {
        return Heard::Misplaced("a receive maximum of 0");
    }
    if properties.is_some_and(|granted| granted.max_packet_size == Some(0)) {
        return Heard::Misplaced("a maximum packet size of 0");
    }
    Heard::Accepted(Granted {
        session_present: ack.session_present,
        retain: properties.and_then(|granted| granted.retain_available) != Some(0),
        max_packet_bytes: properties.and_then(|granted| granted.max_packet_size),
        receive_maximum: properties.and_then(|granted| granted.receive_max),
        topic_alias_maximum: properties.and_then(|granted| granted.topic_alias_max).unwrap_or(0),
        session_expiry_seconds: properties.and_then(|granted| granted.session_expiry_interval),
        keep_alive_seconds: properties.and_then(|granted| granted.server_keep_alive),
    })
}

fn refused(ack: &ConnAck) -> Refusal {
    use ConnectReturnCode as Code;
    let servers = || ack.properties.as_ref().and_then(|properties| properties.server_reference.clone());
    let ending = match ack.code {
        Code::UseAnotherServer => Ending::Elsewhere(Reference { servers: servers(), is_lasting: false }),
        Code::ServerMoved => Ending::Elsewhere(Reference { servers: servers(), is_lasting: true }),
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => Ending::OtherVersion,
        Code::Success
        | Code::UnspecifiedError
        | Code::ImplementationSpecificError
        | Code::ServiceUnavailable
        | Code::ServerUnavailable => Ending::Passing,
        // Who we are, what we ask for, or how often: the same again is refused again.
        Code::BadClientId
        | Code::MalformedPacket
        | Code::ProtocolError
        | Code::ClientIdentifierNotValid
        | Code::BadUserNamePassword
        | Code::NotAuthorized
        | Code::ServerBusy
        | Code::Banned
        | Code::BadAuthenticationMethod
        | Code::TopicNameInvalid
        | Code::PacketTooLarge
        | Code::QuotaExceeded
        | Code::PayloadFormatInvalid
        | Code::RetainNotSupported
        | Code::QoSNotSupported
        | Code::ConnectionRateExceeded => Ending::Lasting,
    };
    Refusal { reason: format!("the broker refused the connection: {:?}", ack.code), ending }
}

fn disconnected(disconnect: &Disconnect) -> Refusal {
    use DisconnectReasonCode as Code;
    let servers =
        || disconnect.properties.as_ref().and_then(|properties| properties.server_reference.clone());
    let ending = match disconnect.reason_code {
        Code::UseAnotherServer => Ending::Elsewhere(Reference { servers: servers(), is_lasting: false }),
        Code::ServerMoved => Ending::Elsewhere(Reference { servers: servers(), is_lasting: true }),
        Code::SessionTakenOver => Ending::TakenOver,
        Code::NormalDisconnection
        | Code::DisconnectWithWillMessage
        | Code::UnspecifiedError
        | Code::ImplementationSpecificError
        | Code::ServerShuttingDown
        | Code::KeepAliveTimeout
        | Code::MaximumConnectTime => Ending::Passing,
        _ => Ending::Lasting,
    };
    let advice = match disconnect.reason_code {
        Code::SessionTakenOver => {
            ": another client has connected with this device's id, which must be unique"
        }
        _ => "",
    };
    Refusal { reason: format!("the broker disconnected: {:?}{advice}", disconnect.reason_code), ending }
}
