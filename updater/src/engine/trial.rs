//! From the restart on: trial, good, confirmed, or back.

use std::time::Duration;

use vigil_wire::State;

use super::{CheckFailure, Engine, Now, Output, Step, cause};
use crate::journal::{Install, Trial};

/// What is known of this boot. Lost with the process: the gate is then run again.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// When it was first passed without a failure since.
    passed_since: Option<Duration>,
    /// When it was last run.
    pub(super) last_run: Option<Duration>,
    /// Which check failed last, and how.
    pub(super) last_failure: Option<CheckFailure>,
    /// The running slot's tries were refilled.
    pub(super) marked: bool,
    /// They could not be: not before this time.
    pub(super) mark_at: Option<Duration>,
    /// They must be although the boot is on trial: the one before it ended because the power failed.
    pub(super) refill: bool,
    /// When this process began to find out whose fault a rollback was.
    pub(super) judging_since: Duration,
}

impl Engine {
    /// What the running slot says about an install that was under way when the process or the device stopped.
    pub(super) fn take_up(&mut self, now: Now) -> Vec<Output> {
        // The floor's file is written after the journal; a power cut between them is made good here.
        let mut outputs = vec![Output::Floor(self.floor)];
        self.gate.judging_since = now.boot;
        let Some(install) = self.journal.install.clone() else { return outputs };
        if install.reverting {
            // Even when the old slot runs already, the order is written once more: the bootloader may have fallen
            // back by itself, before the revert was in its variables.
            return outputs;
        }
        let runs_target = self.boot.slot == install.target;
        match self.journal.state {
            State::Activating | State::Staged | State::Rebooting if runs_target => {
                outputs.extend(self.begin_trial(now, 1, 0));
            }
            State::Rebooting if install.reboot_from_boot.as_deref() != Some(&self.boot.id) => {
                outputs.extend(self.bootloader_went_back(now));
            }
            State::Confirmed if !runs_target => outputs.extend(self.confirmed_was_left(now)),
            State::RolledBack => outputs.extend(self.take_up_return()),
            State::Trial | State::Good if !runs_target => {
                outputs.extend(self.bootloader_went_back(now));
            }
            State::Trial | State::Good => {
                let trial = install.trial.unwrap_or_default();
                if trial.boot_id != self.boot.id {
                    outputs.extend(self.booted_again(now, &trial));
                }
            }
            _ => {}
        }
        outputs
    }

    fn begin_trial(&mut self, now: Now, boots: u32, power_cuts: u32) -> Vec<Output> {
        let trial = Trial {
            boot_id: self.boot.id.clone(),
            boots,
            began_millis: now.boot.as_millis() as u64,
            good_millis: None,
            power_cuts,
        };
        if let Some(install) = &mut self.journal.install {
            install.trial = Some(trial);
        }
        self.journal.unproven = false;
        self.enter(State::Trial, &format!("the release runs on trial, boot {boots}"))
    }

    fn booted_again(&mut self, now: Now, trial: &Trial) -> Vec<Output> {
        let by_power = self.boot.last.power && trial.power_cuts < self.policy.power_cuts;
        let power_cuts = trial.power_cuts + u32::from(by_power);
        let boots = trial.boots + u32::from(!by_power);
        if self.journal.state == State::Good {
            // It has shown that it works; a power cut while it waits for contact is no fault of its own.
            let good = Trial {
                boot_id: self.boot.id.clone(),
                boots,
                began_millis: now.boot.as_millis() as u64,
                good_millis: Some(now.boot.as_millis() as u64),
                power_cuts,
            };
            if let Some(install) = &mut self.journal.install {
                install.trial = Some(good);
            }
            return self.enter(State::Good, "booted again while it waits for contact");
        }
        if boots > self.policy.trial_boots {
            let (cause, how) = self.how_the_last_boot_ended().unwrap_or((cause::CRASH_LOOP, String::new()));
            let message = format!("booted {boots} times on trial without passing its gate{how}");
            return self.revert(now, cause, &message);
        }
        self.gate.refill = by_power;
        self.begin_trial(now, boots, power_cuts)
    }

    pub(super) fn bootloader_went_back(&mut self, now: Now) -> Vec<Output> {
        let (cause, how) = self.how_the_last_boot_ended().unwrap_or((cause::BOOT_FAILED, String::new()));
        self.revert(now, cause, &format!("the bootloader went back to the slot before{how}"))
    }

