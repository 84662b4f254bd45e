//! The updater's own numbered list of what it did. `vigild` copies it into the audit log; since the numbers have no
//! gaps, an entry that was withheld shows. A line of JSON each; the file before the current one is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use vigil_wire::Event;

/// A file's bytes before the next one begins.
const FILE_BYTES: u64 = 256 * 1024;
const MESSAGE_BYTES: usize = 500;

/// The list.
#[derive(Debug)]
pub struct Events {
    directory: PathBuf,
    file: File,
    last: u64,
}

impl Events {
    /// Opens the list, dropping a line that a power cut tore.
    pub fn open(state: &Path) -> io::Result<Self> {
        let current = state.join("events.jsonl");
        let mut last = last_number(&state.join("events.old.jsonl"))?.0;
        let (number, whole_bytes) = last_number(&current)?;
        last = last.max(number);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&current)?;
        if file.metadata()?.len() > whole_bytes {
            file.set_len(whole_bytes)?;
            file.sync_all()?;
        }
        vigil_durable::sync_directory_of(&current)?;
        Ok(Self { directory: state.to_owned(), file, last })
    }

    /// The newest number, 0 when there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends an event, durably.
    pub fn append(&mut self, at_seconds: i64, kind: &str, message: &str) -> io::Result<()> {
        if self.file.metadata()?.len() >= FILE_BYTES {
            self.rotate()?;
        }
        let end = message.floor_char_boundary(MESSAGE_BYTES);
        let number = self.last + 1;
        let event = Event { number, at_seconds, kind: kind.to_owned(), message: message[..end].to_owned() };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        let before = self.file.metadata()?.len();
        if let Err(error) = vigil_durable::append("events.append", &mut self.file, &line) {
            // A full disk may have taken half a line; the next append must not continue it.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.last = number;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let current = self.directory.join("events.jsonl");
        std::fs::rename(&current, self.directory.join("events.old.jsonl"))?;
        self.file = OpenOptions::new().create(true).append(true).mode(0o600).open(&current)?;
        vigil_durable::sync_directory_of(&current)
    }

    /// At most `limit` events after the one numbered `after`, oldest first.
    pub fn after(&self, after: u64, limit: usize) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for name in ["events.old.jsonl", "events.jsonl"] {
            for event in lines(&self.directory.join(name))? {
                let (event, _) = event?;
                if event.number > after && events.len() < limit {
                    events.push(event);
                }
            }
        }
        Ok(events)
    }
}

/// The number of the last whole line, and where it ends.
fn last_number(path: &Path) -> io::Result<(u64, u64)> {
    let mut last = (0, 0);
    for line in lines(path)? {
        let Ok((event, length)) = line else { break };
        last = (event.number, last.1 + length);
    }
    Ok(last)
}

fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<(Event, u64)>>> {
    let file = match File::open(path) {
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
