//! For how long what is signed counts: as given for one run, else as the repository was set up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vigil_tuf::{Role, RoleName};

const FILE_BYTES: u64 = 1024 * 1024;

/// For how many days what is signed often counts.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Lifetimes {
    /// Days until new targets expire [default: as given to `init`, or 180]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub targets_days: Option<u16>,
    /// Days until a new snapshot expires [default: as given to `init`, or 180]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub snapshot_days: Option<u16>,
    /// The timestamp's.
    #[command(flatten)]
    pub timestamp: TimestampLifetime,
}

/// For how many days a timestamp counts.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct TimestampLifetime {
    /// Days until a new timestamp expires, the longest freeze that a hostile mirror gets away with [default: as given
    /// to `init`, or 14]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub timestamp_days: Option<u16>,
}

/// What a repository keeps for its publisher. Nothing in it is secret, and devices do not read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// By role.
    pub(crate) days: BTreeMap<String, u16>,
    #[serde(skip)]
    once: BTreeMap<String, u16>,
}

impl Settings {
    pub(crate) fn read(repository: &Path) -> Result<Self> {
        let path = path(repository);
        let Some(bytes) = vigil_durable::read_bounded(&path, FILE_BYTES)? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged; remove it", path.display()))
    }

    pub(crate) fn write(&self, repository: &Path) -> Result<()> {
        let path = path(repository);
        vigil_durable::write(
            "publish.settings",
            &path,
            &serde_json::to_vec_pretty(self)?,
            vigil_durable::Mode::Public,
        )
        .with_context(|| format!("cannot write {}", path.display()))
    }

    /// For this run only.
    pub(crate) fn once(&mut self, lifetimes: Lifetimes) {
        self.once.extend(lifetimes.given());
    }

    /// From now on.
    pub(crate) fn keep(&mut self, lifetimes: Lifetimes) {
        self.days.extend(lifetimes.given());
    }

    pub(crate) fn expiry(&self, role: &RoleName, now: Timestamp) -> Timestamp {
        let name = name(role);
        let default = match role {
            RoleName::Top(Role::Root) => 365,
            RoleName::Top(Role::Timestamp) => 14,
            RoleName::Top(Role::Snapshot | Role::Targets) | RoleName::Delegated(_) => 180,
        };
        let days = self.once.get(name).or_else(|| self.days.get(name)).copied().unwrap_or(default);
        in_days(days, now)
    }
}

impl Lifetimes {
    fn given(self) -> impl Iterator<Item = (String, u16)> {
        let days = [
            (Role::Targets, self.targets_days),
            (Role::Snapshot, self.snapshot_days),
            (Role::Timestamp, self.timestamp.timestamp_days),
        ];
        days.into_iter().filter_map(|(role, days)| Some((role.name().to_owned(), days?)))
    }
}

/// The name by which snapshots and people know a role.
pub(crate) fn name(role: &RoleName) -> &str {
    match role {
        RoleName::Top(role) => role.name(),
        RoleName::Delegated(name) => name,
    }
}

pub(crate) fn in_days(days: u16, now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX)
}

/// python-tuf and others read whole seconds only.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn path(repository: &Path) -> PathBuf {
    repository.join(".settings.json")
}
