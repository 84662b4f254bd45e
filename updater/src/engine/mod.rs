//! The update engine: a plain value that is told what happened and says what to do next. No I/O, no clock.
//!
//! [`Engine::next`] names the one step to take now; the shell takes it and tells the outcome to [`Engine::on`],
//! which returns what must be made durable before the next step. After a power cut the shell starts with the journal
//! as it was kept and every step is safe to take again.

mod control;
mod judge;
pub mod plan;
mod returning;
mod trial;
mod types;
mod work;

use std::time::Duration;

use vigil_wire::{Contact, Failure, OutcomeStatus, PlanStatus, ProgressState, State};

pub use control::Refused;
pub use types::{Boot, CheckFailure, Event, LastBoot, Now, Order, Output, Policy, Step, cause};
pub use work::{Survey, Way, Work};

use crate::journal::{Install, Journal};

/// The engine.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    journal: Journal,
    floor: u64,
    /// What is known of the release's images; lost with the process and made anew from what is on the disk.
    work: Option<Work>,
    /// Metadata was refreshed for this install, by this process.
    refreshed: bool,
    /// This process has seen to it that the target slot is not in the boot order. The variables may have been lost
    /// since another one did.
    excluded: bool,
    /// The running boot.
    boot: Boot,
    /// The hooks that failed for the running slot in this boot.
    hooks_failed: Vec<String>,
    contact: Option<(Duration, Contact)>,
    /// Authenticated contact, in this boot and by this process.
    authenticated: bool,
    fetch_failures: u32,
    /// Not before this time of the boot clock.
    not_before: Option<Duration>,
    /// When the courier last brought something that was asked for.
    last_fed: Duration,
    /// From when on the time counts that a confirmed release waits to be returned to.
    clean_since: Duration,
    gate: trial::Gate,
}

impl Engine {
    /// Takes up where `journal` was left, in the slot and boot that run now. The outputs come first of all.
    pub fn start(policy: Policy, journal: Journal, floor: u64, boot: Boot, now: Now) -> (Self, Vec<Output>) {
        let floor = floor.max(journal.confirmed.as_ref().map_or(0, |release| release.sequence));
        let mut engine = Self {
            policy,
            journal,
            floor,
            work: None,
            refreshed: false,
            excluded: false,
            boot,
            hooks_failed: Vec::new(),
            contact: None,
            authenticated: false,
            fetch_failures: 0,
            not_before: None,
            last_fed: now.boot,
            clean_since: now.boot,
            gate: trial::Gate::default(),
        };
        let outputs = engine.take_up(now);
        (engine, outputs)
    }

    /// The journal as it must be on the disk.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The journal's replay store, for whoever admits envelopes.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Releases of a lower sequence are refused.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether an install or its rollback is between beginning and end.
    pub fn is_busy(&self) -> bool {
        self.journal.state.is_under_way() || self.is_reverting()
    }

    /// Whether the install waits for a person.
    pub fn is_paused(&self) -> bool {
        self.journal.install.as_ref().is_some_and(|install| install.paused)
    }

    /// Whether it was decided to go back.
    pub fn is_reverting(&self) -> bool {
        self.journal.install.as_ref().is_some_and(|install| install.reverting)
    }

    /// The slot that runs.
    pub fn running(&self) -> &str {
        &self.boot.slot
    }

    /// The release's manifest and indexes, while an install needs them.
    pub fn work(&self) -> Option<&Work> {
        self.work.as_ref()
    }

    /// The kernel's crash records as they are before the restart. They are saved with the next state.
    pub fn keep_crash_records(&mut self, records: Vec<String>) {
        if let Some(install) = &mut self.journal.install {
            install.crash_records = records;
        }
    }

    /// The number of the install under way and what it has cost so far, for whoever counts. It is saved with the next state.
    pub fn outcome_mut(&mut self) -> Option<(u64, &mut OutcomeStatus)> {
        self.journal.install.as_mut().map(|install| (install.number, &mut install.outcome))
    }

