//! What the daemon says, and over which connection.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};
use vigil_protocol::limits;
use vigil_protocol::state::{Config as ConfigState, Digest, Message, Presence, PresenceStatus};
use vigil_protocol::topic::{IncidentId, StateTopic};
use vigil_text::Sentence;

use super::{Daemon, LinkState, random, random_share};
use crate::audit::Outcome;
use crate::config::ProxyUrl;
use crate::health::{Looked, Machine};
use crate::link::{
    Connection, Dial, Ending, LinkEvent, LinkOptions, Place, Proxy, Settings, Verdict, sign_digest,
};
use crate::report::{incidents, update_state};
use crate::tls::{self, ClientIdentity};

/// What was said of our presence last is known again when it comes back.
const PRESENCES: usize = 4;
/// The broker waits this long before it tells the others that we are gone.
const WILL_DELAY: Duration = Duration::from_secs(10);
/// A digest only for a newer audit checkpoint is not signed more often than this.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(30);
/// Progress is published at most so often.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Answers that nobody fetched are of no use after this.
const RESULT_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// An attempt that need not wait comes within this time, so that not all of a fleet do at the same moment.
const AT_ONCE: Duration = Duration::from_secs(1);
const PASSWORD_BYTES: u64 = 4096;

/// When the next attempt comes.
enum Next {
    AtOnce,
    Soon,
    Late,
}

impl Daemon {
    /// Begins to connect, with what the configuration and the disk say now: a certificate may have come meanwhile.
    pub(super) fn connect(&mut self) {
        self.reconnect_at = None;
        self.link.attempts += 1;
        let opened = self.link_options().and_then(|options| {
            self.numbers.begin_session()?;
            Ok((options, self.will()?))
        });
        match opened {
            Ok((options, settings)) => {
                let configured = (&self.config.broker.url.host, self.config.broker.url.port);
                self.link.version = Some(options.version);
                self.link.elsewhere =
                    ((&options.dial.host, options.dial.port) != configured).then(|| options.dial.place());
                self.connection = Some(Connection::open(options, settings, self.link_events.clone()));
            }
            Err(error) => self.on_closed(&error.to_string(), Ending::Lasting),
        }
    }

    fn link_options(&self) -> io::Result<LinkOptions> {
        let broker = &self.config.broker;
        let certificate = self.config.client_cert_file();
        let key = self.identity.tls_key_path();
        let identity = certificate.exists().then(|| ClientIdentity { certificate: &certificate, key: &key });
        let tls = if broker.url.tls {
            let mut tls = tls::client(broker.ca_file.as_deref(), identity, crate::proven::TlsTime::Proven)?;
            Arc::make_mut(&mut tls).alpn_protocols =
                broker.alpn.iter().map(|name| name.clone().into_bytes()).collect();
            Some(tls)
        } else {
            None
        };
        let url = &broker.url;
        let Place { host, port } = self.redirects.target().clone();
        let proxy = match &broker.proxy {
            Some(ProxyUrl::None) => None,
            Some(ProxyUrl::Http { host, port }) => {
                let password = read_password(broker.proxy_password_file.as_deref())?;
                let credentials = broker.proxy_username.clone().map(|username| (username, password));
                Some(Proxy::configured(host, *port, credentials))
            }
            None => Proxy::of_environment(&host, port, url.tls)?,
        };
        let password = read_password(broker.password_file.as_deref())?;
        let groups = self.config.device.groups.iter().map(|group| self.topics.group_command(group));
        Ok(LinkOptions {
            dial: Dial { host, port, tls, websocket: url.websocket.clone(), proxy },
            version: self.fallback.version(),
            client_id: self.config.device.id.clone(),
            credentials: broker.username.clone().map(|username| (username, password)),
            keep_alive: broker.keep_alive,
            session_expiry: broker.session_expiry,
            // Our own presence is heard, so that an old will that lands late is noticed.
            subscriptions: [self.topics.command(), self.topics.state(StateTopic::Presence)]
                .into_iter()
                .chain(groups)
                .collect(),
        })
    }

