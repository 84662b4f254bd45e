//! Takes the engine's steps, one at a time.

use std::io;
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::child::{LOOK, Run};
use super::gate::{GateRun, GateState};
use super::make::PIECE;
use super::{Pause, Updater};
use crate::config::Place;
use crate::engine::{Event, Now, Step, Work, cause};
use crate::slot::{HEAD_BYTES, Part};

/// After an error that may pass, such as a full disk: the first pause, and the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// A boot order that cannot be put back is tried again so often, and after so long the device restarts to go back.
const STUCK_RETRY: Duration = Duration::from_secs(5);
const STUCK: Duration = Duration::from_secs(60);
/// Whoever is asked for a restart has this long to say that it will come.
const REBOOT_PATIENCE: Duration = Duration::from_secs(60);

impl Updater {
    /// Takes the next step if it is this process's own to take, and says how long it may sleep.
    pub(super) fn work(&mut self, now: Now) -> Pause {
        if let Some(time) = self.retry_at {
            if now.boot < time {
                return Pause::Until(time);
            }
            self.retry_at = None;
        }
        self.turn.renew();
        let rebooting = self.look_at_reboot(now);
        let result = self.tell(now, Event::Tick).and_then(|()| self.take(now));
        let result = result.map(|pause| rebooting.map_or(pause, |look| pause.at_most(look)));
        match result {
            Ok(pause) => {
                self.retries = 0;
                pause
            }
            Err(error) if self.engine.is_reverting() => {
                // Going back must not depend on a disk that may be full: the bootloader's variables are what
                // counts, and the next start understands them without the journal.
                warn!(%error, "going back without the journal");
                self.pending.clear();
                self.take(now).unwrap_or(Pause::Until(now.boot + RETRY))
            }
            Err(error) => {
                let pause = (RETRY * 2_u32.saturating_pow(self.retries)).min(RETRY_MOST);
                warn!(%error, "tried again in {} s", pause.as_secs());
                self.retries += 1;
                self.retry_at = Some(now.boot + pause);
                Pause::Until(now.boot + pause)
            }
        }
    }

