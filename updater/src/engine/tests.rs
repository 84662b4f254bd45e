//! The engine against a small model of a device: disk, bootloader, two slots. Power is cut between any two actions.

use super::*;
use crate::boot::BootOrder;
use crate::release::{FRAME_BYTES, Index, Manifest};
use proptest::prelude::*;
use vigil_wire::{Control, Fault, PlanStatus};

const FRAMES: usize = 3;
const IMAGES: usize = 2;
const OLD: u64 = 1;
const NEW: u64 = 2;
/// What a slot holds where nothing of a release is: the head of an image that is sealed.
const BLANK: u64 = 0;
/// What each unit that is not in the slot is planned to cost.
const UNIT_COST: u64 = 500_000;

impl Step {
    /// Whether somebody else is to do something first: the time, or the courier.
    fn is_others(&self) -> bool {
        matches!(
            self,
            Self::Rest
                | Self::Refresh
                | Self::FetchManifest { .. }
                | Self::FetchIndex { .. }
                | Self::FetchLeaves { .. }
                | Self::FetchPatchIndex { .. }
                | Self::FetchFrames { .. }
        )
    }
}

fn release(sequence: u64) -> (Manifest, Index) {
    static RELEASES: std::sync::OnceLock<Vec<(Manifest, Index)>> = std::sync::OnceLock::new();
    let releases = RELEASES.get_or_init(|| (NEW..=NEW + 1).map(make_release).collect());
    releases[(sequence - NEW) as usize].clone()
}

fn make_release(sequence: u64) -> (Manifest, Index) {
    let mut index = Index::flat();
    for frame in 0..FRAMES {
        let raw = vec![frame as u8; if frame + 1 < FRAMES { FRAME_BYTES as usize } else { 7 }];
        index.push_flat(&raw, &[9; 5]);
    }
    let hash = format!("{sequence:02x}").repeat(32);
    let image = |name| {
        serde_json::json!({
            "name": name, "size": index.image_size(), "sha256": hash,
            "index": {"size": 1, "sha256": hash}, "frames": {"size": index.frames_size(), "sha256": hash},
        })
    };
    let manifest = serde_json::json!({
        "format": 1, "product": "bar", "hardware": ["r1"], "version": format!("{sequence}.0.0"),
        "sequence": sequence, "images": [image("rootfs"), image("camera")],
    });
    (Manifest::parse(manifest.to_string().as_bytes()).unwrap(), index)
}

/// A slot: for each image the sequence of the release that each frame is of. An image's first frame is blank until
/// all else is verified.
type Slot = [Vec<u64>; IMAGES];

/// What a device keeps without power.
#[derive(Clone)]
struct Disk {
    journal: Journal,
    floor: u64,
    order: BootOrder,
    slots: [Slot; 2],
    /// The first frames that are kept until they are written.
    heads: [Option<u64>; IMAGES],
    /// What the camera runs.
    camera: u64,
}

/// How releases and room behave.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    /// The new release's kernel starts.
    starts: bool,
    passes_gate: bool,
    /// The old release passes it.
    old_passes_gate: bool,
    has_contact: bool,
    /// The old release has contact.
    old_has_contact: bool,
    network_answers: bool,
    takes_camera: bool,
    /// How a boot of the new release ends that does not start.
    panics: bool,
    hangs: bool,
    /// Power failures are told as such.
    tells_power: bool,
}

const SOUND: Behaviour = Behaviour {
    starts: true,
    passes_gate: true,
    old_passes_gate: true,
    has_contact: true,
    old_has_contact: true,
    network_answers: true,
    takes_camera: true,
    panics: false,
    hangs: false,
    tells_power: false,
};

/// What happens at a cut, besides the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Nothing,
    Journal,
    /// The boot variables: bootloaders then try A and B.
    Variables,
}

struct World {
    disk: Disk,
    boots: u64,
    millis: u64,
    engine: Option<Engine>,
    behaviour: Behaviour,
    /// The release that is installed.
    sequence: u64,
    /// Actions until the power is cut, and what is lost then; none left means never.
    cuts: Vec<(u32, Loss)>,
    countdown: Option<(u32, Loss)>,
    /// Saves that fail for want of room, before one succeeds.
    full: u32,
    notes: Vec<String>,
    /// Units that were written and are not on the disk.
    unflushed: Vec<(usize, usize)>,
}

/// All is known of an image by its index.
fn survey(index: Index) -> Survey {
    Survey { known: vec![true; index.units().len()], index, patch: None }
}

