//! What is kept of commands: the ids that were seen, and the answers that the broker does not have yet.
//!
//! `commands.json` is replaced as a whole; between two of its writes what happens is appended to `commands.log`, which
//! costs one flush. The release before knows the first file alone. So that it runs nothing that only the second one
//! knows of, the first one names a watermark that lies ahead of every command in the second: the release before asks
//! for new signatures, for some minutes, after a rollback that came by a power cut.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use vigil_protocol::command::{Command, CommandResult, Kind, Reason, Status};
use vigil_protocol::replay::Replay;

use crate::record_log::{Durability, RecordLog};
use crate::store::{Loaded, Store};

const VERSION: u32 = 1;
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// What the log takes between two writes of the whole file.
const LOG_BYTES: usize = 256 * 1024;
/// Answers that are kept at most; ids are kept beyond that.
const ANSWERS: usize = 256;
/// An answer's output above this is left out of the file: it was published once, and will not be again.
const OUTPUT_BYTES: usize = 16 * 1024;
/// How far ahead of the newest command the watermark lies that the release before is shown.
const LEASE: SignedDuration = SignedDuration::from_mins(10);

#[derive(Clone, Debug, Default, Deserialize)]
struct Content {
    replay: Replay,
    #[serde(deserialize_with = "readable")]
    answers: BTreeMap<String, Answer>,
    /// Missing in what the release before wrote.
    #[serde(default)]
    log: Option<LogHead>,
}

/// How file and log belong together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LogHead {
    /// Records of another generation are in the file already.
    generation: u32,
    /// The watermark as it is. `replay` has the one for the release before.
    watermark: Option<Timestamp>,
}

