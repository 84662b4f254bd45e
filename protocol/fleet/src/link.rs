//! One connection to the broker, in MQTT 5 or, where it has no 5, in 3.1.1. Everything that waits does so with a deadline.

mod v4;

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, Packet, PubAckReason, PublishProperties, RetainForwardRule,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as MqttEvent, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, SubscribeFilter, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vigil_protocol::limits;

use crate::failure::Failure;
use crate::settings::{Broker, Layer};
use crate::tls;

/// The largest packet that is taken: payload, topic, properties and header.
const PACKET_BYTES: u32 = 2 * limits::PAYLOAD_BYTES as u32 + 4096;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_secs(3);
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(15);
const PASSWORD_BYTES: u64 = 4096;
/// Bytes of messages that may come before the broker answers; with more, the connection is given up.
const EARLY_BYTES: usize = 64 * 1024 * 1024;

/// A message from the broker. Nobody has vouched for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload, of any size up to twice what a device may send.
    pub payload: Vec<u8>,
}

enum Event {
    Connected,
    Message(Message),
    Subscribed(bool),
    /// With the reason, if the broker does not take it.
    Published(Option<String>),
    Closed {
        why: String,
        /// It may speak 3.1.1.
        speaks_no_5: bool,
    },
}

enum Client {
    V5(AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// A connection that is up.
pub struct Link {
    client: Client,
    events: mpsc::Receiver<Event>,
    early: VecDeque<Message>,
    early_bytes: usize,
    task: tokio::task::JoinHandle<()>,
    name: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        match &self.client {
            Client::V5(client) => drop(client.try_disconnect()),
            Client::V4(client) => drop(client.try_disconnect()),
        }
        self.task.abort();
    }
}

impl Link {
    /// Connects, as a client that the broker forgets when it goes.
    pub async fn open(settings: &Layer) -> Result<Self, Failure> {
        let (client, event_loop) = AsyncClient::new(options(settings)?, 16);
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(run(event_loop, sender));
        let link = Self::new(settings, Client::V5(client), events, task)?;
        let (failure, speaks_no_5) = match link.up(settings).await {
            Ok(link) => return Ok(link),
            Err(refusal) => refusal,
        };
        if !speaks_no_5 {
            return Err(failure);
        }
        let (client, event_loop) = rumqttc::AsyncClient::new(v4::options(settings)?, 16);
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(v4::run(event_loop, sender));
        // If it does not speak that either, the first reason is the better one.
        Self::new(settings, Client::V4(client), events, task)?.up(settings).await.map_err(|_| failure)
    }

    fn new(
        settings: &Layer,
        client: Client,
        events: mpsc::Receiver<Event>,
        task: tokio::task::JoinHandle<()>,
    ) -> Result<Self, Failure> {
        let broker = settings.broker()?;
        let name = format!("{}:{}", broker.host, broker.port);
        Ok(Self { client, events, early: VecDeque::new(), early_bytes: 0, task, name })
    }

    /// Waits until it is up, or for the reason why not, and whether that may be the version.
    async fn up(mut self, settings: &Layer) -> Result<Self, (Failure, bool)> {
        match timeout_at(Instant::now() + CONNECT_TIMEOUT, self.events.recv()).await {
            Ok(Some(Event::Connected)) => Ok(self),
            Ok(Some(Event::Closed { why, speaks_no_5 })) => {
                Err((Failure::Unreachable(format!("{}: {why}", self.name)), speaks_no_5))
            }
            _ => {
                let failure = Failure::Unreachable(format!(
                    "no answer from {} within {} s: is the address right, and not filtered?",
                    self.name,
                    CONNECT_TIMEOUT.as_secs()
                ));
                Err((failure, listens(settings).await))
            }
        }
    }

