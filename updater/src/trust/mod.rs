//! The trusted set on the disk, and the documents that it vouches for: a round of refreshing brings the metadata up
//! to date, and then each document that this device keeps.

mod clock;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vigil_protocol::limits;
use vigil_protocol::operators::Operators;
use vigil_protocol::trusted::{ENTITLEMENT_KEYS, REMEDIES, TargetKind, operators_target, partner_target};
use vigil_tuf::{Fetched, Request, Role, Search, Source, TrustedSet, encoded_path};
use vigil_wire::TrustStatus;

use self::clock::FloorClock;
use self::store::Files;
use crate::engine::Now;
use crate::stash::sha256_hex;

/// A round that takes longer is given up: a courier that brings a byte an hour must not pass for a refresh.
const ROUND_DEADLINE: Duration = Duration::from_secs(900);

/// The publisher's clock and the device's oscillator may be off by so much before the device's clock is called wrong.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// Why nothing can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The disk.
    #[error("trust store: {0}")]
    Io(#[from] io::Error),
    /// The image's root.
    #[error("the trust root {0}: {1}")]
    Root(PathBuf, String),
    /// What was fetched is not what was signed.
    #[error("{0}")]
    Refused(#[from] vigil_tuf::Error),
    /// What was signed cannot be read.
    #[error("{0}: {1}; publish it again")]
    Content(String, String),
    /// The courier.
    #[error("{0}")]
    Courier(String),
}

/// What a round needs from the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A metadata file.
    Metadata(Request),
    /// The file of a target that is kept.
    Target {
        /// Its name.
        name: String,
        /// Relative to the base of the targets, as a URL has it.
        path: String,
        /// In bytes.
        length: u64,
    },
}

/// What a call brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The round goes on.
    More,
    /// The metadata and all that hangs on it are up to date.
    Refreshed,
    /// The target that was looked for is known, or is known not to exist.
    Sought,
}

/// Where a round has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Round {
    Idle,
    Metadata,
    /// Document by document: looked for, …
    Look {
        waiting: Vec<String>,
        name: Option<String>,
    },
    /// … and fetched if it is another than the one that is kept.
    Fetch {
        waiting: Vec<String>,
        name: String,
    },
    /// A target that is not kept: a release's manifest.
    Seek,
}

/// The trusted set and its files.
#[derive(Debug)]
pub struct Trust {
    files: Files,
    set: TrustedSet,
    clock: FloorClock,
    tenant: String,
    /// The partners that `vigild` follows; none before it has said so.
    partners: Option<BTreeSet<String>>,
    /// SHA-256 of the documents that are kept, by target name.
    kept: BTreeMap<String, String>,
    operators: Option<Operators>,
    round: Round,
    /// When the round began: everything in it is held against that time (section 5.1 of the TUF specification).
    began: Now,
    sought: Option<String>,
    refreshed_at: Option<Timestamp>,
    notes: Vec<(&'static str, String)>,
}

impl Trust {
    /// Reads what was stored. The second value says what was dropped and why.
    pub fn open(
        state: &Path,
        image_root: &Path,
        tenant: &str,
        now: Now,
    ) -> Result<(Self, Vec<String>), TrustError> {
        let files = Files::open(state)?;
        let root = vigil_durable::read_bounded(image_root, vigil_tuf::MAX_ROOT_BYTES)?.ok_or_else(|| {
            TrustError::Root(image_root.to_owned(), "is not there; the image must bring it".to_owned())
        })?;
        let (floor, powered) = files.read_floor()?.unzip();
        let (set, dropped) = TrustedSet::load(&root, files.read_metadata(floor)?)
            .map_err(|error| TrustError::Root(image_root.to_owned(), error.to_string()))?;
        let clock = FloorClock::new(set.time_floor(), powered.unwrap_or_default(), now.boot);
        let mut trust = Self {
            files,
            set,
            clock,
            tenant: tenant.to_owned(),
            partners: None,
            kept: BTreeMap::new(),
            operators: None,
            round: Round::Idle,
            began: now,
            sought: None,
            refreshed_at: None,
            notes: dropped.into_iter().map(|what| ("trust.dropped", what)).collect(),
        };
        for name in trust.files.kept_names()? {
            if let Err(error) = trust.take_up(&name, now) {
                trust.notes.push(("trust.dropped", format!("the stored {name} was dropped: {error}")));
            }
        }
        let dropped = trust.take_notes().into_iter().map(|(_, what)| what).collect();
        Ok((trust, dropped))
    }

