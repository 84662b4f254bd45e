//! What of the outbox is on the disk, and what is to be written there. What comes first is written before it is sent;
//! state and metrics only when they still wait at the next look at the machine, and as the flash-write budget allows:
//! a device with a connection writes neither. Pure; whoever owns one moves the records.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flash::{FlashBudget, Level, Priority};

/// A larger payload stays in memory.
const ENTRY_BYTES: usize = 32 * 1024;
/// All that is kept; what comes first may take it all.
const ALL_BYTES: usize = 128 * 1024;

/// Something that waits for the broker, as the outbox has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits<'o> {
    /// What follows the device in the topic.
    pub key: String,
    /// Which of several under this key.
    pub seq: u64,
    /// What it says.
    pub payload: &'o [u8],
    /// How much it is worth.
    pub priority: Priority,
}

/// Something that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which of several under its key.
    pub seq: u64,
    /// What it says: JSON, or nothing.
    pub payload: String,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// This is under the key now.
    Keep {
        /// What follows the device in the topic.
        key: String,
        /// What it is.
        #[serde(flatten)]
        kept: Kept,
    },
    /// Nothing of this waits any more. A power cut may take this record: then it is said twice.
    Gone {
        /// As they were kept.
        keys: Vec<String>,
    },
}

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    on_disk: BTreeMap<String, Kept>,
    /// What stays in memory, by key and number.
    refused: BTreeMap<String, u64>,
    budget: FlashBudget,
}

/// What is in memory alone because of the budget, or for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// Diagnoses.
    pub messages: u64,
    /// States.
    pub states: u64,
}

impl Keeper {
    /// Begins with what the disk has.
    pub fn new(on_disk: BTreeMap<String, Kept>, budget: FlashBudget) -> Self {
        Self { on_disk, refused: BTreeMap::new(), budget }
    }

    /// What is on the disk.
    pub fn on_disk(&self) -> &BTreeMap<String, Kept> {
        &self.on_disk
    }

    /// A quiet moment: what was refused may be allowed now.
    pub fn think_again(&mut self) {
        self.refused.clear();
    }

