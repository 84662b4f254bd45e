//! The log that is written: append, sign, recover after a power cut, drop the oldest when there is no more room.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_durable::{Mode, Share};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::merkle::{CompactRange, leaf_hash};
use vigil_protocol::note::{CHECKPOINT_BYTES, Checkpoint};
use vigil_text::clean;

use super::entry::{Entry, Outcome, is_strangers, shortened, shown};
use super::segment::{self, LINE_BYTES, Line, Lines};

/// The log keeps this many segments within its limit of bytes.
const SEGMENTS: u64 = 8;
/// An entry's bytes at most where strangers cause it.
const STRANGERS_LINE_BYTES: usize = 2048;
const ACTOR_BYTES: usize = 256;

/// Entries from one mark to the next.
const MARK_EVERY: u64 = 128;

type Marks = BTreeMap<u64, Vec<u64>>;

/// What was found when the log was opened, and is recorded in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A power cut tore the last line, or came between an entry and its checkpoint. Nothing that was acknowledged is
    /// lost.
    Recovered(String),
    /// The log does not match its checkpoint. It was put aside, and a new one begins.
    Damaged(String),
}

/// What is recorded, before it has its place in the log.
#[derive(Debug)]
pub struct Record<'a> {
    /// What happened, as a stable code.
    pub event: &'a str,
    /// Who did it.
    pub actor: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// What else is known.
    pub detail: Value,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    origin: String,
    key: SigningKey,
    max_bytes: u64,
    range: CompactRange,
    file: File,
    file_bytes: u64,
    /// Whose entries the newest segment holds.
    share: Share,
    /// Entries of strangers that found no room in it.
    untold: u64,
    /// Of each segment, by its first entry, where every so many-th entry begins: a page is read without what lies before it.
    marks: Marks,
    checkpoint: String,
    /// Entries that the checkpoint is over.
    signed: u64,
    /// A line could not be taken back after a failed append: nothing may be appended behind it.
    torn: bool,
}

impl Log {
    /// Opens the log in `directory`, or begins one.
    pub fn open(
        directory: &Path,
        origin: &str,
        key: SigningKey,
        max_bytes: u64,
    ) -> io::Result<(Self, Vec<Finding>)> {
        vigil_durable::create_directory(directory)?;
        let mut findings = Vec::new();
        let mut marks = Marks::new();
        let tree = match recover(directory, origin, &key, &mut findings, &mut marks) {
            Ok(tree) => tree,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = put_aside(directory)?;
                findings.push(Finding::Damaged(format!(
                    "{error}; the log so far is kept in {}",
                    aside.display()
                )));
                marks.clear();
                None
            }
            Err(error) => return Err(error),
        };
        let segment_bytes = max_bytes / SEGMENTS;
        let (range, path) = match tree {
            Some(tree) => tree,
            None => (CompactRange::default(), begin_segment(directory, &CompactRange::default())?),
        };
        let share = share_of(&path, segment_bytes)?;
        let file = vigil_durable::open(&path, OpenOptions::new().append(true))?;
        let file_bytes = file.metadata()?.len();
        let mut log = Self {
            directory: directory.to_owned(),
            origin: origin.to_owned(),
            key,
            max_bytes,
            range,
            file,
            file_bytes,
            share,
            untold: 0,
            marks,
            checkpoint: String::new(),
            signed: 0,
            torn: false,
        };
        log.sign()?;
        for finding in &findings {
            let (event, text) = match finding {
                Finding::Recovered(text) => ("audit.recovered", text),
                Finding::Damaged(text) => ("audit.damaged", text),
            };
            log.append(event, "device", Outcome::Failure, json!({ "finding": text }))?;
        }
        log.sign()?;
        Ok((log, findings))
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.range.size()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// Entries of strangers that found no room since the newest segment began.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// Signs a checkpoint over all entries, unless there is one. When it returns, it is on the disk.
    pub fn seal(&mut self) -> io::Result<()> {
        if self.signed == self.range.size() { Ok(()) } else { self.sign() }
    }

    /// Appends an entry. When it returns, it is on the disk; the next checkpoint vouches for it.
    pub fn append(&mut self, event: &str, actor: &str, outcome: Outcome, detail: Value) -> io::Result<u64> {
        self.append_all(vec![Record { event, actor, outcome, detail }])
    }