impl World {
    fn new(behaviour: Behaviour, cuts: Vec<(u32, Loss)>) -> Self {
        let release = |sequence: u64| vigil_wire::ReleaseId { version: format!("{sequence}.0.0"), sequence };
        let journal = Journal {
            v: 1,
            had_contact: true,
            contents: [("A".to_owned(), release(OLD))].into(),
            payloads: [("A".to_owned(), [("camera".to_owned(), "01".repeat(32))].into())].into(),
            applied: [("camera".to_owned(), "01".repeat(32))].into(),
            ..Journal::default()
        };
        let slot = |sequence| [vec![sequence; FRAMES], vec![sequence; FRAMES]];
        let mut world = Self {
            disk: Disk {
                journal,
                floor: OLD,
                order: BootOrder::default().first("B").first("A"),
                slots: [slot(OLD), slot(BLANK)],
                heads: [None; IMAGES],
                camera: OLD,
            },
            boots: 0,
            millis: 0,
            engine: None,
            behaviour,
            sequence: NEW,
            cuts,
            countdown: None,
            full: 0,
            notes: vec![],
            unflushed: vec![],
        };
        world.power_on(false);
        world.order();
        world.countdown = world.cuts.pop();
        world
    }

    fn order(&mut self) {
        let slot = if self.engine.as_ref().unwrap().running() == "A" { "B" } else { "A" };
        self.tell(Event::Order(Order {
            command: Some("c".into()),
            envelope: None,
            release_target: format!("releases/bar/{}.0.0.json", self.sequence),
            slot: slot.into(),
            by_root: false,
        }));
    }

    fn now(&self) -> Now {
        Now { wall: jiff::Timestamp::UNIX_EPOCH, boot: Duration::from_millis(self.millis) }
    }

    fn slot(name: &str) -> usize {
        usize::from(name == "B")
    }

    fn target(&self) -> usize {
        Self::slot(&self.disk.journal.install.as_ref().unwrap().target)
    }

    /// Boots until something starts that can run the updater.
    fn power_on(&mut self, power_failed: bool) {
        self.engine = None;
        self.unflushed.clear();
        let mut last = LastBoot { power: power_failed && self.behaviour.tells_power, ..LastBoot::default() };
        for _ in 0..20 {
            self.boots += 1;
            self.millis = 0;
            let slot = self.disk.order.select().expect("the boot order is never empty");
            let content = &self.disk.slots[Self::slot(&slot)];
            let release = content[0][1];
            if content[0][0] == BLANK {
                // No superblock there: the script tries the next slot.
                self.disk.order.left.insert(slot, 0);
                continue;
            }
            assert!(
                content.iter().flatten().all(|frame| *frame == release && *frame != BLANK),
                "booted a torn slot {slot}: {content:?}"
            );
            if release == NEW && !self.behaviour.starts {
                last.panic = self.behaviour.panics.then(|| "Kernel panic".to_owned());
                last.watchdog = self.behaviour.hangs;
                continue;
            }
            let boot = Boot { slot, id: format!("boot-{}", self.boots), last };
            let policy = Policy { hooks: vec!["camera".into()], ..Policy::default() };
            let (engine, outputs) =
                Engine::start(policy, self.disk.journal.clone(), self.disk.floor, boot, self.now());
            self.engine = Some(engine);
            self.perform(outputs);
            return;
        }
        panic!("nothing starts");
    }

