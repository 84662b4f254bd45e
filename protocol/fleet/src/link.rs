//! One connection to the broker. Everything that waits does so with a deadline.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as MqttEvent, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vigil_protocol::limits;

use crate::failure::Failure;
use crate::settings::{Broker, Layer};
use crate::tls;

/// Topic, properties and header of a packet.
const PACKET_OVERHEAD: u32 = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
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
    Published(PubAckReason),
    Closed(String),
}

/// A connection that is up.
pub struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    early: VecDeque<Message>,
    early_bytes: usize,
    task: tokio::task::JoinHandle<()>,
    name: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
        self.task.abort();
    }
}

impl Link {
    /// Connects, as a client that the broker forgets when it goes.
    pub async fn open(settings: &Layer) -> Result<Self, Failure> {
        let broker = settings.broker()?;
        let name = format!("{}:{}", broker.host, broker.port);
        let (client, event_loop) = AsyncClient::new(options(settings, broker)?, 16);
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(run(event_loop, sender));
        let mut link = Self { client, events, early: VecDeque::new(), early_bytes: 0, task, name };
        match link.event(Instant::now() + CONNECT_TIMEOUT).await? {
            Some(Event::Connected) => Ok(link),
            _ => Err(Failure::Unreachable(format!(
                "no answer from {} within {} s: is the address right, and not filtered?",
                link.name,
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Subscribes, and waits until the broker has granted it.
    pub async fn subscribe(&mut self, filters: &[String]) -> Result<(), Failure> {
        let wanted = filters.iter().map(|filter| {
            let mut wanted = Filter::new(filter.clone(), QoS::AtLeastOnce);
            // MQTT 5 (4.8.2) has no retained messages on a shared subscription; brokers that send them send each of the
            // sharers the same.
            if filter.starts_with("$share/") {
                wanted.retain_forward_rule = RetainForwardRule::Never;
            }
            wanted
        });
        self.client.try_subscribe_many(wanted).map_err(|error| Failure::Unreachable(error.to_string()))?;
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
        let properties = PublishProperties {
            content_type: Some("application/json".to_owned()),
            message_expiry_interval: Some(expiry.as_secs().clamp(1, u64::from(u32::MAX)) as u32),
            ..PublishProperties::default()
        };
        self.client
            .try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let deadline = Instant::now() + ACKNOWLEDGE_TIMEOUT;
        while let Some(event) = self.event(deadline).await? {
            match event {
                Event::Published(PubAckReason::Success | PubAckReason::NoMatchingSubscribers) => {
                    return Ok(());
                }
                Event::Published(reason) => {
                    return Err(Failure::Failed(format!(
                        "the broker refused the message to {topic} ({reason:?}); its access list must let this \
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
            Ok(Some(Event::Closed(why))) => Err(gone(&why)),
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => Err(gone("the connection is gone")),
        }
    }
}

fn options(settings: &Layer, broker: Broker) -> Result<MqttOptions, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Failure::Failed(format!("no random bytes: {error}")))?;
    let id = format!("fleet-{}", data_encoding::HEXLOWER.encode(&random));
    let mut mqtt = MqttOptions::new(id, broker.host, broker.port);
    let mut network = NetworkOptions::new();
    // Small packets in both directions: without this, one waits 40 ms for the acknowledgement of another.
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    mqtt.set_keep_alive(Duration::from_secs(30))
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        // What is larger, the broker keeps from us (MQTT 5, 3.1.2.11.4).
        .set_max_packet_size(Some(2 * limits::PAYLOAD_BYTES as u32 + PACKET_OVERHEAD));
    if broker.tls {
        let identity = settings.cert.as_deref().zip(settings.key.as_deref());
        let tls = tls::client(settings.ca.as_deref(), identity)?;
        mqtt.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
    }
    let password = settings.password_file.as_deref().map(|path| {
        vigil_durable::read_bounded(path, PASSWORD_BYTES)
            .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    });
    let password = password.transpose()?.unwrap_or_default();
    if let Some(username) = &settings.username {
        mqtt.set_credentials(username, password.trim_end_matches(['\r', '\n']));
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
            Ok(MqttEvent::Incoming(Packet::PubAck(ack))) => Event::Published(ack.reason),
            Ok(_) => continue,
            Err(error) => {
                let _ = events.send(Event::Closed(explain(&error))).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
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