    /// Appends entries in one write; the index of the first.
    pub fn append_all(&mut self, records: Vec<Record<'_>>) -> io::Result<u64> {
        if self.torn {
            return Err(io::Error::other("the audit log ends in a torn line; restart to recover it"));
        }
        if self.share.is_full() {
            self.rotate()?;
        }
        let first = self.range.size();
        let at = Timestamp::now();
        let (mut lines, mut leaves, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut share = self.share;
        for Record { event, actor, outcome, detail } in records {
            let strangers = is_strangers(event);
            let detail = shown(detail, event);
            let (index, limit) =
                (first + leaves.len() as u64, if strangers { STRANGERS_LINE_BYTES } else { LINE_BYTES });
            let (event, actor) = (event.to_owned(), clean(actor, ACTOR_BYTES));
            let entry = Entry { v: 1, index, at, event, actor, outcome, detail };
            let mut line = serde_json::to_vec(&entry)?;
            if line.len() >= limit {
                let detail = shortened(&entry.detail, line.len());
                line = serde_json::to_vec(&Entry { detail, ..entry })?;
            }
            if strangers && !share.has_room_for_stranger(line.len() as u64 + 1) {
                self.untold = self.untold.saturating_add(1);
                continue;
            }
            share.add(line.len() as u64 + 1, strangers);
            leaves.push(leaf_hash(&line));
            lengths.push(line.len() as u64 + 1);
            lines.append(&mut line);
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(first);
        }
        if let Err(error) = vigil_durable::append("audit.append", &mut self.file, &lines) {
            // A full disk may have taken a part of them.
            self.torn = self.file.set_len(self.file_bytes).is_err();
            return Err(error);
        }
        let segment = self.marks.last_entry().map_or(0, |segment| *segment.key());
        let marks = self.marks.entry(segment).or_default();
        let mut at = self.file_bytes;
        for (index, length) in (first..).zip(&lengths) {
            if (index - segment).is_multiple_of(MARK_EVERY) {
                marks.push(at);
            }
            at += length;
        }
        self.file_bytes += lines.len() as u64;
        self.share = share;
        for leaf in leaves {
            self.range.append(leaf);
        }
        Ok(first)
    }

    fn sign(&mut self) -> io::Result<()> {
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), size: self.range.size(), root: self.range.root() };
        let note = checkpoint.sign(&self.key);
        let path = self.directory.join("checkpoint");
        vigil_durable::write("audit.checkpoint", &path, note.as_bytes(), Mode::Group)?;
        self.checkpoint = note;
        self.signed = checkpoint.size;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // What is dropped must not be all that the checkpoint is over.
        self.sign()?;
        let path = begin_segment(&self.directory, &self.range)?;
        self.file = vigil_durable::open(&path, OpenOptions::new().append(true))?;
        self.file_bytes = self.file.metadata()?.len();
        self.marks.insert(self.range.size(), Vec::new());
        self.share = Share::new(self.max_bytes / SEGMENTS);
        if let untold @ 1.. = std::mem::take(&mut self.untold) {
            let detail = json!({ "others_untold": untold });
            self.append("strangers.untold", "device", Outcome::Refused, detail)?;
        }
        let segments = segment::list(&self.directory)?;
        let excess = segments.len().saturating_sub(SEGMENTS as usize);
        for (first, path) in &segments[..excess] {
            vigil_durable::remove("audit.prune", path)?;
            self.marks.remove(first);
            let end = segments.get(excess).map_or(0, |(next, _)| *next);
            self.append(
                "audit.pruned",
                "device",
                Outcome::Success,
                json!({ "first": first, "kept_from": end }),
            )?;
        }
        Ok(())
    }

    /// At most `limit` entries from index `first` on.
    pub fn read(&self, first: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let segments = segment::list(&self.directory)?;
        let mut entries = Vec::new();
        for (position, (begin, path)) in segments.iter().enumerate() {
            let ends_before = segments.get(position + 1).is_some_and(|(next, _)| *next <= first);
            if ends_before {
                continue;
            }
            let mark = first.saturating_sub(*begin) / MARK_EVERY;
            let offset = self.marks.get(begin).and_then(|marks| marks.get(mark as usize));
            let (mut index, mut lines) = match offset {
                Some(offset) => (begin + mark * MARK_EVERY, Lines::at(path, *offset)?),
                None => (*begin, Lines::open(path)?.1),
            };
            while let Some(Line::Whole(line)) = lines.next()? {
                if entries.len() >= limit {
                    return Ok(entries);
                }
                if index >= first {
                    entries.push(serde_json::from_slice(&line)?);
                }
                index += 1;
            }
        }
        Ok(entries)
    }
}