    /// One durable action, before which the power may be cut. True when it was.
    fn cut(&mut self) -> bool {
        match &mut self.countdown {
            Some((0, loss)) => {
                match loss {
                    Loss::Nothing => {}
                    Loss::Journal => self.disk.journal = Journal { v: 1, ..Journal::default() },
                    Loss::Variables => self.disk.order = BootOrder::default().first("B").first("A"),
                }
                self.countdown = self.cuts.pop();
                self.power_on(true);
                true
            }
            Some((left, _)) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if self.cut() {
                return;
            }
            // The shell tries again until there is room, and does nothing else before.
            while std::mem::take(&mut self.full) > 0 {
                self.millis += 1000;
                if self.cut() {
                    return;
                }
            }
            let engine = self.engine.as_ref().unwrap();
            match output {
                Output::Save => self.disk.journal = engine.journal().clone(),
                Output::Floor(floor) => self.disk.floor = floor,
                Output::Note { kind, .. } => self.notes.push(kind),
                Output::DropWork => {
                    self.disk.heads = [None; IMAGES];
                    self.unflushed.clear();
                }
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let now = self.now();
        let outputs = self.engine.as_mut().unwrap().on(now, event);
        self.perform(outputs);
    }

    fn runs(&self) -> u64 {
        self.disk.slots[Self::slot(self.engine.as_ref().unwrap().running())][0][0]
    }

    fn running_new(&self) -> bool {
        self.runs() == NEW
    }

    /// A frame as the updater reads it back: with the head that is kept in the place of the blank one.
    fn reads(&self, image: usize, frame: usize) -> bool {
        let read = match self.disk.slots[self.target()][image][frame] {
            BLANK if frame == 0 => self.disk.heads[image].unwrap_or(BLANK),
            read => read,
        };
        read == self.sequence
    }

    fn may_write(&self) {
        let target = &self.disk.journal.install.as_ref().unwrap().target;
        assert!(!self.disk.order.may_boot(target), "a slot in the boot order is written");
    }

    /// What was begun first comes to the disk.
    fn settle(&mut self) {
        let (image, unit) = self.unflushed.remove(0);
        if unit > 0 {
            let target = self.target();
            self.disk.slots[target][image][unit] = self.sequence;
        }
        self.tell(Event::Written { image, unit });
    }

    fn step(&mut self) {
        if self.cut() {
            return;
        }
        let new = self.runs() >= NEW;
        let (passes, connects) = if new {
            (self.behaviour.passes_gate, self.behaviour.has_contact)
        } else {
            (self.behaviour.old_passes_gate, self.behaviour.old_has_contact)
        };
        let contact = vigil_wire::Contact {
            ready: true,
            broker: false,
            carrier: self.behaviour.network_answers,
            gateway: self.behaviour.network_answers,
        };
        // As the service does before each step.
        self.tell(Event::Tick);
        let Some(engine) = self.engine.as_ref() else { return };
        let step = engine.next(self.now());
        if step.is_others() {
            // Else the service would ask again and again for nothing.
            assert!(
                engine.deadline().is_none_or(|due| due > self.now().boot),
                "{step:?} with a deadline that has passed"
            );
        }
        let (manifest, index) = release(self.sequence);
        match step {
            Step::Rest => {}
            Step::WaitUntil(time) => {
                if connects {
                    self.tell(Event::Refreshed);
                }
                self.millis = self.millis.max(time.as_millis() as u64);
                self.engine.as_mut().unwrap().contact = Some((self.now().boot, contact));
                self.tell(Event::Tick);
            }
            Step::Refresh => self.tell(Event::Refreshed),
            Step::FetchManifest { .. } => {
                self.tell(Event::Manifest { manifest: Box::new(manifest), sha256: "m".into() });
            }
            Step::FetchIndex { image } => self.tell(Event::Index { image, survey: survey(index) }),
            Step::Map { .. } | Step::FetchLeaves { .. } | Step::FetchPatchIndex { .. } => {
                panic!("nothing is to be mapped and there are no leaves")
            }
            Step::Plan => {
                // Every other unit comes of what the device has.
                let way = |unit| if unit % 2 == 0 { Way::Frames(vec![0]) } else { Way::Local };
                let ways = vec![(0..FRAMES).map(way).collect(); IMAGES];
                let work = self.engine.as_ref().unwrap().work().unwrap();
                let units = (0..IMAGES).flat_map(|image| (0..FRAMES).map(move |unit| (image, unit)));
                let left = units.filter(|(image, unit)| !work.is_done(*image, *unit)).count();
                let plan = PlanStatus { fetch_bytes: UNIT_COST * left as u64, ..PlanStatus::default() };
                self.tell(Event::Planned { plan, ways });
            }
            Step::Exclude { slot } => {
                self.disk.order = self.disk.order.clone().without(&slot);
                self.tell(Event::Excluded);
            }
            Step::Seal => {
                self.may_write();
                for image in 0..IMAGES {
                    let target = self.target();
                    self.disk.slots[target][image][0] = BLANK;
                    if self.cut() {
                        return;
                    }
                }
                self.tell(Event::Sealed);
            }
            Step::Unseal => {
                self.may_write();
                let mut matches = true;
                for image in (0..IMAGES).rev() {
                    let Some(head) = self.disk.heads[image] else {
                        matches = false;
                        continue;
                    };
                    let target = self.target();
                    self.disk.slots[target][image][0] = head;
                    if self.cut() {
                        return;
                    }
                }
                self.tell(Event::Unsealed { matches });
            }
            Step::Reload => {
                let mut work = Work::new(manifest);
                for image in 0..IMAGES {
                    work.set_survey(image, survey(index.clone())).unwrap();
                }
                self.tell(Event::Reloaded(Some(Box::new(work))));
            }
            Step::Inspect { image, unit } => {
                let matches = self.reads(image, unit);
                self.tell(Event::Inspected { image, unit, matches });
            }
            Step::FetchFrames { image, unit } | Step::Make { image, unit } => {
                self.may_write();
                if unit == 0 {
                    self.disk.heads[image] = Some(self.sequence);
                    if self.cut() {
                        return;
                    }
                }
                self.tell(Event::Begun { image, unit });
                self.unflushed.push((image, unit));
                if self.unflushed.len() == 2 {
                    self.settle();
                }
            }
            Step::Settle => self.settle(),
            Step::ReadBack { image, unit } => {
                let matches = self.reads(image, unit);
                self.tell(Event::ReadBack { image, unit, matches });
            }
            Step::CompareImage { image } => self.tell(Event::ImageHash { image, matches: true }),
            Step::Proceed => self.tell(Event::Proceed),
            Step::PutFirst { slot } => {
                self.disk.order = self.disk.order.clone().first(&slot);
                self.tell(Event::PutFirst);
            }
            Step::Reboot => {
                self.tell(Event::RebootAsked);
                self.power_on(false);
            }
            Step::BeginApply { image } => self.tell(Event::ApplyBegun { image }),
            Step::Apply { image, sha256 } => {
                let result = if self.behaviour.takes_camera || sha256.starts_with("01") {
                    self.disk.camera = sha256[..2].parse().unwrap();
                    Ok(())
                } else {
                    Err("it does not answer".to_owned())
                };
                self.tell(Event::Applied { image, sha256, result });
            }
            Step::RunGate => {
                self.engine.as_mut().unwrap().contact = Some((self.now().boot, contact));
                let failure = || CheckFailure { check: "camera".into(), message: "not found".into() };
                self.tell(Event::Gate(if passes { Ok(()) } else { Err(failure()) }));
            }
            Step::MarkGood { slot } => {
                self.disk.order = self.disk.order.clone().refilled(&slot);
                self.tell(Event::MarkedGood);
            }
            Step::Revert { to, from } => {
                self.disk.order = self.disk.order.clone().first(&to).without(&from);
                self.tell(Event::Reverted);
            }
        }
    }

    /// Runs until nothing more happens, or `steps` have been taken.
    fn run(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            self.step();
            if self.engine.as_ref().unwrap().next(self.now()) == Step::Rest {
                break;
            }
        }
        self
    }

    /// Runs until the state is `state`.
    fn run_to(mut self, state: State) -> Self {
        while self.state() != state {
            self.step();
        }
        self
    }

    fn state(&self) -> State {
        self.engine.as_ref().unwrap().journal().state
    }

    fn failure(&self) -> vigil_wire::Failure {
        self.engine.as_ref().unwrap().journal().last_failure.clone().expect("no failure")
    }

    fn cause(&self) -> Option<String> {
        self.engine.as_ref().unwrap().journal().last_failure.as_ref().map(|failure| failure.cause.clone())
    }
}

#[test]
fn a_sound_release_is_confirmed_and_raises_the_floor_only_then() {
    let world = World::new(SOUND, vec![]).run(200);
    assert_eq!(world.state(), State::Confirmed);
    assert!(world.running_new());
    assert_eq!(world.disk.floor, NEW);
    let order: Vec<_> =
        world.notes.iter().filter(|kind| kind.starts_with("state.")).map(String::as_str).collect();
    assert_eq!(
        order.join(" ").replace("state.", ""),
        "checking invalidating writing verifying staged activating rebooting trial good confirmed"
    );
}

#[test]
fn a_release_that_fails_its_gate_is_rolled_back_at_the_deadline_with_the_check_that_failed() {
    let world = World::new(Behaviour { passes_gate: false, ..SOUND }, vec![]).run(400);
    assert_eq!(world.state(), State::RolledBack);
    assert_eq!(world.cause().as_deref(), Some(cause::GATE));
    assert!(!world.running_new());
    assert_eq!(world.disk.floor, 1);
    let failure = world.failure();
    assert_eq!((failure.message.as_str(), failure.rolled_back), ("camera: not found", true));
}

#[test]
fn a_release_that_does_not_start_is_rolled_back_by_the_bootloader_and_the_cause_is_kept() {
    let world = World::new(Behaviour { starts: false, ..SOUND }, vec![]).run(400);
    assert_eq!((world.state(), world.cause().as_deref()), (State::RolledBack, Some(cause::BOOT_FAILED)));
    assert!(!world.disk.order.may_boot("B"));
}

#[test]
fn without_contact_it_goes_back_only_if_the_network_answers() {
    let deaf = Behaviour { has_contact: false, ..SOUND };
    let world = World::new(deaf, vec![]).run(400);
    assert_eq!((world.state(), world.cause().as_deref()), (State::RolledBack, Some(cause::NO_CONTACT)));
    let world = World::new(Behaviour { network_answers: false, ..deaf }, vec![]).run(400);
    assert_eq!((world.state(), world.cause()), (State::Good, None));
    assert!(world.running_new());
}

#[test]
fn contact_after_the_deadline_commits_nothing() {
    let mut world = World::new(Behaviour { passes_gate: false, ..SOUND }, vec![]);
    while world.state() != State::Trial {
        world.step();
    }
    world.millis += 10 * 3600 * 1000;
    // The gate would pass now and contact is proven, but the time is up.
    world.tell(Event::Gate(Ok(())));
    world.tell(Event::Refreshed);
    world.tell(Event::Gate(Ok(())));
    assert!(matches!(world.engine.as_ref().unwrap().next(world.now()), Step::Revert { .. }));
    assert_eq!(world.run(100).state(), State::RolledBack);
}

#[test]
fn a_gate_without_the_agent_does_not_pass() {
    let mut world = World::new(SOUND, vec![]);
    while world.state() != State::Trial {
        world.step();
    }
    world.millis += 61_000;
    // vigild's last word is now older than it may be.
    world.tell(Event::Gate(Ok(())));
    world.millis += 61_000;
    world.tell(Event::Gate(Ok(())));
    assert_eq!(world.state(), State::Trial);
    assert!(world.notes.contains(&"gate".to_owned()));
}

#[test]
fn on_trial_a_repository_that_does_not_answer_rolls_nothing_back() {
    let mut world = World::new(SOUND, vec![]);
    while world.state() != State::Trial {
        world.step();
    }
    for _ in 0..20 {
        world.tell(Event::FetchFailed {
            cause: cause::FETCH,
            message: "it is older than what is trusted".into(),
        });
        assert_eq!(world.state(), State::Trial);
    }
}

#[test]
fn after_the_journal_was_lost_tries_are_refilled_once_the_gate_is_passed() {
    let now = |seconds| Now { wall: jiff::Timestamp::UNIX_EPOCH, boot: Duration::from_secs(seconds) };
    let journal = Journal { v: 1, unproven: true, ..Journal::default() };
    let boot = Boot { slot: "A".to_owned(), id: "1".to_owned(), ..Boot::default() };
    let (mut engine, _) = Engine::start(Policy::default(), journal, 0, boot, now(1));
    assert_eq!(engine.next(now(1)), Step::RunGate);
    let bad = CheckFailure { check: "camera".to_owned(), message: "missing".to_owned() };
    engine.on(now(2), Event::Gate(Err(bad)));
    assert!(matches!(engine.next(now(2)), Step::WaitUntil(_)));
    let contact = vigil_wire::Contact { ready: true, broker: false, carrier: true, gateway: true };
    engine.on(now(300), Event::Contact(contact));
    assert_eq!(engine.next(now(300)), Step::RunGate);
    assert!(engine.on(now(301), Event::Gate(Ok(()))).contains(&Output::Save));
    assert!(!engine.journal().unproven);
    assert_eq!(engine.next(now(301)), Step::MarkGood { slot: "A".to_owned() });
}

#[test]
fn a_stalled_courier_ends_the_install_and_leaves_the_running_release_alone() {
    let mut world = World::new(SOUND, vec![]);
    world.millis += 1_800_000;
    world.tell(Event::Tick);
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::COURIER)));
    assert!(world.disk.order.may_boot("A"));
}