    /// How far writing or reading back has come.
    pub fn progress(&self) -> Option<ProgressState> {
        let work = self.work.as_ref()?;
        match self.journal.state {
            State::Writing => Some(work.written()),
            State::Verifying => Some(work.was_all_read_back()),
            _ => None,
        }
    }

    /// The step to take now.
    pub fn next(&self, now: Now) -> Step {
        let reverting = self.is_reverting();
        // Every good boot refills what the bootloader has spent on it. A boot on trial is not yet one, but one that
        // only follows a power cut must not cost the release its tries.
        let refill = (self.journal.state != State::Trial || self.gate.refill) && !self.journal.unproven;
        let due = self.gate.mark_at.is_none_or(|time| now.boot >= time);
        if !self.gate.marked && refill && due && !reverting {
            return Step::MarkGood { slot: self.boot.slot.clone() };
        }
        if !reverting && let Some(step) = self.next_hook() {
            return step;
        }
        if self.journal.unproven && self.journal.state == State::Idle {
            return self.gate_when_due(now, None);
        }
        let Some(install) = &self.journal.install else { return Step::Rest };
        if install.reverting {
            return self.next_of_revert(install, now);
        }
        if install.paused {
            return Step::Rest;
        }
        match self.journal.state {
            State::RolledBack if install.judging => self.next_of_judging(now),
            State::RolledBack => self.next_of_return(now),
            State::Idle | State::Confirmed | State::Failed => Step::Rest,
            State::Checking => self.next_of_checking(install, now),
            State::Invalidating | State::Writing | State::Verifying if !self.excluded => {
                Step::Exclude { slot: install.target.clone() }
            }
            State::Invalidating => Step::Seal,
            State::Writing => match &self.work {
                None => Step::Reload,
                Some(work) => self.unless_waiting(now, work.next_to_write()),
            },
            State::Verifying => match &self.work {
                None => Step::Reload,
                Some(work) => work.next_to_read_back(),
            },
            State::Staged => Step::Proceed,
            State::Activating => Step::PutFirst { slot: install.target.clone() },
            State::Rebooting => self.unless_waiting(now, Step::Reboot),
            State::Trial | State::Good => self.next_of_trial(now),
        }
    }

    /// Takes in what happened. Deadlines come first: nothing that arrives after one can undo it.
    pub fn on(&mut self, now: Now, event: Event) -> Vec<Output> {
        let mut outputs = self.expire(now);
        outputs.extend(self.handle(now, event));
        outputs
    }

