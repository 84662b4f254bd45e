//! Starts a device from what a power cut left. States that are the same are started once: first by the bytes of their
//! disks, then, since a file system's journal hides most of it, by what is in their files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use vigil_tests::courier::Courier;
use vigil_wire::State as Update;

use crate::record::{DATA, ENVIRONMENT, Promise, Recording};
use crate::states::{self, Key, Plan, State};
use vigil_tests::machine::{Backend, Machine, Times, World, check_file_system, mount, try_mount, unmount};

/// Failures after which a bench has said enough.
const FAILURES: usize = 20;

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    /// States that were looked at.
    pub(crate) cuts: usize,
    /// Of these, with disks of different bytes.
    pub(crate) distinct: usize,
    /// Of these, with different files after the file system's own recovery.
    pub(crate) started: usize,
    /// Writes and flushes in the record.
    pub(crate) operations: usize,
    /// What went wrong.
    pub(crate) failures: Vec<String>,
    checked: usize,
    seconds: u64,
}

impl Report {
    /// In a line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:>6} cuts at {} writes and flushes, {} distinct, {} started, {} failures, {} e2fsck, {} s",
            self.cuts,
            self.operations,
            self.distinct,
            self.started,
            self.failures.len(),
            self.checked,
            self.seconds
        )
    }
}

/// A directory's files, by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;
/// What two disks with data partitions of other bytes have in common.
type Logical = [u8; 32];

/// What was done before.
#[derive(Default)]
struct Memory {
    /// The data partition's files, by its key; none while somebody looks.
    files: HashMap<Key, Option<Logical>>,
    started: HashSet<[u8; 32]>,
    failures: Vec<String>,
    /// File systems that had to be checked before they could be mounted.
    checked: usize,
}

struct Bench<'b> {
    world: &'b World,
    backend: Backend,
    recording: &'b Recording,
    directory: &'b Path,
    keep: Option<&'b Path>,
    memory: Mutex<Memory>,
    looked: Condvar,
}

/// Starts a device from every state of the recording.
#[expect(clippy::too_many_arguments, reason = "called once")]
pub(crate) fn check(
    world: &World,
    backend: Backend,
    recording: &Recording,
    plan: Plan,
    directory: &Path,
    first_only: bool,
    begun: Instant,
    keep: Option<&Path>,
) -> anyhow::Result<Report> {
    let bench = Bench {
        world,
        backend,
        recording,
        directory,
        keep,
        memory: Mutex::default(),
        looked: Condvar::new(),
    };
    let most = if first_only { 1 } else { FAILURES };
    let progress = ProgressBar::new(recording.record.ops.len() as u64).with_style(
        ProgressStyle::with_template("{msg:13} {wide_bar} {pos}/{len} writes and flushes {eta}")?,
    );
    progress.set_message(backend.name());
    let mut seen = HashSet::new();
    // A device that starts mostly waits: for its processes, and for the kernel's mounts.
    let workers = 3 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (sender, receiver) = mpsc::sync_channel::<State>(workers);
    let receiver = Mutex::new(receiver);
    let cuts = std::thread::scope(|scope| {
        let sender = sender;
        for number in 0..workers {
            let (bench, receiver) = (&bench, &receiver);
            scope.spawn(move || {
                let work = bench.directory.join(format!("worker-{number}"));
                loop {
                    let state = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(state) = state else { return };
                    if let Err(error) = bench.start(&state, &work) {
                        let at = format!("cut after {} writes and flushes, {}: ", state.at + 1, state.how);
                        bench.keep(&state);
                        bench.memory().failures.push(format!("{at}{error:#}"));
                    }
                }
            });
        }
        states::each(
            &recording.record,
            plan,
            // Before the first promise the factory's device was never on.
            |keys, mark| mark.is_some() && seen.insert(keys.to_vec()),
            |state| {
                progress.set_position(state.at as u64);
                bench.memory().failures.len() < most && sender.send(state).is_ok()
            },
        )
    });
    progress.finish_and_clear();
    let memory = bench.memory.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        cuts,
        distinct: seen.len(),
        started: memory.started.len(),
        operations: recording.record.ops.len(),
        failures: memory.failures,
        checked: memory.checked,
        seconds: begun.elapsed().as_secs(),
    })
}

