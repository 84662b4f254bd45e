//! The updater's own numbered list of what it did. `vigild` copies it into the audit log; since the numbers have no
//! gaps, an entry that was withheld shows. A line of JSON each; the file before the current one is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use vigil_durable::Share;
use vigil_wire::Event;

/// A file's bytes before the next one begins.
const FILE_BYTES: u64 = 256 * 1024;
/// The kinds that a stranger can cause as often as he likes: whoever answers for the repository, a peer at the socket, or a
/// `vigild` that is not its own master any more.
const STRANGERS: [&str; 8] = [
    "control.refused",
    "fetch.failed",
    "install.refused",
    "metadata.refused",
    "patch.missing",
    "peer.nonsense",
    "peer.refused",
    "trust.problem",
];

/// Whether strangers can cause an event of this kind.
pub fn is_strangers(kind: &str) -> bool {
    STRANGERS.contains(&kind)
}
/// A page of events: half of what a header may have, since what is in them grows when it is escaped.
const PAGE_BYTES: usize = vigil_wire::HEADER_BYTES / 4;

/// The list.
#[derive(Debug)]
pub struct Events {
    directory: PathBuf,
    file: File,
    share: Share,
    last: u64,
}

impl Events {
    /// Opens the list, dropping a line that a power cut tore.
    pub fn open(state: &Path) -> io::Result<Self> {
        let current = state.join("events.jsonl");
        let (mut last, _, _) = read_through(&state.join("events.old.jsonl"))?;
        let (number, whole_bytes, share) = read_through(&current)?;
        last = last.max(number);
        let file = open(&current)?;
        if file.metadata()?.len() > whole_bytes {
            file.set_len(whole_bytes)?;
            vigil_turns::sync(|| file.sync_all())?;
        }
        vigil_durable::sync_directory_of(&current)?;
        Ok(Self { directory: state.to_owned(), file, share, last })
    }

    /// The newest number, 0 when there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends an event, durably. One that strangers cause is passed over when they have had their share of the file.
    pub fn append(&mut self, at_seconds: i64, kind: &str, message: &str) -> io::Result<()> {
        if self.share.is_full() {
            self.rotate()?;
        }
        let number = self.last + 1;
        let event = Event { number, at_seconds, kind: kind.to_owned(), message: message.into() };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        if is_strangers(kind) && !self.share.has_room_for_stranger(line.len() as u64) {
            return Ok(());
        }
        let before = self.file.metadata()?.len();
        if let Err(error) = vigil_durable::append("events.append", &mut self.file, &line) {
            // A full disk may have taken half a line; the next append must not continue it.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.share.add(line.len() as u64, is_strangers(kind));
        self.last = number;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let current = self.directory.join("events.jsonl");
        std::fs::rename(&current, self.directory.join("events.old.jsonl"))?;
        self.file = open(&current)?;
        self.share = Share::new(FILE_BYTES);
        vigil_durable::sync_directory_of(&current)
    }

    /// At most `limit` events after the one numbered `after`, oldest first, and no more than fit into a page.
    pub fn after(&self, after: u64, limit: usize) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut bytes = 0;
        for name in ["events.old.jsonl", "events.jsonl"] {
            for event in lines(&self.directory.join(name))? {
                let (event, length) = event?;
                if event.number <= after {
                    continue;
                }
                bytes += length as usize;
                if events.len() >= limit || (bytes > PAGE_BYTES && !events.is_empty()) {
                    return Ok(events);
                }
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// The number of the last whole line, where it ends, and whose the lines are.
fn read_through(path: &Path) -> io::Result<(u64, u64, Share)> {
    let (mut number, mut end, mut share) = (0, 0, Share::new(FILE_BYTES));
    for line in lines(path)? {
        let Ok((event, length)) = line else { break };
        number = event.number;
        end += length;
        share.add(length, is_strangers(&event.kind));
    }
    Ok((number, end, share))
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open(path: &Path) -> io::Result<File> {
    vigil_durable::open(path, OpenOptions::new().create(true).append(true).mode(0o600)).map_err(named(path))
}

fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<(Event, u64)>>> {
    let file = match vigil_durable::open(path, OpenOptions::new().read(true)).map_err(named(path)) {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut file = file;
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match file.as_mut()?.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) if line.ends_with(b"\n") => match serde_json::from_slice(&line) {
                Ok(event) => Some(Ok((event, line.len() as u64))),
                Err(error) => {
                    file = None;
                    Some(Err(error.into()))
                }
            },
            Ok(_) => None,
            Err(error) => {
                file = None;
                Some(Err(error))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flood_of_a_stranger_pushes_out_an_event_of_ours_or_stops_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = Events::open(directory.path()).unwrap();
        events.append(1, "state.confirmed", "release 2.0.0").unwrap();
        for number in 0..10_000 {
            events
                .append(2, STRANGERS[number % STRANGERS.len()], &format!("{number} {}", "x".repeat(400)))
                .unwrap();
        }
        events.append(3, "state.rolled_back", "gate").unwrap();
        let bytes: u64 = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < FILE_BYTES / 4 + 1000, "{bytes}");
        // A restart does not begin their share anew.
        let mut events = Events::open(directory.path()).unwrap();
        let last = events.last();
        events.append(4, "peer.nonsense", &"x".repeat(400)).unwrap();
        assert_eq!(events.last(), last);
        let all = events.after(0, 10).unwrap();
        assert_eq!((all[0].kind.as_str(), all[0].number), ("state.confirmed", 1));
        assert_eq!(events.after(last - 1, 10).unwrap()[0].kind, "state.rolled_back");
    }

    #[test]
    fn a_page_of_events_fits_into_an_answer_whatever_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = Events::open(directory.path()).unwrap();
        for number in 0..2000 {
            let text = ["\"\\".repeat(400), "\u{7f}".repeat(4000), "ü".repeat(4000)][number % 3].clone();
            events.append(1, "state.idle", &text).unwrap();
        }
        let (mut seen, mut pages) = (events.after(0, 1).unwrap()[0].number - 1, 0);
        while seen < events.last() {
            let page = events.after(seen, 100).unwrap();
            seen = page.last().unwrap().number;
            vigil_wire::encode(&vigil_wire::Response::Events { events: page }, &[]).unwrap();
            pages += 1;
        }
        assert!(pages > 1);
    }

    #[test]
    fn numbers_go_on_after_a_restart_a_torn_line_and_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = Events::open(directory.path()).unwrap();
        events.append(1, "state", "first").unwrap();
        drop(events);
        let path = directory.path().join("events.jsonl");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"number\":2,\"at_sec");
        std::fs::write(&path, torn).unwrap();
        let mut events = Events::open(directory.path()).unwrap();
        events.append(2, "state", "second").unwrap();
        let long = "x".repeat(2000);
        for _ in 0..600 {
            events.append(3, "state", &long).unwrap();
        }
        assert!(directory.path().join("events.old.jsonl").exists());
        let events = Events::open(directory.path()).unwrap();
        assert_eq!(events.last(), 602);
        let page = events.after(599, 2).unwrap();
        assert_eq!(page.iter().map(|event| event.number).collect::<Vec<_>>(), [600, 601]);
    }
}