    fn handle(&mut self, now: Now, event: Event) -> Vec<Output> {
        let reverting = self.is_reverting();
        match (self.journal.state, event) {
            (_, Event::Tick) => vec![],
            (_, Event::Contact(contact)) => {
                self.contact = Some((now.boot, contact));
                vec![]
            }
            (_, Event::RebootAsked) => {
                self.not_before = Some(now.boot + self.policy.reboot_retry);
                vec![]
            }
            (_, Event::Reverted) => self.on_reverted(now),
            (_, Event::MarkedGood) => {
                self.gate.marked = true;
                vec![]
            }
            (_, Event::MarkFailed) => {
                self.gate.mark_at = Some(now.boot + self.policy.reboot_retry);
                vec![]
            }
            (_, Event::Control(control)) => self.on_control(now, control),
            // Once it is decided to go back, nothing else is.
            _ if reverting => vec![],
            (_, Event::Refreshed) => self.on_refreshed(now),
            (_, Event::Authentic) => self.on_authenticated(),
            // Bytes that arrive keep the courier's deadline off. They are no success yet: what is wrong with them may
            // show at the last one, every time anew.
            (_, Event::Fed) => {
                self.last_fed = now.boot;
                vec![]
            }
            (state, Event::Order(order)) if !state.is_under_way() => self.accept(now, order),
            (state, Event::FetchFailed { cause, message }) if state.is_under_way() => {
                self.on_fetch_failed(now, cause, &message)
            }
            (state, Event::Failed { cause, message }) if state.is_under_way() => {
                self.fail(now, cause, &message)
            }
            (State::Checking, Event::Manifest { manifest, sha256 }) => {
                self.on_manifest(now, *manifest, sha256)
            }
            (State::Checking, Event::Index { image, survey }) => {
                self.on_survey(now, |work| work.set_survey(image, survey))
            }
            (State::Checking, Event::Unmapped { image, index }) => {
                self.on_survey(now, |work| work.set_unmapped(image, index))
            }
            (State::Writing, Event::LeafWanted { image, unit }) => {
                if let Some(work) = &mut self.work {
                    work.wants_leaf(image, unit);
                }
                vec![]
            }
            (State::Checking | State::Writing, Event::Leaves { image, unit, count }) => {
                self.on_survey(now, |work| {
                    work.took_leaves(image, unit, count);
                    Ok(())
                })
            }
            (State::Checking | State::Writing, Event::PatchIndex { image }) => self.on_survey(now, |work| {
                work.took_patch_index(image);
                Ok(())
            }),
            (State::Checking | State::Writing, Event::PatchForgone { image }) => {
                self.on_survey(now, |work| {
                    work.forgo_patch(image);
                    Ok(())
                })
            }
            (State::Checking | State::Writing, Event::Planned { plan, ways }) => {
                self.on_planned(now, plan, ways)
            }
            (State::Writing, Event::Rerouted { image, unit, way }) => {
                if let Some(work) = &mut self.work {
                    work.reroute(image, unit, way);
                }
                vec![]
            }
            (_, Event::Excluded) => {
                self.excluded = true;
                vec![]
            }
            (State::Invalidating, Event::Sealed) if self.excluded => {
                self.enter(State::Writing, "the target slot left the boot order and does not start")
            }
            (State::Writing | State::Verifying, Event::Reloaded(work)) => {
                // Without the manifest and indexes there is nothing to hold the slot against: fetch them again.
                self.work = work.map(|work| *work);
                if let Some(work) = &mut self.work {
                    work.resumed = true;
                }
                if self.work.is_none() {
                    if let Some(install) = &mut self.journal.install {
                        install.begun_before = true;
                    }
                    self.enter(State::Checking, "the release's index is fetched again")
                } else {
                    vec![]
                }
            }
            (State::Writing, Event::Inspected { image, unit, matches }) => {
                self.last_fed = now.boot;
                if let Some(work) = &mut self.work {
                    work.inspected(image, unit, matches);
                }
                self.after_write()
            }
            // What was signed and is decoded is progress, the first time: the next failure is a first one.
            (State::Writing, Event::Decoded { image, unit, frame }) => {
                self.last_fed = now.boot;
                if self.work.as_mut().is_some_and(|work| work.is_news((image, unit, frame))) {
                    self.fetch_failures = 0;
                }
                vec![]
            }
            (State::Writing, Event::Begun { image, unit }) => {
                self.last_fed = now.boot;
                self.fetch_failures = 0;
                if let Some(work) = &mut self.work {
                    work.began(image, unit);
                }
                vec![]
            }
            (State::Writing, Event::Written { image, unit }) => {
                self.last_fed = now.boot;
                if let Some(work) = &mut self.work {
                    work.wrote(image, unit);
                }
                self.after_write()
            }
            (State::Verifying, Event::ReadBack { image, unit, matches }) => {
                self.on_read_back(now, image, unit, matches)
            }
            (State::Verifying, Event::ImageHash { image, matches }) => {
                self.on_image_hash(now, image, matches)
            }
            (State::Verifying, Event::Unsealed { matches }) => self.on_unsealed(now, matches),
            (State::Staged, Event::Proceed) => {
                self.enter(State::Activating, "nothing holds the restart back")
            }
            (State::Activating, Event::PutFirst) => {
                if let Some(install) = &mut self.journal.install {
                    install.reboot_from_boot = Some(self.boot.id.clone());
                }
                self.enter(State::Rebooting, "the new release is first in the boot order; restarting")
            }
            (State::RolledBack, Event::PutFirst) => self.on_put_first_again(),
            (State::Trial, Event::Gate(result)) => self.on_gate(now, result),
            (State::Idle, Event::Gate(result)) => self.on_gate_of_the_unproven(now, result),
            (State::RolledBack, Event::Gate(result)) => self.on_gate_of_the_release_before(now, result),
            (_, Event::ApplyBegun { image }) => self.on_apply_begun(&image),
            (_, Event::Applied { image, sha256, result }) => self.on_applied(image, sha256, result),
            // What comes too late, or was never asked for, changes nothing.
            _ => vec![],
        }
    }

