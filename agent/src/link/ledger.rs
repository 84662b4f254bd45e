//! What became of every message: produced = acknowledged + refused + compacted + dropped + waiting, at any time, also across a
//! kill. Pure; whoever owns one writes it where it outlives the process (on a file system in memory: a restart of the
//! machine begins a new account, and costs the flash nothing).

use serde::{Deserialize, Serialize};

/// The account of one class of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Messages made.
    pub produced: u64,
    /// Those that the broker has acknowledged.
    pub acknowledged: u64,
    /// Those that the broker did not take: its access list, a quota.
    pub refused: u64,
    /// Those that a newer message about the same thing replaced before they were sent.
    pub compacted: u64,
    /// Those that were given up because too many waited.
    pub dropped_full: u64,
    /// Those that were given up because they were larger than the broker takes.
    pub dropped_too_large: u64,
    /// Those that a restart took, because they were in memory alone: the flash-write budget was spent.
    pub dropped_unsaved: u64,
    /// Of those that wait, the ones that a restart would take so.
    pub unsaved: u64,
    /// Messages that were said again although the broker had acknowledged them: not part of the sum.
    pub repeated: u64,
}

impl Account {
    /// Messages that were made, and of which nothing else has become.
    pub fn waiting(&self) -> u64 {
        let gone = self.acknowledged
            + self.refused
            + self.compacted
            + self.dropped_full
            + self.dropped_too_large
            + self.dropped_unsaved;
        self.produced.saturating_sub(gone)
    }

    /// After a restart: of what waited, `kept` messages wait still. What was unsaved is lost, and others were replaced by
    /// what is said after the restart; if there are more than had waited, they had been made without the account having
    /// heard of it.
    pub fn resume(&mut self, kept: u64) {
        let waited = self.waiting();
        let gone = waited.saturating_sub(kept);
        let lost = gone.min(self.unsaved);
        self.unsaved = 0;
        self.dropped_unsaved += lost;
        self.compacted += gone - lost;
        self.produced += kept.saturating_sub(waited);
    }
}

/// All accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Answers to commands, and diagnoses.
    pub messages: Account,
    /// Retained states, incidents among them.
    pub states: Account,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_balances_whatever_had_waited() {
        for kept in 0..10 {
            let mut account = Account { produced: 9, acknowledged: 3, compacted: 1, ..Account::default() };
            assert_eq!(account.waiting(), 5);
            account.resume(kept);
            assert_eq!(account.waiting(), kept);
        }
    }

    #[test]
    fn what_was_in_memory_alone_is_dropped_by_a_restart_and_not_called_replaced() {
        let mut account = Account { produced: 9, acknowledged: 3, unsaved: 2, ..Account::default() };
        account.resume(3);
        assert_eq!((account.dropped_unsaved, account.compacted, account.waiting()), (2, 1, 3));
        account.resume(0);
        assert_eq!((account.dropped_unsaved, account.compacted), (2, 4), "and not twice");
    }
}
