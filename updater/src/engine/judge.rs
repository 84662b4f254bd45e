//! After a rollback: whose fault was it? The same checks are run on the release before; what still fails there is the
//! room's fault. A release at fault too often is not installed again until an operator says so.

use std::time::Duration;

use vigil_wire::{Fault, State};

use super::{CheckFailure, Engine, Now, Output, Step, cause};
use crate::journal::Faulty;

/// Releases that were at fault and are remembered; then the one longest ago is forgotten.
const FAULTY_RELEASES: usize = 16;

impl Engine {
    pub(super) fn is_judging(&self) -> bool {
        self.journal.state == State::RolledBack
            && self.journal.install.as_ref().is_some_and(|install| install.judging)
    }

    fn cause_to_judge(&self) -> &str {
        self.journal.last_failure.as_ref().map_or("", |failure| &failure.cause)
    }

    /// Some causes speak for themselves; of the others the release before must tell.
    pub(super) fn begin_judging(&mut self, now: Now) -> Vec<Output> {
        self.gate.last_run = None;
        self.gate.last_failure = None;
        self.gate.judging_since = now.boot;
        let fault = match self.cause_to_judge() {
            cause::PANIC | cause::HANG | cause::BOOT_FAILED | cause::CRASH_LOOP => Fault::Release,
            cause::POWER => Fault::Room,
            cause::GATE | cause::AGENT_DEAD | cause::NO_CONTACT => {
                if let Some(install) = &mut self.journal.install {
                    install.judging = true;
                }
                return vec![Output::Save];
            }
            _ => return vec![],
        };
        self.judge(Some(fault), None)
    }

    pub(super) fn next_of_judging(&self, now: Now) -> Step {
        let deadline = self.judging_deadline();
        if self.cause_to_judge() == cause::NO_CONTACT {
            return deadline.map_or(Step::Rest, Step::WaitUntil);
        }
        self.gate_when_due(now, deadline)
    }

    pub(super) fn judging_deadline(&self) -> Option<Duration> {
        let time = if self.cause_to_judge() == cause::NO_CONTACT {
            self.policy.contact_deadline
        } else {
            self.policy.trial_deadline
        };
        self.is_judging().then_some(self.gate.judging_since + time)
    }

    pub(super) fn on_gate_of_the_release_before(
        &mut self,
        now: Now,
        result: Result<(), CheckFailure>,
    ) -> Vec<Output> {
        if !self.is_judging() {
            return vec![];
        }
        self.gate.last_run = Some(now.boot);
        match self.whole_gate(now, result) {
            Ok(()) => self.judge(Some(Fault::Release), Some("the same checks pass".to_owned())),
            Err(failure) => self.note_gate(failure),
        }
    }

    pub(super) fn on_contact_of_the_release_before(&mut self) -> Vec<Output> {
        if self.cause_to_judge() == cause::NO_CONTACT {
            return self.judge(Some(Fault::Release), Some("it has contact".to_owned()));
        }
        vec![]
    }

    pub(super) fn expire_judging(&mut self, now: Now) -> Vec<Output> {
        if self.judging_deadline().is_none_or(|deadline| now.boot < deadline) {
            return vec![];
        }
        if self.cause_to_judge() == cause::NO_CONTACT {
            return self.judge(Some(Fault::Room), Some("it has no contact either".to_owned()));
        }
        let Some(failure) = self.gate.last_failure.clone() else {
            return self.judge(None, Some("the checks did not end in time".to_owned()));
        };
        // Another check that fails says nothing of the one that failed on trial.
        let trial = self.journal.last_failure.as_ref().map_or("", |failure| &failure.message);
        let same = trial.starts_with(&format!("{}: ", failure.check))
            || (self.cause_to_judge() == cause::AGENT_DEAD && failure.check == "vigild");
        self.judge(same.then_some(Fault::Room), Some(failure.to_string()))
    }