impl Bench<'_> {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, state: &State) {
        let Some(keep) = self.keep else { return };
        let directory = keep.join(format!("{}-{}", self.backend.name(), state.at));
        let _ = std::fs::create_dir_all(&directory);
        for (name, content) in self.recording.record.names.iter().zip(&state.disks) {
            let _ = std::fs::write(directory.join(name), content);
        }
    }

    fn start(&self, state: &State, work: &Path) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir_all(work);
        std::fs::create_dir_all(work)?;
        let promise = state.mark.map(|mark| self.recording.promises[mark].clone()).unwrap_or_default();
        let (logical, files) = self.files(state, work)?;
        let mut hash = Sha256::new();
        hash.update(logical);
        for (disk, key) in state.keys.iter().enumerate().filter(|(disk, _)| *disk != DATA) {
            hash.update(disk.to_le_bytes());
            hash.update(key.to_le_bytes());
        }
        // The same state may be held against more that was promised: the newest of it is what counts.
        hash.update(format!("{promise:?}"));
        if !self.memory().started.insert(hash.finalize().into()) {
            return Ok(());
        }
        let files = match files {
            Some(files) => files,
            None => self.read_data(&state.disks[DATA], work)?,
        };
        self.live_on(state, &files, &promise, work)
    }

    /// What is in the data partition's files, and the files if they were read just now.
    fn files(&self, state: &State, work: &Path) -> anyhow::Result<(Logical, Option<Files>)> {
        let key = state.keys[DATA];
        let mut memory = self.memory();
        loop {
            match memory.files.get(&key) {
                Some(Some(logical)) => return Ok((*logical, None)),
                Some(None) => {
                    memory = self.looked.wait(memory).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        memory.files.insert(key, None);
        drop(memory);
        let read = self.read_data(&state.disks[DATA], work);
        let mut hash = Sha256::new();
        for (path, content) in read.iter().flatten() {
            hash.update(format!("{} {}\n", path.display(), content.len()));
            hash.update(content);
        }
        let logical = hash.finalize().into();
        self.memory().files.insert(key, Some(logical));
        self.looked.notify_all();
        Ok((logical, Some(read?)))
    }

    /// The files of a data partition, after the kernel's own recovery and, where that is not enough, e2fsck's, which
    /// every device's boot runs: a superblock of two sectors may be torn.
    fn read_data(&self, image: &[u8], work: &Path) -> anyhow::Result<Files> {
        let path = work.join("data.img");
        std::fs::write(&path, image)?;
        let at = work.join("mounted");
        if !try_mount(&path, &at)? {
            self.memory().checked += 1;
            check_file_system(&path)?;
            mount(&path, &at).context("the data partition cannot be mounted")?;
        }
        let mut files = Files::new();
        let result = read_directory(&at, &at, &mut files);
        unmount(&at)?;
        result.map(|()| files)
    }

    /// A device with these disks comes to rest with what it promised, and installs the next release.
    fn live_on(&self, state: &State, files: &Files, promise: &Promise, work: &Path) -> anyhow::Result<()> {
        let data = work.join("data");
        std::fs::create_dir_all(&data)?;
        for (path, content) in files {
            let path = data.join(path);
            std::fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            std::fs::write(path, content)?;
        }
        let slots = [work.join("slot-a"), work.join("slot-b")];
        for (slot, content) in slots.iter().zip(&state.disks) {
            std::fs::write(slot, content)?;
        }
        let environment = work.join("environment");
        std::fs::write(&environment, &state.disks[ENVIRONMENT])?;
        let mut machine = Machine::new(
            self.world,
            self.backend,
            &work.join("work"),
            slots,
            &environment,
            &data,
            Times::default(),
        )?;
        let result = self.lives(&mut machine, promise);
        machine.stop();
        result.map_err(|error| {
            let log = machine.log();
            let lines: Vec<_> = log.lines().rev().take(12).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            anyhow::anyhow!("{error:#}\n    {}", lines.join("\n    "))
        })
    }

    fn lives(&self, machine: &mut Machine<'_>, promise: &Promise) -> anyhow::Result<()> {
        let (_, mut courier) = machine.start()?;
        let at_rest = [Update::Idle, Update::Confirmed, Update::RolledBack, Update::Failed];
        let status = machine.run_until(&mut courier, &at_rest, &mut |_, _| ())?;
        ensure!(
            status.floor >= promise.floor,
            "the floor sank from {} to {}: {status:?}",
            promise.floor,
            status.floor
        );
        ensure!(
            status.last_event >= promise.last_event,
            "events are missing: {} of {}",
            status.last_event,
            promise.last_event
        );
        courier.refresh()?;
        for envelope in &promise.accepted {
            let answer = courier.install(envelope)?;
            ensure!(!answer.is_empty(), "an order that was accepted before was accepted again");
        }
        self.next_release(machine, &mut courier)
    }

    fn next_release(&self, machine: &mut Machine<'_>, courier: &mut Courier) -> anyhow::Result<()> {
        let refused = courier.install(&self.world.order("four", "4.0.0")?)?;
        ensure!(refused.is_empty(), "the next release is refused: {refused}");
        let ends = [Update::Confirmed, Update::RolledBack, Update::Failed];
        let status = machine.run_until(courier, &ends, &mut |_, _| ())?;
        if status.state != Update::Confirmed {
            bail!("the next release was not installed: {status:?}");
        }
        let (version, _) = machine.start()?;
        ensure!((version, status.floor) == ("4.0.0", 4), "{version} runs with floor {}", status.floor);
        Ok(())
    }
}

fn read_directory(root: &Path, directory: &Path, files: &mut Files) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_directory(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?);
        }
    }
    Ok(())
}
