//! The outbox on the disk: a file that is replaced as a whole, and a log of what has changed since.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::link::flash::{FlashBudget, Level, Priority};
use crate::link::{Change, Keeper, Kept, Ledger, Outbox, diagnosis_of};
use crate::record_log::{Durability, RecordLog};
use crate::store::{Loaded, Store};

const VERSION: u32 = 1;
const FILE_BYTES: u64 = 512 * 1024;
const LOG_BYTES: usize = 256 * 1024;
/// More digits than the level in a record takes.
const LEVEL_BYTES: usize = 64;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// Records of another generation are in the file already.
    generation: u32,
    budget: Level,
    entries: BTreeMap<String, Kept>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    budget: Level,
    #[serde(flatten)]
    change: Change,
}

/// The files.
pub(super) struct KeptOutbox {
    store: Store,
    log: RecordLog,
    keeper: Keeper,
    daily_bytes: u64,
    boot: String,
}

impl KeptOutbox {
    /// Reads the files. A damaged one is put aside; the second value says so.
    pub(super) fn open(
        state: &Path,
        daily_bytes: u64,
        boot: String,
        now: Duration,
    ) -> io::Result<(Self, Option<String>)> {
        let store = Store::new(state.join("outbox.json"), "outbox", VERSION, FILE_BYTES);
        let (content, finding): (Option<Content>, _) = match store.load()? {
            Loaded::Nothing => (None, None),
            Loaded::Content(content) => (Some(content), None),
            Loaded::Damaged(finding) => (None, Some(finding)),
        };
        let (mut log, records) = RecordLog::open(&state.join("outbox.log"), "outbox.log", LOG_BYTES)?;
        let is_newest = content.as_ref().is_none_or(|content| records.generation == Some(content.generation));
        let mut level = content.as_ref().map(|content| content.budget.clone());
        let Content { generation, entries, .. } = content.unwrap_or_default();
        let mut keeper = Keeper::new(entries, FlashBudget::new(daily_bytes, now));
        if is_newest {
            let records = records.payloads.iter().filter_map(|payload| serde_json::from_slice(payload).ok());
            for Record { budget, change } in records {
                level = Some(budget);
                keeper.written(change);
            }
        } else {
            log.begin(generation);
        }
        if let Some(level) = level {
            let budget = FlashBudget::resume(daily_bytes, &level, &boot, now);
            keeper = Keeper::new(keeper.on_disk().clone(), budget);
        }
        Ok((Self { store, log, keeper, daily_bytes, boot }, finding))
    }

    /// What waited when the process before ended.
    pub(super) fn entries(&self) -> &BTreeMap<String, Kept> {
        self.keeper.on_disk()
    }

    /// Brings to the disk what must be there, or, in a quiet moment, what may be there.
    pub(super) fn keep(&mut self, outbox: &Outbox, is_quiet: bool, now: Duration) {
        if is_quiet {
            self.keeper.think_again();
        }
        let waiting = outbox.to_keep();
        loop {
            let log = &self.log;
            // Quotes are escaped in the record.
            let cost = |bytes: usize| log.cost(bytes + bytes / 4 + 4 * LEVEL_BYTES);
            let Some(change) = self.keeper.next(now, &waiting, is_quiet, cost) else { return };
            match self.append(&change, now) {
                Ok(()) => self.keeper.written(change),
                Err(error) => {
                    warn!(%error, "the outbox is kept in memory");
                    self.keeper.failed(change);
                }
            }
        }
    }

    fn append(&mut self, change: &Change, now: Duration) -> io::Result<()> {
        let durability = match change {
            Change::Keep { .. } => Durability::Flushed,
            Change::Gone { .. } => Durability::Lazy,
        };
        // The record itself says what is left after it: so a restart loop counts as well, for no further write.
        let change_bytes = serde_json::to_vec(change)?.len();
        let cost = self.log.cost(change_bytes + self.boot.len() + 2 * LEVEL_BYTES);
        let budget = self.keeper.level_after(cost, now, &self.boot);
        let payload = serde_json::to_vec(&Record { budget, change: change.clone() })?;
        if !self.log.append(&payload, durability)? {
            self.fold(now)?;
            if !self.log.append(&payload, durability)? {
                return Err(io::Error::other("a record larger than the log"));
            }
        }
        Ok(())
    }

    fn fold(&mut self, now: Duration) -> io::Result<()> {
        let generation = self.log.generation().wrapping_add(1);
        let budget = self.keeper.level_after(0, now, &self.boot);
        let content = Content { generation, budget, entries: self.keeper.on_disk().clone() };
        let cost = self.store.save(&content)?;
        self.keeper.charge(cost, now);
        self.log.begin(generation);
        Ok(())
    }

    /// So many bytes were written for commands and sessions.
    pub(super) fn charge(&mut self, bytes: u64, now: Duration) {
        if bytes > 0 {
            self.keeper.charge(bytes, now);
        }
    }

    /// The account, with what a restart would take of what waits.
    pub(super) fn account(&self, mut ledger: Ledger) -> Ledger {
        let unsaved = self.keeper.unsaved(|key| diagnosis_of(key).is_some());
        ledger.messages.unsaved = unsaved.messages;
        ledger.states.unsaved = unsaved.states;
        ledger
    }