    /// What hardware and kernel left word of: a cause, and how a sentence about it goes on.
    pub(super) fn how_the_last_boot_ended(&self) -> Option<(&'static str, String)> {
        let last = &self.boot.last;
        if let Some(words) = &last.panic {
            return Some((cause::PANIC, format!("; the kernel panicked: {words}")));
        }
        if last.watchdog {
            return Some((cause::HANG, "; the watchdog had to reset the device".to_owned()));
        }
        last.power.then(|| (cause::POWER, "; the power failed".to_owned()))
    }

    pub(super) fn next_of_trial(&self, now: Now) -> Step {
        if self.journal.state == State::Good {
            return self.trial_deadline().map_or(Step::Rest, Step::WaitUntil);
        }
        self.gate_when_due(now, self.trial_deadline())
    }

    /// Runs the gate, or waits for the pause between two runs to end.
    pub(super) fn gate_when_due(&self, now: Now, deadline: Option<Duration>) -> Step {
        match self.gate.last_run.map(|run| run + self.policy.gate_pause) {
            Some(again) if now.boot < again => {
                Step::WaitUntil(deadline.map_or(again, |deadline| deadline.min(again)))
            }
            _ => Step::RunGate,
        }
    }

    /// What the checks say and, if all is well with them, whether hooks and agent are as well.
    pub(super) fn whole_gate(&self, now: Now, result: Result<(), CheckFailure>) -> Result<(), CheckFailure> {
        result?;
        let failure = |check: &str, message: &str| {
            Err(CheckFailure { check: check.to_owned(), message: message.to_owned() })
        };
        if let Some(image) = self.hooks_failed.first() {
            return failure(image, "its hook failed");
        }
        if !self.agent_is_ready(now) {
            return failure("vigild", "it has not reported that it is ready");
        }
        Ok(())
    }

    pub(super) fn on_gate(&mut self, now: Now, result: Result<(), CheckFailure>) -> Vec<Output> {
        self.gate.last_run = Some(now.boot);
        match self.whole_gate(now, result) {
            Err(failure) => {
                self.gate.passed_since = None;
                self.note_gate(failure)
            }
            Ok(()) => {
                let since = *self.gate.passed_since.get_or_insert(now.boot);
                if now.boot < since + self.policy.stable {
                    return vec![];
                }
                if let Some(trial) = self.journal.install.as_mut().and_then(|install| install.trial.as_mut())
                {
                    trial.good_millis = Some(now.boot.as_millis() as u64);
                }
                let mut outputs = self.enter(State::Good, "the gate is passed");
                if self.authenticated {
                    outputs.extend(self.confirm());
                }
                outputs
            }
        }
    }

    /// The running release passes its gate, and nothing else speaks for it: the journal that knew was lost. From now on its tries
    /// are refilled.
    pub(super) fn on_gate_of_the_unproven(
        &mut self,
        now: Now,
        result: Result<(), CheckFailure>,
    ) -> Vec<Output> {
        if !self.journal.unproven {
            return vec![];
        }
        self.gate.last_run = Some(now.boot);
        match self.whole_gate(now, result) {
            Err(failure) => self.note_gate(failure),
            Ok(()) => {
                self.journal.unproven = false;
                let message = "the running release passes its gate".to_owned();
                vec![Output::Save, Output::Note { kind: "slot.proven".to_owned(), message }]
            }
        }
    }

    /// A failure of the gate is told once, until it is another one.
    pub(super) fn note_gate(&mut self, failure: CheckFailure) -> Vec<Output> {
        let news = self.gate.last_failure.as_ref() != Some(&failure);
        let message = failure.to_string();
        self.gate.last_failure = Some(failure);
        if news { vec![Output::Note { kind: "gate".to_owned(), message }] } else { vec![] }
    }

    fn agent_is_ready(&self, now: Now) -> bool {
        self.contact.is_some_and(|(at, contact)| contact.ready && now.boot < at + self.policy.contact_age)
    }

    /// The repository proved who it is, just now. Confirms a good release; on a confirmed one it is remembered, since
    /// a later release that never gets so far is then at fault.
    pub(super) fn on_authenticated(&mut self) -> Vec<Output> {
        self.authenticated = true;
        match self.journal.state {
            State::Good => self.confirm(),
            State::Trial => vec![],
            State::RolledBack if self.is_judging() => self.on_contact_of_the_release_before(),
            _ if !self.journal.had_contact => {
                self.journal.had_contact = true;
                vec![Output::Save]
            }
            _ => vec![],
        }
    }

