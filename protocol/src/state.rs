//! What a device publishes as retained state.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What every retained state message carries around its body. Readers pass over fields they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message<Body> {
    /// Format version, 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub v: u32,
    /// The device.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub device: String,
    /// Counts this topic's messages since the device was enrolled; the digest names the newest.
    pub seq: u64,
    /// When it was made, by the device's clock.
    pub at: Timestamp,
    /// The state.
    #[serde(flatten)]
    pub body: Body,
}

/// Whether the device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PresenceStatus {
    /// Connected.
    Online,
    /// Said good-bye.
    Offline,
    /// The broker noticed that it is gone (the will).
    Lost,
}

/// `presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Presence {
    /// Online, offline or lost.
    pub status: PresenceStatus,
    /// Counts the device's connections; a will of an earlier session says nothing about a later one.
    pub session: u64,
}

/// `inventory`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inventory {
    /// The tenant it is bound to.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub tenant: String,
    /// The groups that its configuration names.
    pub groups: Vec<String>,
    /// The product, as releases name it.
    pub product: String,
    /// The hardware's revision, as releases name it.
    pub hardware_revision: String,
    /// The device's Ed25519 key, base64. A claim: pin it before you rely on it.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9+/]{43}=$")))]
    pub device_key: String,
    /// What the CPU says of itself.
    pub cpu: String,
    /// The number of logical CPUs.
    pub cpus: u32,
    /// Main memory, in bytes.
    pub memory_bytes: u64,
    /// E.g. `aarch64`.
    pub architecture: String,
    /// The host's name.
    pub hostname: String,
    /// The operating system's name and version.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// The version of this agent.
    pub agent: String,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// File systems on disks.
    pub disks: Vec<DiskInventory>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<String>,
}

/// One file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskInventory {
    /// Where it is mounted.
    pub mount: String,
    /// Its kind, e.g. `ext4`.
    pub file_system: String,
    /// Its size, in bytes.
    pub total_bytes: u64,
}

/// `health`: the newest snapshot that differs from the one before by more than its deadbands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// CPU time used since the last snapshot, of all CPUs together, in permille.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_permille: Option<u32>,
    /// The load averages over 1, 5 and 15 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<[f64; 3]>,
    /// Memory in use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Memory that can still be had, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Swap in use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_bytes: Option<u64>,
    /// Since the kernel started, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// File systems.
    #[serde(default)]
    pub disks: Vec<DiskHealth>,
    /// Network interfaces.
    #[serde(default)]
    pub interfaces: Vec<InterfaceHealth>,
    /// Temperature sensors; none on a machine that has none.
    #[serde(default)]
    pub temperatures: Vec<Temperature>,
    /// What could not be looked at, since looking at it did not come back: `disks`, `temperatures`, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One file system's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskHealth {
    /// Where it is mounted.
    pub mount: String,
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Share in use, in permille.
    pub used_permille: u32,
    /// Mounted read-only.
    pub read_only: bool,
}

/// One network interface's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InterfaceHealth {
    /// Its name.
    pub name: String,
    /// The kernel's operational state (`up`, `down`, `unknown`, …; RFC 2863).
    pub state: String,
    /// Bytes received since it came up.
    pub received_bytes: u64,
    /// Bytes sent since it came up.
    pub sent_bytes: u64,
    /// Receive and transmit errors since it came up.
    pub errors: u64,
}

/// One temperature sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Temperature {
    /// What it measures, as the kernel labels it.
    pub sensor: String,
    /// Degrees Celsius.
    pub celsius: f64,
    /// The sensor's own critical limit, degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_celsius: Option<f64>,
}

/// `update`: what `vigil-updaterd` says of itself, as it says it (see `vigil-wire`, `UpdateStatus`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Update {
    /// Whether `vigil-updaterd` answers.
    pub available: bool,
    /// The engine's state: `idle`, `checking`, `invalidating`, `writing`, `verifying`, `staged`, `activating`,
    /// `rebooting`, `trial`, `good`, `confirmed`, `rolled_back` or `failed`.
    #[serde(default)]
    pub state: String,
    /// The slot that runs.
    #[serde(default)]
    pub running_slot: String,
    /// The slots, by name.
    #[serde(default)]
    pub slots: BTreeMap<String, SlotState>,
    /// The release that runs, if it came through Vigil.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<ReleaseName>,
    /// The release that is being installed or tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ReleaseName>,
    /// How far writing has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What the install, or the last one, was to fetch and write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<UpdatePlan>,
    /// What it has really fetched and written, so far or in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<UpdateOutcome>,
    /// Whether the install waits for an operator to resume it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The last failure or rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<UpdateFailure>,
    /// Releases that were at fault here too often, by their TUF target: they are installed again only with
    /// `lift_quarantine`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// No release below this sequence is installed any more.
    #[serde(default)]
    pub floor: u64,
    /// Why nothing can be installed until somebody looks after the device: the boot variables cannot be written, or the
    /// updater's own state cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlotState {
    /// Whether the bootloader may choose it.
    pub bootable: bool,
    /// What was last verified in it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
}

