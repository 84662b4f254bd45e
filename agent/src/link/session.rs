//! One connection to the broker, a fresh client each time: rumqttc keeps nothing of ours between two of them, so its
//! livelock after a lost session (bytebeamio/rumqtt#1056) has nothing to feed on. What must be said again is in the
//! outbox, what must be heard again is the broker's to keep.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Filter, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio_rustls::rustls::ClientConfig;
use vigil_protocol::limits;

use super::Publication;

/// The protocol's overhead over a payload: topic, properties, header.
const PACKET_OVERHEAD: u32 = 1024;
/// Commands that the broker may send ahead of our acknowledgements.
const RECEIVE_MAXIMUM: u16 = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What stays the same from one connection to the next.
#[derive(Clone)]
pub struct LinkOptions {
    /// The broker's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The client id: the device's.
    pub client_id: String,
    /// None for plaintext.
    pub tls: Option<Arc<ClientConfig>>,
    /// Username and password.
    pub credentials: Option<(String, String)>,
    /// Between pings.
    pub keep_alive: Duration,
    /// How long the broker keeps our subscriptions and their messages.
    pub session_expiry: Duration,
    /// What to subscribe to.
    pub subscriptions: Vec<String>,
}

/// What differs.
pub struct Settings {
    /// The will's topic.
    pub will_topic: String,
    /// The will's payload.
    pub will: Vec<u8>,
    /// How long the broker waits before it publishes the will.
    pub will_delay: Duration,
}

/// What the broker granted in its CONNACK.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Granted {
    /// It kept our session.
    pub session_present: bool,
    /// It keeps retained messages.
    pub retain: bool,
    /// A packet's bytes at most.
    pub max_packet_bytes: Option<u32>,
    /// Our messages it takes ahead of its acknowledgements.
    pub receive_maximum: Option<u16>,
    /// Topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// How long it keeps the session, when it is not what we asked for.
    pub session_expiry_seconds: Option<u32>,
    /// The keep-alive it wants, when it is not what we asked for.
    pub keep_alive_seconds: Option<u16>,
}

/// What happens on a connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// It is up.
    Connected(Granted),
    /// A message for us. Acknowledge it when it is durable.
    Message(Publish),
    /// The broker has what was published last.
    Acknowledged,
    /// The broker does not take what was published last.
    Declined {
        /// For people.
        reason: String,
    },
    /// It is gone.
    Closed {
        /// For people.
        reason: String,
        /// The broker does not want us: trying again soon will not help.
        refused: bool,
    },
}

/// One connection.
pub struct Connection {
    client: AsyncClient,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Begins to connect. `events` hears the rest; the last event is `Closed`.
    pub fn open(options: &LinkOptions, settings: Settings, events: mpsc::Sender<LinkEvent>) -> Self {
        let mqtt = mqtt_options(options, settings);
        let (client, event_loop) = AsyncClient::new(mqtt, 16);
        let filters =
            options.subscriptions.iter().map(|topic| Filter::new(topic.clone(), QoS::AtLeastOnce)).collect();
        let task = tokio::task::spawn_local(run(event_loop, client.clone(), filters, events));
        Self { client, task }
    }

    /// Publishes, at least once.
    pub fn publish(&self, publication: Publication, expiry: Option<Duration>) -> Result<(), String> {
        let properties = PublishProperties {
            content_type: Some("application/json".to_owned()),
            message_expiry_interval: expiry.map(|expiry| expiry.as_secs() as u32),
            ..PublishProperties::default()
        };
        self.client
            .try_publish_with_properties(
                publication.topic,
                QoS::AtLeastOnce,
                publication.retain,
                publication.payload,
                properties,
            )
            .map_err(|error| error.to_string())
    }

    /// Tells the broker that a message is ours to keep now.
    pub fn acknowledge(&self, message: &Publish) {
        // If the queue is full the broker sends it again, and the id is found to be a replay: nothing runs twice.
        let _ = self.client.try_ack(message);
    }

