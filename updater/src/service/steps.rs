//! Takes the engine's steps, one at a time.

use std::io;
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::gate::{GateRun, GateState};
use super::{Pause, Updater};
use crate::engine::{Event, Now, Step, cause};
use crate::slot::Part;

/// After an error that may pass, such as a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// How often a running check of the gate is looked at.
const GATE_POLL: Duration = Duration::from_millis(100);

impl Updater {
    /// Takes the next step if it is this process's own to take, and says how long it may sleep.
    pub(super) fn work(&mut self, now: Now) -> Pause {
        if let Some(time) = self.retry_at {
            if now.boot < time {
                return Pause::Until(time);
            }
            self.retry_at = None;
        }
        let result = self.tell(now, Event::Tick).and_then(|()| self.take(now));
        match result {
            Ok(pause) => pause,
            Err(error) if self.engine.is_reverting() => {
                // Going back must not depend on a disk that may be full: the bootloader's variables are what
                // counts, and the next start understands them without the journal.
                warn!(%error, "going back without the journal");
                self.pending.clear();
                self.take(now).unwrap_or(Pause::Until(now.boot + RETRY))
            }
            Err(error) => {
                warn!(%error, "tried again in a second");
                self.retry_at = Some(now.boot + RETRY);
                Pause::Until(now.boot + RETRY)
            }
        }
    }

    fn take(&mut self, now: Now) -> io::Result<Pause> {
        let event = match self.engine.next(now) {
            Step::Rest => return Ok(self.until_deadline()),
            Step::WaitUntil(time) => return Ok(Pause::Until(time)),
            // The courier's to do: it asks.
            Step::Refresh
            | Step::FetchManifest { .. }
            | Step::FetchIndex { .. }
            | Step::FetchFrames { .. } => {
                return Ok(self.until_deadline());
            }
            Step::RunGate => return self.run_gate(now),
            Step::Proceed => Event::Proceed,
            Step::Exclude { slot } => {
                let order = self.read_boot().map(|reading| reading.order.without(&slot));
                match order.and_then(|order| self.boot.write("boot.exclude", &order)) {
                    Ok(()) => Event::Excluded,
                    Err(error) => failed(cause::BOOT_CONTROL, &error),
                }
            }
            Step::PutFirst { slot } => {
                let order = self.read_boot().map(|reading| reading.order.first(&slot));
                match order.and_then(|order| self.boot.write("boot.put_first", &order)) {
                    Ok(()) => Event::PutFirst,
                    Err(error) => failed(cause::BOOT_CONTROL, &error),
                }
            }
            Step::MarkGood { slot } => {
                let reading = self.read_boot()?;
                let refilled = reading.order.clone().refilled(&slot);
                // What was damaged is repaired by this, too.
                if refilled != reading.order || reading.damage.is_some() {
                    self.boot.write("boot.mark_good", &refilled)?;
                }
                Event::MarkedGood
            }
            Step::Revert { to, from } => {
                let order = self.read_boot().map(|reading| reading.order).unwrap_or_default();
                self.boot.write("boot.revert", &order.first(&to).without(&from))?;
                Event::Reverted
            }
            Step::Reboot => {
                self.reboot();
                Event::RebootAsked
            }
            Step::Reload => {
                let journal = self.engine.journal();
                let hash = journal.install.as_ref().and_then(|install| install.manifest_sha256.as_deref());
                Event::Reloaded(hash.and_then(|hash| self.stash.load(hash)).map(Box::new))
            }
            Step::Inspect { image, frame } => match self.frame_matches(image, frame) {
                Ok(matches) => Event::Inspected { image, frame, matches },
                Err(error) => failed(cause::SLOT, &error),
            },
            Step::ReadBack { image, frame } => match self.frame_matches(image, frame) {
                Ok(matches) => Event::ReadBack { image, frame, matches },
                Err(error) => failed(cause::SLOT, &error),
            },
            Step::CompareImage { image } => {
                let wanted = self.engine.work().map(|work| work.manifest().images[image].sha256.clone());
                let hash = std::mem::take(&mut self.image_hash).finalize();
                Event::ImageHash { image, matches: wanted == Some(HEXLOWER.encode(&hash)) }
            }
        };
        self.tell(now, event)?;
        Ok(Pause::None)
    }

    fn until_deadline(&self) -> Pause {
        self.engine.deadline().map_or(Pause::Forever, Pause::Until)
    }

    /// Reads a frame of the target slot from the disk and holds it against the index. Keeps the image's hash up.
    fn frame_matches(&mut self, image: usize, frame: usize) -> io::Result<bool> {
        self.open_parts()?;
        let Some((index, part)) =
            self.engine.work().and_then(|work| work.index(image)).zip(self.parts.get(image))
        else {
            return Err(io::Error::other("there is no such image"));
        };
        let (offset, length) = index.extent(frame);
        let mut bytes = vec![0; length as usize];
        part.read_back(offset, &mut bytes)?;
        if frame == 0 {
            self.image_hash = Sha256::default();
        }
        self.image_hash.update(&bytes);
        Ok(Sha256::digest(&bytes).as_slice() == index.frames()[frame].sha256)
    }

    /// Opens the parts of the target slot and sees that the images fit.
    pub(super) fn open_parts(&mut self) -> io::Result<()> {
        let (Some(work), Some(install)) = (self.engine.work(), &self.engine.journal().install) else {
            return Ok(());
        };
        if self.parts.len() == work.manifest().images.len() {
            return Ok(());
        }
        let slot = self.config.slot(&install.target);
        let mut parts = Vec::new();
        for image in &work.manifest().images {
            let path = slot.and_then(|slot| slot.parts.get(&image.name));
            let path =
                path.ok_or_else(|| io::Error::other(format!("the slot has no part {:?}", image.name)))?;
            let part = Part::open(path)?;
            if part.size() < image.size {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("{}: {} bytes, the image has {}", path.display(), part.size(), image.size),
                ));
            }
            parts.push(part);
        }
        self.parts = parts;
        Ok(())
    }

    fn run_gate(&mut self, now: Now) -> io::Result<Pause> {
        let gate = self.gate.get_or_insert_with(|| GateRun::new(&self.config.gate));
        let result = match gate.poll(now.boot) {
            GateState::Running => {
                let poll = now.boot + GATE_POLL;
                return Ok(Pause::Until(self.engine.deadline().map_or(poll, |deadline| deadline.min(poll))));
            }
            GateState::Passed => Ok(()),
            GateState::Failed(why) => Err(why),
        };
        self.gate = None;
        self.tell(now, Event::Gate(result))?;
        Ok(Pause::None)
    }

    fn reboot(&mut self) {
        let command = self.config.reboot.clone();
        self.note("reboot", &command.join(" "));
        let status = std::process::Command::new(&command[0]).args(&command[1..]).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => warn!(%status, "the restart was refused; it is asked for again"),
            Err(error) => {
                warn!(%error, program = command[0], "the restart could not be asked for; tried again");
            }
        }
    }
}

fn failed(cause: &'static str, error: &io::Error) -> Event {
    Event::Failed { cause, message: error.to_string() }
}
