//! The engine against a small model of a device: disk, bootloader, two slots. Power is cut between any two actions.

use super::*;
use crate::boot::BootOrder;
use crate::release::{FRAME_BYTES, Index, Manifest};
use proptest::prelude::*;

const FRAMES: usize = 3;

fn release() -> (Manifest, Index) {
    static RELEASE: std::sync::OnceLock<(Manifest, Index)> = std::sync::OnceLock::new();
    RELEASE.get_or_init(make_release).clone()
}

fn make_release() -> (Manifest, Index) {
    let sequence = NEW;
    let mut index = Index::new();
    for frame in 0..FRAMES {
        let raw = vec![frame as u8; if frame + 1 < FRAMES { FRAME_BYTES as usize } else { 7 }];
        index.push(&raw, &[9; 5]);
    }
    let hash = "ab".repeat(32);
    let manifest = serde_json::json!({
        "format": 1, "product": "bar", "hardware": ["r1"], "version": format!("{sequence}.0.0"),
        "sequence": sequence,
        "images": [{"name": "rootfs", "size": index.image_size(), "sha256": hash,
            "index": {"size": 1, "sha256": hash}, "frames": {"size": index.frames_size(), "sha256": hash}}],
    });
    (Manifest::parse(manifest.to_string().as_bytes()).unwrap(), index)
}

/// What a device keeps without power.
#[derive(Clone)]
struct Disk {
    journal: Journal,
    floor: u64,
    order: BootOrder,
    /// The sequence of the release whose frames each slot holds, frame by frame.
    slots: [Vec<u64>; 2],
}

/// How the release behaves.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    starts: bool,
    passes_gate: bool,
    has_contact: bool,
    network_answers: bool,
}

struct World {
    disk: Disk,
    boots: u64,
    millis: u64,
    engine: Option<Engine>,
    behaviour: Behaviour,
    /// Actions until the power is cut; none left means never.
    cuts: Vec<u32>,
    countdown: Option<u32>,
    notes: Vec<String>,
}

const NEW: u64 = 2;

impl World {
    fn new(behaviour: Behaviour, cuts: Vec<u32>) -> Self {
        let journal = Journal {
            v: 1,
            had_contact: true,
            contents: [("A".to_owned(), vigil_wire::ReleaseId { version: "1.0.0".into(), sequence: 1 })]
                .into(),
            ..Journal::default()
        };
        let mut world = Self {
            disk: Disk {
                journal,
                floor: 1,
                order: BootOrder::default().first("B").first("A"),
                slots: [vec![1; FRAMES], vec![0; FRAMES]],
            },
            boots: 0,
            millis: 0,
            engine: None,
            behaviour,
            cuts,
            countdown: None,
            notes: vec![],
        };
        world.power_on();
        let order = Order {
            command: Some("c".into()),
            envelope: None,
            release_target: "releases/bar/2.0.0.json".into(),
            slot: "B".into(),
        };
        world.tell(Event::Order(order));
        world.countdown = world.cuts.pop();
        world
    }

    fn now(&self) -> Now {
        Now { wall: jiff::Timestamp::UNIX_EPOCH, boot: Duration::from_millis(self.millis) }
    }

    fn slot(name: &str) -> usize {
        usize::from(name == "B")
    }

    /// Boots until something starts that can run the updater.
    fn power_on(&mut self) {
        self.engine = None;
        for _ in 0..20 {
            self.boots += 1;
            self.millis = 0;
            let slot = self.disk.order.select().expect("the boot order is never empty");
            let content = &self.disk.slots[Self::slot(&slot)];
            assert!(
                content.iter().all(|frame| *frame == content[0] && *frame != 0),
                "booted a torn slot {slot}"
            );
            if content[0] == NEW && !self.behaviour.starts {
                continue;
            }
            let boot = format!("boot-{}", self.boots);
            let (engine, outputs) = Engine::start(
                Policy::default(),
                self.disk.journal.clone(),
                self.disk.floor,
                &slot,
                &boot,
                self.now(),
            );
            self.engine = Some(engine);
            self.perform(outputs);
            return;
        }
        panic!("nothing starts");
    }