    /// Says good-bye, so that the will is not published.
    pub fn disconnect(&self) {
        let _ = self.client.try_disconnect();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn mqtt_options(options: &LinkOptions, settings: Settings) -> MqttOptions {
    let mut mqtt = MqttOptions::new(options.client_id.clone(), options.host.clone(), options.port);
    let packet = limits::COMMAND_BYTES as u32 + PACKET_OVERHEAD;
    let mut network = NetworkOptions::new();
    // Small packets in both directions: without this, one waits 40 ms for the acknowledgement of another.
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    mqtt.set_keep_alive(options.keep_alive)
        .set_clean_start(false)
        .set_manual_acks(true)
        // One publication is under way at a time; the default makes a table of 65,536 places, 14 MB of them.
        .set_outgoing_inflight_upper_limit(16)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_session_expiry_interval(Some(options.session_expiry.as_secs() as u32))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(packet.max(limits::PAYLOAD_BYTES as u32 + PACKET_OVERHEAD)));
    if let Some((username, password)) = &options.credentials {
        mqtt.set_credentials(username, password);
    }
    if let Some(tls) = &options.tls {
        mqtt.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    let mut will = LastWill::new(settings.will_topic, settings.will, QoS::AtLeastOnce, true, None);
    will.properties = Some(LastWillProperties {
        delay_interval: Some(settings.will_delay.as_secs() as u32),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("application/json".to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: vec![],
    });
    mqtt.set_last_will(will);
    mqtt
}

async fn run(
    mut event_loop: EventLoop,
    client: AsyncClient,
    filters: Vec<Filter>,
    events: mpsc::Sender<LinkEvent>,
) {
    let keep_alive = event_loop.options.keep_alive();
    let mut is_up = false;
    let mut subscribed_by = None;
    let closed = loop {
        let event = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                if let Some(reason) = breaks_the_protocol(&ack, is_up) {
                    break LinkEvent::Closed { reason: reason.to_owned(), refused: true };
                }
                is_up = true;
                // A broker may turn keep-alive off; rumqttc would then ping without a pause, and give up.
                if event_loop.options.keep_alive().is_zero() {
                    event_loop.options.set_keep_alive(keep_alive);
                }
                if let Err(error) = client.try_subscribe_many(filters.clone()) {
                    break LinkEvent::Closed { reason: error.to_string(), refused: false };
                }
                LinkEvent::Connected(granted(&ack))
            }
            Ok(Event::Outgoing(Outgoing::Subscribe(id))) => {
                subscribed_by = Some(id);
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) if subscribed_by == Some(ack.pkid) => {
                match refused_subscription(&filters, &ack.return_codes) {
                    Some(reason) => break LinkEvent::Closed { reason, refused: true },
                    None => continue,
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => LinkEvent::Message(publish),
            Ok(Event::Incoming(Packet::PubAck(ack))) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => LinkEvent::Acknowledged,
                reason => {
                    LinkEvent::Declined { reason: format!("the broker took no publication: {reason:?}") }
                }
            },
            Ok(Event::Incoming(Packet::Disconnect(disconnect))) => {
                let reason = format!("the broker disconnected: {:?}", disconnect.reason_code);
                break LinkEvent::Closed { reason, refused: false };
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                break LinkEvent::Closed { reason: "said good-bye".to_owned(), refused: false };
            }
            Ok(_) => continue,
            Err(error) => break LinkEvent::Closed { refused: is_refusal(&error), reason: explain(&error) },
        };
        if events.send(event).await.is_err() {
            return;
        }
    };
    let _ = events.send(closed).await;
}

/// What no broker may say (MQTT 5, sections 3.2.2.3 and 3.2.4) and rumqttc does not notice: with a receive maximum of 0 it
/// would be connected and mute, and a second CONNACK would begin a session in the middle of another.
fn breaks_the_protocol(ack: &ConnAck, is_up: bool) -> Option<&'static str> {
    let granted = ack.properties.as_ref();
    if is_up {
        Some("the broker accepted one connection twice")
    } else if granted.is_some_and(|granted| granted.receive_max == Some(0)) {
        Some("the broker takes no messages: its receive maximum is 0")
    } else if granted.is_some_and(|granted| granted.max_packet_size == Some(0)) {
        Some("the broker takes no packets: its maximum packet size is 0")
    } else {
        None
    }
}

/// A device without its subscriptions would look alive and hear nothing. The answers stand in the order of the filters
/// (MQTT 5, section 3.9.3).
fn refused_subscription(filters: &[Filter], answers: &[SubscribeReasonCode]) -> Option<String> {
    if answers.len() != filters.len() {
        return Some(format!(
            "the broker answered {} of {} subscriptions: it breaks the protocol",
            answers.len(),
            filters.len()
        ));
    }
    let (filter, reason) = filters.iter().zip(answers).find_map(|(filter, answer)| match answer {
        SubscribeReasonCode::Success(_) => None,
        reason => Some((filter, reason)),
    })?;
    Some(format!(
        "the broker refused the subscription to {} ({reason:?}): its access list must allow the device to subscribe there",
        filter.path
    ))
}

fn granted(ack: &ConnAck) -> Granted {
    let properties = ack.properties.as_ref();
    Granted {
        session_present: ack.session_present,
        retain: properties.and_then(|granted| granted.retain_available) != Some(0),
        max_packet_bytes: properties.and_then(|granted| granted.max_packet_size),
        receive_maximum: properties.and_then(|granted| granted.receive_max),
        topic_alias_maximum: properties.and_then(|granted| granted.topic_alias_max).unwrap_or(0),
        session_expiry_seconds: properties.and_then(|granted| granted.session_expiry_interval),
        keep_alive_seconds: properties.and_then(|granted| granted.server_keep_alive),
    }
}

fn is_refusal(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::BadClientId
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::Banned
        )
    )
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        ConnectionError::Timeout(_) => {
            format!(
                "no connection within {} s: is the broker's address right, and not filtered?",
                CONNECT_TIMEOUT.as_secs()
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> Vec<Filter> {
        ["v/r/command", "v/r/presence"].map(|topic| Filter::new(topic, QoS::AtLeastOnce)).to_vec()
    }

    #[test]
    fn a_refused_subscription_is_named_with_what_the_broker_must_allow() {
        let answers = [SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::NotAuthorized];
        let reason = refused_subscription(&filters(), &answers).unwrap();
        assert!(reason.contains("v/r/presence (NotAuthorized): its access list must allow"), "{reason}");
    }

    #[test]
    fn a_subscription_granted_with_another_qos_is_granted() {
        let answers = [QoS::AtMostOnce, QoS::ExactlyOnce].map(SubscribeReasonCode::Success);
        assert_eq!(refused_subscription(&filters(), &answers), None);
    }

    #[test]
    fn a_subscription_that_is_not_answered_is_not_granted() {
        let reason = refused_subscription(&filters(), &[SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
        assert!(reason.unwrap().contains("1 of 2"));
    }
}
