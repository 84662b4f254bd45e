//! The messages themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vigil_text::{Sentence, Text};

/// The version of this contract. The updater serves a peer of the same version only; both come with one release.
pub const WIRE_VERSION: u32 = 1;

/// What a peer asks of the updater.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First on every connection.
    Hello {
        /// The peer's [`WIRE_VERSION`].
        version: u32,
    },
    /// How it stands: answered by [`Response::Status`].
    Status,
    /// Begin a refresh of the trusted metadata, unless one is under way. The fetching follows through `Next`.
    Refresh,
    /// Keep the profiles of these partners, besides what every device keeps, and no others.
    Follow {
        /// Their names.
        partners: Vec<String>,
    },
    /// The verified bytes of a document that is kept, such as `operators/acme.json`.
    Target {
        /// The target's name.
        name: String,
    },
    /// Install a release, by an operator's envelope (`update.install`) or by the release's own signed policy.
    Install {
        /// The operator's DSSE envelope, as it arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        envelope: Option<String>,
        /// Without an envelope: the release's target name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<String>,
        /// Without an envelope: also when that release runs already. An envelope has it as its argument `reinstall`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reinstall: bool,
    },
    /// Take an install in hand: by an operator's envelope of the kind that `control` names or, without one, by the
    /// word of root at the device.
    Control {
        /// What to do.
        control: Control,
        /// The operator's DSSE envelope, as it arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        envelope: Option<String>,
    },
    /// Be the only one who is asked to fetch, until this connection ends: for an install from a directory, which the
    /// network's courier must not mix with.
    Claim,
    /// What should be fetched next: answered by [`Response::Need`], [`Response::Working`] or [`Response::Idle`].
    Next,
    /// Bytes of what was asked for, in the blob.
    Feed {
        /// The id of the need.
        need: u64,
        /// Where in the file the blob begins.
        offset: u64,
        /// What the blob is.
        fetch: Fetch,
        /// With [`Fetch::Failed`] and [`Fetch::Missing`]: what went wrong, as far as the courier knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<Trouble>,
        /// Bytes that came before the blob's and are of no use: a server that knows no ranges sends a file from its
        /// beginning. They are counted.
        #[serde(default, skip_serializing_if = "is_zero")]
        passed_over: u64,
    },
    /// The courier's contact with the world, as evidence for the trial. It decides nothing on its own.
    Contact(Contact),
    /// Keep this signed checkpoint of the audit log: the newest one, so that a log which begins anew or is shorter shows.
    Witness {
        /// The checkpoint.
        note: String,
    },
    /// The checkpoint that is kept: answered by [`Response::Witnessed`].
    Witnessed,
    /// Forget the checkpoint that is kept: for root, who has looked into what became of the log.
    ForgetWitness,
    /// Forget what time it is at least: for root, where what proved it was wrong. What is signed proves it anew.
    ForgetTime,
    /// Events after the one numbered `after`, oldest first, a page at most.
    Events {
        /// The last number the peer has.
        after: u64,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Request {
    /// Whether it changes what is installed or trusted: while root has claimed the errand, that is root's alone.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Install { .. } | Self::Control { .. } | Self::Refresh | Self::Follow { .. })
    }
}

/// What a [`Request::Feed`] brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fetch {
    /// Bytes, and more will come.
    More,
    /// The last bytes of the file.
    Last,
    /// There is no such file (404 or 403).
    Missing,
    /// It could not be fetched now; the updater decides when to ask again.
    Failed,
}

/// Why something was not fetched. For people and for the recorded cause; it decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// Whether the server, or a proxy before it, sent another range than was asked for, or refused it (416).
    pub range: bool,
    /// In a sentence.
    pub message: Text<300>,
}

/// What a person may do with an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Stop until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Give it up. The running release is left as it is.
    Cancel,
    /// Go back from a release that is not confirmed yet.
    Rollback,
}

impl Control {
    /// Its name, as it is published.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Rollback => "rollback",
        }
    }
}

