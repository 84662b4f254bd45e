//! What each device would do with a command, before anyone signs it: the device's own decision
//! ([`vigil_protocol::authorize::decide`]) over the retained state, and then what can be known of the kind's own rules.

mod policy;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vigil_protocol::authorize::{Device, decide};
use vigil_protocol::command::{Command, Target};
use vigil_protocol::envelope::{DIGEST_TYPE, Envelope};
use vigil_protocol::limits;
use vigil_protocol::operators::Operators;
use vigil_protocol::state::{Digest, PresenceStatus, ReleaseName, Update};
use vigil_protocol::topic;

use crate::text::clean;

/// Devices at most; what goes beyond is counted, not kept.
const DEVICES: usize = 200_000;

/// What a device would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Would {
    /// Run it.
    Obey,
    /// Not run it, or give it up at once.
    Refuse,
    /// The retained state does not tell.
    Unknown,
}

/// What one device would do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it would do.
    pub would: Would,
    /// Why, as a stable code: the one that the device would answer.
    pub reason: String,
    /// Why, for a person.
    pub note: String,
}

impl Row {
    fn new(would: Would, reason: &str, note: impl Into<String>) -> Self {
        Self { would, reason: reason.to_owned(), note: clean(&note.into(), 200) }
    }
}

/// What a release's manifest says of whom it is for. Other fields are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Release {
    /// The product it is for.
    pub product: String,
    /// The hardware revisions it is for.
    pub hardware: Vec<String>,
    /// For people.
    pub version: String,
    /// For the floor.
    pub sequence: u64,
}

/// Who the device is, by its inventory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Identity {
    tenant: String,
    groups: Vec<String>,
    product: String,
    hardware_revision: String,
}

/// What the broker keeps of one device, as far as a plan needs it. What cannot be read is as if it were missing.
#[derive(Clone, Debug, Default)]
struct Retained {
    presence: Option<PresenceStatus>,
    identity: Option<Identity>,
    update: Option<Update>,
    overlay_version: Option<u64>,
    digest: Option<Digest>,
}

#[derive(Deserialize)]
struct PresenceHead {
    status: PresenceStatus,
}

#[derive(Deserialize)]
struct ConfigHead {
    overlay_version: u64,
}

impl Retained {
    fn take(&mut self, level: &str, payload: &[u8]) {
        match level {
            "presence" => self.presence = read::<PresenceHead>(payload).map(|presence| presence.status),
            "inventory" => self.identity = read(payload),
            "update" => self.update = read(payload),
            "config" => {
                self.overlay_version = read::<ConfigHead>(payload).map(|config| config.overlay_version);
            }
            "digest" => {
                let envelope = Envelope::parse(payload, DIGEST_TYPE, limits::PAYLOAD_BYTES).ok();
                self.digest = envelope.and_then(|envelope| read(&envelope.payload_bytes().ok()?));
            }
            _ => {}
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> Option<T> {
    (payload.len() <= limits::PAYLOAD_BYTES).then(|| serde_json::from_slice(payload).ok()).flatten()
}

/// The fleet as the broker keeps it. Nothing of it is verified.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    devices: BTreeMap<String, Retained>,
}

/// What is asked, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The command.
    pub command: &'a Command,
    /// The positions in the list of those who have signed it or would.
    pub signers: &'a [usize],
    /// The list of the tenant.
    pub operators: &'a Operators,
    /// For `update.install`: what the release's manifest says, if somebody has it.
    pub release: Option<&'a Release>,
    /// The operator's clock.
    pub now: Timestamp,
}

impl Snapshot {
    /// The levels of the topics that a plan reads, below the device.
    pub const LEVELS: [&'static str; 5] = ["presence", "inventory", "update", "config", "digest"];

    /// Takes in one retained message.
    pub fn take(&mut self, prefix: &str, topic: &str, payload: &[u8]) {
        let Some((device, level)) = topic::parse(prefix, topic) else { return };
        if self.devices.len() >= DEVICES && !self.devices.contains_key(device) {
            return;
        }
        self.devices.entry(device.to_owned()).or_default().take(level, payload);
    }

    /// The nonce that a device's digest names.
    pub fn nonce(&self, device: &str) -> Option<&str> {
        Some(self.devices.get(device)?.digest.as_ref()?.nonce.as_str())
    }

    /// The devices that would hear the command, or with `all` every one, and what each would do.
    pub fn ask(&self, question: &Question<'_>, all: bool) -> BTreeMap<String, Row> {
        let hears = |device: &str, retained: &Retained| match &question.command.target {
            Target::Device(target) => target == device,
            // Who has not said its groups may be in this one.
            Target::Group(group) => {
                retained.identity.as_ref().is_none_or(|identity| identity.groups.contains(group))
            }
        };
        let mut rows: BTreeMap<String, Row> = self
            .devices
            .iter()
            .filter(|(device, retained)| all || hears(device, retained))
            .map(|(device, retained)| (device.clone(), self.judge(question, device, retained)))
            .collect();
        if let Target::Device(target) = &question.command.target
            && !rows.contains_key(target)
        {
            let note = "the broker keeps nothing of it; is it the right name?";
            rows.insert(target.clone(), Row::new(Would::Unknown, "no_state", note));
        }
        rows
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    fn judge(&self, question: &Question<'_>, device: &str, retained: &Retained) -> Row {
        let Some(identity) = &retained.identity else {
            return Row::new(Would::Unknown, "no_inventory", "it has not said its tenant and groups");
        };
        let digest = retained.digest.as_ref();
        let as_device = Device {
            nonce: digest.map(|digest| digest.nonce.as_str()),
            clock_doubtful: digest.is_some_and(|digest| digest.clock_doubtful),
            ..Device::new(device, &identity.tenant, &identity.groups)
        };
        // A clock that was ahead of ours when the digest was made is so still.
        let now = digest.map_or(question.now, |digest| question.now.max(digest.at));
        let decided = decide(question.command, question.signers, Some(question.operators), &as_device, now);
        let kind = match decided {
            Ok((kind, _)) => kind,
            Err((reason, message)) => return Row::new(Would::Refuse, &reason.code(), message),
        };
        if let Some(row) = policy::judge(self, question, kind, retained, identity) {
            return row;
        }
        let note = match retained.presence {
            Some(PresenceStatus::Online) => policy::remark(question, kind, retained),
            Some(PresenceStatus::Offline) => "offline: when it is back, if that is in time".to_owned(),
            Some(PresenceStatus::Lost) => "lost: when it is back, if that is in time".to_owned(),
            None => "it has not said whether it is there".to_owned(),
        };
        Row::new(Would::Obey, "ok", note)
    }

    /// The sequence of a product's release, if one of the fleet's devices has it and none says otherwise.
    fn sequence(&self, product: &str, version: &str) -> Option<u64> {
        let of_product = self.devices.values().filter(|retained| {
            retained.identity.as_ref().is_some_and(|identity| identity.product == product)
        });
        let mut named = of_product
            .filter_map(|retained| retained.update.as_ref())
            .flat_map(releases)
            .filter(|release| release.version == version)
            .map(|release| release.sequence);
        let first = named.next()?;
        named.all(|sequence| sequence == first).then_some(first)
    }
}

fn releases(update: &Update) -> impl Iterator<Item = &ReleaseName> {
    let slots = update.slots.values().filter_map(|slot| slot.release.as_ref());
    slots.chain(&update.running).chain(&update.target)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