    /// One durable action, before which the power may be cut. True when it was.
    fn cut(&mut self) -> bool {
        match &mut self.countdown {
            Some(0) => {
                self.countdown = self.cuts.pop();
                self.power_on();
                true
            }
            Some(left) => {
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
            let engine = self.engine.as_ref().unwrap();
            match output {
                Output::Save => self.disk.journal = engine.journal().clone(),
                Output::Floor(floor) => self.disk.floor = floor,
                Output::Note { kind, .. } => self.notes.push(kind),
                Output::DropWork => {}
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let now = self.now();
        let outputs = self.engine.as_mut().unwrap().on(now, event);
        self.perform(outputs);
    }

    fn running_new(&self) -> bool {
        self.disk.slots[Self::slot(self.engine.as_ref().unwrap().running())][0] == NEW
    }

    fn step(&mut self) {
        if self.cut() {
            return;
        }
        let contact = vigil_wire::Contact {
            ready: true,
            broker: false,
            carrier: self.behaviour.network_answers,
            gateway: self.behaviour.network_answers,
        };
        let step = self.engine.as_ref().unwrap().next(self.now());
        let (manifest, index) = release();
        match step {
            Step::Rest => {}
            Step::WaitUntil(time) => {
                self.millis = time.as_millis() as u64;
                self.engine.as_mut().unwrap().contact = Some((self.now().boot, contact));
                if self.running_new() && self.behaviour.has_contact {
                    self.tell(Event::Refreshed);
                }
                self.tell(Event::Tick);
            }
            Step::Refresh => self.tell(Event::Refreshed),
            Step::FetchManifest { .. } => {
                self.tell(Event::Manifest { manifest: Box::new(manifest), sha256: "m".into() });
            }
            Step::FetchIndex { image } => self.tell(Event::Index { image, index }),
            Step::Exclude { slot } => {
                self.disk.order = self.disk.order.clone().without(&slot);
                self.tell(Event::Excluded);
            }
            Step::Reload => {
                let mut work = Work::new(manifest);
                work.set_index(0, index).unwrap();
                self.tell(Event::Reloaded(Some(Box::new(work))));
            }
            Step::Inspect { image, frame } => {
                let matches = self.disk.slots[1][frame] == NEW;
                self.tell(Event::Inspected { image, frame, matches });
            }
            Step::FetchFrames { image, frame, .. } => {
                assert!(!self.disk.order.may_boot("B"), "a slot in the boot order is written");
                self.disk.slots[1][frame] = NEW;
                self.tell(Event::Written { image, frame });
            }
            Step::ReadBack { image, frame } => {
                let matches = self.disk.slots[1][frame] == NEW;
                self.tell(Event::ReadBack { image, frame, matches });
            }
            Step::CompareImage { image } => self.tell(Event::ImageHash { image, matches: true }),
            Step::Proceed => self.tell(Event::Proceed),
            Step::PutFirst { slot } => {
                self.disk.order = self.disk.order.clone().first(&slot);
                self.tell(Event::PutFirst);
            }
            Step::Reboot => {
                self.tell(Event::RebootAsked);
                self.power_on();
            }
            Step::RunGate => {
                self.engine.as_mut().unwrap().contact = Some((self.now().boot, contact));
                let result =
                    if self.behaviour.passes_gate { Ok(()) } else { Err("camera: not found".to_owned()) };
                self.tell(Event::Gate(result));
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

    fn state(&self) -> State {
        self.engine.as_ref().unwrap().journal().state
    }

    fn cause(&self) -> Option<String> {
        self.engine.as_ref().unwrap().journal().last_failure.as_ref().map(|failure| failure.cause.clone())
    }
}

const SOUND: Behaviour =
    Behaviour { starts: true, passes_gate: true, has_contact: true, network_answers: true };

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
    let failure = world.engine.unwrap().journal().last_failure.clone().unwrap();
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
        world.tell(Event::FetchFailed("404".into()));
        let Step::WaitUntil(time) = world.engine.as_ref().unwrap().next(world.now()) else { panic!() };
        pauses.push(time.as_secs() - world.millis / 1000);
        world.millis = time.as_millis() as u64;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256]);
    world.tell(Event::FetchFailed("404".into()));
    assert_eq!((world.state(), world.cause().as_deref()), (State::Failed, Some(cause::FETCH)));
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
    let order = Order { command: None, envelope: None, release_target: "other".into(), slot: "A".into() };
    world.tell(Event::Order(order));
    assert_eq!(world.engine.unwrap().journal().install.as_ref().unwrap().target, "B");
}

proptest! {
    // Enough to cut at every write; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]
    /// `World::power_on` asserts at every boot that the slot chosen is whole.
    #[test]
    fn power_cuts_anywhere_end_in_a_verified_slot_and_a_settled_state(
        starts: bool, passes_gate: bool, has_contact: bool, network_answers: bool,
        cuts in proptest::collection::vec(0_u32..60, 0..6),
    ) {
        let behaviour = Behaviour { starts, passes_gate, has_contact, network_answers };
        let world = World::new(behaviour, cuts).run(2000);
        let expected: &[State] = match behaviour {
            // Cut before the order was durable, it never was.
            _ if world.disk.journal.install.is_none() => &[State::Idle],
            Behaviour { starts: false, .. } | Behaviour { passes_gate: false, .. } => &[State::RolledBack],
            Behaviour { has_contact: true, .. } => &[State::Confirmed, State::RolledBack],
            Behaviour { network_answers: true, .. } => &[State::RolledBack],
            _ => &[State::Good, State::RolledBack],
        };
        prop_assert!(expected.contains(&world.state()), "{:?} {:?}", world.state(), world.cause());
        prop_assert!(world.disk.order.may_boot("A"));
        let confirmed = world.notes.iter().any(|note| note == "state.confirmed")
            || world.disk.journal.confirmed.is_some();
        prop_assert_eq!(world.disk.floor, if confirmed { NEW } else { 1 });
        prop_assert!(world.running_new() == matches!(world.state(), State::Confirmed | State::Good));
    }
}
