//! What a person may do with an install: pause, resume, cancel, roll back.

use vigil_wire::{Control, State};

use super::{Engine, Now, Output, cause};

/// Why it cannot be done now, and what can be done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(&'static str);

impl Engine {
    /// Whether `control` makes sense now.
    pub fn permits(&self, control: Control) -> Result<(), Refused> {
        let state = self.journal.state;
        let before_the_restart = matches!(
            state,
            State::Checking | State::Invalidating | State::Writing | State::Verifying | State::Staged
        );
        let refused = |why| Err(Refused(why));
        if self.is_reverting() {
            return refused("the device is going back already");
        }
        match control {
            _ if !state.is_under_way() => refused("no install is under way"),
            Control::Pause if !before_the_restart => {
                refused("it is too late to pause: the restart into the new release was begun")
            }
            Control::Pause if self.is_paused() => refused("it is paused already"),
            Control::Resume if !self.is_paused() => refused("it is not paused"),
            Control::Cancel if matches!(state, State::Trial | State::Good) => {
                refused("the new release runs already; roll it back instead")
            }
            Control::Rollback if !matches!(state, State::Trial | State::Good) => {
                refused("the new release does not run yet; cancel the install instead")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn on_control(&mut self, now: Now, control: Control) -> Vec<Output> {
        if self.permits(control).is_err() {
            return vec![];
        }
        match control {
            Control::Pause | Control::Resume => {
                if let Some(install) = &mut self.journal.install {
                    install.paused = control == Control::Pause;
                }
                // The time in between is nobody's failure.
                self.last_fed = now.boot;
                self.fetch_failures = 0;
                self.not_before = None;
                let message = format!("in the state {}", self.journal.state.name());
                vec![Output::Save, Output::Note { kind: format!("install.{}", control.name()), message }]
            }
            Control::Rollback => self.revert(now, cause::OPERATOR, "it was rolled back by command"),
            Control::Cancel if matches!(self.journal.state, State::Activating | State::Rebooting) => {
                let outputs = self.revert(now, cause::CANCELLED, "the install was given up by command");
                if let Some(failure) = &mut self.journal.last_failure {
                    failure.rolled_back = false;
                }
                outputs
            }
            Control::Cancel => self.fail(now, cause::CANCELLED, "the install was given up by command"),
        }
    }
}
