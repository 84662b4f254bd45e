//! What is kept of commands: the ids that were seen, and the answers that the broker does not have yet. One file,
//! replaced as a whole, so that an id and its answer are never at odds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use vigil_protocol::command::{Command, CommandResult, Kind, Reason, Status};
use vigil_protocol::replay::Replay;

use crate::store::{Loaded, Store};

const VERSION: u32 = 1;
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Answers that are kept at most; ids are kept beyond that.
const ANSWERS: usize = 64;
/// An answer's output above this is left out of the file: it was published once, and will not be again.
const OUTPUT_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    replay: Replay,
    #[serde(deserialize_with = "readable")]
    answers: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, Deserialize)]
struct Answer {
    result: CommandResult,
    /// The broker has acknowledged the final answer.
    delivered: bool,
    /// The reason, where `result` names another one for the release before.
    #[serde(default)]
    reason: Option<Reason>,
}

/// What an answer is on the disk.
#[derive(Serialize)]
struct Kept<'a> {
    result: &'a CommandResult,
    delivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The release before reads a list of reasons in which these are missing, and would put the whole file aside,
        // ids and all. It says the older reason in their place, with the same message.
        let older = match self.result.reason {
            Reason::NotNow | Reason::Quarantined => Some(Reason::UpdaterRefused),
            Reason::CallActive => Some(Reason::Busy),
            Reason::VersionConflict => Some(Reason::BadArgument),
            Reason::TimedOut | Reason::Cancelled | Reason::Reverted => Some(Reason::Internal),
            _ => None,
        };
        let (result, reason) = match older {
            Some(older) => {
                (&CommandResult { reason: older, ..self.result.clone() }, Some(self.result.reason))
            }
            None => (&self.result, None),
        };
        Kept { result, delivered: self.delivered, reason }.serialize(serializer)
    }
}

/// The answers that can be read: one that a newer release wrote in a way of its own must not cost the ids.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Answer>, D::Error> {
    let answers = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let answers = answers.into_iter().filter_map(|(id, answer)| {
        let mut answer: Answer = serde_json::from_value(answer).ok()?;
        answer.result.reason = answer.reason.take().unwrap_or(answer.result.reason);
        Some((id, answer))
    });
    Ok(answers.collect())
}

/// A command that had no final answer when the process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its last answer.
    pub result: CommandResult,
    /// Whether it goes on by itself, in `vigil-updaterd`.
    pub goes_on: bool,
}

/// The file and what is in it.
#[derive(Debug)]
pub struct CommandJournal {
    store: Store,
    content: Content,
}

impl CommandJournal {
    /// Reads the file. A damaged one is put aside; the second value says so. Ids are then unknown, so that everything
    /// issued before now is refused.
    pub fn open(state: &Path, now: Timestamp) -> io::Result<(Self, Option<String>)> {
        let store = Store::new(state.join("commands.json"), "commands", VERSION, FILE_BYTES);
        let (content, finding) = match store.load()? {
            Loaded::Nothing => (Content::default(), None),
            Loaded::Content(content) => (content, None),
            Loaded::Damaged(finding) => {
                (Content { replay: Replay::refusing_until(now), ..Content::default() }, Some(finding))
            }
        };
        let journal = Self { store, content };
        if finding.is_some() {
            journal.store.save(&journal.content)?;
        }
        Ok((journal, finding))
    }

    /// Admits a command: its id and its first answer are on the disk when this returns `Ok`.
    pub fn admit(
        &mut self,
        command: &Command,
        result: &CommandResult,
        now: Timestamp,
    ) -> Result<(), (Reason, String)> {
        let before = self.content.clone();
        self.content.replay.admit(command, now).map_err(|reason| {
            let message = match reason {
                Reason::Replayed => "this command was seen before; sign a new one",
                Reason::BelowWatermark => {
                    "issued before commands that this device has already forgotten; sign a new one"
                }
                _ => "the store of command ids is full; try again when earlier commands have expired",
            };
            (reason, message.to_owned())
        })?;
        self.put(result);
        self.store.save(&self.content).map_err(|error| {
            self.content = before;
            (Reason::Storage, format!("the command could not be made durable: {error}"))
        })
    }

    /// Keeps an answer. Failing leaves the former one on the disk: after a restart the command is `interrupted`.
    pub fn answer(&mut self, result: &CommandResult) -> io::Result<()> {
        self.put(result);
        self.store.save(&self.content)
    }

    fn put(&mut self, result: &CommandResult) {
        let mut result = result.clone();
        if result.output.to_string().len() > OUTPUT_BYTES {
            result.output = Value::Null;
        }
        self.content.answers.insert(result.id.clone(), Answer { result, delivered: false, reason: None });
        while self.content.answers.len() > ANSWERS {
            let oldest = self
                .content
                .answers
                .iter()
                .min_by_key(|(_, answer)| (!answer.delivered, answer.result.at))
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.content.answers.remove(&oldest);
        }
    }

    /// The broker has the final answer to this command.
    pub fn delivered(&mut self, id: &str) -> io::Result<()> {
        match self.content.answers.get_mut(id) {
            Some(answer) if !answer.delivered => {
                answer.delivered = true;
                self.store.save(&self.content)
            }
            _ => Ok(()),
        }
    }