    fn take(&mut self, now: Now) -> io::Result<Pause> {
        if self.go_on_writing(now)? {
            vigil_turns::name("step: write");
            return Ok(Pause::None);
        }
        let step = self.engine.next(now);
        vigil_turns::name(turn(&step));
        let event = match step {
            Step::Rest => {
                let pause = self.until_deadline();
                // The room's applications come first: three quarters of the time are theirs.
                let mapped = if self.engine.is_busy() { None } else { self.map_when_idle() };
                return Ok(mapped.map_or(pause, |took| Pause::Until(now.boot + took * 4)));
            }
            Step::WaitUntil(time) => return Ok(Pause::Until(time)),
            // The courier's to do: it asks.
            Step::Refresh
            | Step::FetchManifest { .. }
            | Step::FetchIndex { .. }
            | Step::FetchLeaves { .. }
            | Step::FetchPatchIndex { .. } => return Ok(self.until_deadline()),
            // So too, but what the device has of the unit can be looked for meanwhile.
            Step::FetchFrames { image, unit } => match self.begin_making(image, unit) {
                Ok(true) => return Ok(self.until_deadline()),
                Ok(false) => return Ok(Pause::None),
                Err(error) => failed(slot_cause(&error), &error),
            },
            Step::RunGate => return self.run_gate(now),
            Step::BeginApply { image } => Event::ApplyBegun { image },
            Step::Apply { image, sha256 } => return self.run_hook(now, image, sha256),
            Step::Proceed => Event::Proceed,
            Step::Exclude { slot } => {
                // Before anything of the slot is written: a device whose boot order cannot be changed installs nothing.
                let writable = self.boot.check_writable();
                let excluded = writable.and_then(|()| self.read_boot()).and_then(|reading| {
                    let without = reading.order.clone().without(&slot);
                    if without == reading.order && reading.damage.is_none() {
                        return Ok(());
                    }
                    self.boot.write("boot.exclude", &without)
                });
                match excluded {
                    Ok(()) => Event::Excluded,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(error) => failed(cause::BOOT_CONTROL, &error),
                }
            }
            Step::PutFirst { slot } => {
                self.engine.keep_crash_records(crate::evidence::crash_records(&self.config.evidence));
                let order = self.read_boot().map(|reading| reading.order.first(&slot));
                match order.and_then(|order| self.boot.write("boot.put_first", &order)) {
                    Ok(()) => Event::PutFirst,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(error) => failed(cause::BOOT_CONTROL, &error),
                }
            }
            Step::MarkGood { slot } => {
                match self.mark_good(&slot) {
                    Ok(()) => {
                        self.boot_trouble = None;
                        Event::MarkedGood
                    }
                    Err(error) => {
                        // It holds nothing else up: what needs the boot order fails by itself, with a cause of its own.
                        self.report_boot_trouble(&error);
                        Event::MarkFailed
                    }
                }
            }
            Step::Revert { to, from } => {
                let order = self.read_boot().map(|reading| reading.order).unwrap_or_default();
                match self.boot.write("boot.revert", &order.first(&to).without(&from)) {
                    Ok(()) => {
                        (self.stuck_since, self.boot_trouble) = (None, None);
                        Event::Reverted
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(error) => return Ok(self.go_back_by_restart(now, &from, &error)),
                }
            }
            Step::Reboot => {
                self.reboot(now);
                Event::RebootAsked
            }
            Step::Reload => Event::Reloaded(self.reload()?.map(Box::new)),
            Step::Map { image } => {
                if !self.go_on_mapping() {
                    return Ok(Pause::None);
                }
                let index = self.engine.work().and_then(|work| work.index(image)).cloned();
                let index = index.ok_or_else(|| io::Error::other("there is no such image"))?;
                match self.survey(image, index)? {
                    Some(survey) => Event::Index { image, survey },
                    None => return Ok(Pause::None),
                }
            }
            Step::Plan => match self.plan() {
                Ok((plan, ways)) => Event::Planned { plan, ways },
                Err(error) => failed(slot_cause(&error), &error),
            },
            Step::Make { image, unit } => {
                self.make(now, image, unit)?;
                return Ok(Pause::None);
            }
            Step::Settle => {
                self.settle()?;
                return Ok(Pause::None);
            }
            Step::Seal => match self.retire_maps().and_then(|()| self.seal()) {
                Ok(()) => Event::Sealed,
                Err(error) => failed(slot_cause(&error), &error),
            },
            Step::Unseal => match self.unseal() {
                Ok(matches) => {
                    if matches {
                        self.keep_maps();
                    }
                    Event::Unsealed { matches }
                }
                Err(error) => failed(slot_cause(&error), &error),
            },
            Step::Inspect { image, unit } => match self.unit_matches(image, unit) {
                Ok(None) => return Ok(Pause::None),
                Ok(Some(matches)) => Event::Inspected { image, unit, matches },
                Err(error) => failed(slot_cause(&error), &error),
            },
            Step::ReadBack { image, unit } => match self.unit_matches(image, unit) {
                Ok(None) => return Ok(Pause::None),
                Ok(Some(matches)) => Event::ReadBack { image, unit, matches },
                Err(error) => failed(slot_cause(&error), &error),
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

    /// Refills the tries of the slot that runs.
    fn mark_good(&mut self, slot: &str) -> io::Result<()> {
        let reading = self.read_boot()?;
        let refilled = reading.order.clone().refilled(slot);
        // What was damaged is repaired by this, too; at a start alone nothing is made where it never was. An install makes it,
        // where the place is blank.
        let is_whole = !reading.made_up && reading.damage.is_none();
        if is_whole && refilled == reading.order || !is_whole && !self.boot.is_remembered() {
            return self.boot.check_writable();
        }
        // Its errors name the place.
        self.boot.check_writable()?;
        self.boot.write("boot.mark_good", &refilled)
    }

    /// The boot order cannot be put back, and what runs must not stay: each restart costs it a try, and without any the bootloader
    /// goes back by itself. Where the other slot runs already, it is only tried again.
    fn go_back_by_restart(&mut self, now: Now, from: &str, error: &io::Error) -> Pause {
        self.report_boot_trouble(error);
        let since = *self.stuck_since.get_or_insert(now.boot);
        if now.boot >= since + STUCK && self.engine.running() == from && self.rebooting.is_none() {
            self.stuck_since = Some(now.boot);
            self.reboot(now);
        }
        Pause::Until(now.boot + STUCK_RETRY)
    }

    fn report_boot_trouble(&mut self, error: &io::Error) {
        let trouble = vigil_text::Sentence::new(&error.to_string());
        if error.kind() != io::ErrorKind::WouldBlock && self.boot_trouble.as_ref() != Some(&trouble) {
            self.note("boot.unwritable", &trouble);
            self.boot_trouble = Some(trouble);
        }
    }

    fn until_deadline(&self) -> Pause {
        self.engine.deadline().map_or(Pause::Forever, Pause::Until)
    }

    /// Takes up the work of a process that is gone, from what it kept.
    fn reload(&mut self) -> io::Result<Option<Work>> {
        let journal = self.engine.journal();
        let hash = journal.install.as_ref().and_then(|install| install.manifest_sha256.as_deref());
        let Some((manifest, indexes)) = hash.and_then(|hash| self.stash.load(hash)) else { return Ok(None) };
        self.known.clear();
        let mut work = Work::new(manifest);
        for (image, index) in indexes.into_iter().enumerate() {
            let survey = self.survey_of(work.manifest(), image, index)?;
            // What would have to be mapped first begins anew.
            let Some(survey) = survey else { return Ok(None) };
            if work.set_survey(image, survey).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(work))
    }

    /// Reads a unit of the target slot from the disk, as much as fits into a turn, and holds it against the index. Keeps the image's
    /// hash up. None as long as there is more to read.
    fn unit_matches(&mut self, image: usize, number: usize) -> io::Result<Option<bool>> {
        self.settle()?;
        self.open_parts()?;
        self.making = None;
        let Some((index, part)) =
            self.engine.work().and_then(|work| work.index(image)).zip(self.parts.get(image))
        else {
            return Err(io::Error::other("there is no such image"));
        };
        let unit = &index.units()[number];
        let mut done = match self.checking.take() {
            Some((of_image, of_unit, done)) if (of_image, of_unit) == (image, number) => done,
            _ => 0,
        };
        self.unit.resize(unit.length as usize, 0);
        while done < self.unit.len() {
            if self.turn.is_spent() {
                self.checking = Some((image, number, done));
                return Ok(None);
            }
            let next = self.unit.len().min(done + PIECE);
            part.read_back(unit.offset + done as u64, &mut self.unit[done..next])?;
            self.turn.spend(next - done);
            done = next;
        }
        if number == 0 {
            self.image_hash = Sha256::default();
            // Its first bytes are blank until all else is verified: they are held in their place.
            if let Some(head) = &self.heads[image]
                && let Some(blank) = self.unit.get_mut(..head.len())
                && blank.iter().all(|byte| *byte == 0)
            {
                blank.copy_from_slice(head);
            }
        }
        self.image_hash.update(&self.unit);
        let leaf = self.leaf(image, number)?;
        let index = self.engine.work().and_then(|work| work.index(image));
        Ok(index.map(|index| index.matches(number, &leaf, &self.unit)))
    }

    /// Blanks the first bytes of every part: even with boot variables that are lost, and then say "A B", no
    /// bootloader takes a slot that is being written for a system.
    fn seal(&mut self) -> io::Result<()> {
        self.open_parts()?;
        for at in 0..self.parts.len() {
            self.parts[at].seal()?;
            let bytes = (HEAD_BYTES as u64).min(self.parts[at].size());
            self.count(|outcome| outcome.write_bytes += bytes);
        }
        Ok(())
    }

    /// Writes the first bytes of every image, the last of all, and reads them back. What a release names first, the
    /// bootloader needs first: it comes last.
    fn unseal(&mut self) -> io::Result<bool> {
        self.open_parts()?;
        let mut bytes = 0;
        for (part, head) in self.parts.iter().zip(&self.heads).rev() {
            let Some(head) = head else { return Ok(false) };
            part.write("slot.unseal", 0, head)?;
            bytes += head.len() as u64;
            let mut read = vec![0; head.len()];
            part.read_back(0, &mut read)?;
            if read != *head {
                return Ok(false);
            }
        }
        self.count(|outcome| outcome.write_bytes += bytes);
        Ok(true)
    }

    /// Of an image's first unit, which `self.unit` holds, keeps the head and blanks it: it is written last.
    pub(super) fn keep_head(&mut self, image: usize, unit: usize) -> io::Result<()> {
        if unit == 0 {
            let length = self.unit.len().min(HEAD_BYTES);
            let head = &mut self.unit[..length];
            self.stash.keep_head(image, head)?;
            self.heads[image] = Some(head.to_vec());
            head.fill(0);
        }
        Ok(())
    }

    /// Opens the parts of the target slot and sees that the images fit.
    pub(super) fn open_parts(&mut self) -> io::Result<()> {
        let (Some(work), Some(install)) = (self.engine.work(), &self.engine.journal().install) else {
            return Ok(());
        };
        if self.parts.len() == work.manifest().images.len() {
            return Ok(());
        }
        let mut parts = Vec::new();
        let mut heads = Vec::new();
        for (position, image) in work.manifest().images.iter().enumerate() {
            let no_part = || io::Error::other(format!("the slot has no part {:?}", image.name));
            let part = match self.config.place(&install.target, &image.name).ok_or_else(no_part)? {
                Place::Part(path) => {
                    let others = self.config.parts().into_iter();
                    let own = crate::config::Config::part_name(&install.target, &image.name);
                    Part::open(&path, others.filter(|(name, _)| *name != own))?
                }
                Place::Payload { path, max_bytes } if image.size <= max_bytes => {
                    Part::make(&path, image.size)?
                }
                Place::Payload { max_bytes, .. } => {
                    let message = format!("{}: {} bytes, its hook takes {max_bytes}", image.name, image.size);
                    return Err(io::Error::new(io::ErrorKind::StorageFull, message));
                }
            };
            if part.size() < image.size {
                let message = format!("{}: {} bytes, the image has {}", image.name, part.size(), image.size);
                return Err(io::Error::new(io::ErrorKind::StorageFull, message));
            }
            parts.push(part);
            heads.push(self.stash.head(position));
        }
        self.parts = parts;
        self.heads = heads;
        Ok(())
    }

    /// Hands an image of the running slot to its hook.
    fn run_hook(&mut self, now: Now, image: String, sha256: String) -> io::Result<Pause> {
        let run = match self.hook.take() {
            Some(run) => Ok(run),
            None => self.start_hook(&image, &sha256, now),
        };
        let result = match run {
            Err(why) => Err(why),
            Ok(mut run) => match run.poll(now.boot) {
                None => {
                    self.hook = Some(run);
                    return Ok(Pause::Until(now.boot + LOOK));
                }
                Some(result) => result.map_err(vigil_text::Text::into_string),
            },
        };
        self.tell(now, Event::Applied { image, sha256, result })?;
        Ok(Pause::None)
    }

    fn start_hook(&self, image: &str, sha256: &str, now: Now) -> Result<Run, String> {
        let hook = self.config.hooks.iter().find(|hook| hook.image == image).ok_or("it has no hook")?;
        let Some(Place::Payload { path, .. }) = self.config.place(self.engine.running(), image) else {
            return Err("it has no hook".to_owned());
        };
        let there =
            crate::stash::file_sha256(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if there != sha256 {
            return Err(format!("{}: it is no longer what was verified", path.display()));
        }
        let command = crate::hook::command(hook, &path).map_err(|error| error.to_string())?;
        Run::start(command, now.boot + hook.timeout_seconds).map_err(|error| error.to_string())
    }

    fn run_gate(&mut self, now: Now) -> io::Result<Pause> {
        let gate = self.gate.get_or_insert_with(|| GateRun::new(&self.config.gate));
        let result = match gate.poll(now.boot) {
            GateState::Running => {
                let poll = now.boot + LOOK;
                return Ok(Pause::Until(self.engine.deadline().map_or(poll, |deadline| deadline.min(poll))));
            }
            GateState::Passed => Ok(()),
            GateState::Failed(why) => Err(why),
        };
        self.gate = None;
        self.tell(now, Event::Gate(result))?;
        Ok(Pause::None)
    }

    fn reboot(&mut self, now: Now) {
        let command = self.config.reboot.clone();
        self.note("reboot", &command.join(" "));
        match Run::start(super::gate::command(&command), now.boot + REBOOT_PATIENCE) {
            Ok(run) => self.rebooting = Some(run),
            Err(error) => {
                warn!(%error, program = command[0], "the restart could not be asked for; tried again");
            }
        }
    }

    /// Looks at the program that was asked for a restart, and says when to look again.
    fn look_at_reboot(&mut self, now: Now) -> Option<Duration> {
        match self.rebooting.as_mut()?.poll(now.boot) {
            None => return Some(now.boot + LOOK),
            Some(Ok(())) => {}
            Some(Err(said)) => warn!(%said, "the restart was refused; it is asked for again"),
        }
        self.rebooting = None;
        None
    }
}

/// The stable code for what became of a slot.
pub(super) fn slot_cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => cause::SLOT_READ_ONLY,
        io::ErrorKind::StorageFull => cause::SLOT_TOO_SMALL,
        io::ErrorKind::ResourceBusy => cause::SLOT_IN_USE,
        io::ErrorKind::NotFound => cause::SLOT_MISSING,
        _ if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM)) => {
            cause::SLOT_MISSING
        }
        _ => cause::SLOT,
    }
}

fn failed(cause: &'static str, error: &io::Error) -> Event {
    Event::Failed { cause, message: error.to_string() }
}

/// What a turn that takes it is called among the turns of the loop.
fn turn(step: &Step) -> &'static str {
    match step {
        Step::Rest => "step: rest",
        Step::WaitUntil(_) => "step: wait",
        Step::Refresh
        | Step::FetchManifest { .. }
        | Step::FetchIndex { .. }
        | Step::FetchLeaves { .. }
        | Step::FetchPatchIndex { .. }
        | Step::FetchFrames { .. } => "step: fetch",
        Step::RunGate => "step: run gate",
        Step::BeginApply { .. } => "step: begin apply",
        Step::Apply { .. } => "step: apply",
        Step::Proceed => "step: proceed",
        Step::Exclude { .. } => "step: exclude",
        Step::PutFirst { .. } => "step: put first",
        Step::MarkGood { .. } => "step: mark good",
        Step::Revert { .. } => "step: revert",
        Step::Reboot => "step: reboot",
        Step::Reload => "step: reload",
        Step::Map { .. } => "step: map",
        Step::Plan => "step: plan",
        Step::Make { .. } => "step: make",
        Step::Settle => "step: settle",
        Step::Seal => "step: seal",
        Step::Unseal => "step: unseal",
        Step::Inspect { .. } => "step: inspect",
        Step::ReadBack { .. } => "step: read back",
        Step::CompareImage { .. } => "step: compare image",
    }
}