    /// For the status: the budget, what is left of it, and what is kept.
    pub(super) fn status(&mut self, now: Duration) -> serde_json::Value {
        let (available_bytes, least) = self.keeper.budget(now);
        let keeps = match least {
            Priority::Metrics => "all",
            Priority::State => "state",
            Priority::First => "incidents_and_results",
        };
        serde_json::json!({
            "daily_bytes": self.daily_bytes, "available_bytes": available_bytes, "keeps": keeps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigil_protocol::topic::{IncidentId, StateTopic};

    const GENEROUS: u64 = 64 << 20;

    fn open(state: &Path, daily_bytes: u64) -> KeptOutbox {
        KeptOutbox::open(state, daily_bytes, "boot".to_owned(), Duration::ZERO).unwrap().0
    }

    fn keys(kept: &KeptOutbox) -> Vec<&str> {
        kept.entries().keys().map(String::as_str).collect()
    }

    #[test]
    fn what_waits_is_there_after_a_kill_and_gone_when_the_broker_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::default();
        outbox.set_state(StateTopic::Health, 7, b"{\"load\":1}".to_vec());
        outbox.set_state(StateTopic::Incident(IncidentId::RepositoryFrozen), 8, b"{}".to_vec());
        outbox.push_diagnosis("t".into(), b"{\"d\":1}".to_vec(), "c-1".into());
        let mut kept = open(directory.path(), GENEROUS);
        kept.keep(&outbox, false, Duration::ZERO);
        assert_eq!(
            keys(&kept),
            ["diagnosis/c-1", "incident/repository-frozen"],
            "metrics wait for a quiet moment"
        );
        kept.keep(&outbox, true, Duration::ZERO);
        let mut kept = open(directory.path(), GENEROUS);
        assert_eq!(keys(&kept), ["diagnosis/c-1", "health", "incident/repository-frozen"]);
        assert_eq!(kept.entries()["health"], Kept { seq: 7, payload: "{\"load\":1}".to_owned() });
        kept.keep(&Outbox::default(), false, Duration::ZERO);
        assert_eq!(keys(&open(directory.path(), GENEROUS)), [""; 0]);
    }

    #[test]
    fn a_spent_budget_stays_spent_over_restarts_and_only_what_comes_first_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let daily = 1 << 20;
        let mut seq = 0;
        let mut last = i64::MAX;
        let mut stored = 0;
        for _ in 0..400 {
            seq += 1;
            let mut outbox = Outbox::default();
            outbox.set_state(StateTopic::Update, seq, b"{}".to_vec());
            let mut kept = open(directory.path(), daily);
            kept.keep(&outbox, true, Duration::ZERO);
            let left = kept.status(Duration::ZERO)["available_bytes"].as_i64().unwrap();
            assert!(left <= last);
            last = left;
            stored += u64::from(kept.entries().get("update").is_some_and(|kept| kept.seq == seq));
        }
        assert!((1..=daily / 2 / 4096).contains(&stored), "{stored}");
        let mut outbox = Outbox::default();
        outbox.set_state(StateTopic::Update, 1000, b"{}".to_vec());
        outbox.set_state(StateTopic::Incident(IncidentId::RepositoryFrozen), 1001, b"{}".to_vec());
        let mut kept = open(directory.path(), daily);
        kept.keep(&outbox, true, Duration::ZERO);
        assert_eq!(kept.entries()["incident/repository-frozen"].seq, 1001);
        assert_eq!(kept.account(outbox.ledger()).states.unsaved, 1);
        assert_eq!(kept.status(Duration::ZERO)["keeps"], "incidents_and_results");
        // A day later there is room again.
        kept.keep(&outbox, true, Duration::from_secs(86_400));
        assert_eq!((kept.entries()["update"].seq, kept.account(outbox.ledger()).states.unsaved), (1000, 0));
    }

    #[test]
    fn more_than_the_log_holds_is_folded_and_the_newest_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = open(directory.path(), 1 << 30);
        let mut outbox = Outbox::default();
        let payload = format!("\"{}\"", "x".repeat(10_000));
        for seq in 1..=100 {
            outbox.set_state(StateTopic::Inventory, seq, payload.clone().into_bytes());
            outbox.set_state(StateTopic::Config, seq, b"{}".to_vec());
            kept.keep(&outbox, true, Duration::ZERO);
        }
        assert!(directory.path().join("outbox.json").exists());
        let kept = open(directory.path(), 1 << 30);
        assert_eq!((kept.entries()["inventory"].seq, kept.entries()["config"].seq), (100, 100));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_a_reason_to_count_what_is_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = open(directory.path(), GENEROUS);
        let mut outbox = Outbox::default();
        // The log is full, and a directory is in the place of the file that it is folded into.
        std::fs::create_dir_all(directory.path().join("outbox.json/x")).unwrap();
        let payload = format!("\"{}\"", "x".repeat(30_000));
        for seq in 1..=20 {
            outbox.set_state(StateTopic::Inventory, seq, payload.clone().into_bytes());
            kept.keep(&outbox, true, Duration::ZERO);
        }
        assert_eq!(kept.account(outbox.ledger()).states.unsaved, 1);
    }
}
