//! The daemon's shell: it takes the engine's steps, answers its peers, and keeps the time.

mod authority;
mod behind;
mod child;
mod courier;
mod degraded;
mod gate;
mod make;
mod outcome;
mod request;
mod server;
mod steps;
mod survey;
mod whole;

use anyhow::Context;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use sha2::Sha256;
use tracing::{error, info, warn};
use vigil_protocol::replay::Replay;
use vigil_text::{Repeats, Sentence, Telling};
use vigil_wire::{SlotStatus, UpdateStatus};

pub use child::adopt_orphans;
pub use server::{Access, bind, serve};
pub use whole::Service;

use crate::boot::{BootControl, Claims, Reading};
use crate::config::Config;
use crate::engine::{Boot, Engine, Event, Now, Output};
use crate::events::{Events, is_strangers};
use crate::floor::FloorFile;
use crate::journal::{Found, JournalFile};
use crate::release::Decoder;
use crate::slot::{Flusher, Part};
use crate::stash::Stash;
use crate::trust::Trust;
use crate::witness::Witness;

/// Everything that `vigil-updaterd` holds.
pub struct Updater {
    config: Config,
    engine: Engine,
    journal: JournalFile,
    floor: FloorFile,
    events: Events,
    /// What strangers cause again and again.
    repeats: Repeats,
    trust: Trust,
    stash: Stash,
    witness: Witness,
    boot: Box<dyn BootControl>,
    /// The damage to the boot variables that was told last.
    boot_damage: Option<String>,
    /// Why the boot variables cannot be written.
    boot_trouble: Option<Sentence>,
    /// Outputs of the engine that are not on the disk yet: nothing is done before they are.
    pending: VecDeque<Output>,
    courier: courier::Courier,
    gate: Option<gate::GateRun>,
    hook: Option<child::Run>,
    /// The program that was asked for a restart.
    /// Since when the boot order cannot be put back.
    stuck_since: Option<Duration>,
    rebooting: Option<child::Run>,
    /// The peer that alone is asked to fetch.
    claim: Option<u64>,
    /// The target slot's parts, open while they are written and read back.
    parts: Vec<Part>,
    flusher: Flusher,
    /// The image and unit that is written and not known to be on the disk.
    unflushed: Option<(usize, usize)>,
    /// The first bytes of each image, as far as they are known: they are written last.
    heads: Vec<Option<Vec<u8>>>,
    /// A unit, being made or read back.
    unit: Vec<u8>,
    /// What a frame decodes to, or what the target slot has in place of the unit.
    scratch: Vec<u8>,
    making: Option<make::Making>,
    /// A unit that is being read back: its image, its number, and how many bytes of it are in `unit`.
    checking: Option<(usize, usize, usize)>,
    /// What this turn of the loop may still move.
    turn: make::Turn,
    behind: behind::Behind,
    /// What is known of each image.
    known: Vec<survey::Known>,
    mapping: Option<survey::Mapping>,
    /// Images whose part of the running slot could not be mapped.
    unmappable: Vec<String>,
    /// Kept, because it holds what it needs from one frame to the next.
    decoder: Decoder,
    /// Hash of what was read back of the image so far.
    image_hash: Sha256,
    /// After an error that will pass: not before this time.
    retry_at: Option<Duration>,
    /// Errors in a row.
    retries: u32,
    confined: bool,
}

/// Less room than that on the state's disk is none.
const SPACE_BYTES: u64 = 64 * 1024;

/// What the shell may do until something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing: there is work.
    None,
    /// Sleep until this time of the boot clock.
    Until(Duration),
    /// Sleep.
    Forever,
}

/// The two clocks.
pub fn now() -> Now {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now { wall: Timestamp::now(), boot: Duration::new(boot.tv_sec as u64, boot.tv_nsec as u32) }
}

