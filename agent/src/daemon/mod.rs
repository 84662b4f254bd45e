//! `vigild` itself: one value that owns all state, one loop that feeds it.

mod actions;
mod calls;
mod commands;
mod kept;
mod ledger;
mod publish;
mod supervisor;
mod trial;
mod updates;
mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};
use vigil_protocol::command::Kind;
use vigil_protocol::diagnosis::Diagnosis;
use vigil_protocol::operators::Operators;
use vigil_protocol::state::{Health, Incident, PresenceStatus, TopicDigest};
use vigil_protocol::topic::{IncidentId, Topics};
use vigil_protocol::trusted::PartnerProfile;
use vigil_text::{Repeats, Sentence, Telling};
use vigil_turns::of;
use vigil_wire::{Contact, UpdateStatus};

use crate::audit::{Audit, Log, Outcome, origin};
use crate::command::{CommandJournal, CommandRate, Flood};
use crate::config::{Config, TakenUp, Trial, Trials};
use crate::health::{Collectors, Looked, Reporter};
use crate::identity::Identity;
use crate::link::{
    Backoff, Connection, Fallback, Granted, Hearing, LinkEvent, Message, Outbox, Patience, Place, Redirects,
    Version,
};
use crate::local::{Access, Listeners, Refused, Request, group_number};
use crate::proven;
use crate::report::Numbers;
use crate::store::Store;
use crate::update::{Ask, ClientError, CourierOptions, Fetcher, News};

/// How often a release that waits for contact looks whether there is a network.
const TRIAL_LOOK: Duration = Duration::from_secs(30);
/// What must be out before the process ends, within this time.
const FLUSH: Duration = Duration::from_secs(3);
/// Refusals that are told at once, and how often one more is.
const REFUSALS: (u32, Duration) = (10, Duration::from_secs(10));

/// A diagnosis that was asked for; none if it took too long.
struct Asked {
    diagnosis: Option<Diagnosis>,
    by: AskedBy,
}

/// A configuration on trial, and when this start gives it up.
struct ConfigTrial {
    settings: Trial,
    deadline: Instant,
}

/// Why the daemon came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The configuration has changed: it is to be read again.
    Reload,
}

enum AskedBy {
    Command(String),
    Local(tokio::sync::oneshot::Sender<crate::local::Answer>),
    /// The update on trial: is the network there?
    Trial,
}

/// The updater's answer to a command that is its own to carry out.
struct OrderAnswer {
    id: String,
    kind: Kind,
    answer: Result<(), ClientError>,
}

/// How the link stands.
#[derive(Debug, Default)]
struct LinkState {
    granted: Option<Granted>,
    /// The version that is spoken, or was tried last.
    version: Option<Version>,
    /// Where to, if the broker has sent us elsewhere.
    elsewhere: Option<String>,
    since: Option<Timestamp>,
    up_since: Option<Instant>,
    last_error: Option<String>,
    attempts: u64,
    /// Lost and refused connections are recorded once, not at every attempt.
    recorded_failure: bool,
}

struct Daemon {
    config: Config,
    config_path: PathBuf,
    trial: Option<ConfigTrial>,
    /// All that hangs on the configuration must begin anew.
    reload: bool,
    identity: Identity,
    topics: Topics,
    audit: Audit,
    numbers: Numbers,
    outbox: Outbox,
    ledger: ledger::LedgerFile,
    kept: kept::KeptOutbox,
    commands: CommandJournal,
    command_rate: CommandRate,
    /// Commands that came and were not looked at yet.
    unheard: VecDeque<Message>,
    /// Commands whose final answers the broker has acknowledged lately, and when.
    just_delivered: VecDeque<(Instant, String)>,
    /// Commands that wait for the end of a call.
    held: Vec<actions::Held>,
    /// When it is looked whether the call is over.
    held_look: Option<Instant>,
    operators: Option<Operators>,
    /// Partners' profiles, by their names.
    profiles: BTreeMap<String, PartnerProfile>,
    collectors: Collectors,
    reporter: Reporter,
    health: Option<Health>,
    update: Option<UpdateStatus>,
    update_published: Option<(Instant, vigil_protocol::state::Update)>,
    /// What was said last of each incident.
    incidents: BTreeMap<IncidentId, Option<Incident>>,
    /// The install command that the updater is at work on.
    following: Option<String>,
    updater_events: Store,
    last_diagnosis: Option<Diagnosis>,
    diagnosing: bool,
    /// The command whose diagnosis is under way.
    diagnosis: Option<(String, AbortHandle)>,
    trial_looked: Option<Instant>,
    contact: Contact,
    link: LinkState,
    /// Whether the broker takes what is said, and whether somebody else speaks for this device.
    hearing: Hearing,
    /// What was said of our presence last, the newest first.
    presences: VecDeque<Vec<u8>>,
    connection: Option<Connection>,
    reconnect_at: Option<Instant>,
    backoff: Backoff,
    fallback: Fallback,
    redirects: Redirects,
    patience: Patience,
    nonce: String,
    /// When a digest was signed last, over which topics, over how many audit entries, and whether the clock was doubted.
    digested: Option<(Instant, BTreeMap<String, TopicDigest>, u64, bool)>,
    command_flood: Flood,
    local_flood: Flood,
    /// Whether this audit log goes on from the checkpoint that the updater keeps, once that is known.
    witnessed: Option<Result<(), String>>,
    proven_store: Store,
    /// When the updater was handed a checkpoint last, and over how many entries.
    handed_over: Option<(Duration, u64)>,
    /// A proof of the audit log's growth is being made.
    proving: bool,
    found: mpsc::Sender<witness::Found>,
    /// What a network, a broker or a repository causes again and again.
    repeats: Repeats,
    started: Instant,
    link_events: mpsc::Sender<LinkEvent>,
    asks: mpsc::Sender<Ask>,
    diagnoses: mpsc::Sender<Asked>,
    order_answers: mpsc::Sender<OrderAnswer>,
    actions: mpsc::Sender<actions::ActionEnded>,
}