/// What the courier sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The daemon runs its loop and has its stores open.
    pub ready: bool,
    /// A session with the broker is up.
    pub broker: bool,
    /// An interface has carrier.
    pub carrier: bool,
    /// The gateway answers.
    pub gateway: bool,
}

/// What the updater answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// To `Hello`.
    Hello {
        /// The updater's [`WIRE_VERSION`].
        version: u32,
        /// The updater's own version, for people.
        updater: String,
    },
    /// To `Status`.
    Status(Box<UpdateStatus>),
    /// Taken up; durable where it has to be.
    Done,
    /// To `Target`: its bytes are in the blob.
    Target,
    /// To `Next`: this should be fetched.
    Need(Need),
    /// To `Next`: nothing to fetch just now, ask again; work is going on. To `Feed`: what has come is not used up yet; say the
    /// same again, from where the blob ended, with nothing in it.
    Working,
    /// To `Next`: nothing to do.
    Idle,
    /// To `Feed`: go on with the same file.
    Continue,
    /// To `Witnessed`.
    Witnessed {
        /// The newest checkpoint that was handed over, if any was.
        note: Option<String>,
    },
    /// To `Events`.
    Events {
        /// Oldest first.
        events: Vec<Event>,
    },
    /// Refused, with a stable code.
    Refused {
        /// Stable, for programs: a command's reason code where there is one.
        code: String,
        /// For people: what, and what to do.
        message: Sentence,
    },
}

impl Response {
    /// Which answer it is, for whoever expected another.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Status(_) => "status",
            Self::Done => "done",
            Self::Target => "target",
            Self::Need(_) => "need",
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Continue => "continue",
            Self::Witnessed { .. } => "witnessed",
            Self::Events { .. } => "events",
            Self::Refused { .. } => "refused",
        }
    }
}

/// A file that should be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Named again in each `Feed`; what is fed for another need is refused.
    pub need: u64,
    /// Relative to the repository's base, e.g. `metadata/timestamp.json`.
    pub path: String,
    /// Where to begin.
    pub offset: u64,
    /// Bytes to fetch from there at most: the exact number when `exact`.
    pub length: u64,
    /// Whether `length` is the exact number (a range of a blob) or a limit.
    pub exact: bool,
}

/// The engine's states. A name never changes its meaning: they are in journals and in the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing under way.
    #[default]
    Idle,
    /// Metadata, manifest and index are being fetched and verified.
    Checking,
    /// The target slot is being taken out of the boot order.
    Invalidating,
    /// The target slot is being written.
    Writing,
    /// The target slot is being read back.
    Verifying,
    /// The target slot holds the verified release.
    Staged,
    /// The target slot is being put first in the boot order.
    Activating,
    /// A restart was asked for.
    Rebooting,
    /// The new release runs and has not passed its gate.
    Trial,
    /// It has passed its gate and waits for one authenticated contact.
    Good,
    /// It had contact: the update is done.
    Confirmed,
    /// It was given up; the release before runs, or will after the restart.
    RolledBack,
    /// The install failed before the restart; the running release was never in question.
    Failed,
}

impl State {
    /// The state's name, as it is published.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking => "checking",
            Self::Invalidating => "invalidating",
            Self::Writing => "writing",
            Self::Verifying => "verifying",
            Self::Staged => "staged",
            Self::Activating => "activating",
            Self::Rebooting => "rebooting",
            Self::Trial => "trial",
            Self::Good => "good",
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
        }
    }

    /// Whether an install is between its beginning and its end.
    pub fn is_under_way(self) -> bool {
        !matches!(self, Self::Idle | Self::Confirmed | Self::RolledBack | Self::Failed)
    }
}