    /// The finding. It is recorded once, and a release at fault counts towards its quarantine.
    fn judge(&mut self, fault: Option<Fault>, after: Option<String>) -> Vec<Output> {
        let Some(install) = &mut self.journal.install else { return vec![] };
        install.judging = false;
        let release = install.release_target.clone();
        let Some(failure) = &mut self.journal.last_failure else { return vec![] };
        failure.fault = fault;
        failure.after = after.as_deref().map(Into::into);
        let mut message = match fault {
            Some(Fault::Release) => "the release is at fault".to_owned(),
            Some(Fault::Room) => "the room is at fault".to_owned(),
            None => "it could not be told whose fault it was".to_owned(),
        };
        if let Some(after) = after {
            message.push_str(&format!("; the release before: {after}"));
        }
        let cause = failure.cause.clone();
        let mut outputs = vec![Output::Save, Output::Note { kind: "finding".to_owned(), message }];
        if fault == Some(Fault::Release) {
            let order = self.journal.faults.values().map(|faulty| faulty.order).max().unwrap_or(0) + 1;
            let faulty = self.journal.faults.entry(release.clone()).or_default();
            *faulty = Faulty { failures: faulty.failures.saturating_add(1), cause, order };
            if faulty.failures >= self.policy.quarantine_after {
                let message = format!("{release}: at fault {} times", faulty.failures);
                outputs.push(Output::Note { kind: "quarantined".to_owned(), message });
            }
            while self.journal.faults.len() > FAULTY_RELEASES {
                let oldest = self.journal.faults.iter().min_by_key(|(_, faulty)| faulty.order);
                let Some(oldest) = oldest.map(|(release, _)| release.clone()) else { break };
                self.journal.faults.remove(&oldest);
            }
        }
        outputs
    }

    /// Why a release is not installed again, if it is quarantined.
    pub fn quarantine(&self, release_target: &str) -> Option<&Faulty> {
        let faulty = self.journal.faults.get(release_target)?;
        (faulty.failures >= self.policy.quarantine_after).then_some(faulty)
    }

    /// An operator wants it installed all the same. Saved with the order that follows.
    pub fn lift_quarantine(&mut self, release_target: &str) {
        self.journal.faults.remove(release_target);
    }

    /// The releases that are quarantined, by their TUF target.
    pub fn quarantined(&self) -> Vec<String> {
        let releases = self.journal.faults.keys();
        releases.filter(|release| self.quarantine(release).is_some()).cloned().collect()
    }

    /// The hook that must be run for the running slot, if any: its image is not what the hook was last handed. So a
    /// peripheral follows the slot: forward in the trial, back after a rollback.
    pub(super) fn next_hook(&self) -> Option<Step> {
        let images = self.journal.payloads.get(&self.boot.slot)?;
        images
            .iter()
            .filter(|(image, _)| self.policy.hooks.contains(image) && !self.hooks_failed.contains(image))
            .find(|(image, sha256)| self.journal.applied.get(*image) != Some(*sha256))
            .map(|(image, sha256)| {
                let image = image.clone();
                if self.journal.applied.contains_key(&image) {
                    Step::BeginApply { image }
                } else {
                    Step::Apply { image, sha256: sha256.clone() }
                }
            })
    }

    pub(super) fn on_apply_begun(&mut self, image: &str) -> Vec<Output> {
        self.journal.applied.remove(image).map_or_else(Vec::new, |_| vec![Output::Save])
    }

    pub(super) fn on_applied(
        &mut self,
        image: String,
        sha256: String,
        result: Result<(), String>,
    ) -> Vec<Output> {
        let note = |kind: &str, message: String| Output::Note { kind: kind.to_owned(), message };
        match result {
            Ok(()) => {
                let message = format!("{image}: {sha256}");
                self.journal.applied.insert(image, sha256);
                vec![Output::Save, note("hook.applied", message)]
            }
            Err(why) => {
                // What it left is unknown: the next boot hands it over again, whichever slot that is.
                let message = format!("{image}: {why}");
                self.hooks_failed.push(image);
                vec![note("hook.failed", message)]
            }
        }
    }
}
