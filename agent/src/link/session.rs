//! One connection to the broker: a task that moves bytes between the network and an [`Exchange`], which knows what they
//! mean. What must be said again after it is in the outbox, what must be heard again is the broker's to keep.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Publication;
use super::dial::{Dial, Step, Wire, advice, dial};
use super::exchange::Exchange;
use super::mqtt::{Ending, Message, Outgoing, Receipt, Refusal, Say, Version};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests of the daemon that wait to be sent: one publication, and acknowledgements.
const ASKS: usize = 64;

/// What stays the same from one connection to the next.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// How the broker is reached.
    pub dial: Dial,
    /// The version of MQTT.
    pub version: Version,
    /// The client id: the device's.
    pub client_id: String,
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
#[derive(Debug)]
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
    Message(Message),
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
        /// What it says of the next attempt.
        ending: Ending,
    },
}

enum Ask {
    Publish(Outgoing),
    Acknowledge(Receipt),
    GoodBye,
}

/// One connection.
pub struct Connection {
    asks: mpsc::Sender<Ask>,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Begins to connect. `events` hears the rest; the last event is `Closed`.
    pub fn open(options: LinkOptions, settings: Settings, events: mpsc::Sender<LinkEvent>) -> Self {
        let (asks, asked) = mpsc::channel(ASKS);
        let task = tokio::task::spawn_local(vigil_turns::task("link", async move {
            let ended = run(&options, &settings, asked, &events).await;
            let closed = LinkEvent::Closed { reason: ended.reason, ending: ended.ending };
            let _ = events.send(closed).await;
        }));
        Self { asks, task }
    }

    /// Publishes, at least once.
    pub fn publish(&self, publication: Publication, expiry: Option<Duration>) -> Result<(), String> {
        let Publication { topic, payload, retain, .. } = publication;
        let outgoing = Outgoing { id: 0, topic, payload, retain, expiry };
        self.asks.try_send(Ask::Publish(outgoing)).map_err(|error| error.to_string())
    }

    /// Tells the broker that a message is ours to keep now.
    pub fn acknowledge(&self, message: &Message) {
        // If the queue is full the broker sends it again, and the id is found to be a replay: nothing runs twice.
        let _ = self.asks.try_send(Ask::Acknowledge(message.receipt));
    }

    /// Says good-bye, so that the will is not published.
    pub fn disconnect(&self) {
        let _ = self.asks.try_send(Ask::GoodBye);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    options: &LinkOptions,
    settings: &Settings,
    mut asks: mpsc::Receiver<Ask>,
    events: &mpsc::Sender<LinkEvent>,
) -> Refusal {
    let connect_by = Instant::now() + CONNECT_TIMEOUT;
    let step = Cell::new(Step::Name);
    let mut wire = match timeout_at(connect_by, dial(&options.dial, &step)).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => {
            let ending = if error.is_lasting() { Ending::Lasting } else { Ending::Passing };
            return Refusal { reason: error.to_string(), ending };
        }
        Err(_) => {
            let reason = step.get().hangs(&options.dial, CONNECT_TIMEOUT);
            return Refusal { reason, ending: Ending::Passing };
        }
    };
    let connect = Say::Connect(options, settings);
    let filters = options.subscriptions.clone();
    let exchange =
        Exchange::begin(options.version, connect, filters, options.keep_alive, connect_by, Instant::now());
    match exchange {
        Ok(exchange) => converse(&mut wire, exchange, &mut asks, events).await,
        Err(refusal) => refusal,
    }
}

/// Until one of the two ends it.
async fn converse(
    wire: &mut Wire,
    mut exchange: Exchange,
    asks: &mut mpsc::Receiver<Ask>,
    events: &mpsc::Sender<LinkEvent>,
) -> Refusal {
    let mut came = BytesMut::new();
    let lost = |reason: String| Refusal { reason, ending: Ending::Passing };
    loop {
        let out = exchange.take_out();
        if !out.is_empty() {
            match timeout(exchange.grace(), wire.write(out)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return lost(format!("the connection broke: {error}")),
                Err(_) => return lost("the broker takes nothing more: the connection is stuck".to_owned()),
            }
        }
        let done = tokio::select! {
            // The daemon's few words first, so that a flood does not hold them up; the timer last, for what has come may be
            // the sign of life that it misses.
            biased;
            Some(ask) = asks.recv() => {
                let now = Instant::now();
                match ask {
                    Ask::Publish(outgoing) => exchange.publish(outgoing, now),
                    Ask::Acknowledge(receipt) => exchange.acknowledge(receipt, now),
                    Ask::GoodBye => {
                        let said = exchange.say_good_bye(now);
                        return said.err().unwrap_or(good_bye(wire, exchange).await);
                    }
                }
            }
            read = wire.read(&mut came) => match read {
                Ok(0) if !exchange.is_up() => return silence("closed the connection"),
                Ok(0) => return lost("the broker closed the connection".to_owned()),
                Ok(_) => match hear(&mut exchange, &mut came, events).await {
                    Ok(()) => exchange.on_time(Instant::now()),
                    refused => refused,
                },
                Err(error) if !exchange.is_up() && error.kind() == io::ErrorKind::ConnectionReset => {
                    return silence("reset the connection");
                }
                Err(error) => return lost(format!("the connection broke: {error}{}", advice(&error))),
            },
            () = sleep_until(exchange.wakes_at()) => exchange.on_time(Instant::now()),
        };
        if let Err(refusal) = done {
            return refusal;
        }
    }
}

fn silence(what: &str) -> Refusal {
    let reason = format!("the broker {what} as an answer to CONNECT: its log may say why");
    Refusal { reason, ending: Ending::Silence }
}

/// Tells the daemon what all the packets mean that are whole.
async fn hear(
    exchange: &mut Exchange,
    came: &mut BytesMut,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), Refusal> {
    while let Some(heard) = exchange.read(came)? {
        if let Some(event) = exchange.hear(heard, Instant::now())? {
            // Nobody there to hear it: this task is about to be ended.
            let _ = events.send(event).await;
        }
    }
    Ok(())
}

async fn good_bye(wire: &mut Wire, mut exchange: Exchange) -> Refusal {
    let said: Result<io::Result<()>, _> = timeout(exchange.grace(), async {
        wire.write(exchange.take_out()).await?;
        wire.close().await
    })
    .await;
    let reason = match said {
        Ok(Ok(())) => "said good-bye",
        _ => "the broker did not hear the good-bye",
    };
    Refusal { reason: reason.to_owned(), ending: Ending::Passing }
}
