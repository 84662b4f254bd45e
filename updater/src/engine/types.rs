//! What goes into the engine and comes out of it.

use std::time::Duration;

use jiff::Timestamp;
use vigil_wire::{Contact, Control, PlanStatus};

use super::work::{Survey, Way, Work};
use crate::release::{Index, Manifest};

/// The two clocks: the wall clock is only ever shown, the boot clock decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// What the device believes the date to be.
    pub wall: Timestamp,
    /// Time since the kernel started, sleep included (CLOCK_BOOTTIME).
    pub boot: Duration,
}

/// Times and counts that the configuration sets.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The gate must be passed within this time of a boot on trial.
    pub trial_deadline: Duration,
    /// The gate must hold for this time.
    pub stable: Duration,
    /// Between two runs of the gate.
    pub gate_pause: Duration,
    /// Authenticated contact must follow within this time of the gate, if the release before had it.
    pub contact_deadline: Duration,
    /// A word from `vigild` older than this is no word.
    pub contact_age: Duration,
    /// Something that was asked for must arrive within this time.
    pub courier_deadline: Duration,
    /// Boots on trial before the release is given up.
    pub trial_boots: u32,
    /// Fetches that may fail one after the other.
    pub fetch_retries: u32,
    /// The pause after the first failed fetch; it doubles with each.
    pub fetch_pause: Duration,
    /// The longest such pause.
    pub fetch_pause_most: Duration,
    /// How often a slot that reads back wrong is written again.
    pub read_back_retries: u32,
    /// Between two requests to restart, and between two attempts to refill the running slot's tries.
    pub reboot_retry: Duration,
    /// Power cuts during a trial that are known as such and therefore cost the release none of its boots.
    pub power_cuts: u32,
    /// A release that was at fault so often is not installed again until an operator lifts the quarantine.
    pub quarantine_after: u32,
    /// The images that are not written to a part of the slot but handed to a hook of this name.
    pub hooks: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            trial_deadline: Duration::from_secs(600),
            stable: Duration::from_secs(60),
            gate_pause: Duration::from_secs(5),
            contact_deadline: Duration::from_secs(1800),
            contact_age: Duration::from_secs(60),
            courier_deadline: Duration::from_secs(1800),
            trial_boots: 3,
            fetch_retries: 8,
            fetch_pause: Duration::from_secs(2),
            fetch_pause_most: Duration::from_secs(300),
            read_back_retries: 2,
            reboot_retry: Duration::from_secs(120),
            power_cuts: 10,
            quarantine_after: 2,
            hooks: Vec::new(),
        }
    }
}

/// Stable codes for why an install failed or was rolled back.
pub mod cause {
    /// The release is below the floor.
    pub const BELOW_FLOOR: &str = "below_floor";
    /// The release is not for this product or hardware, or does not fit.
    pub const NOT_FOR_DEVICE: &str = "not_for_device";
    /// The release contradicts itself.
    pub const BAD_RELEASE: &str = "bad_release";
    /// No valid envelope, and the release's own policy does not allow it without.
    pub const NOT_AUTHORIZED: &str = "not_authorized";
    /// Something could not be fetched: no connection, or the server answers with an error.
    pub const FETCH: &str = "fetch_failed";
    /// The repository does not have what its metadata names.
    pub const FETCH_MISSING: &str = "fetch_missing";
    /// A server or proxy sends other bytes than the range that was asked for, or fewer.
    pub const FETCH_RANGE: &str = "fetch_range";
    /// What was fetched is not what was signed.
    pub const FETCH_CORRUPT: &str = "fetch_corrupt";
    /// The courier brought nothing for too long.
    pub const COURIER: &str = "courier_stalled";
    /// The slot does not keep what is written to it.
    pub const READ_BACK: &str = "read_back";
    /// The slot could not be read or written.
    pub const SLOT: &str = "slot_failed";
    /// The slot is mounted, or the running system lies on it.
    pub const SLOT_IN_USE: &str = "slot_in_use";
    /// The slot is read-only.
    pub const SLOT_READ_ONLY: &str = "slot_read_only";
    /// The image does not fit into the slot.
    pub const SLOT_TOO_SMALL: &str = "slot_too_small";
    /// The slot's device is not there, or vanished.
    pub const SLOT_MISSING: &str = "slot_missing";
    /// The updater's own state could not be written for too long.
    pub const STORAGE: &str = "storage";
    /// The boot variables could not be written.
    pub const BOOT_CONTROL: &str = "boot_control";
    /// The bootloader went back to the slot before, and nothing says why.
    pub const BOOT_FAILED: &str = "boot_failed";
    /// The release's kernel panicked.
    pub const PANIC: &str = "panic";
    /// The watchdog ended the release.
    pub const HANG: &str = "hang";
    /// The power failed again and again.
    pub const POWER: &str = "power";
    /// The release was booted on trial too often.
    pub const CRASH_LOOP: &str = "crash_loop";
    /// The gate was not passed in time.
    pub const GATE: &str = "gate";
    /// `vigild` did not run when the time was up.
    pub const AGENT_DEAD: &str = "agent_dead";
    /// No authenticated contact in time, although the network answers.
    pub const NO_CONTACT: &str = "no_contact";
    /// An operator, or root at the device, gave the install up.
    pub const CANCELLED: &str = "cancelled";
    /// An operator, or root at the device, had the release rolled back.
    pub const OPERATOR: &str = "operator";
}