#[test]
fn fetches_that_fail_are_tried_again_ever_more_slowly_and_then_given_up() {
    let mut world = World::new(SOUND, vec![]);
    world.step();
    let mut pauses = vec![];
    for _ in 0..8 {
        world.tell(Event::FetchFailed { cause: cause::FETCH, message: "404".into() });
        let Step::WaitUntil(time) = world.engine.as_ref().unwrap().next(world.now()) else { panic!() };
        pauses.push(time.as_secs() - world.millis / 1000);
        world.millis = time.as_millis() as u64;
        // From then on it waits for the courier, and not for what has passed.
        world.tell(Event::Tick);
        let engine = world.engine.as_ref().unwrap();
        assert!(engine.next(world.now()).is_others());
        assert!(engine.deadline().unwrap() > world.now().boot);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256]);
    world.tell(Event::FetchFailed { cause: cause::FETCH, message: "404".into() });
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::FETCH)));
}

#[test]
fn bytes_that_turn_out_wrong_at_the_end_are_not_fetched_for_ever() {
    let mut world = World::new(SOUND, vec![]);
    for _ in 0..9 {
        world.tell(Event::Fed);
        world.tell(Event::FetchFailed { cause: cause::FETCH_CORRUPT, message: "another hash".into() });
    }
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::FETCH_CORRUPT)));
}

