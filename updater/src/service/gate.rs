//! Runs the gate's checks one after the other, without blocking: commands of the image that exit 0 when all is well.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::config::GateCheck;

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

/// How far a run has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GateState {
    Running,
    Passed,
    Failed(String),
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
                    Some(Err(why)) => {
                        return GateState::Failed(format!("{}: {why}", running.check.name));
                    }
                }
            }
            let Some(check) = self.checks.pop_front() else { return GateState::Passed };
            match start(&check) {
                Ok(child) => {
                    self.current = Some(Running { until: now + check.timeout_seconds, check, child });
                }
                Err(error) => {
                    return GateState::Failed(format!("{}: {}: {error}", check.name, check.command[0]));
                }
            }
        }
    }
}

fn start(check: &GateCheck) -> std::io::Result<Child> {
    Command::new(&check.command[0])
        .args(&check.command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

impl Running {
    fn outcome(&mut self, now: Duration) -> Option<Result<(), String>> {
        match self.child.try_wait() {
            Ok(None) if now < self.until => None,
            Ok(None) => {
                let _ = self.child.kill();
                let _ = self.child.wait();
                Some(Err(format!("no answer within {} s", self.check.timeout_seconds.as_secs_f32())))
            }
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => {
                let mut said = Vec::new();
                if let Some(stderr) = self.child.stderr.take() {
                    let _ = stderr.take(OUTPUT_BYTES).read_to_end(&mut said);
                }
                let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
                Some(Err(if said.is_empty() { status.to_string() } else { said }))
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