impl Updater {
    /// Opens every store and takes up where the last run was left.
    pub fn open(config: Config, confined: bool) -> anyhow::Result<Self> {
        vigil_durable::create_directory(&config.state)
            .with_context(|| format!("the state directory {}", config.state.display()))?;
        let boot = crate::boot::open(&config.boot, Claims::open(&config.state).outside(config.parts()));
        let booted = boot.booted()?;
        anyhow::ensure!(
            config.slot(&booted.slot).is_some(),
            "the running slot {:?} is not among the configured slots",
            booted.slot
        );
        let mut events = Events::open(&config.state)?;
        let floor = FloorFile::open(&config.state)?;
        let now = now();
        let (trust, dropped) = Trust::open(&config.state, &config.root, &config.device.tenant, now)?;
        let journal_file = JournalFile::new(&config.state);
        // Which envelopes were used is not known any more: whatever was issued before the time that is proven is refused. Not
        // before the clock's: one in 2099 would lock every operator out.
        let anew = |trust: &Trust| {
            let replay = Replay::refusing_until(trust.proven(now));
            crate::journal::Journal { v: 1, replay, unproven: true, ..Default::default() }
        };
        let mut journal = match journal_file.load()? {
            Found::Journal(journal) => *journal,
            Found::Damaged { aside, why } => {
                error!(file = %aside.display(), %why, "the journal was damaged, was put aside and begins anew");
                events.append(
                    now.wall.as_second(),
                    "journal.damaged",
                    &format!("{why}; kept as {}", aside.display()),
                )?;
                anew(&trust)
            }
            Found::Gone => {
                error!("the journal is gone, and begins anew");
                events.append(now.wall.as_second(), "journal.damaged", "it is gone")?;
                anew(&trust)
            }
        };
        for what in dropped {
            warn!("{what}");
            events.append(now.wall.as_second(), "trust.dropped", &what)?;
        }
        events.append(
            now.wall.as_second(),
            "started",
            &format!(
                "vigil-updaterd {}, slot {}, boot {}",
                env!("CARGO_PKG_VERSION"),
                booted.slot,
                booted.boot_id
            ),
        )?;
        info!(slot = booted.slot, boot = booted.boot_id, boot_control = boot.guarantee(), "started");
        let stash = Stash::open(&config.state)?;
        outcome::take_up(&mut journal, &stash);
        let known = journal.install.as_ref().map_or(&[][..], |install| &install.crash_records);
        let last = crate::evidence::last_boot(&config.evidence, known);
        let boot_of = Boot { slot: booted.slot, id: booted.boot_id, last };
        let (engine, outputs) = Engine::start(config.policy(), journal, floor.value(), boot_of, now);
        let mut updater = Self {
            stash,
            witness: Witness::open(&config.state),
            config,
            engine,
            journal: journal_file,
            floor,
            events,
            repeats: Repeats::default(),
            trust,
            boot,
            boot_damage: None,
            boot_trouble: None,
            pending: outputs.into(),
            courier: courier::Courier::default(),
            gate: None,
            hook: None,
            rebooting: None,
            stuck_since: None,
            claim: None,
            parts: Vec::new(),
            flusher: Flusher::default(),
            unflushed: None,
            heads: Vec::new(),
            unit: Vec::new(),
            scratch: Vec::new(),
            making: None,
            checking: None,
            turn: make::Turn::default(),
            behind: behind::Behind::default(),
            known: Vec::new(),
            mapping: None,
            unmappable: Vec::new(),
            decoder: Decoder::default(),
            image_hash: Sha256::default(),
            retry_at: None,
            retries: 0,
            confined,
        };
        if let Err(error) = updater.flush(now) {
            warn!(%error, "the journal could not be written; it is tried again");
        }
        if let Err(error) = updater.read_boot() {
            warn!(%error, "the boot variables could not be read");
        }
        if let Err(error) = updater.boot.remember() {
            warn!(%error, "if the boot variables are damaged one day, they will not be repaired");
        }
        Ok(updater)
    }

    /// Takes the next step, if it is this process's own to take. Whether there is another at once. For whoever runs an updater
    /// without [`serve`].
    pub fn turn(&mut self) -> bool {
        self.work(now()) == Pause::None
    }

    /// Answers a request as over the socket, of a courier.
    pub fn ask(&mut self, request: vigil_wire::Request, blob: &[u8]) -> vigil_wire::Response {
        self.answer(request, blob, request::Asker { peer: 0, is_root: false }).0
    }

