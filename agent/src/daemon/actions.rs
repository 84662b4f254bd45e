//! What is done to the room by programs of the image, and the commands that wait until a call is over.

use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command as Process;
use tokio::time::{Instant, timeout};
use vigil_protocol::command::{Command, CommandResult, Kind, Reason, Status};

use super::Daemon;
use crate::audit::Outcome;

/// A program that takes longer is killed.
const PROGRAM: Duration = Duration::from_secs(60);
/// After a restart was asked for, the device must go down within this time.
const GOING_DOWN: Duration = Duration::from_secs(300);
/// How often it is looked whether a call is over that commands wait for.
const HELD_LOOK: Duration = Duration::from_secs(5);
/// Of what a program says on its standard error.
const WORDS: usize = 300;

/// A program has ended.
pub(super) struct ActionEnded {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) result: Result<(), String>,
}

/// A command that waits for the end of a call.
pub(super) struct Held {
    pub(super) id: String,
    kind: Kind,
    expires: Timestamp,
}

impl Daemon {
    /// The program for a kind of command, if the image has one.
    pub(super) fn program(&self, kind: Kind) -> Option<&[String]> {
        let room = &self.config.room;
        let program = match kind {
            Kind::Reboot => &room.reboot,
            Kind::RestartApp => &room.restart_app,
            Kind::Locate => &room.locate,
            _ => return None,
        };
        (!program.is_empty()).then_some(program)
    }

    fn is_call_on(&self) -> bool {
        self.config.room.call_file.as_ref().is_some_and(|file| file.exists())
    }

    /// Begins an action, or holds it while a call is on that it would disturb.
    pub(super) fn begin_action(&mut self, command: &Command, kind: Kind) {
        let forced = command.args.get("force") == Some(&Value::Bool(true));
        let disturbs = matches!(kind, Kind::Reboot | Kind::RestartApp);
        if !disturbs || forced || !self.is_call_on() {
            return self.act(&command.id, kind);
        }
        let message = "a call is on; it waits until that is over, or send it again with force=true";
        let result = self.result(&command.id, &command.kind, Status::Running, Reason::CallActive, message);
        self.tell_progress(&result);
        self.held.push(Held { id: command.id.clone(), kind, expires: command.expires });
        self.held_look.get_or_insert(Instant::now() + HELD_LOOK);
    }

    /// Lets go of what waits for the end of a call, if it is over.
    pub(super) fn look_after_held(&mut self) {
        self.held_look = None;
        let now = Timestamp::now();
        let call = self.is_call_on();
        for held in std::mem::take(&mut self.held) {
            if !call {
                self.act(&held.id, held.kind);
            } else if held.expires <= now {
                let message = "the call went on for longer than the command was valid";
                let name = held.kind.name();
                self.finish(&held.id, name, Status::Failed, Reason::TimedOut, message, Value::Null);
            } else {
                self.held.push(held);
                self.held_look.get_or_insert(Instant::now() + HELD_LOOK);
            }
        }
    }

    fn act(&mut self, id: &str, kind: Kind) {
        let Some(program) = self.program(kind).map(<[String]>::to_vec) else { return };
        // The answer to a restart is said by the next boot, which is told from this one by its id.
        let output = if kind == Kind::Reboot { json!({ "boot": super::boot_id() }) } else { Value::Null };
        let result = self.result(id, kind.name(), Status::Running, Reason::Ok, "");
        self.tell_progress(&CommandResult { output, ..result });
        self.record("action.began", "device", Outcome::Success, json!({ "id": id, "program": program }));
        let sender = self.actions.clone();
        let id = id.to_owned();
        tokio::task::spawn_local(vigil_turns::task("action", async move {
            let result = run(&program, kind).await;
            let _ = sender.send(ActionEnded { id, kind, result }).await;
        }));
    }

    pub(super) fn on_action(&mut self, ActionEnded { id, kind, result }: ActionEnded) {
        let name = kind.name();
        match result {
            Ok(()) => self.finish(&id, name, Status::Succeeded, Reason::Ok, "", Value::Null),
            Err(message) => self.finish(&id, name, Status::Failed, Reason::Internal, &message, Value::Null),
        }
    }

    /// Whether a command is one that can be stopped.
    pub(super) fn can_stop(&self, id: &str) -> bool {
        self.held.iter().any(|held| held.id == id)
            || self.diagnosis.as_ref().is_some_and(|(running, _)| running == id)
    }

    /// Stops a command that is held or under way.
    pub(super) fn stop_command(&mut self, id: &str, operator: &str) {
        let message = format!("stopped by {operator}");
        let stopped = self.held.extract_if(.., |held| held.id == id).next().map(|held| held.kind);
        let stopped = stopped.or_else(|| {
            let (_, task) = self.diagnosis.take_if(|(running, _)| running == id)?;
            task.abort();
            self.diagnosing = false;
            Some(Kind::Diagnose)
        });
        if let Some(kind) = stopped {
            self.finish(id, kind.name(), Status::Failed, Reason::Cancelled, &message, Value::Null);
        }
    }
}

/// Runs a program to its end. A restart has no good end: the device goes down, or it did not work.
async fn run(program: &[String], kind: Kind) -> Result<(), String> {
    let mut process = Process::new(&program[0]);
    process.args(&program[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    process.kill_on_drop(true);
    let output = timeout(PROGRAM, process.output());
    match output.await {
        Err(_) => Err(format!("{} took longer than {} s", program[0], PROGRAM.as_secs())),
        Ok(Err(error)) => Err(format!("{}: {error}", program[0])),
        Ok(Ok(output)) if !output.status.success() => {
            let words = vigil_text::clean(String::from_utf8_lossy(&output.stderr).trim(), WORDS);
            Err(format!("{}: {}: {words}", program[0], output.status))
        }
        Ok(Ok(_)) if kind == Kind::Reboot => {
            tokio::time::sleep(GOING_DOWN).await;
            Err(format!("{} succeeded, and the device did not go down", program[0]))
        }
        Ok(Ok(_)) => Ok(()),
    }
}
