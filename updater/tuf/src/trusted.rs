//! The trusted set: the client workflow of TUF 1.0, section 5, one file at a time.

mod load;
mod search;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp as Time;

use crate::document::{
    Document, MetaFile, Role, RoleName, Root, SNAPSHOT_FILE, Snapshot, TARGETS_FILE, Target, Targets,
    Timestamp,
};
use crate::error::{Error, Subject};
use crate::file::{File, check_content, limit};
use crate::{
    MAX_ROOT_BYTES, MAX_ROOT_ROTATIONS, MAX_SNAPSHOT_BYTES, MAX_STATED_BYTES, MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
};

/// What the shell read from its store.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Newest root that was persisted.
    pub root: Option<Vec<u8>>,
    /// Newest timestamp that was persisted.
    pub timestamp: Option<Vec<u8>>,
    /// Newest snapshot that was persisted.
    pub snapshot: Option<Vec<u8>>,
    /// Newest targets that were persisted.
    pub targets: Option<Vec<u8>>,
    /// Last [`Output::TimeFloor`].
    pub time_floor: Option<Time>,
}

/// Where a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What was persisted of a delegated role. If it does not fit any more, the repository is asked.
    Store,
    /// The repository's metadata.
    Repository,
}

/// A file that the refresh or the search needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose metadata it is.
    pub role: RoleName,
    /// Where it is.
    pub source: Source,
    /// Relative to the base of the metadata (`2.root.json`, `timestamp.json`), or the file's name in the store
    /// (`products.json`). Names of delegated roles are percent-encoded, as a URL has them: see
    /// [`RoleName::file_stem`].
    pub path: String,
    /// Bytes after which to stop reading.
    pub max_len: u64,
    /// Whether [`Fetched::Missing`] is a normal answer.
    pub may_be_missing: bool,
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub enum Fetched<'a> {
    /// The file.
    Bytes(&'a [u8]),
    /// The server has no such file (404, and 403 where a store answers so for what is not there).
    Missing,
}

/// What to make durable, in this order, before the next file is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store the file as the newest of its role.
    Persist {
        /// Whose it is.
        role: RoleName,
        /// The file, byte for byte.
        bytes: Vec<u8>,
    },
    /// Remove the stored file of the role, if there is one.
    Forget {
        /// Whose it is.
        role: RoleName,
    },
    /// Store this as the floor under the clock, in place of the last. It only sinks (to the Unix epoch) when the
    /// keys that vouched for it were revoked.
    TimeFloor(Time),
}

/// Which files a search may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The repository's, and those of the store that are still current. Only after a refresh.
    Online,
    /// The store's alone, expired or not: what was found before is found again, as after a restart.
    Stored,
}

#[derive(Clone, Debug)]
enum Step {
    Idle,
    Root { rotations_left: u32 },
    Timestamp,
    Snapshot,
    Targets,
    Search(search::Walk),
}

/// All the metadata that is trusted now, and how far the refresh or the search has come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrustedSet {
    root: Arc<File<Root>>,
    timestamp: Option<Arc<File<Timestamp>>>,
    snapshot: Option<Arc<File<Snapshot>>>,
    targets: Option<Arc<File<Targets>>>,
    /// What searches since the last refresh found in delegated roles.
    found: BTreeMap<String, Target>,
    floor: Time,
    stored_floor: Time,
    step: Step,
    refreshed: bool,
}

impl TrustedSet {
    /// Begins a refresh, in place of one that may be under way.
    pub fn begin_refresh(&mut self) {
        self.step = Step::Root { rotations_left: MAX_ROOT_ROTATIONS };
        self.refreshed = false;
        self.found.clear();
    }

    /// Gives up the refresh or search that is under way. What was verified stays.
    pub fn stop(&mut self) {
        self.step = Step::Idle;
    }

    /// The file to fetch next; none when the refresh is done, failed or was not begun.
    pub fn next_request(&self) -> Option<Request> {
        let (role, version, max_len) = match &self.step {
            Step::Idle => return None,
            Step::Search(walk) => return self.search_request(walk),
            Step::Root { .. } => {
                (Role::Root, Some(self.root.document.version.saturating_add(1)), MAX_ROOT_BYTES)
            }
            Step::Timestamp => (Role::Timestamp, None, MAX_TIMESTAMP_BYTES),
            Step::Snapshot => {
                let listed = self.listed_snapshot()?;
                (Role::Snapshot, self.consistent(listed), limit(listed, MAX_SNAPSHOT_BYTES))
            }
            Step::Targets => {
                let listed = self.listed_targets()?;
                (Role::Targets, self.consistent(listed), limit(listed, MAX_TARGETS_BYTES))
            }
        };
        let path = match version {
            Some(version) => format!("{version}.{role}.json"),
            None => format!("{role}.json"),
        };
        let may_be_missing = role == Role::Root;
        Some(Request { role: role.into(), source: Source::Repository, path, max_len, may_be_missing })
    }