struct Inputs {
    link: mpsc::Receiver<LinkEvent>,
    news: mpsc::Receiver<News>,
    calls: mpsc::Receiver<Request>,
    refused: mpsc::Receiver<Refused>,
    diagnoses: mpsc::Receiver<Asked>,
    order_answers: mpsc::Receiver<OrderAnswer>,
    actions: mpsc::Receiver<actions::ActionEnded>,
    found: mpsc::Receiver<witness::Found>,
    looked: mpsc::Receiver<(u64, Looked)>,
}

/// Reads the configuration: the image's file, and the overlay in the state directory that it names.
pub fn load_config(path: &Path) -> Result<Config, crate::config::ConfigError> {
    let state = Config::load(path, None)?.paths.state.clone();
    Config::load(path, Some(Trials::new(&state).overlay()))
}

/// Reads the configuration as [`load_config`], or the one on trial, if there is one and it has a start left.
fn take_up_config(path: &Path) -> Result<(Config, TakenUp), crate::config::ConfigError> {
    let config = load_config(path)?;
    let trials = Trials::new(&config.paths.state);
    let found = trials.take_up();
    match found {
        TakenUp::OnTrial(_) => Ok((Config::load(path, Some(trials.trial()))?, found)),
        _ => Ok((config, found)),
    }
}