    fn accept(&mut self, now: Now, order: Order) -> Vec<Output> {
        self.work = None;
        self.journal.returning = None;
        self.refreshed = false;
        self.fetch_failures = 0;
        self.not_before = None;
        self.excluded = false;
        self.last_fed = now.boot;
        // The same release, given up before or cut short: a part of it may be in the slot.
        let begun_before = self.journal.install.as_ref().is_some_and(|install| {
            install.release_target == order.release_target && install.target == order.slot
        });
        let number = self.journal.install.as_ref().map_or(0, |install| install.number) + 1;
        self.journal.install = Some(Install {
            number,
            begun_before,
            command: order.command,
            envelope: order.envelope,
            release_target: order.release_target,
            target: order.slot,
            by_root: order.by_root,
            from: self.boot.slot.clone(),
            ..Install::default()
        });
        self.enter(State::Checking, "install accepted")
    }

    fn next_of_checking(&self, install: &Install, now: Now) -> Step {
        let step = if self.refreshed {
            match &self.work {
                None => Step::FetchManifest { target: install.release_target.clone() },
                Some(work) => work.next_to_survey().unwrap_or(Step::Plan),
            }
        } else {
            Step::Refresh
        };
        self.unless_waiting(now, step)
    }

    fn on_refreshed(&mut self, now: Now) -> Vec<Output> {
        // Others refresh as well, while this install goes on: only the refresh that it waited for is its progress.
        if self.journal.state == State::Checking && !self.refreshed {
            self.last_fed = now.boot;
            self.fetch_failures = 0;
        }
        self.refreshed = true;
        self.on_authenticated()
    }

    fn on_manifest(&mut self, now: Now, manifest: crate::release::Manifest, sha256: String) -> Vec<Output> {
        self.last_fed = now.boot;
        self.fetch_failures = 0;
        if manifest.sequence < self.floor {
            let message = format!(
                "release {} has sequence {}, below this device's floor {}",
                manifest.version, manifest.sequence, self.floor
            );
            return self.fail(now, cause::BELOW_FLOOR, &message);
        }
        let release =
            vigil_wire::ReleaseId { version: manifest.version.to_string(), sequence: manifest.sequence };
        if let Some(install) = &mut self.journal.install {
            install.release = Some(release);
            install.manifest_sha256 = Some(sha256);
        }
        let mut work = Work::new(manifest);
        work.resumed = self.journal.install.as_ref().is_some_and(|install| install.begun_before);
        self.work = Some(work);
        vec![Output::Save]
    }

    /// Something came that it takes to plan.
    fn on_survey(&mut self, now: Now, take: impl FnOnce(&mut Work) -> Result<(), String>) -> Vec<Output> {
        self.last_fed = now.boot;
        self.fetch_failures = 0;
        let Some(work) = &mut self.work else { return vec![] };
        match take(work) {
            Ok(()) => vec![],
            Err(message) => self.fail(now, cause::BAD_RELEASE, &message),
        }
    }