    fn confirm(&mut self) -> Vec<Output> {
        self.journal.had_contact = true;
        self.journal.confirmed = self.journal.install.as_ref().and_then(|install| install.release.clone());
        self.floor = self.floor.max(self.journal.confirmed.as_ref().map_or(0, |release| release.sequence));
        let mut outputs =
            self.enter(State::Confirmed, "authenticated contact with the repository: the update is done");
        outputs.push(Output::Floor(self.floor));
        outputs
    }

    pub(super) fn trial_deadline(&self) -> Option<Duration> {
        let trial = self.journal.install.as_ref()?.trial.as_ref()?;
        match self.journal.state {
            State::Trial => Some(Duration::from_millis(trial.began_millis) + self.policy.trial_deadline),
            State::Good => Some(Duration::from_millis(trial.good_millis?) + self.policy.contact_deadline),
            _ => None,
        }
    }

    pub(super) fn expire_trial(&mut self, now: Now) -> Vec<Output> {
        if self.is_reverting() || self.trial_deadline().is_none_or(|deadline| now.boot < deadline) {
            return vec![];
        }
        if self.journal.state == State::Trial {
            let failure = self.gate.last_failure.as_ref().map(CheckFailure::to_string);
            let message = failure.unwrap_or_else(|| "the gate's checks did not end in time".to_owned());
            return self.revert(now, cause::GATE, &message);
        }
        if !self.agent_is_ready(now) {
            return self.revert(
                now,
                cause::AGENT_DEAD,
                "vigild did not run when the time for contact was up",
            );
        }
        let network_answers = self.contact.is_some_and(|(_, contact)| contact.carrier && contact.gateway);
        if self.journal.had_contact && network_answers {
            let message =
                "no contact with the repository, although the network answers and the release before had it";
            return self.revert(now, cause::NO_CONTACT, message);
        }
        // The cable is out, or nobody ever had contact: the release is not at fault. Wait as long again.
        if let Some(trial) = self.journal.install.as_mut().and_then(|install| install.trial.as_mut()) {
            trial.good_millis = Some(now.boot.as_millis() as u64);
        }
        vec![
            Output::Save,
            Output::Note {
                kind: "waiting".to_owned(),
                message: "no network: waiting for contact".to_owned(),
            },
        ]
    }

    pub(super) fn revert(&mut self, now: Now, cause: &str, message: &str) -> Vec<Output> {
        self.record_failure(now, cause, message, true);
        if let Some(install) = &mut self.journal.install {
            install.reverting = true;
            install.reboot_from_boot = None;
            self.journal.contents.remove(&install.target);
        }
        self.not_before = None;
        vec![
            Output::Save,
            Output::Note { kind: "rolling_back".to_owned(), message: format!("{cause}: {message}") },
        ]
    }

    pub(super) fn next_of_revert(&self, install: &Install, now: Now) -> Step {
        if install.reboot_from_boot.as_deref() == Some(&self.boot.id) && self.boot.slot == install.target {
            return self.unless_waiting(now, Step::Reboot);
        }
        // Not written yet; or the old slot runs, and writing it once more takes it up as done.
        Step::Revert { to: install.from.clone(), from: install.target.clone() }
    }

    pub(super) fn on_reverted(&mut self, now: Now) -> Vec<Output> {
        let boot_id = self.boot.id.clone();
        let Some(install) = &mut self.journal.install else { return vec![] };
        if !install.reverting {
            return vec![];
        }
        if self.boot.slot == install.target {
            install.reboot_from_boot = Some(boot_id);
            return vec![Output::Save];
        }
        install.reverting = false;
        let failure = self.journal.last_failure.clone();
        let why = failure.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.cause, f.message));
        if failure.is_some_and(|failure| !failure.rolled_back) {
            // Cancelled when only the boot order had changed: nothing ran that could be gone back from.
            self.work = None;
            let mut outputs = self.enter(State::Failed, &why);
            outputs.push(Output::DropWork);
            return outputs;
        }
        let mut outputs = self.enter(State::RolledBack, &why);
        outputs.extend(self.begin_judging(now));
        outputs
    }
}