/// Runs until `stop` completes, or the configuration has changed. Within a `LocalSet`, whose tasks end with it.
pub async fn run(path: &Path, stop: impl Future<Output = &'static str>) -> anyhow::Result<Ended> {
    let (config, found) = take_up_config(path)?;
    let (mut daemon, mut inputs) = Daemon::open(config, path)?;
    daemon.take_up(found);
    let interval = daemon.config.health.interval;
    let mut look_at = Instant::now();
    let mut stop = pin!(stop);
    let mut supervisor = supervisor::Supervisor::ready();
    let (reason, ended) = loop {
        of("pump", || daemon.pump());
        if daemon.reload {
            break ("the configuration has changed", Ended::Reload);
        }
        let reconnect_at = daemon.reconnect_at;
        let trial_ends = daemon.trial.as_ref().map(|trial| trial.deadline);
        let held_look = daemon.held_look;
        let patience_ends = daemon.patience.ends();
        let feed_at = supervisor.feed();
        let overdue = daemon.collectors.ends();
        tokio::select! {
            reason = &mut stop => break (reason, Ended::Stopped),
            Some(event) = inputs.link.recv() => of("link", || daemon.on_link(event)),
            Some(news) = inputs.news.recv() => of("news", || daemon.on_news(news)),
            Some(request) = inputs.calls.recv() => of("call", || daemon.on_call(request)),
            Some(refused) = inputs.refused.recv() => of("refused call", || daemon.on_refused_call(&refused)),
            Some(asked) = inputs.diagnoses.recv() => of("diagnosis", || daemon.on_diagnosis(asked)),
            Some(answer) = inputs.order_answers.recv() => of("order answer", || daemon.on_order_answer(answer)),
            Some(ended) = inputs.actions.recv() => of("action", || daemon.on_action(ended)),
            Some(found) = inputs.found.recv() => of("found", || daemon.on_found(found)),
            () = at(reconnect_at) => of("connect", || daemon.connect()),
            () = at(trial_ends) => of("end trial", || daemon.end_trial()),
            () = at(patience_ends) => of("lose patience", || daemon.lose_patience()),
            () = at(held_look) => of("look after held", || daemon.look_after_held()),
            Some(looked) = inputs.looked.recv() => of("looked", || daemon.on_looked(looked)),
            () = at(overdue) => of("collectors", || daemon.collectors.replace()),
            () = at(feed_at) => {}
            () = tokio::task::yield_now(), if daemon.has_unheard() => {}
            () = sleep_until(look_at) => {
                vigil_turns::late(look_at.elapsed());
                look_at = Instant::now() + interval;
                of("look", || daemon.look());
            }
        }
    };
    daemon.stop(reason, &mut inputs.link).await;
    Ok(ended)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Daemon {
    fn open(config: Config, config_path: &Path) -> anyhow::Result<(Self, Inputs)> {
        let state = config.paths.state.clone();
        let device = &config.device;
        let proven_store = proven::open(&state);
        let identity = Identity::open(&state, &device.id)?;
        let origin = origin(&config.broker.prefix, &device.id);
        let (log, findings) =
            Log::open(&state.join("audit"), &origin, identity.signing_key().clone(), config.audit.max_bytes)
                .with_context(|| format!("audit log in {}", state.join("audit").display()))?;
        for finding in &findings {
            warn!(?finding, "the audit log");
        }
        let audit = Audit::new(log);
        let (commands, finding) =
            CommandJournal::open(&state, proven::watermark()).context("the store of commands")?;
        let (numbers, other_finding) =
            Numbers::open(&state, &device.id, Timestamp::now()).context("the session counter")?;
        let daily_bytes = config.outbox.max_flash_bytes_per_day;
        let (kept, kept_finding) =
            kept::KeptOutbox::open(&state, daily_bytes, boot_id(), since_boot()).context("the outbox")?;
        for finding in finding.iter().chain(&other_finding).chain(&kept_finding) {
            warn!(finding, "a store was damaged");
            let _ = audit.record("store.damaged", "device", Outcome::Failure, json!({ "finding": finding }));
        }
        audit
            .record(
                "agent.started",
                "device",
                Outcome::Success,
                json!({ "version": env!("CARGO_PKG_VERSION"), "warnings": config.warnings }),
            )
            .context("the audit log cannot be written")?;
        let access = Access {
            readers: group_number(&config.local.read_group),
            admins: group_number(&config.local.admin_group),
        };
        let (call_sender, calls) = mpsc::channel(16);
        let (refused_sender, refused) = mpsc::channel(16);
        let listeners = Listeners::bind(&config.paths.run)
            .with_context(|| format!("the local sockets in {}", config.paths.run.display()))?;
        crate::local::serve(listeners, access, call_sender, refused_sender);

        let (link_events, link) = mpsc::channel(32);
        let (diagnoses, diagnoses_in) = mpsc::channel(4);
        let (order_answers, order_answers_in) = mpsc::channel(4);
        let (actions, actions_in) = mpsc::channel(4);
        let (collectors, looked) = Collectors::new();
        let (found, found_in) = mpsc::channel(4);
        let (asks, asks_in) = mpsc::channel(16);
        let (news_sender, news) = mpsc::channel(16);
        let updater_events = Store::new(state.join("updater-events.json"), "updater_events", 1, 4096);
        start_courier(&config, &updater_events, asks_in, news_sender);

        let daemon = Self {
            topics: Topics::new(&config.broker.prefix, &device.id)?,
            backoff: Backoff::new(config.broker.backoff_min, config.broker.backoff_max)
                .for_fleet(config.broker.fleet_size, config.broker.max_connects_per_second),
            fallback: Fallback::new(config.broker.mqtt_version),
            redirects: Redirects::new(
                Place { host: config.broker.url.host.clone(), port: config.broker.url.port },
                config.broker.url.tls,
                &config.broker.redirect_hosts,
            ),
            patience: Patience::new(config.broker.keep_alive),
            reporter: Reporter::new(config.health.clone()),
            identity,
            audit,
            numbers,
            outbox: Outbox::default(),
            ledger: ledger::LedgerFile::open(&config.paths.run),
            kept,
            commands,
            command_rate: CommandRate::new(config.broker.max_commands_per_minute),
            unheard: VecDeque::new(),
            just_delivered: VecDeque::new(),
            held: Vec::new(),
            held_look: None,
            config_path: config_path.to_owned(),
            trial: None,
            reload: false,
            operators: None,
            profiles: BTreeMap::new(),
            collectors,
            health: None,
            update: None,
            update_published: None,
            incidents: BTreeMap::new(),
            following: None,
            updater_events,
            last_diagnosis: None,
            diagnosing: false,
            diagnosis: None,
            trial_looked: None,
            contact: Contact::default(),
            link: LinkState::default(),
            hearing: Hearing::default(),
            presences: VecDeque::new(),
            connection: None,
            reconnect_at: Some(Instant::now()),
            nonce: String::new(),
            digested: None,
            command_flood: Flood::new(REFUSALS.0, REFUSALS.1),
            local_flood: Flood::new(REFUSALS.0, REFUSALS.1),
            witnessed: None,
            proven_store,
            handed_over: None,
            proving: false,
            found,
            repeats: Repeats::default(),
            started: Instant::now(),
            link_events,
            asks,
            diagnoses,
            order_answers,
            actions,
            config,
        };
        let inputs = Inputs {
            link,
            news,
            calls,
            refused,
            diagnoses: diagnoses_in,
            order_answers: order_answers_in,
            actions: actions_in,
            found: found_in,
            looked,
        };
        Ok((daemon, inputs))
    }

    /// Goes on where the last process ended.
    fn take_up(&mut self, found: TakenUp) {
        self.record_last_admitted();
        self.take_up_outbox();
        self.take_up_trial(found);
        self.take_up_commands();
        self.publish_config();
        self.publish_update();
        self.set_contact(|contact| contact.ready = true);
    }

    /// Whether the clock is behind what signatures say the time is at least, or nothing is known of the time but by it. What
    /// was known once is not forgotten when the updater goes away.
    fn is_clock_doubtful(&self) -> bool {
        proven::is_clock_doubtful() || self.update.as_ref().is_some_and(|status| status.trust.clock_behind)
    }

    /// Time since the daemon started: for whatever only compares.
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn set_contact(&mut self, change: impl FnOnce(&mut Contact)) {
        change(&mut self.contact);
        // The courier repeats the newest word with every round; a full queue loses nothing that counts.
        let _ = self.asks.try_send(Ask::Contact(self.contact));
    }

    fn record(&self, event: &str, actor: &str, outcome: Outcome, detail: serde_json::Value) {
        let _ = self.audit.record(event, actor, outcome, detail);
    }

    /// Enters what others cause again and again: when it changes, and then with how often it was not told.
    fn record_repeated(&mut self, event: &'static str, reason: &str) {
        let reason = Sentence::new(reason);
        if let Telling::Tell { untold } = self.repeats.on(event, &reason, self.elapsed()) {
            let detail = json!({ "reason": reason, "others_untold": untold });
            self.record(event, "device", Outcome::Failure, detail);
        }
    }

    /// In a quiet moment: what was put off is brought to the disk.
    fn settle(&mut self) {
        self.audit.seal();
        self.hand_over_checkpoint();
        if let Err(error) = self.commands.settle() {
            warn!(%error, "the store of commands is written later");
        }
        self.keep(false);
    }

    async fn stop(&mut self, reason: &str, link: &mut mpsc::Receiver<LinkEvent>) {
        info!(reason, "stopping");
        self.record("agent.stopping", "device", Outcome::Success, json!({ "reason": reason }));
        self.publish_presence(PresenceStatus::Offline);
        self.digested = None;
        let flushed = async {
            self.pump();
            while self.link.granted.is_some() && !self.outbox.is_empty() {
                match link.recv().await {
                    // What comes now is not acknowledged, so the broker keeps it for the next session.
                    Some(LinkEvent::Message(_)) => {}
                    Some(event) => self.on_link(event),
                    None => break,
                }
                self.pump();
            }
            if let Some(connection) = &self.connection {
                connection.disconnect();
                while !matches!(link.recv().await, None | Some(LinkEvent::Closed { .. })) {}
            }
        };
        let flushed = timeout(FLUSH, flushed).await;
        self.settle();
        if flushed.is_err() {
            warn!("the broker did not take everything in time; it is said again after the next start");
        }
    }
}

fn start_courier(config: &Config, events: &Store, asks: mpsc::Receiver<Ask>, news: mpsc::Sender<News>) {
    let repository = &config.repository;
    let fetcher = repository.url.clone().and_then(|url| {
        let bases = std::iter::once(url).chain(repository.mirrors.iter().cloned()).collect();
        Fetcher::new(bases, repository.ca_file.as_deref(), repository.timeout)
            .inspect_err(|error| warn!(%error, "no repository: updates and operators cannot be fetched"))
            .ok()
    });
    let options = CourierOptions {
        socket: config.paths.updater_socket.clone(),
        partners: config.network.profiles.clone(),
        refresh_interval: repository.refresh_interval,
        max_rate: repository.max_rate,
        last_event: updates::last_event(events),
        jitter: random_share(),
    };
    let courier = crate::update::run(options, fetcher, asks, news);
    tokio::task::spawn_local(vigil_turns::task("courier", courier));
}

/// Time since the kernel started, sleep included: a restart of the daemon does not set it back.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// Tells one boot from another.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A random number; where the kernel has none to give, a fixed one only costs the spread.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn random_share() -> f64 {
    random() as f64 / u64::MAX as f64
}