    /// What time it is at least: the clock, or what signatures and the time since then say.
    pub fn wall(&self, now: Now) -> Timestamp {
        self.clock.wall(now)
    }

    /// What time it is at least by signatures and the time since them, whatever the clock says; the Unix epoch when
    /// nothing is known.
    pub fn proven(&self, now: Now) -> Timestamp {
        self.clock.least(now.boot)
    }

    /// Forgets the proven time. What is signed proves it anew.
    pub fn forget_time(&mut self, now: Now) -> io::Result<()> {
        self.set.forget_time();
        self.clock.set_floor(self.set.time_floor(), now.boot);
        self.files.write_floor(self.clock.floor(), Duration::ZERO)
    }

    /// The trusted set.
    pub fn set(&self) -> &TrustedSet {
        &self.set
    }

    /// The operators list, as verified.
    pub fn operators(&self) -> Option<&Operators> {
        self.operators.as_ref()
    }

    /// Keeps the profiles of these partners from the next round on, and no others.
    pub fn follow(&mut self, partners: Vec<String>) -> Result<(), TrustError> {
        let names: BTreeSet<_> = partners.into_iter().map(|name| partner_target(&name)).collect();
        let sound = |name: &String| matches!(TargetKind::of(name), TargetKind::Partner(_));
        if names.len() > limits::PARTNERS || !names.iter().all(sound) {
            return Err(TrustError::Courier(format!(
                "at most {} partners, by their names",
                limits::PARTNERS
            )));
        }
        self.partners = Some(names);
        Ok(())
    }

    /// The bytes of a document that is kept here.
    pub fn document(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(sha256) = self.kept.get(name) else { return Ok(None) };
        let bytes = self.files.read_kept(name)?;
        Ok(bytes.filter(|bytes| sha256_hex(bytes) == *sha256))
    }

    /// Whether a round is under way.
    pub fn is_busy(&self) -> bool {
        self.round != Round::Idle
    }

    /// Whether a round is under way that has taken too long.
    pub fn is_overdue(&self, now: Now) -> bool {
        self.is_busy() && now.boot.saturating_sub(self.began.boot) > ROUND_DEADLINE
    }

    /// Begins a round, in place of one that may be under way.
    pub fn begin_refresh(&mut self, now: Now) {
        self.set.begin_refresh();
        self.sought = None;
        self.round = Round::Metadata;
        self.began = now;
    }

    /// Looks for a target that is not kept. Before a refresh that went through, it refreshes first.
    pub fn seek(&mut self, name: &str, now: Now) -> Result<Progress, TrustError> {
        if !self.set.is_refreshed() {
            self.begin_refresh(now);
            return Ok(Progress::More);
        }
        self.began = now;
        self.round = Round::Seek;
        self.sought = Some(name.to_owned());
        let begun = self.set.begin_search(name, Search::Online).map_err(TrustError::from);
        begun.and_then(|()| self.go_on(now)).inspect_err(|_| self.give_up())
    }

    /// The target that the last search was for, if it came to an end.
    pub fn sought(&self) -> Option<&str> {
        self.sought.as_deref().filter(|_| self.round == Round::Idle)
    }

    /// What is needed from the repository; none when nothing is.
    pub fn wanted(&self) -> Option<Wanted> {
        if let Round::Fetch { name, .. } = &self.round {
            let length = self.set.target(name)?.length;
            let path = encoded_path(&self.set.target_path(name)?);
            return Some(Wanted::Target { name: name.clone(), path, length });
        }
        self.set.next_request().map(Wanted::Metadata)
    }

    /// Takes what was fetched, and makes durable what follows from it.
    pub fn take(&mut self, wanted: &Wanted, fetched: Fetched<'_>, now: Now) -> Result<Progress, TrustError> {
        if self.is_overdue(now) {
            self.give_up();
            return Err(TrustError::Courier("the refresh took too long and begins anew".to_owned()));
        }
        let result = match (wanted, fetched) {
            (Wanted::Metadata(_), fetched) => self.feed(fetched, now),
            (Wanted::Target { name, .. }, Fetched::Bytes(bytes)) => self.keep(name, bytes),
            (Wanted::Target { name, .. }, Fetched::Missing) => {
                Err(TrustError::Courier(format!("{name} is not there")))
            }
        };
        result.and_then(|()| self.go_on(now)).or_else(|error| self.failed(error, now))
    }