/// How the boot before this one ended, as far as the hardware and the kernel left word of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastBoot {
    /// The kernel panicked: its last words.
    pub panic: Option<String>,
    /// The watchdog reset the device.
    pub watchdog: bool,
    /// The power failed.
    pub power: bool,
}

/// Where and how the device runs.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// The slot.
    pub slot: String,
    /// Differs with every boot.
    pub id: String,
    /// How the boot before this one ended.
    pub last: LastBoot,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFailure {
    /// The check's name.
    pub check: String,
    /// What is wrong, for people.
    pub message: String,
}

impl std::fmt::Display for CheckFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.check, self.message)
    }
}

/// An accepted request to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id of the command, if it was one.
    pub command: Option<String>,
    /// The command's envelope.
    pub envelope: Option<String>,
    /// The release's TUF target.
    pub release_target: String,
    /// The slot to write.
    pub slot: String,
    /// Root at the device asked for it, without a command.
    pub by_root: bool,
}

/// The outcome of a step, or something from outside.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// What `vigild` sees.
    Contact(Contact),
    /// An accepted request to install.
    Order(Order),
    /// The trusted metadata was fetched and verified just now: authenticated contact with the repository.
    Refreshed,
    /// The repository proved who it is, with metadata that has expired.
    Authentic,
    /// The courier brought a part of something that was asked for.
    Fed,
    /// Something could not be fetched, or was not what was signed.
    FetchFailed {
        /// A stable code of [`cause`], should it be given up.
        cause: &'static str,
        /// For people.
        message: String,
    },
    /// A person who may do so takes the install in hand; [`super::Engine::permits`] was asked before.
    Control(Control),
    /// The step failed for good.
    Failed {
        /// A stable code of [`cause`].
        cause: &'static str,
        /// For people.
        message: String,
    },
    /// The manifest, verified, and right for this device.
    Manifest {
        /// The manifest.
        manifest: Box<Manifest>,
        /// SHA-256 of its bytes, lower-case hex.
        sha256: String,
    },
    /// An image's index, and what the device knows of the image by that.
    Index {
        /// Position of the image in the manifest.
        image: usize,
        /// What is known.
        survey: Survey,
    },
    /// Leaves, of the hashes that the index names, are kept.
    Leaves {
        /// Image.
        image: usize,
        /// The first unit.
        unit: usize,
        /// How many.
        count: usize,
    },
    /// The index of a patch, of the hash that the manifest names, is kept.
    PatchIndex {
        /// Image.
        image: usize,
    },
    /// A patch that the manifest names cannot be used after all.
    PatchForgone {
        /// Image.
        image: usize,
    },
    /// Where everything will come from.
    Planned {
        /// For people.
        plan: PlanStatus,
        /// For each image, for each unit.
        ways: Vec<Vec<Way>>,
    },
    /// A unit's leaf is needed after all.
    LeafWanted {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// The running slot must be mapped before it is known what an image's index means.
    Unmapped {
        /// Image.
        image: usize,
        /// Its index.
        index: Index,
    },
    /// A unit cannot be made as it was planned: what the device was to have had changed.
    Rerouted {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
        /// How instead.
        way: Way,
    },
    /// The slot left the boot order.
    Excluded,
    /// The first block of each image is blank, so that no bootloader takes the slot for a system.
    Sealed,
    /// The first block of each image is what it must be.
    Unsealed {
        /// It is on the disk and reads back.
        matches: bool,
    },
    /// Manifest and indexes as they were kept; none if they were lost.
    Reloaded(Option<Box<Work>>),
    /// A unit of the target slot was held against the index.
    Inspected {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
        /// It is there already.
        matches: bool,
    },
    /// A frame had the hash that was signed, and was decoded into its unit.
    Decoded {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
        /// Its position in the unit.
        frame: u16,
    },
    /// A unit was written and is on its way to the disk.
    Begun {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// It is on the disk.
    Written {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// A unit was read back.
    ReadBack {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
        /// It is what the index says.
        matches: bool,
    },
    /// A whole image was read back.
    ImageHash {
        /// Image.
        image: usize,
        /// It is what the manifest says.
        matches: bool,
    },
    /// Nothing holds the restart back.
    Proceed,
    /// The slot is first in the boot order.
    PutFirst,
    /// The restart was asked for.
    RebootAsked,
    /// The gate was run.
    Gate(Result<(), CheckFailure>),
    /// What the image's hook left before counts for nothing any more.
    ApplyBegun {
        /// The image.
        image: String,
    },
    /// A hook was run.
    Applied {
        /// The image it was handed.
        image: String,
        /// The image's hash.
        sha256: String,
        /// Whether it succeeded.
        result: Result<(), String>,
    },
    /// The slot's tries were refilled.
    MarkedGood,
    /// They could not be: it is tried again later.
    MarkFailed,
    /// The slot before is first in the boot order again and the failed one has left it.
    Reverted,
}

/// What must be done before the next step, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make the journal durable.
    Save,
    /// Make the floor durable.
    Floor(u64),
    /// Append to the event list.
    Note {
        /// What happened.
        kind: String,
        /// For people.
        message: String,
    },
    /// Manifest and indexes are of no more use on the disk.
    DropWork,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until someone asks.
    Rest,
    /// Nothing before this time of the boot clock.
    WaitUntil(Duration),
    /// Have the metadata refreshed.
    Refresh,
    /// Have the manifest fetched, verify it and the right to install it.
    FetchManifest {
        /// The TUF target.
        target: String,
    },
    /// Have an image's index fetched.
    FetchIndex {
        /// Image.
        image: usize,
    },
    /// Have a run of leaves fetched, one after the other.
    FetchLeaves {
        /// Image.
        image: usize,
        /// The first unit.
        unit: usize,
        /// How many.
        count: usize,
    },
    /// Have a patch's index fetched.
    FetchPatchIndex {
        /// Image.
        image: usize,
        /// Position of the patch in the image's part of the manifest.
        patch: usize,
    },
    /// Map the running slot, a piece at a time: it is not known what is in it.
    Map {
        /// Image.
        image: usize,
    },
    /// Find out where everything will come from.
    Plan,
    /// Take the slot out of the boot order.
    Exclude {
        /// The slot.
        slot: String,
    },
    /// Blank the first block of each image in the target slot.
    Seal,
    /// Write the first block of each image in the target slot, and read it back.
    Unseal,
    /// Read manifest and indexes from the disk.
    Reload,
    /// Hold a unit of the target slot against the index.
    Inspect {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// Make a unit of what the device has, and write it.
    Make {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// Have frames fetched, those of this unit first.
    FetchFrames {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// Wait until what was written is on the disk.
    Settle,
    /// Read a unit of the target slot back.
    ReadBack {
        /// Image.
        image: usize,
        /// Unit.
        unit: usize,
    },
    /// Compare the hash of all that was read back of an image.
    CompareImage {
        /// Image.
        image: usize,
    },
    /// See whether anything holds the restart back.
    Proceed,
    /// Put the slot first in the boot order.
    PutFirst {
        /// The slot.
        slot: String,
    },
    /// Ask for a restart.
    Reboot,
    /// Note that an image is about to be handed to its hook: where power fails meanwhile, nobody knows what the hook left.
    BeginApply {
        /// The image.
        image: String,
    },
    /// Hand an image of the running slot to its hook.
    Apply {
        /// The image.
        image: String,
        /// Its hash.
        sha256: String,
    },
    /// Run the gate's checks.
    RunGate,
    /// Refill the slot's tries.
    MarkGood {
        /// The slot.
        slot: String,
    },
    /// Put `to` first in the boot order and take `from` out.
    Revert {
        /// The slot to go back to.
        to: String,
        /// The slot given up.
        from: String,
    },
}