    /// Final answers that the broker does not have yet, oldest first.
    pub fn undelivered(&self) -> Vec<CommandResult> {
        let mut results: Vec<_> = self
            .content
            .answers
            .values()
            .filter(|answer| !answer.delivered && answer.result.status.is_final())
            .map(|answer| answer.result.clone())
            .collect();
        results.sort_by_key(|result| result.at);
        results
    }

    /// Commands without a final answer.
    pub fn pending(&self) -> Vec<Pending> {
        self.content
            .answers
            .values()
            .filter(|answer| !answer.result.status.is_final())
            .map(|answer| Pending {
                result: answer.result.clone(),
                goes_on: Kind::from_name(&answer.result.kind) == Some(Kind::UpdateInstall)
                    && answer.result.status == Status::Running,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigil_protocol::command::Target;

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn command(id: &str) -> Command {
        Command {
            v: 1,
            id: id.into(),
            kind: "ping".into(),
            args: [].into(),
            tenant: "acme".into(),
            target: Target::Device("bar-1".into()),
            issued: now(),
            expires: "2026-06-01T12:10:00Z".parse().unwrap(),
            nonce: None,
        }
    }

    fn result(id: &str, status: Status) -> CommandResult {
        CommandResult {
            v: 1,
            device: "bar-1".into(),
            id: id.into(),
            kind: "ping".into(),
            status,
            reason: Reason::Ok,
            message: String::new(),
            output: serde_json::Value::Null,
            at: now(),
        }
    }

    #[test]
    fn an_id_is_refused_after_a_restart_and_its_answer_is_said_until_it_is_delivered() {
        let directory = tempfile::tempdir().unwrap();
        let open = || CommandJournal::open(directory.path(), now()).unwrap().0;
        let mut journal = open();
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), now()).unwrap();
        let mut journal_after_restart = open();
        let refused = journal_after_restart.admit(&command("c-1"), &result("c-1", Status::Accepted), now());
        assert_eq!(refused.unwrap_err().0, Reason::Replayed);
        assert_eq!(journal_after_restart.pending().len(), 1);
        journal_after_restart.answer(&result("c-1", Status::Succeeded)).unwrap();
        assert_eq!(open().undelivered().len(), 1);
        journal_after_restart.delivered("c-1").unwrap();
        assert_eq!((open().undelivered().len(), open().pending().len()), (0, 0));
    }

    #[test]
    fn a_damaged_file_lets_no_earlier_command_run_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("commands.json"), "{\"v\":1,\"repl").unwrap();
        let (mut journal, finding) = CommandJournal::open(directory.path(), now()).unwrap();
        assert!(finding.unwrap().contains("commands.json.damaged"));
        let refused = journal.admit(&command("c-1"), &result("c-1", Status::Accepted), now());
        assert_eq!(refused.unwrap_err().0, Reason::BelowWatermark);
    }

    #[test]
    fn the_release_before_reads_a_reason_that_it_does_not_know_as_an_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        for (id, reason) in [("c-1", Reason::NotNow), ("c-2", Reason::Quarantined)] {
            journal.answer(&CommandResult { reason, ..result(id, Status::Failed) }).unwrap();
        }
        let text = std::fs::read_to_string(directory.path().join("commands.json")).unwrap();
        let content: Value = serde_json::from_str(&text).unwrap();
        for id in ["c-1", "c-2"] {
            assert_eq!(content["answers"][id]["result"]["reason"], "updater_refused");
        }
        let (journal, finding) = CommandJournal::open(directory.path(), now()).unwrap();
        let reasons: Vec<_> = journal.undelivered().iter().map(|result| result.reason).collect();
        assert_eq!((finding, reasons), (None, vec![Reason::NotNow, Reason::Quarantined]));
    }

    #[test]
    fn an_answer_of_a_newer_release_that_cannot_be_read_costs_no_id_and_no_other_answer() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        for id in ["c-1", "c-2"] {
            journal.admit(&command(id), &result(id, Status::Succeeded), now()).unwrap();
        }
        let path = directory.path().join("commands.json");
        let mut content: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        content["answers"]["c-1"]["result"]["reason"] = "of_tomorrow".into();
        std::fs::write(&path, content.to_string()).unwrap();
        let (mut journal, finding) = CommandJournal::open(directory.path(), now()).unwrap();
        assert_eq!((finding, journal.undelivered().len()), (None, 1));
        let again = journal.admit(&command("c-1"), &result("c-1", Status::Accepted), now());
        assert_eq!(again.unwrap_err().0, Reason::Replayed);
    }

    #[test]
    fn an_id_that_cannot_be_made_durable_is_not_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        // A directory in the file's place: the rename fails, as it would on a disk that has gone read-only.
        std::fs::create_dir_all(directory.path().join("commands.json/x")).unwrap();
        let refused = journal.admit(&command("c-1"), &result("c-1", Status::Accepted), now());
        assert_eq!(refused.unwrap_err().0, Reason::Storage);
        std::fs::remove_dir_all(directory.path().join("commands.json")).unwrap();
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), now()).unwrap();
    }
}