    /// What was wanted could not be brought.
    pub fn fetch_failed(&mut self, why: &str, now: Now) -> Result<Progress, TrustError> {
        self.failed(TrustError::Courier(why.to_owned()), now)
    }

    /// What there is to tell, once.
    pub fn take_notes(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.notes)
    }

    /// How it stands.
    pub fn status(&self, now: Now) -> TrustStatus {
        let versions =
            Role::ALL.iter().filter_map(|role| Some((role.name().to_owned(), self.set.version(*role)?)));
        let wall = self.wall(now);
        TrustStatus {
            metadata: versions.collect(),
            documents: self.kept.clone(),
            refreshed_at: self.refreshed_at.map(Timestamp::as_second),
            fresh_until: self.set.expires(Role::Timestamp).map(Timestamp::as_second),
            frozen: self.set.expires(Role::Timestamp).is_some_and(|expires| expires <= wall),
            proven_at: Some(self.proven(now).as_second()).filter(|at| *at > 0),
            clock_behind: wall.duration_since(now.wall) > CLOCK_TOLERANCE,
            operators_expired: self.operators.as_ref().is_some_and(|list| list.expires <= wall),
        }
    }

    /// Puts down how long the device has been on since the floor was signed, once in a while.
    pub fn keep_time(&mut self, now: Now) -> io::Result<()> {
        if let Some(powered) = self.clock.due(now.boot) {
            self.files.write_floor(self.clock.floor(), powered)?;
            self.clock.kept(now.boot);
        }
        Ok(())
    }

    /// A failure of a document that is not needed to be safe is told, and the round goes on.
    fn failed(&mut self, error: TrustError, now: Now) -> Result<Progress, TrustError> {
        if !self.is_overdue(now)
            && let Round::Look { waiting, name: Some(name) } | Round::Fetch { waiting, name } =
                &mut self.round
            && !is_required(name)
        {
            self.notes.push(("trust.problem", format!("{name} stays as it was: {error}")));
            self.round = Round::Look { waiting: std::mem::take(waiting), name: None };
            self.set.stop();
            return self.go_on(now).or_else(|error| self.failed(error, now));
        }
        self.give_up();
        Err(error)
    }

    fn give_up(&mut self) {
        self.set.stop();
        self.round = Round::Idle;
        self.sought = None;
    }

    /// Serves the store, and goes from document to document, until the repository must be asked.
    fn go_on(&mut self, now: Now) -> Result<Progress, TrustError> {
        loop {
            while let Some(request) = self.set.next_request() {
                if request.source == Source::Repository {
                    return Ok(Progress::More);
                }
                let bytes = self.files.read_delegated(&request).unwrap_or_default();
                self.feed(bytes.as_deref().map_or(Fetched::Missing, Fetched::Bytes), now)?;
            }
            match &mut self.round {
                Round::Idle | Round::Fetch { .. } => return Ok(Progress::More),
                Round::Seek => {
                    self.round = Round::Idle;
                    return Ok(Progress::Sought);
                }
                Round::Metadata => self.round = Round::Look { waiting: self.documents(), name: None },
                Round::Look { waiting, name: found @ Some(_) } => {
                    let name = found.clone().unwrap_or_default();
                    if judge(&self.set, &self.kept, &name)? {
                        self.round = Round::Fetch { waiting: std::mem::take(waiting), name };
                    } else {
                        *found = None;
                        self.forget_unlisted(&name)?;
                    }
                }
                Round::Look { waiting, name } => match waiting.pop() {
                    Some(next) => {
                        *name = Some(next.clone());
                        self.set.begin_search(&next, Search::Online)?;
                    }
                    None => {
                        self.round = Round::Idle;
                        self.tidy()?;
                        self.refreshed_at = Some(self.wall(now));
                        return Ok(Progress::Refreshed);
                    }
                },
            }
        }
    }

    /// The documents that this device keeps; the last is looked at first.
    fn documents(&self) -> Vec<String> {
        let mut names: Vec<_> = self.partners.iter().flatten().rev().cloned().collect();
        names.extend([REMEDIES, ENTITLEMENT_KEYS].map(str::to_owned));
        names.push(operators_target(&self.tenant));
        names
    }

