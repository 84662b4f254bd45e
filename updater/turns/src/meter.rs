//! The meter of one thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The upper bounds of the classes, in microseconds and in bytes; one more class holds what is above.
const MICROS: [u64; 8] = [100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000];
const BYTES: [u64; 5] = [0, 4 << 10, 64 << 10, 256 << 10, 1 << 20];
/// The file is written anew so often at most, unless there is a new worst turn.
const WRITE: Duration = Duration::from_millis(250);
/// So many looks at the clocks are kept, to tell what a timer waited for.
const LOOKS: usize = 64;
/// A file of `/proc` that is read has no more.
const PROC_BYTES: usize = 512;

/// The clocks at one moment.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    /// Waited for a processor so far.
    waited: Duration,
    /// Waited for the disk so far.
    synced: Duration,
}

/// What is known of the turns of one kind.
#[derive(Default)]
struct Row {
    micros: [u64; MICROS.len() + 1],
    bytes: [u64; BYTES.len() + 1],
    worst_micros: u64,
    /// Read and written in the turn that moved most.
    most: [u64; 2],
}

pub(super) struct Meter {
    program: String,
    file: File,
    schedstat: File,
    io: File,
    turn: Option<(&'static str, Look, [u64; 2])>,
    /// Waits for the disk so far, what was waited for a processor meanwhile left out.
    synced: Duration,
    looks: VecDeque<Look>,
    rows: BTreeMap<&'static str, Row>,
    written: Option<Instant>,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

pub(super) fn with(work: impl FnOnce(&mut Meter)) {
    METER.with_borrow_mut(|meter| meter.as_mut().map(work));
}

pub(super) fn open(program: &str) {
    let directory = std::env::var_os("VIGIL_TURNS").filter(|directory| !directory.is_empty());
    let Some(directory) = directory.map(PathBuf::from) else { return };
    // What the program consists of is read from the disk now, and not when a turn happens to need it.
    let _ = File::open("/proc/self/exe").and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
    let process = std::process::id();
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let meter = File::create(directory.join(format!("{program}-{process}-{began}"))).and_then(|file| {
        Ok(Meter {
            program: program.to_owned(),
            file,
            schedstat: File::open("/proc/thread-self/schedstat")?,
            io: File::open("/proc/thread-self/io")?,
            turn: None,
            synced: Duration::ZERO,
            looks: VecDeque::with_capacity(LOOKS),
            rows: BTreeMap::new(),
            written: None,
        })
    });
    match meter {
        Ok(meter) => METER.set(Some(meter)),
        Err(error) => eprintln!("{program}: its turns are not measured: {error}"),
    }
}

pub(super) fn synced<T>(work: impl FnOnce() -> T) -> T {
    let mut before = None;
    with(|meter| before = Some(meter.look()));
    let result = work();
    with(|meter| {
        let after = meter.look();
        if let Some(before) = before {
            meter.synced += (after.at - before.at).saturating_sub(after.waited.saturating_sub(before.waited));
        }
    });
    result
}

impl Meter {
    fn look(&self) -> Look {
        let at = Instant::now();
        let nanos = self::words(&self.schedstat).nth(1).unwrap_or_default();
        Look { at, waited: Duration::from_nanos(nanos), synced: self.synced }
    }

    /// Bytes read from devices and written so far. The kernel's own figure of what goes to devices counts whole folios: 256 KiB
    /// for a line in a log.
    fn bytes(&self) -> [u64; 2] {
        moved(&self.io)
    }

    fn remember(&mut self, look: Look) {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    pub(super) fn begin(&mut self, kind: &'static str) {
        let look = self.look();
        self.remember(look);
        self.turn = Some((kind, look, self.bytes()));
    }

    pub(super) fn name(&mut self, kind: &'static str) {
        if let Some(turn) = &mut self.turn {
            turn.0 = kind;
        }
    }

    pub(super) fn end(&mut self) {
        let Some((kind, before, bytes)) = self.turn.take() else { return };
        let after = self.look();
        self.remember(after);
        let now = self.bytes();
        self.count(kind, took(before, after), [now[0] - bytes[0], now[1] - bytes[1]]);
    }

    pub(super) fn late(&mut self, by: Duration) {
        let now = self.look();
        let due = now.at.checked_sub(by).unwrap_or(now.at);
        // What was waited for since the last look before it was due explains as much of it.
        let excused = self
            .looks
            .iter()
            .rev()
            .find(|look| look.at <= due)
            .map_or(Duration::ZERO, |before| excused(*before, now));
        self.count("timer, late by", by.saturating_sub(excused), [0; 2]);
    }

    fn count(&mut self, kind: &'static str, took: Duration, moved: [u64; 2]) {
        let (micros, bytes) = (took.as_micros() as u64, moved.iter().sum());
        let row = self.rows.entry(kind).or_default();
        row.micros[MICROS.partition_point(|bound| *bound < micros)] += 1;
        row.bytes[BYTES.partition_point(|bound| *bound < bytes)] += 1;
        let is_most = bytes > row.most.iter().sum();
        let is_worst = micros > row.worst_micros || is_most;
        row.worst_micros = row.worst_micros.max(micros);
        if is_most {
            row.most = moved;
        }
        let now = Instant::now();
        if is_worst || self.written.is_none_or(|written| now - written >= WRITE) {
            self.written = Some(now);
            self.write();
        }
    }

    /// A process may be killed at any moment: what it has found out so far is in its file.
    fn write(&self) {
        let mut text = String::new();
        for (kind, row) in &self.rows {
            let list = |counts: &[u64]| counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let _ = writeln!(
                text,
                "{}\t{kind}\t{}\t{}\t{}\t{}\t{}",
                self.program,
                list(&row.micros),
                row.worst_micros,
                list(&row.bytes),
                row.most[0],
                row.most[1]
            );
        }
        // It only ever grows: what was there before is overwritten whole.
        let _ = self.file.write_all_at(text.as_bytes(), 0);
    }
}

/// Wall time less the waits for a processor and for the disk.
fn took(before: Look, after: Look) -> Duration {
    (after.at - before.at).saturating_sub(excused(before, after))
}

/// The waits for a processor and for the disk between them.
fn excused(before: Look, after: Look) -> Duration {
    after.waited.saturating_sub(before.waited) + after.synced.saturating_sub(before.synced)
}

/// Of a file like `/proc/self/io`: rchar, wchar, syscr, syscw, read_bytes, write_bytes, cancelled_write_bytes; see
/// proc_pid_io(5).
fn moved(io: &File) -> [u64; 2] {
    let words: Vec<_> = words(io).collect();
    [4, 1].map(|at| words.get(at).copied().unwrap_or_default())
}

/// The numbers in a file of `/proc`.
fn words(file: &File) -> impl Iterator<Item = u64> {
    let mut buffer = [0; PROC_BYTES];
    let count = file.read_at(&mut buffer, 0).unwrap_or_default();
    let numbers: Vec<u64> = buffer[..count]
        .split(|byte| !byte.is_ascii_digit())
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
        .collect();
    numbers.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_turn_is_wall_time_less_the_waits_for_a_processor_and_the_disk() {
        let at = Instant::now();
        let before = Look { at, waited: 10 * MS, synced: 5 * MS };
        let after = Look { at: at + 100 * MS, waited: 40 * MS, synced: 25 * MS };
        assert_eq!(took(before, after), 50 * MS);
    }

    #[test]
    fn the_bytes_of_a_thread_are_what_it_reads_from_devices_and_what_it_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io");
        std::fs::write(
            &path,
            "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 7\n",
        )
        .unwrap();
        assert_eq!(moved(&File::open(&path).unwrap()), [4096, 2]);
    }
}
