//! What may be asked of the set at any time.

use jiff::Timestamp as Time;

use super::{TrustedSet, search};
use crate::document::{Role, RoleName, Root, Target};
use crate::error::{Error, Subject};

impl TrustedSet {
    /// Whether a refresh was completed since the last one began.
    pub fn is_refreshed(&self) -> bool {
        self.refreshed
    }

    /// What is signed about a target: by the top-level targets role, or by a delegated one if a search since the
    /// last refresh found it. The targets may have expired since: see [`Self::targets_expired`].
    pub fn target(&self, name: &str) -> Option<&Target> {
        if !crate::is_target_name(name) {
            return None;
        }
        self.targets.as_ref()?.document.targets.get(name).or_else(|| self.found.get(name))
    }

    /// Whether the snapshot lists a delegated role: the stored file of one that it does not can be removed.
    pub fn lists(&self, role: &RoleName) -> bool {
        let file = format!("{}.json", search::listed_name(role));
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.document.meta.contains_key(&file))
    }

    /// The names and contents of all targets of the top-level role that can be asked for.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Target)> {
        let targets = self.targets.iter().flat_map(|file| &file.document.targets);
        targets.map(|(name, target)| (name.as_str(), target)).filter(|(name, _)| crate::is_target_name(name))
    }

    /// Where the file of a target is, relative to the base of the targets.
    pub fn target_path(&self, name: &str) -> Option<String> {
        crate::target_path(name, self.target(name)?, self.root.document.consistent_snapshot)
    }

    /// Whether `bytes` are the target that was signed.
    pub fn verify_target(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let subject = Subject::Target(name.to_owned());
        let Some(target) = self.target(name) else {
            return Err(Error::Missing(subject, "the targets metadata does not list it".to_owned()));
        };
        let found = bytes.len() as u64;
        if found != target.length {
            return Err(Error::Length { subject, allowed: target.length, found });
        }
        if target.hashes.matches(bytes) { Ok(()) } else { Err(Error::Hash(subject)) }
    }

    /// Whether the targets may not be acted on any more (or are not there).
    pub fn targets_expired(&self, now: Time) -> bool {
        self.targets.as_ref().is_none_or(|file| file.check_expiry(now.max(self.floor)).is_err())
    }

    /// The version of a role's metadata, if there is any.
    pub fn version(&self, role: Role) -> Option<u64> {
        match role {
            Role::Root => Some(self.root.document.version),
            Role::Timestamp => self.timestamp.as_ref().map(|file| file.document.version),
            Role::Snapshot => self.snapshot.as_ref().map(|file| file.document.version),
            Role::Targets => self.targets.as_ref().map(|file| file.document.version),
        }
    }

    /// When a role's metadata expires, if there is any.
    pub fn expires(&self, role: Role) -> Option<Time> {
        match role {
            Role::Root => Some(self.root.document.expires),
            Role::Timestamp => self.timestamp.as_ref().map(|file| file.document.expires),
            Role::Snapshot => self.snapshot.as_ref().map(|file| file.document.expires),
            Role::Targets => self.targets.as_ref().map(|file| file.document.expires),
        }
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root.document
    }

    /// The clock, but never before the newest verified `issued`.
    pub fn effective_now(&self, now: Time) -> Time {
        now.max(self.floor)
    }

    /// Forgets the newest verified `issued`: somebody at the device knows that it was wrong. The next one counts.
    pub fn forget_time(&mut self) {
        self.floor = Time::UNIX_EPOCH;
    }

    /// The newest verified `issued`; the Unix epoch when there was none.
    pub fn time_floor(&self) -> Time {
        self.floor
    }
}