    /// Subscribes, and waits until the broker has granted it.
    pub async fn subscribe(&mut self, filters: &[String]) -> Result<(), Failure> {
        match &self.client {
            Client::V5(client) => {
                let wanted = filters.iter().map(|filter| {
                    let mut wanted = Filter::new(filter.clone(), QoS::AtLeastOnce);
                    // MQTT 5 (4.8.2) has no retained messages on a shared subscription; brokers that send them send each
                    // of the sharers the same.
                    if filter.starts_with("$share/") {
                        wanted.retain_forward_rule = RetainForwardRule::Never;
                    }
                    wanted
                });
                client.try_subscribe_many(wanted).map_err(|error| Failure::Unreachable(error.to_string()))?;
            }
            Client::V4(client) => {
                let wanted = filters
                    .iter()
                    .map(|filter| SubscribeFilter::new(filter.clone(), rumqttc::QoS::AtLeastOnce));
                client.try_subscribe_many(wanted).map_err(|error| Failure::Unreachable(error.to_string()))?;
            }
        }
        let deadline = Instant::now() + ACKNOWLEDGE_TIMEOUT;
        while let Some(event) = self.event(deadline).await? {
            match event {
                Event::Subscribed(true) => return Ok(()),
                Event::Subscribed(false) => {
                    return Err(Failure::Failed(format!(
                        "the broker lets us not read {}; its access list must name this operator",
                        filters.join(", ")
                    )));
                }
                Event::Message(message) => self.put_by(message)?,
                _ => {}
            }
        }
        Err(Failure::NoAnswer(format!("{} did not answer the subscription", self.name)))
    }

    /// Publishes at least once, not retained, and waits until the broker has it.
    pub async fn publish(&mut self, topic: &str, payload: Vec<u8>, expiry: Duration) -> Result<(), Failure> {
        match &self.client {
            Client::V5(client) => {
                let properties = PublishProperties {
                    content_type: Some("application/json".to_owned()),
                    message_expiry_interval: Some(expiry.as_secs().clamp(1, u64::from(u32::MAX)) as u32),
                    ..PublishProperties::default()
                };
                client
                    .try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
                    .map_err(|error| Failure::Unreachable(error.to_string()))?;
            }
            // The expiry is in the signed command as well, and only that one counts.
            Client::V4(client) => client
                .try_publish(topic, rumqttc::QoS::AtLeastOnce, false, payload)
                .map_err(|error| Failure::Unreachable(error.to_string()))?,
        }
        let deadline = Instant::now() + ACKNOWLEDGE_TIMEOUT;
        while let Some(event) = self.event(deadline).await? {
            match event {
                Event::Published(None) => return Ok(()),
                Event::Published(Some(reason)) => {
                    return Err(Failure::Failed(format!(
                        "the broker refused the message to {topic} ({reason}); its access list must let this \
                         operator write there"
                    )));
                }
                Event::Message(message) => self.put_by(message)?,
                _ => {}
            }
        }
        Err(Failure::NoAnswer(format!("{} did not acknowledge the message", self.name)))
    }

    /// The next message, or none by the deadline.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<Message>, Failure> {
        if let Some(message) = self.early.pop_front() {
            self.early_bytes -= message.payload.len();
            return Ok(Some(message));
        }
        while let Some(event) = self.event(deadline).await? {
            if let Event::Message(message) = event {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn put_by(&mut self, message: Message) -> Result<(), Failure> {
        self.early_bytes += message.payload.len();
        if self.early_bytes > EARLY_BYTES {
            return Err(Failure::Unreachable(format!("{} sends more than can be kept", self.name)));
        }
        self.early.push_back(message);
        Ok(())
    }

    async fn event(&mut self, deadline: Instant) -> Result<Option<Event>, Failure> {
        let gone = |why: &str| Failure::Unreachable(format!("{}: {why}", self.name));
        match timeout_at(deadline, self.events.recv()).await {
            Err(_) => Ok(None),
            Ok(Some(Event::Closed { why, .. })) => Err(gone(&why)),
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => Err(gone("the connection is gone")),
        }
    }
}

/// Whether somebody is there at all. Some brokers without MQTT 5 answer its CONNECT with nothing, or with half a packet.
async fn listens(settings: &Layer) -> bool {
    let Ok(broker) = settings.broker() else { return false };
    let connected = tokio::net::TcpStream::connect((broker.host.as_str(), broker.port));
    matches!(timeout_at(Instant::now() + LOOK, connected).await, Ok(Ok(_)))
}

fn client_id() -> Result<String, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Failure::Failed(format!("no random bytes: {error}")))?;
    Ok(format!("fleet-{}", data_encoding::HEXLOWER.encode(&random)))
}

fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    // Small packets in both directions: without this, one waits 40 ms for the acknowledgement of another.
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    network
}

