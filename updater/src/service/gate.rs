//! Runs the gate's checks one after the other, without blocking: commands of the image that exit 0 when all is well.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::child::Run;
use crate::config::GateCheck;
use crate::engine::CheckFailure;

/// A run of the gate.
pub(super) struct GateRun {
    checks: VecDeque<GateCheck>,
    current: Option<(GateCheck, Run)>,
}

/// How far a run has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GateState {
    Running,
    Passed,
    Failed(CheckFailure),
}

impl GateRun {
    pub(super) fn new(checks: &[GateCheck]) -> Self {
        Self { checks: checks.iter().cloned().collect(), current: None }
    }

    /// Looks at the running check, and starts the next one when it has passed.
    pub(super) fn poll(&mut self, now: Duration) -> GateState {
        loop {
            if let Some((check, run)) = &mut self.current {
                match run.poll(now) {
                    None => return GateState::Running,
                    Some(Ok(())) => self.current = None,
                    Some(Err(said)) => return GateState::Failed(check.failed(said.into_string())),
                }
            }
            let Some(check) = self.checks.pop_front() else { return GateState::Passed };
            match Run::start(command(&check.command), now + check.timeout_seconds) {
                Ok(run) => self.current = Some((check, run)),
                Err(error) => {
                    return GateState::Failed(check.failed(format!("{}: {error}", check.command[0])));
                }
            }
        }
    }
}

impl GateCheck {
    fn failed(&self, message: String) -> CheckFailure {
        CheckFailure { check: self.name.clone(), message }
    }
}

/// A program of the image, with nothing on its standard input.
pub(super) fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}
