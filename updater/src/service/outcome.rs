//! Counts what an install really costs. The journal has the count as of the last state, a record in the stash what came since.

use tracing::warn;
use vigil_wire::OutcomeStatus;

use super::Updater;
use crate::journal::Journal;
use crate::stash::Stash;

impl Updater {
    /// Adds to the count of the install under way. It outlives this process, and a power cut when it was [synced].
    ///
    /// [synced]: Self::sync_outcome
    pub(super) fn count(&mut self, add: impl FnOnce(&mut OutcomeStatus)) {
        let Some((number, outcome)) = self.engine.outcome_mut() else { return };
        add(outcome);
        // A count is nothing to fail for.
        if let Err(error) = self.stash.keep_outcome(number, outcome) {
            warn!(%error, "the count of what was fetched and written is not kept");
        }
    }

    /// Brings the count to the disk: as often as a unit.
    pub(super) fn sync_outcome(&self) {
        if let Err(error) = self.stash.sync_outcome() {
            warn!(%error, "the count of what was fetched and written may be lost");
        }
    }
}

/// Goes on counting where the process before was ended.
pub(super) fn take_up(journal: &mut Journal, stash: &Stash) {
    let Some(install) = &mut journal.install else { return };
    let total = |outcome: &OutcomeStatus| {
        outcome.fetch_bytes + outcome.index_bytes + outcome.metadata_bytes + outcome.write_bytes
    };
    if let Some(outcome) = stash.outcome(install.number)
        && total(&outcome) > total(&install.outcome)
    {
        install.outcome = outcome;
    }
}