/// Whose entries a segment holds.
fn share_of(path: &Path, segment_bytes: u64) -> io::Result<Share> {
    /// All that is asked of an entry here.
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        event: std::borrow::Cow<'a, str>,
    }
    let mut share = Share::new(segment_bytes);
    let (_, mut lines) = Lines::open(path)?;
    while let Some(Line::Whole(line)) = lines.next()? {
        let strangers =
            serde_json::from_slice::<Event<'_>>(&line).is_ok_and(|entry| is_strangers(&entry.event));
        share.add(line.len() as u64 + 1, strangers);
    }
    Ok(share)
}

fn begin_segment(directory: &Path, range: &CompactRange) -> io::Result<PathBuf> {
    let path = directory.join(segment::file_name(range.size()));
    vigil_durable::write("audit.segment", &path, &segment::header(range)?, Mode::Group)?;
    Ok(path)
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Hashes what is there and holds it against the checkpoint. `None` when there is no log yet.
fn recover(
    directory: &Path,
    origin: &str,
    key: &SigningKey,
    findings: &mut Vec<Finding>,
    marks: &mut Marks,
) -> io::Result<Option<(CompactRange, PathBuf)>> {
    let segments = segment::list(directory)?;
    let note = vigil_durable::read_bounded(&directory.join("checkpoint"), CHECKPOINT_BYTES as u64)?;
    let Some((_, last)) = segments.last() else {
        return if note.is_some() {
            Err(damaged("there is a checkpoint and no entries".to_owned()))
        } else {
            Ok(None)
        };
    };
    let checkpoint = match note {
        None => None,
        Some(note) => {
            let text =
                String::from_utf8(note).map_err(|_| damaged("the checkpoint is not text".to_owned()))?;
            let public = PublicKey::from(key.verifying_key());
            Some(
                Checkpoint::verify(&text, origin, &public)
                    .map_err(|error| damaged(format!("the checkpoint: {error}")))?,
            )
        }
    };
    let mut tree: Option<CompactRange> = None;
    let mut confirmed = checkpoint.is_none();
    for (_, path) in &segments {
        let (start, mut lines) = Lines::open(path)?;
        if tree.as_ref().is_some_and(|tree| *tree != start) {
            return Err(damaged(format!("{} does not continue the segment before it", path.display())));
        }
        let mut range = start;
        let begin = range.size();
        marks.entry(begin).or_default();
        let mut whole_bytes = segment::header(&range)?.len() as u64;
        loop {
            if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| checkpoint.size == range.size())
            {
                if checkpoint.root != range.root() {
                    return Err(damaged(format!("entries before {} were changed", checkpoint.size)));
                }
                confirmed = true;
            }
            match lines.next()? {
                None => break,
                Some(Line::Whole(line)) => {
                    if (range.size() - begin).is_multiple_of(MARK_EVERY) {
                        marks.entry(begin).or_default().push(whole_bytes);
                    }
                    range.append(leaf_hash(&line));
                    whole_bytes += line.len() as u64 + 1;
                }
                Some(Line::Torn) if path == last => {
                    let file = vigil_durable::open(path, OpenOptions::new().write(true))?;
                    file.set_len(whole_bytes)?;
                    vigil_turns::sync(|| file.sync_all())?;
                    findings.push(Finding::Recovered("a line that a power cut tore was removed".to_owned()));
                    break;
                }
                Some(Line::Torn) => return Err(damaged(format!("{} ends in a torn line", path.display()))),
            }
        }
        tree = Some(range);
    }
    let tree = tree.unwrap_or_default();
    if !confirmed {
        let size = checkpoint.map_or(0, |checkpoint| checkpoint.size);
        return Err(damaged(format!("the checkpoint is over {size} entries, the log has {}", tree.size())));
    }
    Ok(Some((tree, last.clone())))
}