    /// What the bootloader will choose from. Damage is told once.
    fn read_boot(&mut self) -> io::Result<Reading> {
        let reading = self.boot.read()?;
        if let Some(damage) =
            reading.damage.as_ref().filter(|damage| self.boot_damage.as_ref() != Some(*damage))
        {
            self.note("boot.damaged", damage);
        }
        self.boot_damage.clone_from(&reading.damage);
        Ok(reading)
    }

    /// Tells the engine and makes durable what follows. When that fails it is tried again before anything else is
    /// done.
    fn tell(&mut self, now: Now, event: Event) -> io::Result<()> {
        let outputs = self.engine.on(now, event);
        self.pending.extend(outputs);
        self.flush(now)
    }

    fn flush(&mut self, now: Now) -> io::Result<()> {
        while let Some(output) = self.pending.front() {
            match output {
                Output::Save => self.journal.save(self.engine.journal())?,
                Output::Floor(value) => self.floor.raise(*value)?,
                Output::Note { kind, message } => {
                    info!(kind, message = %Sentence::new(message));
                    self.events.append(now.wall.as_second(), kind, message)?;
                }
                Output::DropWork => {
                    self.stash.clear();
                    // Nobody needs these frames any more; whoever writes there next comes after them.
                    let _ = self.flusher.wait();
                    self.unflushed = None;
                    self.parts.clear();
                    self.heads.clear();
                    self.unit = Vec::new();
                    self.scratch = Vec::new();
                    self.making = None;
                    self.checking = None;
                    self.behind = behind::Behind::default();
                    self.known = Vec::new();
                    self.decoder = Decoder::default();
                }
            }
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Appends to the event list. What strangers cause is told when it changes, and counted when it repeats. Failing is
    /// logged: an event about a full disk cannot wait for the disk.
    fn note(&mut self, kind: &str, message: &str) {
        let message = Sentence::new(message);
        let now = now();
        let told = if is_strangers(kind) {
            match self.repeats.on(kind, &message, now.boot) {
                Telling::Count => return,
                Telling::Tell { untold: 0 } => message,
                Telling::Tell { untold } => {
                    Sentence::new(&format!("{message} ({untold} more were not told)"))
                }
            }
        } else {
            message
        };
        info!(kind, message = %told);
        if let Err(error) = self.events.append(now.wall.as_second(), kind, &told) {
            warn!(%error, kind, "the event could not be kept");
        }
    }

    /// What is wrong where nothing can be kept any more: it shows at once, and not with the next install only.
    fn disk_full(&self) -> Option<Sentence> {
        let space = rustix::fs::statvfs(&self.config.state).ok()?;
        let is_full = space.f_bavail.saturating_mul(space.f_frsize) < SPACE_BYTES;
        is_full.then(|| Sentence::new(&format!("the disk of {} is full", self.config.state.display())))
    }

    fn status(&self) -> UpdateStatus {
        let journal = self.engine.journal();
        let order = self.boot.read().map(|reading| reading.order).unwrap_or_default();
        let slots: BTreeMap<_, _> = self
            .config
            .slots
            .iter()
            .map(|slot| {
                let status = SlotStatus {
                    bootable: order.may_boot(&slot.name),
                    release: journal.contents.get(&slot.name).cloned(),
                };
                (slot.name.clone(), status)
            })
            .collect();
        let install = journal.install.as_ref();
        UpdateStatus {
            product: self.config.device.product.clone(),
            state: journal.state,
            running_slot: self.engine.running().to_owned(),
            slots,
            target: install.and_then(|install| install.release.clone()),
            command: install.and_then(|install| install.command.clone()),
            progress: self.engine.progress().or_else(|| self.mapping_progress()),
            plan: install.and_then(|install| install.plan.clone()),
            outcome: install.map(|install| install.outcome.clone()).filter(|outcome| !outcome.is_none()),
            paused: self.engine.is_paused(),
            quarantined: self.engine.quarantined(),
            last_failure: journal.last_failure.clone(),
            floor: self.engine.floor(),
            trust: self.trust.status(now()),
            last_event: self.events.last(),
            confined: self.confined,
            boot_problem: self.boot_trouble.clone(),
            degraded: self.disk_full(),
        }
    }
}