    /// The next record to write, if there is one. `is_quiet` says that state and metrics are to be looked at as well.
    /// `cost` says what a record with so many bytes of payload writes. Tell what became of it.
    pub fn next(
        &mut self,
        now: Duration,
        waiting: &[Waits<'_>],
        is_quiet: bool,
        cost: impl Fn(usize) -> u64,
    ) -> Option<Change> {
        self.refused.retain(|key, seq| waiting.iter().any(|waits| waits.key == *key && waits.seq == *seq));
        if let Some(gone) = self.gone(waiting) {
            return Some(gone);
        }
        for waits in waiting {
            let is_kept = self.on_disk.get(&waits.key).is_some_and(|kept| kept.seq == waits.seq);
            let is_asked = is_quiet || waits.priority == Priority::First;
            if is_kept || !is_asked || self.refused.contains_key(&waits.key) {
                continue;
            }
            let others = self.on_disk.iter().filter(|(key, _)| **key != waits.key);
            let bytes = others.map(|(_, kept)| kept.payload.len()).sum::<usize>() + waits.payload.len();
            let fits = waits.payload.len() <= ENTRY_BYTES && bytes <= ALL_BYTES;
            let text = std::str::from_utf8(waits.payload);
            match text {
                Ok(text) if fits && self.budget.allows(waits.priority, cost(text.len()), now) => {
                    let kept = Kept { seq: waits.seq, payload: text.to_owned() };
                    return Some(Change::Keep { key: waits.key.clone(), kept });
                }
                _ => drop(self.refused.insert(waits.key.clone(), waits.seq)),
            }
        }
        self.gone(waiting)
    }

    /// What the disk has and nobody waits for. Where a newer one stays in memory the older one goes as well: a restart
    /// must not take it for the newer one, which is lost and counted.
    fn gone(&self, waiting: &[Waits<'_>]) -> Option<Change> {
        let waits = |key: &String| waiting.iter().any(|waits| waits.key == *key);
        let is_gone = |key: &&String| !waits(key) || self.refused.contains_key(*key);
        let keys: Vec<String> = self.on_disk.keys().filter(is_gone).cloned().collect();
        (!keys.is_empty()).then_some(Change::Gone { keys })
    }

    /// The record is written.
    pub fn written(&mut self, change: Change) {
        match change {
            Change::Keep { key, kept } => drop(self.on_disk.insert(key, kept)),
            Change::Gone { keys } => keys.iter().for_each(|key| drop(self.on_disk.remove(key))),
        }
    }

    /// The record could not be written.
    pub fn failed(&mut self, change: Change) {
        match change {
            Change::Keep { key, kept } => drop(self.refused.insert(key, kept.seq)),
            // What the disk has too much is said twice after a restart.
            change @ Change::Gone { .. } => self.written(change),
        }
    }

    /// So many bytes were written, by whomever.
    pub fn charge(&mut self, bytes: u64, now: Duration) {
        self.budget.charge(bytes, now);
    }

    /// What is left of the budget, and the least that it keeps.
    pub fn budget(&mut self, now: Duration) -> (i64, Priority) {
        (self.budget.available(now), self.budget.keeps(now))
    }

    /// The budget, for the record that is about to be written at the cost of so many bytes.
    pub fn level_after(&mut self, bytes: u64, now: Duration, boot: &str) -> Level {
        self.budget.charge(bytes, now);
        self.budget.level(boot)
    }

    /// What would be lost now, because it was not allowed.
    pub fn unsaved(&self, is_message: impl Fn(&str) -> bool) -> Unsaved {
        let messages = self.refused.keys().filter(|key| is_message(key)).count() as u64;
        Unsaved { messages, states: self.refused.len() as u64 - messages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::flash::BLOCK;
    use crate::link::{Account, Ledger, Outbox, diagnosis_of};
    use proptest::prelude::*;
    use vigil_protocol::topic::StateTopic;

    const DAILY: u64 = 40 * BLOCK;

    /// A device of which only the disk and the file of the account outlive a kill.
    struct Device {
        outbox: Outbox,
        keeper: Keeper,
        now: Duration,
        disk: BTreeMap<String, Kept>,
        level: Level,
        ledger: Ledger,
        /// Writes until the process is killed.
        left: usize,
    }

    impl Device {
        fn new() -> Self {
            let budget = FlashBudget::new(DAILY, Duration::ZERO);
            Self {
                outbox: Outbox::default(),
                level: budget.level("boot"),
                keeper: Keeper::new(BTreeMap::new(), budget),
                now: Duration::ZERO,
                disk: BTreeMap::new(),
                ledger: Ledger::default(),
                left: usize::MAX,
            }
        }

        fn may_write(&mut self) -> bool {
            let may = self.left > 0;
            self.left = self.left.saturating_sub(1);
            may
        }

        /// As the daemon does it. `false`: it was killed on the way.
        fn keep(&mut self, is_quiet: bool) -> bool {
            if is_quiet {
                self.keeper.think_again();
            }
            while let Some(change) = self.keeper.next(self.now, &self.outbox.to_keep(), is_quiet, |_| BLOCK) {
                if !self.may_write() {
                    return false;
                }
                self.level = self.keeper.level_after(BLOCK, self.now, "boot");
                self.keeper.written(change);
                self.disk.clone_from(self.keeper.on_disk());
            }
            if !self.may_write() {
                return false;
            }
            self.ledger = self.account();
            true
        }

        fn account(&self) -> Ledger {
            let mut ledger = self.outbox.ledger();
            let unsaved = self.keeper.unsaved(|key| diagnosis_of(key).is_some());
            (ledger.messages.unsaved, ledger.states.unsaved) = (unsaved.messages, unsaved.states);
            ledger
        }

        fn restart(&mut self) {
            let budget = FlashBudget::resume(DAILY, &self.level, "boot", self.now);
            self.keeper = Keeper::new(self.disk.clone(), budget);
            self.outbox = Outbox::default();
            let messages = self.disk.keys().filter(|key| diagnosis_of(key).is_some()).count();
            self.outbox.resume(self.ledger, messages, self.disk.len() - messages);
            for (key, kept) in self.disk.clone() {
                let payload = kept.payload.into_bytes();
                match StateTopic::ALL.into_iter().find(|topic| topic.level() == key) {
                    Some(topic) => self.outbox.set_state_again(topic, kept.seq, payload),
                    None => self.outbox.push_diagnosis_again(key.clone(), payload, key[10..].to_owned()),
                }
            }
            self.left = usize::MAX;
        }
    }

    fn sum(account: &Account) -> u64 {
        let dropped = account.dropped_full + account.dropped_too_large + account.dropped_unsaved;
        account.acknowledged + account.compacted + dropped + account.waiting()
    }

    #[derive(Clone, Debug)]
    enum Step {
        State(usize, bool),
        Diagnosis,
        Connect(bool),
        Disconnect,
        Say(usize),
        Keep(bool),
        Wait(u64),
        Kill,
        /// The process is killed at the write that comes after so many.
        KillAtWrite(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..8, any::<bool>()).prop_map(|(topic, is_empty)| Step::State(topic, is_empty)),
            2 => Just(Step::Diagnosis),
            1 => any::<bool>().prop_map(Step::Connect),
            1 => Just(Step::Disconnect),
            2 => (1_usize..6).prop_map(Step::Say),
            4 => any::<bool>().prop_map(Step::Keep),
            1 => (0_u64..40_000).prop_map(Step::Wait),
            1 => Just(Step::Kill),
            2 => (0_usize..6).prop_map(Step::KillAtWrite),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_account_balances_across_a_kill_at_any_write(steps in prop::collection::vec(step(), 0..120)) {
            let mut device = Device::new();
            for (seq, step) in (1_u64..).zip(steps) {
                // Whether all that the disk and the account must know is there.
                let mut is_settled = false;
                match step {
                    Step::State(topic, is_empty) => {
                        let payload = if is_empty { Vec::new() } else { b"{}".to_vec() };
                        device.outbox.set_state(StateTopic::ALL[topic], seq, payload);
                    }
                    Step::Diagnosis => {
                        let id = format!("c-{seq}");
                        device.outbox.push_diagnosis(format!("diagnosis/{id}"), b"{}".to_vec(), id);
                    }
                    Step::Connect(kept) => device.outbox.connected(kept, None),
                    Step::Disconnect => device.outbox.disconnected(),
                    Step::Say(count) => {
                        for _ in 0..count {
                            drop(device.outbox.next(|topic| topic.level().to_owned()));
                            drop(device.outbox.acknowledged());
                        }
                    }
                    Step::Keep(is_quiet) => {
                        is_settled = device.keep(is_quiet) && is_quiet;
                        if device.left == 0 {
                            device.restart();
                        }
                    }
                    Step::Wait(seconds) => device.now += Duration::from_secs(seconds),
                    Step::Kill => device.restart(),
                    Step::KillAtWrite(count) => device.left = count,
                }
                let ledger = device.account();
                for account in [&ledger.messages, &ledger.states, &device.ledger.messages, &device.ledger.states] {
                    prop_assert_eq!(account.produced, sum(account));
                }
                let waiting = device.outbox.to_keep();
                let diagnoses = waiting.iter().filter(|waits| diagnosis_of(&waits.key).is_some()).count() as u64;
                prop_assert_eq!(ledger.messages.waiting(), diagnoses);
                prop_assert!(device.keeper.budget(device.now).0 <= (DAILY / 2).cast_signed());
                if is_settled {
                    let unsaved = (ledger.states.unsaved + ledger.messages.unsaved) as usize;
                    prop_assert_eq!(waiting.len() - unsaved, device.disk.len());
                    let first = waiting.iter().filter(|waits| waits.priority == Priority::First);
                    for waits in first {
                        prop_assert_eq!(device.disk.get(&waits.key).map(|kept| kept.seq), Some(waits.seq));
                    }
                    // A kill now drops what is unsaved, to the last one, and nothing else.
                    let (before, now_waiting) = (ledger.states, waiting.len());
                    device.restart();
                    let after = device.account().states;
                    prop_assert_eq!(after.dropped_unsaved, before.dropped_unsaved + before.unsaved);
                    prop_assert_eq!(device.outbox.to_keep().len(), now_waiting - unsaved);
                }
            }
        }
    }

    #[test]
    fn a_spent_budget_leaves_metrics_then_state_in_memory_and_keeps_incidents_and_diagnoses() {
        let mut device = Device::new();
        let mut kept_at = BTreeMap::<String, u64>::new();
        for seq in 1..100 {
            for topic in StateTopic::ALL {
                device.outbox.set_state(topic, seq, b"{}".to_vec());
            }
            assert!(device.keep(true));
            kept_at.extend(device.disk.iter().map(|(key, kept)| (key.clone(), kept.seq)));
        }
        assert!(kept_at["health"] < kept_at["update"] && kept_at["update"] < 99, "{kept_at:?}");
        assert_eq!(kept_at["incident/repository-frozen"], 99);
        // Inventory, health, update and configuration.
        assert_eq!(device.ledger.states.unsaved, 4);
        // What came first was more than a day has: a day pays the debt, and the next one keeps all again.
        device.now += Duration::from_secs(2 * 24 * 3600);
        assert!(device.keep(true));
        assert_eq!(device.ledger.states.unsaved, 0);
    }
}