    fn will(&mut self) -> io::Result<Settings> {
        let body = Presence { status: PresenceStatus::Lost, session: self.numbers.session() };
        let (_, will) = self.numbers.message(body)?;
        Ok(Settings {
            will_topic: self.topics.state(StateTopic::Presence),
            will,
            will_delay: WILL_DELAY.min(self.config.broker.session_expiry),
        })
    }

    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(granted) => {
                info!(?granted, "connected");
                self.numbers.use_session();
                self.fallback.learn(Verdict::Spoken);
                let url = String::from(self.config.broker.url.clone());
                let session = self.numbers.session();
                self.record(
                    "link.connected",
                    "device",
                    Outcome::Success,
                    json!({
                        "broker": url, "session": session,
                        "mqtt": self.link.version, "sent_to": self.link.elsewhere,
                    }),
                );
                let limit = granted.max_packet_bytes.map(|bytes| bytes as usize);
                self.outbox.connected(granted.session_present, limit);
                self.confirm_trial();
                self.link = LinkState {
                    granted: Some(granted),
                    since: Some(Timestamp::now()),
                    up_since: Some(Instant::now()),
                    attempts: self.link.attempts,
                    version: self.link.version,
                    elsewhere: self.link.elsewhere.take(),
                    ..LinkState::default()
                };
                self.hearing.on_connected(session, self.elapsed());
                self.nonce = format!("{:016x}", random());
                self.digested = None;
                self.publish_presence(PresenceStatus::Online);
                self.say_undelivered();
                self.set_contact(|contact| contact.broker = true);
            }
            LinkEvent::Message(message) => {
                if message.topic == self.topics.state(StateTopic::Presence) {
                    self.on_own_presence(&message.payload);
                    if let Some(connection) = &self.connection {
                        connection.acknowledge(&message);
                    }
                } else {
                    self.on_command(message);
                }
            }
            LinkEvent::Acknowledged => {
                self.patience.answered();
                if let Some(id) = self.outbox.acknowledged() {
                    self.on_delivered(&id);
                }
            }
            LinkEvent::Declined { reason } => {
                // Not again on this connection. A final answer stays undelivered, and is said on the next.
                self.patience.answered();
                self.outbox.refused();
                let reason = Sentence::new(&reason);
                if self.hearing.on_refused(&reason) {
                    warn!(%reason, "the broker refused a publication");
                }
                self.link.last_error = Some(reason.into_string());
            }
            LinkEvent::Closed { reason, ending } => self.on_closed(&reason, ending),
        }
    }

    fn on_closed(&mut self, reason: &str, ending: Ending) {
        let was_up = self.link.granted.take().is_some();
        if let Some(since) = self.link.up_since.take() {
            let has_lasted = self.backoff.lasted(since.elapsed());
            self.redirects.ended(has_lasted);
            self.fallback.ended();
        }
        let (reason, next) = self.next_attempt(reason, &ending, was_up);
        self.connection = None;
        self.patience.answered();
        // What was not acknowledged the broker sends again.
        self.unheard.clear();
        if was_up {
            self.forget_delivered();
            self.backoff.lost();
        }
        self.outbox.disconnected();
        self.link.last_error = Some(reason.clone());
        self.link.since = None;
        let pause = match next {
            Next::AtOnce => AT_ONCE.mul_f64(random_share()),
            Next::Soon => self.backoff.next(false, random()),
            Next::Late => self.backoff.next(true, random()),
        };
        warn!(reason, pause_millis = pause.as_millis() as u64, "no connection to the broker");
        if was_up || !self.link.recorded_failure {
            self.record_repeated(if was_up { "link.lost" } else { "link.failed" }, &reason);
            self.link.recorded_failure = true;
        }
        self.reconnect_at = Some(Instant::now() + pause);
        self.set_contact(|contact| contact.broker = false);
    }

    /// What an end says of the next attempt: where to, in which version, how soon. The reason may grow by what became of
    /// a broker's word.
    fn next_attempt(&mut self, reason: &str, ending: &Ending, was_up: bool) -> (String, Next) {
        let mut reason = reason.to_owned();
        let next = match ending {
            Ending::Passing => Next::Soon,
            Ending::Lasting => Next::Late,
            Ending::Silence => {
                self.fallback.learn(Verdict::Silence);
                Next::Soon
            }
            Ending::TakenOver => {
                self.hearing.on_taken_over(self.elapsed());
                Next::Late
            }
            Ending::OtherVersion if self.fallback.learn(Verdict::Unknown) => Next::AtOnce,
            Ending::OtherVersion => {
                reason += "; see broker.mqtt_version";
                Next::Late
            }
            Ending::Elsewhere(reference) => match self.redirects.follow(reference) {
                // When a whole fleet is sent away at once, it spreads as after any other loss.
                Ok(()) if was_up => Next::Soon,
                Ok(()) => Next::AtOnce,
                Err(why) => {
                    reason = format!("{reason}; {why}");
                    Next::Late
                }
            },
        };
        if !was_up && !matches!(ending, Ending::Elsewhere(_) | Ending::OtherVersion) {
            self.redirects.failed();
        }
        (reason, next)
    }

    /// The broker answers pings, perhaps, and nothing else.
    pub(super) fn lose_patience(&mut self) {
        let reason = self.patience.reason();
        self.on_closed(&reason, Ending::Passing);
    }

    /// An old session's will, or somebody else, says that we are not there: say again that we are.
    fn on_own_presence(&mut self, payload: &[u8]) {
        if payload.len() > limits::PAYLOAD_BYTES {
            return;
        }
        let online = serde_json::from_slice::<Message<Presence>>(payload)
            .ok()
            .filter(|message| message.body.status == PresenceStatus::Online)
            .map(|message| message.body.session);
        // A copy of this device counts its sessions as this one does, and says it at another moment.
        let is_ours = self.presences.iter().any(|own| own == payload);
        self.hearing.on_presence(online, is_ours, self.elapsed());
        if online != Some(self.numbers.session()) {
            self.outbox.assert_again(StateTopic::Presence);
        }
    }

    pub(super) fn publish_presence(&mut self, status: PresenceStatus) {
        let session = self.numbers.session();
        self.publish(StateTopic::Presence, Presence { status, session });
    }

    fn publish_inventory(&mut self, machine: Machine) {
        let inventory = crate::health::inventory(&self.config, &self.identity, machine);
        self.publish(StateTopic::Inventory, inventory);
    }

    pub(super) fn publish_config(&mut self) {
        let overlay_version = self.config.overlay_version;
        self.publish(StateTopic::Config, ConfigState { overlay_version, effective: self.config.redacted() });
    }

    /// The updater's state, when it says something new; progress and outcome not with every frame.
    pub(super) fn publish_update(&mut self) {
        let update = update_state(self.update.as_ref());
        if let Some((at, published)) = &self.update_published {
            let mut same_but_progress = update.clone();
            same_but_progress.progress.clone_from(&published.progress);
            // It ends with the state that follows the writing.
            same_but_progress.outcome.clone_from(&published.outcome);
            if update == *published || (same_but_progress == *published && at.elapsed() < PROGRESS_PAUSE) {
                return;
            }
        }
        self.update_published = Some((Instant::now(), update.clone()));
        self.publish(StateTopic::Update, update);
    }

    /// Says which incidents there are. What the broker may still keep of an earlier run is closed as well.
    pub(super) fn publish_incidents(&mut self) {
        let open = incidents(self.update.as_ref().map(|status| &status.trust), self.operators.as_ref());
        for id in IncidentId::ALL {
            let incident = open.iter().find(|incident| incident.id == id.name()).cloned();
            if self.incidents.get(&id) == Some(&incident) {
                continue;
            }
            match &incident {
                Some(incident) => {
                    let detail = json!({ "id": id.name(), "title": incident.title });
                    self.record("incident.opened", "device", Outcome::Failure, detail);
                    self.publish(StateTopic::Incident(id), incident.clone());
                }
                None => {
                    if self.incidents.get(&id).is_some_and(Option::is_some) {
                        let detail = json!({ "id": id.name() });
                        self.record("incident.closed", "device", Outcome::Success, detail);
                    }
                    let seq = self.numbers.take();
                    self.outbox.set_state(StateTopic::Incident(id), seq, Vec::new());
                }
            }
            self.incidents.insert(id, incident);
        }
    }

    /// Says all retained state anew, with a new digest over it.
    pub(super) fn say_everything(&mut self) {
        self.outbox.assert_all_again();
        self.digested = None;
    }

    /// Looks at the machine.
    pub(super) fn look(&mut self) {
        // Before there is a newer one: what waits since the last look is not taken by the broker.
        self.keep(true);
        self.collectors.ask();
        self.tell_untold();
        self.settle();
    }

    /// What a look at the machine has found.
    pub(super) fn on_looked(&mut self, result: (u64, Looked)) {
        let Some(Looked { health, machine }) = self.collectors.take(result) else { return };
        let is_first = machine.is_some();
        if let Some(machine) = machine {
            self.publish_inventory(machine);
        }
        self.health = Some(health.clone());
        if let Some(health) = self.reporter.on_snapshot(self.elapsed(), health) {
            self.publish(StateTopic::Health, health);
        }
        if is_first {
            // As all that is said at a start: a process that is killed before the broker has it leaves it to the next one.
            self.keep(true);
        }
    }

    fn publish<B: Serialize>(&mut self, topic: StateTopic, body: B) {
        match self.numbers.message(body) {
            Ok((_, payload)) if payload.len() > limits::PAYLOAD_BYTES => {
                warn!(
                    topic = topic.level(),
                    bytes = payload.len(),
                    "too large for the broker: not published"
                );
            }
            Ok((seq, payload)) => {
                if topic == StateTopic::Presence {
                    self.presences.truncate(PRESENCES - 1);
                    self.presences.push_front(payload.clone());
                }
                self.outbox.set_state(topic, seq, payload);
            }
            Err(error) => warn!(%error, topic = topic.level(), "not published"),
        }
    }

    /// Sends what can be sent now.
    pub(super) fn pump(&mut self) {
        self.hear();
        self.sign_digest_if_due();
        // Before anything is sent: nobody has heard of what the account does not know.
        self.keep(false);
        let Some(connection) = &self.connection else { return };
        let topics = &self.topics;
        if let Some(publication) = self.outbox.next(|topic| topics.state(topic)) {
            let expiry = (!publication.retain).then_some(RESULT_EXPIRY);
            match connection.publish(publication, expiry) {
                Ok(()) => self.patience.published(Instant::now()),
                Err(error) => {
                    warn!(error, "the connection takes nothing");
                    self.on_closed("the connection takes nothing", Ending::Passing);
                }
            }
        }
    }

    /// Brings the outbox to the disk, as far as it must or may be there, and then the account of it.
    pub(super) fn keep(&mut self, is_quiet: bool) {
        let now = super::since_boot();
        self.kept.charge(self.commands.take_written() + self.numbers.take_written(), now);
        self.kept.keep(&self.outbox, is_quiet, now);
        self.ledger.save(self.kept.account(self.outbox.ledger()));
    }

    /// When the broker has everything else, one signature over it.
    fn sign_digest_if_due(&mut self) {
        if !self.outbox.is_digest_due() {
            return;
        }
        let topics = self.outbox.topics();
        let entries = self.audit.size();
        let clock_doubtful = self.is_clock_doubtful();
        if let Some((at, digested, witnessed, doubted)) = &self.digested
            && *digested == topics
            && *doubted == clock_doubtful
            && (*witnessed == entries || at.elapsed() < CHECKPOINT_PAUSE)
        {
            return;
        }
        self.audit.seal();
        let seq = self.numbers.take();
        let digest = Digest {
            v: 1,
            device: self.config.device.id.clone(),
            seq,
            at: Timestamp::now(),
            session: self.numbers.session(),
            nonce: self.nonce.clone(),
            clock_doubtful,
            topics: topics.clone(),
            checkpoint: self.audit.checkpoint(),
        };
        match sign_digest(&digest, self.identity.signing_key()) {
            Ok(envelope) => {
                self.outbox.set_state(StateTopic::Digest, seq, envelope);
                self.digested = Some((Instant::now(), topics, entries, clock_doubtful));
            }
            Err(error) => warn!(%error, "the digest could not be made"),
        }
    }
}

/// What a file for a password holds; nothing without one.
fn read_password(path: Option<&Path>) -> io::Result<String> {
    let Some(path) = path else { return Ok(String::new()) };
    let bytes = vigil_durable::read_bounded(path, PASSWORD_BYTES)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{}: no password there", path.display()))
    })?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}