#[test]
fn a_refresh_in_between_does_not_make_a_fetch_that_always_fails_endless() {
    let mut world = World::new(SOUND, vec![]).run_to(State::Writing);
    for _ in 0..9 {
        world.tell(Event::FetchFailed { cause: cause::FETCH_RANGE, message: "416".into() });
        world.tell(Event::Refreshed);
    }
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::FETCH_RANGE)));
}

#[test]
fn a_link_that_breaks_often_is_no_failure_as_long_as_frames_come() {
    let broken = |world: &mut World, frame: u16| {
        world.tell(Event::FetchFailed { cause: cause::FETCH, message: "the connection broke".into() });
        world.millis += 300_000;
        world.tell(Event::Decoded { image: 0, unit: 0, frame });
    };
    let mut world = World::new(SOUND, vec![]).run_to(State::Writing);
    (0..30).for_each(|frame| broken(&mut world, frame));
    assert_eq!(world.state(), State::Writing);
    // The same one anew is no progress.
    (0..9).for_each(|_| broken(&mut world, 29));
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::FETCH)));
}

#[test]
fn the_outcome_is_held_against_the_first_plan_and_outlives_a_power_cut() {
    let mut world = World::new(SOUND, vec![]);
    world.engine.as_mut().unwrap().outcome_mut().unwrap().1.metadata_bytes = 900;
    let mut world = world.run_to(State::Writing);
    let install = |world: &World| world.disk.journal.install.clone().unwrap();
    let first = install(&world).plan.unwrap();
    assert_eq!(first.fetch_bytes, UNIT_COST * (FRAMES * IMAGES) as u64);
    assert_eq!(first.metadata_bytes, 900);
    for _ in 0..3 {
        world.step();
    }
    let (_, outcome) = world.engine.as_mut().unwrap().outcome_mut().unwrap();
    outcome.fetch_bytes = 7;
    let journal = world.engine.as_ref().unwrap().journal().clone();
    // As the stash brings it.
    world.disk.journal.install = journal.install;
    world.power_on(true);
    let world = world.run_to(State::Verifying);
    assert_eq!(install(&world).plan, Some(first));
    assert_eq!(install(&world).outcome.fetch_bytes, 7);
    assert_eq!(world.notes.iter().filter(|kind| *kind == "install.planned").count(), 2);
    let world = world.run(200);
    assert_eq!(world.notes.iter().filter(|kind| *kind == "install.spent").count(), 1);
}