fn transport(settings: &Layer, broker: &Broker) -> Result<Transport, Failure> {
    if !broker.tls {
        return Ok(Transport::Tcp);
    }
    let identity = settings.cert.as_deref().zip(settings.key.as_deref());
    let tls = tls::client(settings.ca.as_deref(), identity)?;
    Ok(Transport::Tls(TlsConfiguration::Rustls(tls)))
}

fn login(settings: &Layer) -> Result<Option<(String, String)>, Failure> {
    let Some(username) = &settings.username else { return Ok(None) };
    let password = settings.password_file.as_deref().map(|path| {
        vigil_durable::read_bounded(path, PASSWORD_BYTES)
            .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    });
    let password = password.transpose()?.unwrap_or_default();
    Ok(Some((username.clone(), password.trim_end_matches(['\r', '\n']).to_owned())))
}

fn options(settings: &Layer) -> Result<MqttOptions, Failure> {
    let broker = settings.broker()?;
    let transport = transport(settings, &broker)?;
    let mut mqtt = MqttOptions::new(client_id()?, broker.host, broker.port);
    mqtt.set_network_options(network());
    mqtt.set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        // What is larger, the broker keeps from us (MQTT 5, 3.1.2.11.4).
        .set_max_packet_size(Some(PACKET_BYTES))
        .set_transport(transport);
    if let Some((username, password)) = login(settings)? {
        mqtt.set_credentials(username, password);
    }
    Ok(mqtt)
}

async fn run(mut event_loop: EventLoop, events: mpsc::Sender<Event>) {
    loop {
        let event = match event_loop.poll().await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => Event::Connected,
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                match String::from_utf8(publish.topic.to_vec()) {
                    Ok(topic) => Event::Message(Message { topic, payload: publish.payload.to_vec() }),
                    Err(_) => continue,
                }
            }
            Ok(MqttEvent::Incoming(Packet::SubAck(ack))) => Event::Subscribed(
                ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))),
            ),
            Ok(MqttEvent::Incoming(Packet::PubAck(ack))) => Event::Published(match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(format!("{reason:?}")),
            }),
            Ok(_) => continue,
            Err(error) => {
                let closed = Event::Closed { why: explain(&error), speaks_no_5: speaks_no_5(&error) };
                let _ = events.send(closed).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Whether it is how a broker that has only 3.1.1 answers: by name, with the CONNACK of its own version, or by hanging up.
fn speaks_no_5(error: &ConnectionError) -> bool {
    use ConnectReturnCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
    match error {
        ConnectionError::ConnectionRefused(code) => {
            matches!(code, UnsupportedProtocolVersion | RefusedProtocolVersion)
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        ConnectionError::MqttState(StateError::Deserialization(error)) => match error {
            PacketError::InvalidConnectReturnCode(code) => *code == 1,
            PacketError::Io(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            _ => false,
        },
        _ => false,
    }
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused us ({code:?}); check username, password file and certificate")
        }
        ConnectionError::Timeout(_) => {
            "no answer in time: is the address right, and not filtered?".to_owned()
        }
        ConnectionError::Tls(error) => format!("TLS: {error}; check ca, cert and key"),
        ConnectionError::Io(error) => format!("{error}; check the broker's address"),
        other => other.to_string(),
    }
}