    /// Takes the file that was asked for. An error ends the refresh; what was trusted stays trusted. [`Error::Expired`] is
    /// only said of what has its signatures and does not go back: it is the publisher who speaks, too late.
    pub fn feed(&mut self, fetched: Fetched<'_>, now: Time) -> Result<Vec<Output>, Error> {
        let request = self.next_request().ok_or(Error::Idle)?;
        let result = self.feed_requested(&request, fetched, now.max(self.floor));
        if result.is_err() {
            self.step = Step::Idle;
        }
        result
    }

    fn feed_requested(
        &mut self,
        request: &Request,
        fetched: Fetched<'_>,
        now: Time,
    ) -> Result<Vec<Output>, Error> {
        if matches!(self.step, Step::Search(_)) {
            return self.feed_search(request, fetched, now);
        }
        let subject = Subject::Role(request.role.clone());
        let bytes = match fetched {
            Fetched::Bytes(bytes) => bytes,
            // Whether the last root of the chain has expired is asked when the timestamp has shown who speaks.
            Fetched::Missing if request.may_be_missing => {
                self.step = Step::Timestamp;
                return Ok(Vec::new());
            }
            Fetched::Missing => return Err(Error::Missing(subject, request.path.clone())),
        };
        if bytes.len() as u64 > request.max_len {
            return Err(Error::Length { subject, allowed: request.max_len, found: bytes.len() as u64 });
        }
        match self.step {
            Step::Idle | Step::Search(_) => Err(Error::Idle),
            Step::Root { rotations_left } => self.feed_root(bytes, rotations_left),
            Step::Timestamp => self.feed_timestamp(bytes, now),
            Step::Snapshot => self.feed_snapshot(bytes, now),
            Step::Targets => self.feed_targets(bytes, now),
        }
    }

    /// Section 5.3, steps 3 to 9 and 11. Expiry (10) is for the last root of the chain alone.
    fn feed_root(&mut self, bytes: &[u8], rotations_left: u32) -> Result<Vec<Output>, Error> {
        let new = File::<Root>::parse(bytes)?;
        new.check_signatures(&self.root.document)?;
        new.check_signatures(&new.document)?;
        let (known, found) = (self.root.document.version, new.document.version);
        // The root that is trusted, offered as its own successor, is no successor (section 5.3.5).
        if found == known {
            self.step = Step::Timestamp;
            return Ok(Vec::new());
        }
        check_version(Role::Root.into(), known.saturating_add(1), found)?;

        let mut outputs = Vec::new();
        let timestamp_revoked = self.root.document.revokes(&new.document, Role::Timestamp);
        let snapshot_revoked = self.root.document.revokes(&new.document, Role::Snapshot);
        // Before the root is persisted: a power cut between the two must not leave the new root with the old files,
        // because the revocation would not be seen again.
        if timestamp_revoked {
            self.floor = Time::UNIX_EPOCH;
            outputs.extend(self.floor_output());
        }
        if timestamp_revoked || snapshot_revoked {
            self.timestamp = None;
            self.snapshot = None;
            outputs.push(Output::Forget { role: Role::Timestamp.into() });
            outputs.push(Output::Forget { role: Role::Snapshot.into() });
        }
        outputs.push(persist(&new));
        self.root = Arc::new(new);
        let root = &self.root.document;
        self.timestamp.take_if(|file| file.check_signatures(root).is_err());
        self.snapshot.take_if(|file| file.check_signatures(root).is_err());
        self.targets.take_if(|file| file.check_signatures(root).is_err());

        self.step = match rotations_left.saturating_sub(1) {
            0 => Step::Timestamp,
            rotations_left => Step::Root { rotations_left },
        };
        Ok(outputs)
    }

    /// Section 5.4.
    fn feed_timestamp(&mut self, bytes: &[u8], now: Time) -> Result<Vec<Output>, Error> {
        let new = File::<Timestamp>::parse(bytes)?;
        new.check_signatures(&self.root.document)?;
        self.root.check_expiry(now)?;
        let subject = Subject::from(Role::Timestamp);
        if let Some(old) = &self.timestamp {
            let (known, offered) = (old.document.version, new.document.version);
            if offered < known {
                return Err(Error::Rollback { subject, file: "timestamp.json".into(), known, offered });
            }
            if offered == known {
                old.check_expiry(now)?;
                self.after_timestamp(now);
                return Ok(Vec::new());
            }
            check_no_rollback(subject.clone(), &old.document.meta, &new.document.meta)?;
        }
        if let Some(MetaFile { length: Some(found), .. }) = new.document.meta.get(SNAPSHOT_FILE) {
            check_stated_length(Role::Snapshot.into(), *found)?;
        }
        new.check_expiry(now)?;
        let mut outputs = Vec::new();
        self.floor = self.floor.max(new.document.issued.unwrap_or(Time::UNIX_EPOCH));
        outputs.extend(self.floor_output());
        outputs.push(persist(&new));
        self.timestamp = Some(Arc::new(new));
        self.after_timestamp(now);
        Ok(outputs)
    }