    fn on_planned(&mut self, now: Now, mut plan: PlanStatus, ways: Vec<Vec<Way>>) -> Vec<Output> {
        self.last_fed = now.boot;
        let Some(work) = self.work.as_mut().filter(|work| work.is_surveyed()) else { return vec![] };
        if let Err(message) = work.set_plan(ways) {
            return self.fail(now, cause::BAD_RELEASE, &message);
        }
        plan.fetch_seconds = self.journal.bytes_per_second.map(|rate| plan.fetch_bytes.div_ceil(rate.max(1)));
        let note = Output::Note { kind: "install.planned".to_owned(), message: plan.to_string() };
        // What a restart leaves to be done is planned anew; the outcome is held against what was planned at first.
        if let Some(install) = &mut self.journal.install {
            plan.metadata_bytes = install.outcome.metadata_bytes;
            install.plan.get_or_insert(plan);
        }
        if self.journal.state == State::Writing {
            return vec![note];
        }
        // From here on the target slot holds nothing that may be relied upon.
        if let Some(install) = &self.journal.install {
            self.journal.contents.remove(&install.target);
            self.journal.payloads.remove(&install.target);
        }
        self.excluded = false;
        let mut outputs = vec![note];
        outputs.extend(self.enter(State::Invalidating, "it is known what to fetch and write"));
        outputs
    }

    fn after_write(&mut self) -> Vec<Output> {
        let done = self.work.as_ref().is_some_and(Work::is_written);
        if done {
            self.remember_rate();
            self.enter(State::Verifying, "every unit is written; reading the slot back")
        } else {
            vec![]
        }
    }

    /// The next plan tells by it how long fetching will take. A stick's says nothing of the network.
    fn remember_rate(&mut self) {
        let install = self.journal.install.as_ref().filter(|install| !install.by_root);
        if let Some(rate) = install.and_then(|install| install.outcome.bytes_per_second()) {
            self.journal.bytes_per_second = Some(rate);
        }
    }

    fn note_outcome(&self) -> Option<Output> {
        let outcome = &self.journal.install.as_ref()?.outcome;
        let note = || Output::Note { kind: "install.spent".to_owned(), message: outcome.to_string() };
        (!outcome.is_none()).then(note)
    }

    fn on_read_back(&mut self, now: Now, image: usize, unit: usize, matches: bool) -> Vec<Output> {
        let Some(work) = &mut self.work else { return vec![] };
        if matches {
            work.was_read_back(image, unit);
            return vec![];
        }
        self.reject_slot(now, &format!("unit {unit} of the slot did not read back as it was written"))
    }

    fn on_image_hash(&mut self, now: Now, image: usize, matches: bool) -> Vec<Output> {
        let Some(work) = &mut self.work else { return vec![] };
        if !matches {
            // Every unit matched the signed index and the whole does not match the signed manifest.
            return self.fail(now, cause::BAD_RELEASE, "the image's hash is not the one in the manifest");
        }
        work.hash_matched(image);
        vec![]
    }

    fn on_unsealed(&mut self, now: Now, matches: bool) -> Vec<Output> {
        let Some(work) = self.work.as_ref().filter(|work| work.is_verified()) else { return vec![] };
        if !matches {
            return self.reject_slot(now, "the first block of the slot did not read back as it was written");
        }
        let images = work.manifest().images.iter();
        let payloads = images.filter(|image| self.policy.hooks.contains(&image.name));
        let payloads = payloads.map(|image| (image.name.clone(), image.sha256.clone())).collect();
        if let Some(install) = &self.journal.install
            && let Some(release) = &install.release
        {
            self.journal.contents.insert(install.target.clone(), release.clone());
            self.journal.payloads.insert(install.target.clone(), payloads);
        }
        let mut outputs = self.enter(State::Staged, "the slot reads back as signed");
        outputs.extend(self.note_outcome());
        outputs.push(Output::DropWork);
        outputs
    }