/// How the updater stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateStatus {
    /// The product whose releases are installed.
    pub product: String,
    /// The engine's state.
    pub state: State,
    /// The slot that runs.
    pub running_slot: String,
    /// The slots by name.
    pub slots: BTreeMap<String, SlotStatus>,
    /// The release that is being installed or tried.
    pub target: Option<ReleaseId>,
    /// The command that asked for it.
    pub command: Option<String>,
    /// How far writing or verifying has come.
    pub progress: Option<ProgressState>,
    /// What the install, or the last one, was to fetch and write, once that is known.
    pub plan: Option<PlanStatus>,
    /// What it has fetched and written so far, or in the end.
    pub outcome: Option<OutcomeStatus>,
    /// Whether it waits for a person to resume it.
    pub paused: bool,
    /// Releases that were at fault too often, by their TUF target: they are installed again only when an operator
    /// lifts the quarantine.
    pub quarantined: Vec<String>,
    /// The last failure or rollback.
    pub last_failure: Option<Failure>,
    /// Releases of a lower sequence are refused.
    pub floor: u64,
    /// What is trusted.
    pub trust: TrustStatus,
    /// The number of the newest event.
    pub last_event: u64,
    /// Whether the socket filter is on that keeps this process off the network.
    pub confined: bool,
    /// Why the boot variables cannot be written, if that is so: no update can be installed, and no tries refilled.
    pub boot_problem: Option<Sentence>,
    /// Why the updater's own state cannot be used, if that is so: it feeds the watchdog, answers, and installs nothing.
    pub degraded: Option<Sentence>,
}

/// What the updater trusts, and how new it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustStatus {
    /// The versions of the top-level metadata, by role.
    pub metadata: BTreeMap<String, u64>,
    /// The documents that are kept: SHA-256 in hex by target name.
    pub documents: BTreeMap<String, String>,
    /// When the last refresh since the start was complete, in seconds since 1970 by the updater's reckoning.
    pub refreshed_at: Option<i64>,
    /// When the timestamp expires, in seconds since 1970.
    pub fresh_until: Option<i64>,
    /// Whether it has expired: somebody withholds what is newer, or the repository is not tended.
    pub frozen: bool,
    /// What time it is at least by signatures and the time since them, in seconds since 1970; none when nothing is known.
    pub proven_at: Option<i64>,
    /// Whether the clock is behind what signatures say the time is at least.
    pub clock_behind: bool,
    /// Whether the operators list has expired: only `observe` is allowed.
    pub operators_expired: bool,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Whether the bootloader may choose it.
    pub bootable: bool,
    /// What was last verified in it, if anything.
    pub release: Option<ReleaseId>,
}

/// A release by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseId {
    /// A semantic version, for people.
    pub version: String,
    /// Grows with every release of the product.
    pub sequence: u64,
}

/// Bytes done of bytes in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressState {
    /// Done.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// What an install fetches and writes, told before it begins. Bytes throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanStatus {
    /// What is still to be fetched, 300 bytes for each request included.
    pub fetch_bytes: u64,
    /// In so many requests.
    pub requests: u64,
    /// What was fetched to know that: indexes and leaves, 300 bytes for each request included.
    pub index_bytes: u64,
    /// What was fetched before, since the release was asked for: metadata and the manifest, counted alike.
    pub metadata_bytes: u64,
    /// What a device would fetch that has nothing.
    pub full_bytes: u64,
    /// Written to the slot's flash, at most.
    pub write_bytes: u64,
    /// Of the images, in the target slot already.
    pub present_bytes: u64,
    /// Copied from the slot that runs.
    pub running_bytes: u64,
    /// Copied from elsewhere in the target slot.
    pub target_bytes: u64,
    /// Zeros and repetitions.
    pub free_bytes: u64,
    /// Decoded from frames.
    pub frame_bytes: u64,
    /// Decoded from patch frames.
    pub patch_bytes: u64,
    /// How long the fetching takes at the rate of the last install's; none where there is none.
    pub fetch_seconds: Option<u64>,
}

