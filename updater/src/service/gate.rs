//! Runs the gate's checks one after the other, without blocking: commands of the image that exit 0 when all is well.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::config::GateCheck;
use crate::engine::CheckFailure;

const OUTPUT_BYTES: u64 = 400;

/// A run of the gate.
pub(super) struct GateRun {
    checks: std::collections::VecDeque<GateCheck>,
    current: Option<Running>,
}

struct Running {
    check: GateCheck,
    child: Child,
    until: Duration,
}

/// A run of a hook.
pub(super) struct HookRun {
    child: Child,
    until: Duration,
}

impl HookRun {
    pub(super) fn new(child: Child, until: Duration) -> Self {
        Self { child, until }
    }

    /// How it ended, if it has.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Result<(), String>> {
        outcome(&mut self.child, now < self.until)
    }
}

impl Drop for HookRun {
    fn drop(&mut self) {
        end(&mut self.child);
    }
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
            if let Some(running) = &mut self.current {
                match running.outcome(now) {
                    None => return GateState::Running,
                    Some(Ok(())) => self.current = None,
                    Some(Err(message)) => return GateState::Failed(running.check.failed(message)),
                }
            }
            let Some(check) = self.checks.pop_front() else { return GateState::Passed };
            match start(&check) {
                Ok(child) => {
                    self.current = Some(Running { until: now + check.timeout_seconds, check, child });
                }
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

fn start(check: &GateCheck) -> std::io::Result<Child> {
    Command::new(&check.command[0])
        .args(&check.command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

impl Running {
    fn outcome(&mut self, now: Duration) -> Option<Result<(), String>> {
        outcome(&mut self.child, now < self.until)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// How a program ended, if it has; one whose time is up is ended.
fn outcome(child: &mut Child, has_time: bool) -> Option<Result<(), String>> {
    match child.try_wait() {
        Ok(None) if has_time => None,
        Ok(None) => {
            end(child);
            Some(Err("no answer in time".to_owned()))
        }
        Ok(Some(status)) if status.success() => Some(Ok(())),
        Ok(Some(status)) => {
            let mut said = Vec::new();
            if let Some(stderr) = child.stderr.take() {
                let _ = stderr.take(OUTPUT_BYTES).read_to_end(&mut said);
            }
            let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
            Some(Err(if said.is_empty() { status.to_string() } else { said }))
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Ends a program and whatever it has started.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