/// A release's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReleaseName {
    /// For people: a semantic version.
    pub version: String,
    /// For the floor: grows with every release of the product.
    pub sequence: u64,
}

/// How far an install has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Progress {
    /// Bytes of the image that are done.
    pub done_bytes: u64,
    /// Bytes of the image.
    pub total_bytes: u64,
}

/// What an install fetches and writes, told before a byte of the other slot changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpdatePlan {
    /// To be fetched, 300 bytes for each request included.
    pub fetch_bytes: u64,
    /// In so many requests.
    pub requests: u64,
    /// Indexes and leaves, which were fetched to know that, 300 bytes for each request included.
    pub index_bytes: u64,
    /// Metadata and the manifest, which were fetched before, since the release was asked for, counted alike.
    pub metadata_bytes: u64,
    /// What a device would fetch that has nothing.
    pub full_bytes: u64,
    /// Written to the slot's flash, at most.
    pub write_bytes: u64,
    /// Of the images, in the slot that is written already.
    pub present_bytes: u64,
    /// Copied from the slot that runs.
    pub running_bytes: u64,
    /// Copied from elsewhere in the slot that is written.
    pub target_bytes: u64,
    /// Zeros and repetitions.
    pub free_bytes: u64,
    /// Decoded from frames.
    pub frame_bytes: u64,
    /// Decoded from patch frames.
    pub patch_bytes: u64,
    /// How long the fetching takes at the rate of the last install.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_seconds: Option<u64>,
}

/// What an install really fetched and wrote, counted as the plan is. What a broken link or a power cut made it fetch or make
/// twice counts twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpdateOutcome {
    /// Fetched, 300 bytes for each request included.
    pub fetch_bytes: u64,
    /// In so many requests.
    pub requests: u64,
    /// Indexes and leaves, 300 bytes for each request included.
    pub index_bytes: u64,
    /// Metadata and manifests since the release was asked for, counted alike.
    pub metadata_bytes: u64,
    /// Written to the slot's flash.
    pub write_bytes: u64,
    /// Of the units that were made, in the slot that was written already.
    pub present_bytes: u64,
    /// Copied from the slot that runs.
    pub running_bytes: u64,
    /// Copied from elsewhere in the slot that was written.
    pub target_bytes: u64,
    /// Zeros and repetitions.
    pub free_bytes: u64,
    /// Decoded from frames.
    pub frame_bytes: u64,
    /// Decoded from patch frames.
    pub patch_bytes: u64,
    /// How long the frames and patch frames took, decoded and written as they came.
    pub fetch_millis: u64,
}

/// Why the last update failed or was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpdateFailure {
    /// Which release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// Why, as a stable code: `gate`, `no_contact`, `panic`, `hang`, `boot_failed`, `crash_loop`, `cancelled`, ….
    pub cause: String,
    /// Why, for a person.
    pub message: String,
    /// Whether the device went back to the release before.
    pub rolled_back: bool,
    /// After a rollback: whose fault it was, `release` or `room`, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// After a rollback: what the same checks say of the release before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// When, by the device's clock.
    pub at: Timestamp,
}

/// `config`: the effective configuration, secrets left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The version of the overlay, 0 when there is none.
    pub overlay_version: u64,
    /// The configuration's sections.
    pub effective: Value,
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is impaired, the room works.
    Minor,
    /// The room, or the care for it, is impaired.
    Major,
    /// The room does not work.
    Critical,
}

/// `incident/{id}`: one incident. When it is closed, an empty message takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incident {
    /// As in the topic.
    pub id: String,
    /// `open`
    pub state: String,
    /// How bad it is.
    pub severity: Severity,
    /// What part of the device: `trust`.
    pub component: String,
    /// In a line, for a person.
    pub title: String,
    /// What it means and what to do.
    pub detail: String,
    /// Since when.
    pub opened_at: Timestamp,
}

/// The payload of the envelope on `digest`: one signature that authenticates, heals and witnesses all state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Digest {
    /// Format version, 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub v: u32,
    /// The device.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub device: String,
    /// Counts digests.
    pub seq: u64,
    /// When it was made, by the device's clock.
    pub at: Timestamp,
    /// Counts the device's connections.
    pub session: u64,
    /// Random, new with every connection.
    pub nonce: String,
    /// Whether the device doubts its clock: it then wants the nonce in every command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_doubtful: bool,
    /// The newest message of each retained topic, by the topic's last level.
    pub topics: BTreeMap<String, TopicDigest>,
    /// The newest checkpoint of the audit log: a C2SP signed note.
    pub checkpoint: String,
}

/// The newest message of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicDigest {
    /// Its sequence number.
    pub seq: u64,
    /// SHA-256 of its payload, lower-case hex.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[0-9a-f]{64}$")))]
    pub sha256: String,
}