/// What an install has really fetched and written, counted as [`PlanStatus`] counts. What was fetched or made twice, after a
/// broken link or a power cut, counts twice; what the target slot held already and was only looked at, after a restart, does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutcomeStatus {
    /// Frames and patch frames that came, and 300 bytes for each request for them.
    pub fetch_bytes: u64,
    /// Requests for them that were answered.
    pub requests: u64,
    /// Indexes and leaves that came, and 300 bytes for each request for them.
    pub index_bytes: u64,
    /// Metadata and manifests that came since the release was asked for, counted alike.
    pub metadata_bytes: u64,
    /// Written to the slot's flash.
    pub write_bytes: u64,
    /// Of the units that were made, in the target slot already.
    pub present_bytes: u64,
    /// Copied from the slot that runs.
    pub running_bytes: u64,
    /// Copied from elsewhere in the target slot.
    pub target_bytes: u64,
    /// Zeros and repetitions.
    pub free_bytes: u64,
    /// Decoded from frames.
    pub frame_bytes: u64,
    /// Decoded from patch frames.
    pub patch_bytes: u64,
    /// How long frames were on their way, and were decoded and written as they came.
    pub fetch_millis: u64,
}

impl OutcomeStatus {
    /// Bytes a second at which frames came; none if too few came to tell.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let enough = self.fetch_bytes >= RATE_BYTES && self.fetch_millis > 0;
        enough.then(|| (self.fetch_bytes.saturating_mul(1000) / self.fetch_millis).max(1))
    }

    /// Whether anything was fetched or written at all.
    pub fn is_none(&self) -> bool {
        self.fetch_bytes == 0 && self.index_bytes == 0 && self.metadata_bytes == 0 && self.write_bytes == 0
    }
}

/// Of fewer bytes than these it is the requests that take the time.
const RATE_BYTES: u64 = 64 * 1024;

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl std::fmt::Display for OutcomeStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.1} MB fetched in {} requests, and {:.1} MB of indexes; {:.1} MB from the running slot, {:.1} MB in the target \
             slot, {:.1} MB from frames, {:.1} MB from patches; {:.1} MB written",
            megabytes(self.fetch_bytes),
            self.requests,
            megabytes(self.index_bytes),
            megabytes(self.running_bytes),
            megabytes(self.present_bytes + self.target_bytes),
            megabytes(self.frame_bytes),
            megabytes(self.patch_bytes),
            megabytes(self.write_bytes),
        )
    }
}

impl std::fmt::Display for PlanStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.1} MB to fetch in {} requests, of {:.1} MB for a device that has nothing; {:.1} MB from the running slot, \
             {:.1} MB in the target slot, {:.1} MB from frames, {:.1} MB from patches; {:.1} MB to write at most",
            megabytes(self.fetch_bytes),
            self.requests,
            megabytes(self.full_bytes),
            megabytes(self.running_bytes),
            megabytes(self.present_bytes + self.target_bytes),
            megabytes(self.frame_bytes),
            megabytes(self.patch_bytes),
            megabytes(self.write_bytes),
        )?;
        match self.fetch_seconds {
            Some(seconds) => write!(formatter, "; {seconds} s at the last rate"),
            None => Ok(()),
        }
    }
}

/// Why an install failed or a release was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which release.
    pub release: Option<ReleaseId>,
    /// A stable code.
    pub cause: String,
    /// For people.
    pub message: Sentence,
    /// Whether the running slot changed back.
    pub rolled_back: bool,
    /// Whose fault it was, once that is known.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// After a rollback: what the same checks say of the release before.
    #[serde(default)]
    pub after: Option<Sentence>,
    /// When, in seconds since 1970 by the device's clock.
    pub at_seconds: i64,
}

/// Whose fault a rollback was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The release before works in the same room.
    Release,
    /// The release before fails in the same way.
    Room,
}

impl Fault {
    /// Its name, as it is published.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Room => "room",
        }
    }
}

/// An entry of the updater's own numbered list, which `vigild` copies into the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1, 2, 3, …: a gap shows.
    pub number: u64,
    /// When, in seconds since 1970 by the device's clock.
    pub at_seconds: i64,
    /// What happened: `install.accepted`, `state`, `rolled_back`, `refused`, ….
    pub kind: String,
    /// For people.
    pub message: Sentence,
}