#[test]
fn the_next_plan_tells_how_long_it_takes_at_the_rate_of_the_last_install_over_the_network() {
    let seconds = |by_root: bool| {
        let mut world = World::new(SOUND, vec![]).run_to(State::Writing);
        assert_eq!(world.disk.journal.install.as_ref().unwrap().plan.as_ref().unwrap().fetch_seconds, None);
        let engine = world.engine.as_mut().unwrap();
        engine.journal_mut().install.as_mut().unwrap().by_root = by_root;
        let (_, outcome) = engine.outcome_mut().unwrap();
        (outcome.fetch_bytes, outcome.fetch_millis) = (UNIT_COST * 6, 6_000);
        let mut world = world.run(200);
        assert_eq!(world.state(), State::Confirmed);
        world.order();
        let world = world.run_to(State::Writing);
        let install = world.disk.journal.install.clone().unwrap();
        assert_eq!((install.number, install.outcome), (2, OutcomeStatus::default()));
        install.plan.unwrap().fetch_seconds
    };
    assert_eq!(seconds(false), Some(6));
    // A stick's rate is not the network's.
    assert_eq!(seconds(true), None);
}

#[test]
fn a_release_below_the_floor_is_refused() {
    let mut world = World::new(SOUND, vec![]);
    world.engine.as_mut().unwrap().floor = NEW + 1;
    let world = world.run(50);
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::BELOW_FLOOR)));
    assert!(world.disk.order.may_boot("B"), "the other slot was touched");
}

#[test]
fn a_second_order_while_one_is_under_way_changes_nothing() {
    let mut world = World::new(SOUND, vec![]);
    let order = Order {
        command: None,
        envelope: None,
        release_target: "other".into(),
        slot: "A".into(),
        by_root: false,
    };
    world.tell(Event::Order(order));
    assert_eq!(world.engine.unwrap().journal().install.as_ref().unwrap().target, "B");
}

#[test]
fn a_cause_tells_a_panic_a_hang_and_a_start_that_failed_silently_apart() {
    for (panics, hangs, cause) in
        [(true, false, cause::PANIC), (false, true, cause::HANG), (false, false, cause::BOOT_FAILED)]
    {
        let world = World::new(Behaviour { starts: false, panics, hangs, ..SOUND }, vec![]).run(400);
        assert_eq!((world.state(), world.cause().as_deref()), (State::RolledBack, Some(cause)));
        assert_eq!(world.failure().fault, Some(Fault::Release));
    }
}

#[test]
fn what_fails_on_the_release_before_as_well_is_the_rooms_fault_and_quarantines_nothing() {
    let unplugged = Behaviour { passes_gate: false, old_passes_gate: false, ..SOUND };
    let mut world = World::new(unplugged, vec![]).run(2000);
    let failure = world.failure();
    assert_eq!((failure.cause.as_str(), failure.fault), (cause::GATE, Some(Fault::Room)));
    assert_eq!(failure.after.as_deref(), Some("camera: not found"));
    for _ in 0..3 {
        world.order();
        world = world.run(2000);
        assert_eq!(world.state(), State::RolledBack);
    }
    assert!(world.engine.unwrap().quarantined().is_empty());
}

#[test]
fn a_release_at_fault_twice_is_quarantined_until_an_operator_lifts_it() {
    let mut world = World::new(Behaviour { passes_gate: false, ..SOUND }, vec![]).run(2000);
    let failure = world.failure();
    assert_eq!(
        (failure.fault, failure.after.as_deref()),
        (Some(Fault::Release), Some("the same checks pass"))
    );
    let target = "releases/bar/2.0.0.json";
    assert!(world.engine.as_ref().unwrap().quarantine(target).is_none(), "once may be chance");
    world.order();
    let mut world = world.run(2000);
    let engine = world.engine.as_mut().unwrap();
    assert_eq!(engine.quarantined(), [target]);
    engine.lift_quarantine(target);
    assert!(engine.quarantined().is_empty());
}

