//! A program of the image that runs beside the loop: what it says is read as it comes, up to a bound, and when it has ended
//! or its time is up, it and all that it has started are ended as a group. Nothing here waits.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, kill_process_group,
    set_child_subreaper, waitid, waitpid,
};
use vigil_text::Text;

/// Of what a program says on its standard error, the first bytes are kept.
const SAID_BYTES: usize = 400;
/// Read at a time, and at most so often in one look: a program that talks without an end must not hold the loop.
const READ_BYTES: usize = 16 * 1024;
const READS: usize = 16;
/// Of the kernel's list of a process's children.
const CHILDREN_BYTES: u64 = 64 * 1024;
/// How often a running program is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Why a program did not succeed: what it said, or how it ended.
pub(super) type Said = Text<SAID_BYTES>;

/// A program that runs.
pub(super) struct Run {
    child: Child,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    until: Duration,
    ended: bool,
}

impl Run {
    /// Starts `command` in a process group of its own, until `until` of the boot clock at the latest.
    pub(super) fn start(mut command: Command, until: Duration) -> io::Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn()?;
        running(|running| running.insert(child.id()));
        let mut run = Self { child, stderr: None, said: Vec::new(), until, ended: false };
        run.stderr = run.child.stderr.take();
        if let Some(stderr) = &run.stderr {
            fcntl_setfl(stderr, fcntl_getfl(stderr)? | OFlags::NONBLOCK)?;
        }
        Ok(run)
    }

    /// How it ended, if it has; one whose time is up is ended.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Result<(), Said>> {
        self.drain();
        match self.has_exited() {
            Ok(false) if now < self.until => None,
            Ok(false) => {
                self.end();
                Some(Err("no answer in time".into()))
            }
            Ok(true) => {
                // The last words may have come between the two looks.
                self.drain();
                self.end();
                let status = match self.child.try_wait() {
                    Ok(Some(status)) if status.success() => return Some(Ok(())),
                    Ok(Some(status)) => status.to_string(),
                    Ok(None) => "it did not end".to_owned(),
                    Err(error) => error.to_string(),
                };
                let said = String::from_utf8_lossy(&self.said);
                let said = said.trim().replace('\n', "; ");
                Some(Err(Said::new(if said.is_empty() { &status } else { &said })))
            }
            Err(error) => {
                self.end();
                Some(Err(Said::new(&error.to_string())))
            }
        }
    }

    fn drain(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS {
            match stderr.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let room = SAID_BYTES.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing just now, or nothing any more.
                Err(_) => break,
            }
        }
    }

    /// Whether the program itself has ended. Its number stays its own until it is waited for.
    fn has_exited(&self) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }

    /// Ends whatever is left of the group, before its number can be another's.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        // A killed process is gone at once, unless it waits for a device; then it is left to init.
        let _ = self.child.try_wait();
        running(|running| running.remove(&self.child.id()));
        end_orphans();
    }
}

/// The programs that run just now.
fn running(work: impl FnOnce(&mut BTreeSet<u32>) -> bool) {
    static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    work(&mut RUNNING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Ends what has left its group to outlive it: whoever has lost its parent is this process's child, where this process has asked
/// for that ([`adopt_orphans`]).
fn end_orphans() {
    if !ADOPTS.load(Ordering::Relaxed) {
        return;
    }
    let list = vigil_durable::read_bounded(Path::new("/proc/thread-self/children"), CHILDREN_BYTES);
    let list = String::from_utf8(list.ok().flatten().unwrap_or_default()).unwrap_or_default();
    running(|running| {
        let orphans =
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| !running.contains(pid));
        for pid in orphans.filter_map(|pid: u32| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        false
    });
}

static ADOPTS: AtomicBool = AtomicBool::new(false);

/// Has whatever outlives its parent become this process's child, so that a check or a hook leaves nothing behind. For a process
/// that starts no programs but by [`Run`].
pub fn adopt_orphans() {
    ADOPTS.store(set_child_subreaper(Some(getpid())).is_ok(), Ordering::Relaxed);
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    /// Looks until it has ended, and says how long the longest look took.
    fn outcome(script: &str, limit: Duration) -> (Result<(), String>, Duration) {
        let began = Instant::now();
        let mut run = Run::start(shell(script), limit).unwrap();
        let mut longest = Duration::ZERO;
        loop {
            let look = Instant::now();
            let result = run.poll(began.elapsed());
            longest = longest.max(look.elapsed());
            if let Some(result) = result {
                return (result.map_err(|said| said.to_string()), longest);
            }
            std::thread::yield_now();
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_grandchild_that_keeps_the_pipe_holds_nobody_up_and_is_ended_with_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("pid");
        let script = format!("sleep 40 & echo $! >{}; echo x >&2; exit 1", mark.display());
        let (result, longest) = outcome(&script, LONG);
        assert_eq!(result, Err("x".to_owned()));
        assert!(longest < Duration::from_secs(5), "{longest:?}");
        let pid: i32 = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
        // It is gone soon, or waits as a zombie for whoever adopted it.
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let until = Instant::now() + LONG;
        while !(stat().is_empty() || stat().contains(") Z")) {
            assert!(Instant::now() < until, "{}", stat());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_talks_much_and_is_well_is_well() {
        let (result, _) = outcome("head -c 300000 /dev/zero | tr '\\0' x >&2", LONG);
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn what_is_said_is_bounded_and_free_of_controls() {
        let (result, _) = outcome("printf 'bad \\033[31mlens\\n%0500d' 1 >&2; exit 3", LONG);
        let said = result.unwrap_err();
        assert!(said.starts_with("bad \u{fffd}[31mlens; 000") && said.len() <= SAID_BYTES, "{said}");
    }

    #[test]
    fn a_program_whose_time_is_up_is_ended() {
        let (result, longest) = outcome("exec sleep 60", Duration::from_millis(50));
        assert_eq!(result, Err("no answer in time".to_owned()));
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    }

    #[test]
    fn a_program_without_words_is_told_by_its_exit_code() {
        assert_eq!(outcome("exit 7", LONG).0, Err("exit status: 7".to_owned()));
    }
}