    fn feed(&mut self, fetched: Fetched<'_>, now: Now) -> Result<(), TrustError> {
        // The set goes on only with what is on the disk: without this, a full disk would leave a newer set in memory
        // than the next start finds.
        let mut next = self.set.clone();
        let outcome = next.feed(fetched, self.wall(self.began));
        let mut clock = self.clock.clone();
        if let Ok(outputs) = &outcome {
            for output in outputs {
                if let Some(floor) = self.files.apply(output)? {
                    if floor < clock.floor() {
                        self.notes.push((
                            "time.reset",
                            "the keys that vouched for the proven time were revoked".to_owned(),
                        ));
                    }
                    clock.set_floor(floor, now.boot);
                    self.files.write_floor(floor, clock.powered(now.boot))?;
                }
            }
        }
        self.set = next;
        self.clock = clock;
        outcome?;
        Ok(())
    }

    /// Takes a document that was fetched, verified, and keeps it.
    fn keep(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        self.set.verify_target(name, bytes)?;
        TargetKind::of(name).check(bytes).map_err(|error| TrustError::Content(name.to_owned(), error))?;
        self.files.write_kept(name, bytes)?;
        self.put(name, bytes);
        self.notes.push(("trust.changed", format!("a new {name} is in force")));
        if let Round::Fetch { waiting, .. } = &mut self.round {
            self.round = Round::Look { waiting: std::mem::take(waiting), name: None };
        }
        Ok(())
    }

    /// A document that is no longer vouched for is dropped: that is how it is revoked.
    fn forget_unlisted(&mut self, name: &str) -> io::Result<()> {
        if self.set.target(name).is_none() && self.kept.remove(name).is_some() {
            if name == operators_target(&self.tenant) {
                self.operators = None;
            }
            self.notes.push(("trust.changed", format!("{name} is revoked")));
            self.files.remove_kept(name)?;
        }
        Ok(())
    }

    /// After a round: what nobody follows any more, and roles that are not listed any more.
    fn tidy(&mut self) -> io::Result<()> {
        if self.partners.is_some() {
            let wanted: BTreeSet<_> = self.documents().into_iter().collect();
            let unwanted: Vec<_> = self.kept.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
            for name in unwanted {
                self.files.remove_kept(&name)?;
                self.kept.remove(&name);
            }
        }
        self.files.tidy_delegated(&self.set)
    }

    /// At the start: a stored document that the stored metadata still vouches for.
    fn take_up(&mut self, name: &str, now: Now) -> Result<(), TrustError> {
        self.set.begin_search(name, Search::Stored)?;
        while let Some(request) = self.set.next_request() {
            let bytes = self.files.read_delegated(&request)?;
            self.feed(bytes.as_deref().map_or(Fetched::Missing, Fetched::Bytes), now)?;
        }
        let bytes = self.files.read_kept(name)?.unwrap_or_default();
        self.set.verify_target(name, &bytes)?;
        TargetKind::of(name).check(&bytes).map_err(|error| TrustError::Content(name.to_owned(), error))?;
        self.put(name, &bytes);
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.kept.insert(name.to_owned(), sha256_hex(bytes));
        if name == operators_target(&self.tenant) {
            self.operators = Operators::parse(bytes).ok();
        }
    }
}

/// Whether a refresh is worth nothing without it.
fn is_required(name: &str) -> bool {
    matches!(TargetKind::of(name), TargetKind::Operators(_))
}

/// Whether another document is listed than the one that is kept, and must be fetched.
fn judge(set: &TrustedSet, kept: &BTreeMap<String, String>, name: &str) -> Result<bool, TrustError> {
    let Some(target) = set.target(name) else { return Ok(false) };
    let limit = TargetKind::of(name).limit().unwrap_or(0);
    if target.length > limit {
        let message = format!("{} bytes are more than the {limit} that are allowed", target.length);
        return Err(TrustError::Content(name.to_owned(), message));
    }
    let sha256 = target
        .sha256()
        .ok_or_else(|| TrustError::Content(name.to_owned(), "its SHA-256 is not listed".to_owned()))?;
    Ok(kept.get(name).map(String::as_str) != Some(sha256))
}

#[cfg(test)]
mod tests;