#[test]
fn a_release_without_contact_is_at_fault_only_if_the_one_before_has_it() {
    let deaf = Behaviour { has_contact: false, ..SOUND };
    assert_eq!(World::new(deaf, vec![]).run(2000).failure().fault, Some(Fault::Release));
    let nobody = Behaviour { old_has_contact: false, ..deaf };
    let world = World::new(nobody, vec![]).run(2000);
    assert_eq!(
        (world.cause().as_deref(), world.failure().fault),
        (Some(cause::NO_CONTACT), Some(Fault::Room))
    );
}

#[test]
fn a_peripheral_follows_the_slot_forward_and_back() {
    let world = World::new(SOUND, vec![]).run(400);
    assert_eq!((world.state(), world.disk.camera), (State::Confirmed, NEW));
    let world = World::new(Behaviour { passes_gate: false, ..SOUND }, vec![]).run(2000);
    assert!(world.notes.contains(&"hook.applied".to_owned()));
    assert_eq!((world.state(), world.disk.camera), (State::RolledBack, OLD));
}

#[test]
fn a_hook_that_fails_fails_the_whole_release() {
    let world = World::new(Behaviour { takes_camera: false, ..SOUND }, vec![]).run(2000);
    assert_eq!((world.state(), world.cause().as_deref()), (State::RolledBack, Some(cause::GATE)));
    assert_eq!(world.failure().message, "camera: its hook failed");
    assert_eq!((world.runs(), world.disk.camera), (OLD, OLD));
}

#[test]
fn a_paused_install_does_nothing_misses_no_deadline_and_goes_on_after_a_restart() {
    let mut world = World::new(SOUND, vec![]).run_to(State::Writing);
    world.tell(Event::Control(Control::Pause));
    world.power_on(true);
    world.step();
    assert_eq!(world.engine.as_ref().unwrap().next(world.now()), Step::Rest);
    world.millis += 10 * 3600 * 1000;
    world.tell(Event::Tick);
    assert_eq!((world.state(), world.engine.as_ref().unwrap().is_paused()), (State::Writing, true));
    world.tell(Event::Control(Control::Resume));
    assert_eq!(world.run(400).state(), State::Confirmed);
}

#[test]
fn a_cancelled_install_leaves_the_running_release_alone_and_the_next_one_succeeds() {
    for state in [
        State::Checking,
        State::Invalidating,
        State::Writing,
        State::Verifying,
        State::Staged,
        State::Activating,
        State::Rebooting,
    ] {
        let mut world = World::new(SOUND, vec![]).run_to(state);
        world.tell(Event::Control(Control::Cancel));
        let mut world = world.run(100);
        assert_eq!(
            (world.state(), world.cause().as_deref()),
            (State::Failed, Some(cause::CANCELLED)),
            "{state:?}"
        );
        world.power_on(true);
        assert_eq!(world.runs(), OLD, "{state:?}");
        world.order();
        assert_eq!(world.run(400).state(), State::Confirmed, "{state:?}");
    }
}

#[test]
fn an_operator_rolls_back_a_release_that_is_not_confirmed_and_that_is_nobodys_fault() {
    let mut world = World::new(SOUND, vec![]).run_to(State::Trial);
    world.tell(Event::Control(Control::Rollback));
    let world = world.run(400);
    assert_eq!((world.state(), world.cause().as_deref()), (State::RolledBack, Some(cause::OPERATOR)));
    assert_eq!((world.runs(), world.failure().fault), (OLD, None));
}

#[test]
fn what_makes_no_sense_in_a_state_is_refused_with_what_does() {
    let engine = World::new(SOUND, vec![]).run_to(State::Trial).engine.unwrap();
    let said = |control| engine.permits(control).map_err(|refused| refused.to_string());
    assert!(said(Control::Cancel).unwrap_err().contains("roll it back"));
    assert!(said(Control::Pause).unwrap_err().contains("too late"));
    assert!(said(Control::Resume).unwrap_err().contains("not paused"));
    assert_eq!(said(Control::Rollback), Ok(()));
    let engine = World::new(SOUND, vec![]).run_to(State::Writing).engine.unwrap();
    assert!(engine.permits(Control::Rollback).unwrap_err().to_string().contains("cancel"));
    let engine = World::new(SOUND, vec![]).run(400).engine.unwrap();
    for control in [Control::Pause, Control::Resume, Control::Cancel, Control::Rollback] {
        assert!(engine.permits(control).unwrap_err().to_string().contains("no install"), "{control:?}");
    }
}

