//! Waits for the disk beside the work: while one frame is being flushed the next one is received and decoded.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::warn;

/// The thread calls fdatasync and nothing else.
const STACK_BYTES: usize = 64 * 1024;

/// One flush under way at most. Its thread begins with the first one and ends with this value.
#[derive(Debug, Default)]
pub struct Flusher {
    thread: Option<Thread>,
    state: State,
}

#[derive(Debug)]
struct Thread {
    files: SyncSender<Arc<File>>,
    results: Receiver<io::Result<()>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    UnderWay,
    /// Done at once, since there is no thread.
    Done(io::Result<()>),
}

impl Flusher {
    /// Begins to flush `file`. What is under way is waited for first, and its error told here.
    pub fn begin(&mut self, file: &Arc<File>) -> io::Result<()> {
        self.wait()?;
        if self.thread.is_none() {
            self.thread = Thread::start().inspect_err(|error| warn!(%error, "flushing in turns")).ok();
        }
        let sent = self.thread.as_ref().is_some_and(|thread| thread.files.send(Arc::clone(file)).is_ok());
        self.state = if sent { State::UnderWay } else { State::Done(vigil_turns::sync(|| file.sync_data())) };
        Ok(())
    }

    /// Waits until what was begun is on the disk.
    pub fn wait(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.state) {
            State::Idle => Ok(()),
            State::Done(result) => result,
            State::UnderWay => {
                match self.thread.as_ref().map(|thread| vigil_turns::sync(|| thread.results.recv())) {
                    Some(Ok(result)) => result,
                    _ => Err(io::Error::other("the flush was lost")),
                }
            }
        }
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (files, to_flush) = sync_channel::<Arc<File>>(1);
        let (tell, results) = sync_channel(1);
        std::thread::Builder::new().name("flush".into()).stack_size(STACK_BYTES).spawn(move || {
            for file in to_flush {
                let result = file.sync_data();
                drop(file);
                if tell.send(result).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { files, results })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_flush_is_told_to_whoever_waits_and_only_once() {
        let mut flusher = Flusher::default();
        flusher.wait().unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        flusher.begin(&file).unwrap();
        flusher.wait().unwrap();
        // A pipe cannot be flushed.
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        flusher.begin(&pipe).unwrap();
        assert!(flusher.begin(&file).is_err());
        flusher.begin(&file).unwrap();
        flusher.wait().unwrap();
    }
}