    /// Section 5.5.
    fn feed_snapshot(&mut self, bytes: &[u8], now: Time) -> Result<Vec<Output>, Error> {
        let listed = self.listed_snapshot().ok_or(Error::Idle)?;
        check_content(bytes, listed, Role::Snapshot.into())?;
        let new = File::<Snapshot>::parse(bytes)?;
        new.check_signatures(&self.root.document)?;
        check_version(Role::Snapshot.into(), listed.version, new.document.version)?;
        if let Some(old) = &self.snapshot {
            check_no_rollback(Role::Snapshot.into(), &old.document.meta, &new.document.meta)?;
        }
        if let Some(MetaFile { length: Some(found), .. }) = new.document.meta.get(TARGETS_FILE) {
            check_stated_length(Role::Targets.into(), *found)?;
        }
        new.check_expiry(now)?;
        let outputs = vec![persist(&new)];
        self.snapshot = Some(Arc::new(new));
        self.after_snapshot(now);
        Ok(outputs)
    }

    /// Section 5.6.
    fn feed_targets(&mut self, bytes: &[u8], now: Time) -> Result<Vec<Output>, Error> {
        let listed = self.listed_targets().ok_or(Error::Idle)?;
        check_content(bytes, listed, Role::Targets.into())?;
        let new = File::<Targets>::parse(bytes)?;
        new.check_signatures(&self.root.document)?;
        check_version(Role::Targets.into(), listed.version, new.document.version)?;
        new.check_expiry(now)?;
        let outputs = vec![persist(&new)];
        self.targets = Some(Arc::new(new));
        self.finish();
        Ok(outputs)
    }

    /// What is here already is not fetched again, unless it has expired: then the server may have better.
    fn after_timestamp(&mut self, now: Time) {
        let listed = self.listed_snapshot();
        let kept = self.snapshot.as_ref().zip(listed).is_some_and(|(held, listed)| held.is(listed))
            && self.snapshot.as_ref().is_some_and(|held| held.check_expiry(now).is_ok());
        if kept { self.after_snapshot(now) } else { self.step = Step::Snapshot }
    }

    fn after_snapshot(&mut self, now: Time) {
        let listed = self.listed_targets();
        let kept = self.targets.as_ref().zip(listed).is_some_and(|(held, listed)| held.is(listed))
            && self.targets.as_ref().is_some_and(|held| held.check_expiry(now).is_ok());
        if kept { self.finish() } else { self.step = Step::Targets }
    }

    fn finish(&mut self) {
        self.step = Step::Idle;
        self.refreshed = true;
    }

    fn floor_output(&mut self) -> Option<Output> {
        let changed = self.floor != self.stored_floor;
        self.stored_floor = self.floor;
        changed.then_some(Output::TimeFloor(self.floor))
    }

    fn listed_snapshot(&self) -> Option<&MetaFile> {
        self.timestamp.as_ref()?.document.meta.get(SNAPSHOT_FILE)
    }

    fn listed_targets(&self) -> Option<&MetaFile> {
        self.snapshot.as_ref()?.document.meta.get(TARGETS_FILE)
    }

    fn consistent(&self, listed: &MetaFile) -> Option<u64> {
        self.root.document.consistent_snapshot.then_some(listed.version)
    }
}

fn persist<D: Document>(file: &File<D>) -> Output {
    Output::Persist { role: D::ROLE.into(), bytes: file.bytes.clone() }
}

fn check_version(subject: Subject, expected: u64, found: u64) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Version { subject, expected, found }) }
}

fn check_stated_length(subject: Subject, found: u64) -> Result<(), Error> {
    if found <= MAX_STATED_BYTES {
        return Ok(());
    }
    Err(Error::Length { subject, allowed: MAX_STATED_BYTES, found })
}

type Meta = std::collections::BTreeMap<String, MetaFile>;

/// No file that was listed may go back, and none may vanish (offered at version 0, so to say).
fn check_no_rollback(subject: Subject, old: &Meta, new: &Meta) -> Result<(), Error> {
    for (file, known) in old {
        let offered = new.get(file).map_or(0, |listed| listed.version);
        if offered < known.version {
            return Err(Error::Rollback {
                subject,
                file: file.as_str().into(),
                known: known.version,
                offered,
            });
        }
    }
    Ok(())
}