#[test]
fn power_cuts_that_are_told_as_such_cost_a_release_on_trial_nothing() {
    let world = World::new(Behaviour { tells_power: true, ..SOUND }, vec![]);
    let mut world = world.run_to(State::Trial);
    for _ in 0..8 {
        world.power_on(true);
        world.step();
        assert_eq!((world.state(), world.runs()), (State::Trial, NEW));
    }
    assert_eq!(world.run(400).state(), State::Confirmed);
    // Not told as such, they might be crashes.
    let mut world = World::new(SOUND, vec![]).run_to(State::Trial);
    for _ in 0..8 {
        world.power_on(true);
        world.step();
    }
    assert_eq!(world.run(400).state(), State::RolledBack);
}

#[test]
fn with_lost_boot_variables_no_slot_boots_that_is_being_written() {
    let mut world = World::new(SOUND, vec![]).run_to(State::Invalidating);
    // Slot A is written, after a first update to B.
    world = world.run(400);
    world.sequence = NEW + 1;
    world.order();
    let mut world = world.run_to(State::Writing);
    for _ in 0..4 {
        world.step();
    }
    world.disk.order = BootOrder::default().first("B").first("A");
    world.power_on(true);
    assert_eq!(world.engine.as_ref().unwrap().running(), "B");
    assert_eq!(world.run(400).state(), State::Confirmed);
}

proptest! {
    // Enough to cut at every write; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]
    /// `World::power_on` asserts at every boot that the slot chosen is whole.
    #[test]
    fn power_cuts_anywhere_end_in_a_verified_slot_and_a_settled_state(
        starts: bool, passes_gate: bool, has_contact: bool, network_answers: bool, takes_camera: bool,
        old_passes_gate: bool,
        cuts in proptest::collection::vec(0_u32..90, 0..6),
    ) {
        let behaviour = Behaviour {
            starts, passes_gate, old_passes_gate, has_contact, network_answers, takes_camera, ..SOUND
        };
        let cuts = cuts.into_iter().map(|cut| (cut, Loss::Nothing)).collect();
        let world = World::new(behaviour, cuts).run(3000);
        let expected: &[State] = match behaviour {
            // Cut before the order was durable, it never was.
            _ if world.disk.journal.install.is_none() => &[State::Idle],
            Behaviour { starts: false, .. }
            | Behaviour { passes_gate: false, .. }
            | Behaviour { takes_camera: false, .. } => &[State::RolledBack],
            Behaviour { has_contact: true, .. } => &[State::Confirmed, State::RolledBack],
            Behaviour { network_answers: true, .. } => &[State::RolledBack],
            _ => &[State::Good, State::RolledBack],
        };
        prop_assert!(expected.contains(&world.state()), "{:?} {:?}", world.state(), world.cause());
        prop_assert!(world.disk.order.may_boot("A"));
        let confirmed = world.notes.iter().any(|note| note == "state.confirmed")
            || world.disk.journal.confirmed.is_some();
        prop_assert_eq!(world.disk.floor, if confirmed { NEW } else { OLD });
        prop_assert!(world.running_new() == matches!(world.state(), State::Confirmed | State::Good));
        prop_assert_eq!(world.disk.camera, world.runs());
    }

    #[test]
    fn after_any_mishap_the_device_settles_and_the_next_release_is_installed(
        starts: bool, passes_gate: bool, has_contact: bool, tells_power: bool,
        cuts in proptest::collection::vec((0_u32..90, prop_oneof![
            3 => Just(Loss::Nothing), 1 => Just(Loss::Journal), 1 => Just(Loss::Variables)
        ]), 0..5),
        mishaps in proptest::collection::vec((1_usize..60, prop_oneof![
            Just(Some(Control::Pause)), Just(Some(Control::Resume)), Just(Some(Control::Cancel)),
            Just(Some(Control::Rollback)), Just(None),
        ]), 0..5),
    ) {
        let behaviour = Behaviour { starts, passes_gate, has_contact, tells_power, ..SOUND };
        let mut world = World::new(behaviour, cuts);
        for (steps, mishap) in mishaps {
            for _ in 0..steps {
                world.step();
            }
            match mishap {
                Some(control) => world.tell(Event::Control(control)),
                None => world.full = 3,
            }
        }
        world = world.run(3000);
        // Whatever became of it, the next release is sound and nothing stands in its way.
        world.cuts.clear();
        world.countdown = None;
        if world.engine.as_ref().unwrap().is_paused() {
            world.tell(Event::Control(Control::Resume));
            world = world.run(3000);
        }
        world.behaviour = SOUND;
        world = world.run(3000);
        prop_assert!(!world.engine.as_ref().unwrap().is_busy() || world.state() == State::Good, "{:?}", world.state());
        world.sequence = NEW + 1;
        world.order();
        world = world.run(3000);
        prop_assert_eq!(world.state(), State::Confirmed);
        prop_assert_eq!((world.runs(), world.disk.floor, world.disk.camera), (NEW + 1, NEW + 1, NEW + 1));
    }
}
