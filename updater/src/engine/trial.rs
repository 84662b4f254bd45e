//! From the restart on: trial, good, confirmed, or back.

use std::time::Duration;

use vigil_wire::State;

use super::{Engine, Now, Output, Step, cause};
use crate::journal::{Install, Trial};

/// What is known of this boot. Lost with the process: the gate is then run again.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// When it was first passed without a failure since.
    passed_since: Option<Duration>,
    /// When it was last run.
    last_run: Option<Duration>,
    /// Which check failed last, and how.
    last_failure: Option<String>,
    /// The running slot's tries were refilled.
    pub(super) marked: bool,
}

impl Engine {
    /// What the running slot says about an install that was under way when the process or the device stopped.
    pub(super) fn take_up(&mut self, now: Now) -> Vec<Output> {
        // The floor's file is written after the journal; a power cut between them is made good here.
        let mut outputs = vec![Output::Floor(self.floor)];
        let Some(install) = self.journal.install.clone() else { return outputs };
        if install.reverting {
            // Even when the old slot runs already, the order is written once more: the bootloader may have fallen
            // back by itself, before the revert was in its variables.
            return outputs;
        }
        let runs_target = self.running == install.target;
        match self.journal.state {
            State::Activating | State::Staged | State::Rebooting if runs_target => {
                outputs.extend(self.begin_trial(now, 1));
            }
            State::Rebooting if install.reboot_from_boot.as_deref() != Some(&self.boot_id) => {
                outputs.extend(self.bootloader_went_back(now));
            }
            State::Trial | State::Good | State::Confirmed if !runs_target => {
                outputs.extend(self.bootloader_went_back(now));
            }
            State::Trial | State::Good => {
                let trial = install.trial.unwrap_or_default();
                if trial.boot_id != self.boot_id {
                    outputs.extend(self.booted_again(now, &trial));
                }
            }
            _ => {}
        }
        outputs
    }

    fn begin_trial(&mut self, now: Now, boots: u32) -> Vec<Output> {
        let trial = Trial {
            boot_id: self.boot_id.clone(),
            boots,
            began_millis: now.boot.as_millis() as u64,
            good_millis: None,
        };
        if let Some(install) = &mut self.journal.install {
            install.trial = Some(trial);
        }
        self.enter(State::Trial, &format!("the release runs on trial, boot {boots}"))
    }

    fn booted_again(&mut self, now: Now, trial: &Trial) -> Vec<Output> {
        let boots = trial.boots + 1;
        if self.journal.state == State::Good {
            // It has shown that it works; a power cut while it waits for contact is no fault of its own.
            let good = Trial {
                boot_id: self.boot_id.clone(),
                boots,
                began_millis: now.boot.as_millis() as u64,
                good_millis: Some(now.boot.as_millis() as u64),
            };
            if let Some(install) = &mut self.journal.install {
                install.trial = Some(good);
            }
            return self.enter(State::Good, "booted again while it waits for contact");
        }
        if boots > self.policy.trial_boots {
            let message = format!("booted {boots} times on trial without passing its gate");
            return self.revert(now, cause::CRASH_LOOP, &message);
        }
        self.begin_trial(now, boots)
    }

    fn bootloader_went_back(&mut self, now: Now) -> Vec<Output> {
        self.revert(
            now,
            cause::BOOT_FAILED,
            "the bootloader went back to the slot before: the release did not start",
        )
    }

    pub(super) fn next_of_trial(&self, now: Now) -> Step {
        if self.journal.state == State::Good {
            return self.trial_deadline().map_or(Step::Rest, Step::WaitUntil);
        }
        match self.gate.last_run.map(|run| run + self.policy.gate_pause) {
            Some(again) if now.boot < again => {
                Step::WaitUntil(self.trial_deadline().map_or(again, |deadline| deadline.min(again)))
            }
            _ => Step::RunGate,
        }
    }

    pub(super) fn on_gate(&mut self, now: Now, result: Result<(), String>) -> Vec<Output> {
        self.gate.last_run = Some(now.boot);
        let result = result.and_then(|()| {
            if self.agent_is_ready(now) {
                Ok(())
            } else {
                Err("vigild: it has not reported that it is ready".to_owned())
            }
        });
        match result {
            Err(failure) => {
                self.gate.passed_since = None;
                let news = self.gate.last_failure.as_ref() != Some(&failure);
                self.gate.last_failure = Some(failure.clone());
                if news { vec![Output::Note { kind: "gate".to_owned(), message: failure }] } else { vec![] }
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
            let failure = self.gate.last_failure.clone();
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
        if install.reboot_from_boot.is_some() && self.running == install.target {
            return self.unless_waiting(now, Step::Reboot);
        }
        // Not written yet; or the old slot runs, and writing it once more takes it up as done.
        Step::Revert { to: install.from.clone(), from: install.target.clone() }
    }

    pub(super) fn on_reverted(&mut self) -> Vec<Output> {
        let boot_id = self.boot_id.clone();
        let Some(install) = &mut self.journal.install else { return vec![] };
        if !install.reverting {
            return vec![];
        }
        if self.running == install.target {
            install.reboot_from_boot = Some(boot_id);
            return vec![Output::Save];
        }
        install.reverting = false;
        let failure = self.journal.last_failure.as_ref();
        let why =
            failure.map_or_else(String::new, |failure| format!("{}: {}", failure.cause, failure.message));
        self.enter(State::RolledBack, &why)
    }
}