fn put_aside(directory: &Path) -> io::Result<PathBuf> {
    let aside = (1..1000)
        .map(|number| directory.join(format!("damaged-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("too many damaged logs are kept; remove some"))?;
    std::fs::create_dir(&aside)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file()
            && let Some(name) = path.file_name()
        {
            std::fs::rename(&path, aside.join(name))?;
        }
    }
    vigil_durable::sync_directory_of(&aside.join("x"))?;
    vigil_durable::sync_directory_of(&aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{VerifyError, verify};

    const ORIGIN: &str = "vigil/v1/bar-1/audit";

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }
    fn public() -> PublicKey {
        PublicKey::from(key().verifying_key())
    }
    fn open(directory: &Path) -> (Log, Vec<Finding>) {
        Log::open(directory, ORIGIN, key(), 1024 * 1024).unwrap()
    }
    fn fill(log: &mut Log, count: usize) {
        for number in 0..count {
            log.append("test", "device", Outcome::Success, json!({ "number": number })).unwrap();
        }
    }
    fn segment_path(directory: &Path) -> PathBuf {
        directory.join(segment::file_name(0))
    }

    #[test]
    fn a_log_is_verified_from_its_first_entry_on_and_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, findings) = open(directory.path());
        assert_eq!(findings, []);
        fill(&mut log, 1);
        log.seal().unwrap();
        assert_eq!(verify(directory.path(), ORIGIN, &public()).unwrap().size, 1);
        drop(log);
        let (mut log, findings) = open(directory.path());
        assert_eq!(findings, []);
        fill(&mut log, 3);
        log.seal().unwrap();
        fill(&mut log, 1);
        let report = verify(directory.path(), ORIGIN, &public()).unwrap();
        assert_eq!((report.size, report.unsigned), (4, 1));
        log.seal().unwrap();
        let report = verify(directory.path(), ORIGIN, &public()).unwrap();
        assert_eq!((report.first, report.size), (0, 5));
        assert_eq!(log.read(3, 10).unwrap().len(), 2);
    }

    #[test]
    fn a_changed_entry_is_found_by_the_verifier_and_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        fill(&mut log, 3);
        log.seal().unwrap();
        drop(log);
        let path = segment_path(directory.path());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"number\":1", "\"number\":9")).unwrap();
        assert!(matches!(verify(directory.path(), ORIGIN, &public()), Err(VerifyError::Changed { .. })));
        let (log, findings) = open(directory.path());
        assert!(matches!(findings[..], [Finding::Damaged(_)]), "{findings:?}");
        assert_eq!(log.read(0, 9).unwrap()[0].event, "audit.damaged");
        assert!(directory.path().join("damaged-1/checkpoint").exists());
    }

    #[test]
    fn entries_cut_off_the_end_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        fill(&mut log, 3);
        log.seal().unwrap();
        drop(log);
        let path = segment_path(directory.path());
        let text = std::fs::read_to_string(&path).unwrap();
        let end = text.trim_end().rfind('\n').unwrap();
        std::fs::write(&path, &text[..=end]).unwrap();
        assert!(matches!(verify(directory.path(), ORIGIN, &public()), Err(VerifyError::Missing { .. })));
        assert!(matches!(open(directory.path()).1[..], [Finding::Damaged(_)]));
    }

    #[test]
    fn a_torn_line_and_an_entry_without_its_checkpoint_are_recovered() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        fill(&mut log, 2);
        log.seal().unwrap();
        fill(&mut log, 1);
        drop(log);
        // As if the power had been cut within the fourth entry, before there was a checkpoint over the third.
        let mut text = std::fs::read(segment_path(directory.path())).unwrap();
        text.extend_from_slice(b"{\"v\":1,\"ind");
        std::fs::write(segment_path(directory.path()), text).unwrap();
        let (log, findings) = open(directory.path());
        assert!(matches!(findings[..], [Finding::Recovered(_)]));
        assert_eq!(log.size(), 4);
        assert_eq!(verify(directory.path(), ORIGIN, &public()).unwrap().size, 4);
    }

    #[test]
    fn an_hour_of_every_strangers_flood_pushes_out_no_entry_of_ours_and_costs_a_bounded_share() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        log.append("operators.changed", "vigil-updaterd", Outcome::Success, json!({ "operators": ["olga"] }))
            .unwrap();
        // A forged command of 7,600 controls each 100 ms for an hour, among all that others can cause.
        let detail = json!({ "message": "\u{7f}".repeat(7600), "claimed_kind": "x".repeat(7600) });
        let events =
            ["command.refused", "updater.peer.nonsense", "refresh.failed", "link.lost", "local.refused"];
        for number in 0..36_000 {
            log.append(events[number % events.len()], "broker", Outcome::Refused, detail.clone()).unwrap();
        }
        log.append("command.accepted", "operator:olga", Outcome::Success, Value::Null).unwrap();
        assert!(log.untold() > 30_000);
        let entries = log.read(0, 10).unwrap();
        assert_eq!((entries[0].event.as_str(), entries[0].index), ("operators.changed", 0));
        assert!(serde_json::to_string(&entries[1]).unwrap().len() < STRANGERS_LINE_BYTES);
        let bytes = std::fs::metadata(segment_path(directory.path())).unwrap().len();
        assert!(bytes < 1024 * 1024 / 8 / 4 + 2048, "{bytes}");
        // A restart does not begin their share anew, and what could not be told is told when a segment is full.
        drop(log);
        let (mut log, findings) = open(directory.path());
        assert_eq!(findings, []);
        let size = log.size();
        log.append("command.refused", "broker", Outcome::Refused, detail).unwrap();
        assert_eq!((log.size(), log.untold()), (size, 1));
        fill(&mut log, 1500);
        log.seal().unwrap();
        assert!(log.read(size, 1500).unwrap().iter().any(|entry| entry.event == "strangers.untold"));
        assert_eq!(log.read(0, 1).unwrap()[0].event, "operators.changed");
        verify(directory.path(), ORIGIN, &public()).unwrap();
    }

    #[test]
    fn arguments_that_are_deep_or_huge_leave_the_log_readable_and_say_whose_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        let deep = (0..125).fold(Value::from(1), |value, _| Value::Array(vec![value]));
        let huge: Vec<Value> = (0..6000).map(|_| Value::from(1e15)).collect();
        for args in [deep, huge.into()] {
            let detail = json!({ "id": "c-1", "kind": "ping", "args": { "a": args } });
            log.append("command.accepted", "operator:olga", Outcome::Success, detail).unwrap();
        }
        let entries = log.read(0, 10).unwrap();
        assert!(entries.iter().all(|entry| entry.detail["id"] == "c-1" && entry.detail["kind"] == "ping"));
        assert!(entries[1].detail["omitted_bytes"].as_u64().unwrap() > 64 * 1024);
        let answer = json!({ "entries": entries }).to_string();
        serde_json::from_str::<Value>(&answer).unwrap();
    }

    #[test]
    fn a_page_from_any_entry_on_is_the_same_before_and_after_a_restart_and_over_segments() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Log::open(directory.path(), ORIGIN, key(), 512 * 1024).unwrap().0;
        let mut log = open();
        fill(&mut log, 1500);
        let pages = |log: &Log| -> Vec<Vec<u64>> {
            let page = |first| log.read(first, 3).unwrap().iter().map(|entry| entry.index).collect();
            (0..log.size()).step_by(61).map(page).collect()
        };
        let before = pages(&log);
        assert!(segment::list(directory.path()).unwrap().len() > 1);
        for (page, first) in before.iter().zip((0..log.size()).step_by(61)) {
            let expected: Vec<_> = (first..log.size()).take(3).collect();
            assert_eq!(*page, expected);
        }
        drop(log);
        assert_eq!(pages(&open()), before);
    }

    #[test]
    fn a_log_that_grows_drops_its_oldest_segments_and_is_still_verified() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path(), ORIGIN, key(), 16 * 1024).unwrap();
        fill(&mut log, 200);
        log.seal().unwrap();
        let report = verify(directory.path(), ORIGIN, &public()).unwrap();
        assert!(report.first > 0 && report.size > 200);
        let bytes: u64 =
            std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 24 * 1024, "{bytes}");
        drop(log);
        let (log, findings) = Log::open(directory.path(), ORIGIN, key(), 16 * 1024).unwrap();
        assert_eq!((log.size(), findings.len()), (report.size, 0));
    }
}