/// The file as it is written.
#[derive(Serialize)]
struct KeptContent<'a> {
    replay: Replay,
    answers: &'a BTreeMap<String, Answer>,
    log: LogHead,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record {
    Admitted { issued: Timestamp, expires: Timestamp, answer: Answer, actor: String },
    Answered(Answer),
    Delivered(String),
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

/// The files and what is in them.
#[derive(Debug)]
pub struct CommandJournal {
    store: Store,
    log: RecordLog,
    content: Content,
    /// Every command in the log was issued before this.
    lease: Option<Timestamp>,
    /// The command that the last process admitted last, and on whose word.
    last_admitted: Option<(String, String)>,
    /// What the flash has written for the file.
    written: u64,
}

impl CommandJournal {
    /// Reads the files. A damaged one is put aside; the second value says so. Ids are then unknown, so that everything
    /// issued before now is refused.
    pub fn open(state: &Path, now: Timestamp) -> io::Result<(Self, Option<String>)> {
        let store = Store::new(state.join("commands.json"), "commands", VERSION, FILE_BYTES);
        let (mut content, finding) = match store.load()? {
            Loaded::Nothing => (Content::default(), None),
            Loaded::Content(content) => (content, None),
            Loaded::Damaged(finding) => {
                (Content { replay: Replay::refusing_until(now), ..Content::default() }, Some(finding))
            }
        };
        let (mut log, records) = RecordLog::open(&state.join("commands.log"), "commands.log", LOG_BYTES)?;
        let newest = match &content.log {
            Some(head) => {
                content.replay = content.replay.under(head.watermark);
                let newest = records.generation == Some(head.generation);
                if !newest {
                    log.begin(head.generation);
                }
                newest
            }
            // The release before wrote the file, or nobody could read it: what the log knows is new, or does no harm.
            None => records.generation.is_some(),
        };
        let mut last_admitted = None;
        // One of a newer release that cannot be read must not cost the others.
        for record in records.payloads.iter().filter_map(|payload| serde_json::from_slice(payload).ok()) {
            if !newest {
                break;
            }
            if let Record::Admitted { answer, actor, .. } = &record {
                last_admitted = Some((answer.result.id.clone(), actor.clone()));
            }
            content.take(record);
        }
        let mut journal = Self { store, log, content, lease: None, last_admitted, written: 0 };
        if newest || finding.is_some() {
            journal.fold()?;
        }
        Ok((journal, finding))
    }

    /// Admits a command: its id and its answer are on the disk when this returns `Ok`.
    pub fn admit(
        &mut self,
        command: &Command,
        result: &CommandResult,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), (Reason, String)> {
        let storage =
            |error: io::Error| (Reason::Storage, format!("the command could not be made durable: {error}"));
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
        // Until it is in the log, the id is in no file: a power cut now, and the broker's copy runs.
        self.content.replay.take_back(&command.id);
        let answer = answer_of(result);
        let (issued, expires, actor) = (command.issued, command.expires, actor.to_owned());
        let record = Record::Admitted { issued, expires, answer, actor };
        self.extend_lease(command.issued).and_then(|()| self.append(&record)).map_err(storage)?;
        self.content.take(record);
        Ok(())
    }

    /// Keeps an answer. Failing leaves the former one on the disk: after a restart the command is `interrupted`.
    pub fn answer(&mut self, result: &CommandResult) -> io::Result<()> {
        let record = Record::Answered(answer_of(result));
        let appended = self.append(&record);
        self.content.take(record);
        appended
    }

    /// The broker has the final answer to this command. A power cut may undo this: then it is said twice.
    pub fn delivered(&mut self, id: &str) -> io::Result<()> {
        if self.content.answers.get(id).is_none_or(|answer| answer.delivered) {
            return Ok(());
        }
        let record = Record::Delivered(id.to_owned());
        let appended = self.append_as(&record, Durability::Lazy);
        self.content.take(record);
        appended
    }

    /// Puts all into the one file that the release before reads as well. For a quiet moment, and before the end.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.lease.is_none() {
            return Ok(());
        }
        self.lease = None;
        self.fold()
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        self.append_as(record, Durability::Flushed)
    }

    fn append_as(&mut self, record: &Record, durability: Durability) -> io::Result<()> {
        let payload = serde_json::to_vec(record)?;
        if !self.log.append(&payload, durability)? {
            self.fold()?;
            if !self.log.append(&payload, durability)? {
                return Err(io::Error::other("a record larger than the log"));
            }
        }
        Ok(())
    }

    /// Before a command is in the log, the file names a watermark above it.
    fn extend_lease(&mut self, issued: Timestamp) -> io::Result<()> {
        if self.lease.is_some_and(|lease| issued < lease) {
            return Ok(());
        }
        let former = self.lease.replace(issued.saturating_add(LEASE).unwrap_or(Timestamp::MAX));
        self.fold().inspect_err(|_| self.lease = former)
    }

    fn fold(&mut self) -> io::Result<()> {
        let generation = self.log.generation().wrapping_add(1);
        let watermark = self.content.replay.watermark();
        let kept = KeptContent {
            replay: self.content.replay.under(watermark.max(self.lease)),
            answers: &self.content.answers,
            log: LogHead { generation, watermark },
        };
        self.written += self.store.save(&kept)?;
        self.log.begin(generation);
        Ok(())
    }

    /// The command that the last process admitted last, by its id, and who signed it: if that process came to its end
    /// just then, the audit log does not know of it.
    pub fn last_admitted(&self) -> Option<(&str, &str)> {
        self.last_admitted.as_ref().map(|(id, actor)| (id.as_str(), actor.as_str()))
    }

    /// What the flash has written since this was asked last.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written) + self.log.take_written()
    }

    /// The newest answer to a command, as long as it is kept.
    pub fn answer_to(&self, id: &str) -> Option<CommandResult> {
        self.content.answers.get(id).map(|answer| answer.result.clone())
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

fn answer_of(result: &CommandResult) -> Answer {
    let mut result = result.clone();
    if result.output.to_string().len() > OUTPUT_BYTES {
        result.output = Value::Null;
    }
    Answer { result, delivered: false, reason: None }
}

impl Content {
    fn take(&mut self, record: Record) {
        match record {
            Record::Admitted { issued, expires, answer, .. } => {
                self.replay.restore(answer.result.id.clone(), issued, expires);
                self.put(answer);
            }
            Record::Answered(answer) => self.put(answer),
            Record::Delivered(id) => {
                if let Some(answer) = self.answers.get_mut(&id) {
                    answer.delivered = true;
                }
            }
        }
    }

    fn put(&mut self, mut answer: Answer) {
        answer.result.reason = answer.reason.take().unwrap_or(answer.result.reason);
        self.answers.insert(answer.result.id.clone(), answer);
        while self.answers.len() > ANSWERS {
            let oldest = self
                .answers
                .iter()
                .min_by_key(|(_, answer)| (!answer.delivered, answer.result.at))
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.answers.remove(&oldest);
        }
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
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now()).unwrap();
        drop(journal);
        let mut journal = open();
        let refused =
            journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now());
        assert_eq!(refused.unwrap_err().0, Reason::Replayed);
        assert_eq!(journal.pending().len(), 1);
        journal.answer(&result("c-1", Status::Succeeded)).unwrap();
        drop(journal);
        let mut journal = open();
        assert_eq!(journal.undelivered().len(), 1);
        journal.delivered("c-1").unwrap();
        drop(journal);
        assert_eq!((open().undelivered().len(), open().pending().len()), (0, 0));
    }

    #[test]
    fn what_the_log_knows_is_there_after_a_kill_and_the_file_alone_refuses_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = || CommandJournal::open(directory.path(), now()).unwrap().0;
        let mut journal = open();
        for id in ["c-1", "c-2", "c-3"] {
            journal.admit(&command(id), &result(id, Status::Accepted), "operator:olga", now()).unwrap();
        }
        journal.answer(&result("c-1", Status::Succeeded)).unwrap();
        journal.answer(&result("c-2", Status::Succeeded)).unwrap();
        journal.delivered("c-1").unwrap();
        // The release before reads the file alone, and what it reads it in.
        let text = std::fs::read_to_string(directory.path().join("commands.json")).unwrap();
        let mut before: Replay =
            serde_json::from_value(serde_json::from_str::<Value>(&text).unwrap()["replay"].take()).unwrap();
        for id in ["c-1", "c-2", "c-3", "c-4"] {
            assert_eq!(before.admit(&command(id), now()), Err(Reason::BelowWatermark), "{id}");
        }
        drop(journal);
        let mut journal = open();
        assert_eq!(
            journal.undelivered().iter().map(|result| result.id.as_str()).collect::<Vec<_>>(),
            ["c-2"]
        );
        assert_eq!(journal.pending().len(), 1);
        assert_eq!(journal.last_admitted(), Some(("c-3", "operator:olga")));
        for id in ["c-1", "c-2", "c-3"] {
            let again = journal.admit(&command(id), &result(id, Status::Accepted), "operator:olga", now());
            assert_eq!(again.unwrap_err().0, Reason::Replayed);
        }
        journal.admit(&command("c-4"), &result("c-4", Status::Accepted), "operator:olga", now()).unwrap();
    }

    #[test]
    fn in_a_quiet_moment_the_file_alone_is_all_there_is_to_know() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        journal.admit(&command("c-1"), &result("c-1", Status::Succeeded), "operator:olga", now()).unwrap();
        journal.settle().unwrap();
        std::fs::remove_file(directory.path().join("commands.log")).unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        assert_eq!(journal.undelivered().len(), 1);
        journal.admit(&command("c-2"), &result("c-2", Status::Succeeded), "operator:olga", now()).unwrap();
    }

    #[test]
    fn records_that_the_file_has_already_are_not_mixed_with_newer_ones() {
        let directory = tempfile::tempdir().unwrap();
        let open = || CommandJournal::open(directory.path(), now()).unwrap().0;
        let mut journal = open();
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now()).unwrap();
        // Folded, and the process ends before the next record overwrites the old ones.
        journal.fold().unwrap();
        drop(journal);
        let mut journal = open();
        journal.answer(&result("c-1", Status::Succeeded)).unwrap();
        drop(journal);
        assert_eq!((open().pending().len(), open().undelivered().len()), (0, 1));
    }

    #[test]
    fn more_commands_than_the_log_holds_are_all_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        for number in 0..1000 {
            let id = format!("c-{number}");
            let mut answer = result(&id, Status::Succeeded);
            answer.output = "x".repeat(400).into();
            journal.admit(&command(&id), &answer, "operator:olga", now()).unwrap();
            journal.delivered(&id).unwrap();
        }
        drop(journal);
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        for number in 0..1000 {
            let id = format!("c-{number}");
            let again = journal.admit(&command(&id), &result(&id, Status::Succeeded), "operator:olga", now());
            assert_eq!(again.unwrap_err().0, Reason::Replayed);
        }
    }

    #[test]
    fn a_file_of_the_release_before_and_a_log_of_this_one_are_both_believed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now()).unwrap();
        drop(journal);
        // The release before ran in between, and wrote the file in its way.
        let text = r#"{"v":1,"replay":{"watermark":null,"seen":{}},"answers":{}}"#;
        std::fs::write(directory.path().join("commands.json"), text).unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        assert_eq!(journal.pending().len(), 1);
        let again = journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now());
        assert_eq!(again.unwrap_err().0, Reason::Replayed);
    }

    #[test]
    fn a_damaged_file_lets_no_earlier_command_run_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("commands.json"), "{\"v\":1,\"repl").unwrap();
        let (mut journal, finding) = CommandJournal::open(directory.path(), now()).unwrap();
        assert!(finding.unwrap().contains("commands.json.damaged"));
        let refused =
            journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now());
        assert_eq!(refused.unwrap_err().0, Reason::BelowWatermark);
    }

    #[test]
    fn the_release_before_reads_a_reason_that_it_does_not_know_as_an_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        for (id, reason) in [("c-1", Reason::NotNow), ("c-2", Reason::Quarantined)] {
            journal.answer(&CommandResult { reason, ..result(id, Status::Failed) }).unwrap();
        }
        journal.fold().unwrap();
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
            journal.admit(&command(id), &result(id, Status::Succeeded), "operator:olga", now()).unwrap();
        }
        journal.settle().unwrap();
        let path = directory.path().join("commands.json");
        let mut content: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        content["answers"]["c-1"]["result"]["reason"] = "of_tomorrow".into();
        std::fs::write(&path, content.to_string()).unwrap();
        let (mut journal, finding) = CommandJournal::open(directory.path(), now()).unwrap();
        assert_eq!((finding, journal.undelivered().len()), (None, 1));
        let again = journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now());
        assert_eq!(again.unwrap_err().0, Reason::Replayed);
    }

    #[test]
    fn an_id_that_cannot_be_made_durable_is_not_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = CommandJournal::open(directory.path(), now()).unwrap();
        // A directory in the file's place: the rename fails, as it would on a disk that has gone read-only.
        std::fs::create_dir_all(directory.path().join("commands.json/x")).unwrap();
        let refused =
            journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now());
        assert_eq!(refused.unwrap_err().0, Reason::Storage);
        std::fs::remove_dir_all(directory.path().join("commands.json")).unwrap();
        journal.admit(&command("c-1"), &result("c-1", Status::Accepted), "operator:olga", now()).unwrap();
    }
}