    fn reject_slot(&mut self, now: Now, message: &str) -> Vec<Output> {
        let Some(work) = &mut self.work else { return vec![] };
        if work.rejections >= self.policy.read_back_retries {
            return self.fail(now, cause::READ_BACK, message);
        }
        work.begin_again();
        self.enter(State::Writing, message)
    }

    fn on_fetch_failed(&mut self, now: Now, cause: &str, message: &str) -> Vec<Output> {
        self.fetch_failures = self.fetch_failures.saturating_add(1);
        // After the restart a repository that cannot be reached, or lags behind, is no fault of the release's: its trial has
        // deadlines of its own.
        let is_judged = matches!(self.journal.state, State::Trial | State::Good);
        if !is_judged && self.fetch_failures > self.policy.fetch_retries {
            return self.fail(now, cause, message);
        }
        let pause = self.policy.fetch_pause * 2_u32.saturating_pow(self.fetch_failures - 1);
        self.not_before = Some(now.boot + pause.min(self.policy.fetch_pause_most));
        vec![]
    }

    /// Gives the install up. Before the restart that leaves the running release as it is; after it, it means going
    /// back.
    fn fail(&mut self, now: Now, cause: &str, message: &str) -> Vec<Output> {
        if matches!(self.journal.state, State::Trial | State::Good) {
            return self.revert(now, cause, message);
        }
        self.record_failure(now, cause, message, false);
        self.work = None;
        let mut outputs = self.enter(State::Failed, &format!("{cause}: {message}"));
        outputs.extend(self.note_outcome());
        outputs.push(Output::DropWork);
        outputs
    }

    fn record_failure(&mut self, now: Now, cause: &str, message: &str, rolled_back: bool) {
        self.journal.last_failure = Some(Failure {
            release: self.journal.install.as_ref().and_then(|install| install.release.clone()),
            cause: cause.to_owned(),
            message: message.into(),
            rolled_back,
            fault: None,
            after: None,
            at_seconds: now.wall.as_second(),
        });
    }

    fn enter(&mut self, state: State, why: &str) -> Vec<Output> {
        self.journal.state = state;
        vec![Output::Save, Output::Note { kind: format!("state.{}", state.name()), message: why.to_owned() }]
    }

    fn unless_waiting(&self, now: Now, step: Step) -> Step {
        match self.not_before {
            Some(time) if now.boot < time => Step::WaitUntil(time),
            _ => step,
        }
    }

    fn expire(&mut self, now: Now) -> Vec<Output> {
        if matches!(self.journal.state, State::Trial | State::Good) {
            return self.expire_trial(now);
        }
        if self.journal.state == State::RolledBack {
            let mut outputs = self.expire_judging(now);
            outputs.extend(self.keep_clean_time(now));
            return outputs;
        }
        let fetching = match (self.journal.state, &self.work) {
            _ if self.is_paused() => false,
            (State::Checking, _) => true,
            (State::Writing, Some(work)) => matches!(work.next_to_write(), Step::FetchFrames { .. }),
            _ => false,
        };
        if fetching && now.boot >= self.last_fed + self.policy.courier_deadline {
            let message = format!(
                "nothing was fetched for {} s; is vigild running, and the repository within reach?",
                self.policy.courier_deadline.as_secs()
            );
            return self.fail(now, cause::COURIER, &message);
        }
        vec![]
    }

    /// When [`Engine::on`] must be told [`Event::Tick`] at the latest, if nothing else happens: once it was, this lies ahead.
    pub fn deadline(&self) -> Option<Duration> {
        let state = self.journal.state;
        let deadline = if matches!(state, State::Trial | State::Good) {
            self.trial_deadline()
        } else if self.is_paused() {
            None
        } else if matches!(state, State::Checking | State::Writing) {
            Some(self.last_fed + self.policy.courier_deadline)
        } else {
            self.judging_deadline()
        };
        let mark_at = self.gate.mark_at.filter(|_| !self.gate.marked);
        [deadline, mark_at, self.return_deadline()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
