//! One device's life on recorded disks: a release that is confirmed, and one that is rolled back.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;
use vigil_tests::disk::{Disks, Lie, Op, Record};
use vigil_wire::{Control, Request, State, UpdateStatus};

use vigil_tests::machine::{
    Backend, Behaviour, Machine, SLOT_BYTES, Times, World, make_file_system, mount, unmount,
};

/// The disks' numbers.
const SLOT_B: usize = 1;
/// The boot variables' disk.
pub(crate) const ENVIRONMENT: usize = 2;
/// The data partition's disk.
pub(crate) const DATA: usize = 3;
const DATA_BYTES: u64 = 6 << 20;

/// What is left out to see whether the bench sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// The flush of a slot.
    Flush,
    /// The reading back of a slot: its disk loses a write, and reads hide it.
    ReadBack,
    /// The order of the slot's last write and the boot order's.
    Ordering,
}

impl Sabotage {
    /// For people.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Flush => "a flush",
            Self::ReadBack => "read-back",
            Self::Ordering => "an ordering",
        }
    }
}

/// What the device had promised at a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Orders that were accepted: their envelopes.
    pub(crate) accepted: Vec<String>,
    /// No release below this is installed any more.
    pub(crate) floor: u64,
    /// The number of the newest event.
    pub(crate) last_event: u64,
}

/// What was recorded.
pub(crate) struct Recording {
    /// The disks.
    pub(crate) record: Record,
    /// What was promised, by mark.
    pub(crate) promises: Vec<Promise>,
}

/// Notes what a device promises.
struct Notary<'d> {
    disks: &'d Disks,
    promises: Vec<Promise>,
}

impl Notary<'_> {
    fn note(&mut self, change: impl FnOnce(&mut Promise)) {
        let mut promise = self.promises.last().cloned().unwrap_or_default();
        change(&mut promise);
        if self.promises.last() != Some(&promise) {
            self.disks.mark(self.promises.len());
            self.promises.push(promise);
        }
    }

    fn see(&mut self, status: &UpdateStatus) {
        self.note(|promise| {
            promise.floor = status.floor;
            promise.last_event = status.last_event;
        });
    }
}

/// Records a device's life.
pub(crate) fn record(
    world: &World,
    backend: Backend,
    directory: &Path,
    sabotage: Option<Sabotage>,
) -> anyhow::Result<Recording> {
    let mut slot_a = world.images["1.0.0"].clone();
    slot_a.resize(SLOT_BYTES, 0);
    let disks = Disks::mount(
        &directory.join("disks"),
        vec![
            ("slot-a", slot_a),
            ("slot-b", vec![0xff; SLOT_BYTES]),
            ("environment", backend.blank()),
            ("data", make_file_system(directory, DATA_BYTES)?),
        ],
    )?;
    let data = directory.join("data");
    mount(&disks.path("data"), &data)?;
    let mut machine = Machine::new(
        world,
        backend,
        &directory.join("work"),
        [disks.path("slot-a"), disks.path("slot-b")],
        &disks.path("environment"),
        &data,
        Times::default(),
    )?;
    let result = live(world, &mut machine, &disks, sabotage);
    machine.stop();
    // What follows is the recording's own tidying up.
    let end = disks.record().ops.len();
    unmount(&data)?;
    let promises = result?;
    let mut record = disks.unmount()?;
    record.ops.truncate(end);
    if sabotage == Some(Sabotage::Ordering) {
        disorder(&mut record)?;
    }
    Ok(Recording { record, promises })
}

fn live(
    world: &World,
    machine: &mut Machine<'_>,
    disks: &Disks,
    sabotage: Option<Sabotage>,
) -> anyhow::Result<Vec<Promise>> {
    machine.make()?;
    // What the factory did is not cut.
    rustix::fs::sync();
    disks.record().begin();
    let mut notary = Notary { disks, promises: Vec::new() };
    let (version, mut courier) = machine.start()?;
    ensure!(version == "1.0.0");
    courier.refresh()?;
    {
        let mut record = disks.record();
        // Reading back must notice a write that the disk says it has done: the bench is green only if it does.
        let hidden = sabotage == Some(Sabotage::ReadBack);
        record.lie = Some(Lie { disk: SLOT_B, at_least: 150_000, after: 0, hidden, again: false });
        if sabotage == Some(Sabotage::Flush) {
            record.no_flush = Some(SLOT_B);
        }
    }
    let order = world.order("two", "2.0.0")?;
    ensure!(courier.install(&order)?.is_empty());
    notary.note(|promise| promise.accepted.push(order));
    let ends = [State::Confirmed, State::RolledBack, State::Failed];
    let status = machine.run_until(&mut courier, &ends, &mut |_, status| notary.see(status))?;
    ensure!(status.state == State::Confirmed, "{status:?}\n{}", machine.log());
    ensure!(disks.record().lie.is_none(), "the slot's disk was to lose a write, and none was large enough");

    // A release whose vigild is never ready stays on trial until somebody rolls it back.
    machine.behaviours = [("3.0.0", Behaviour { agent: false, ..Behaviour::default() })].into();
    let order = world.order("three", "3.0.0")?;
    ensure!(courier.install(&order)?.is_empty());
    notary.note(|promise| promise.accepted.push(order));
    machine.run_until(&mut courier, &[State::Trial], &mut |_, status| notary.see(status))?;
    courier.ask(&Request::Control { control: Control::Rollback, envelope: None })?;
    let status = machine.run_until(&mut courier, &ends, &mut |_, status| notary.see(status))?;
    ensure!(status.state == State::RolledBack, "{status:?}\n{}", machine.log());
    notary.see(&status);
    Ok(notary.promises)
}

/// The slot's last write before the activation happens after it: as if the updater had the two in the wrong order.
fn disorder(record: &mut Record) -> anyhow::Result<()> {
    let is_write = |op: &Op, wanted: usize| matches!(op, Op::Write { disk, .. } if *disk == wanted);
    // The environment's writes: the bootloader's, the exclusion, the activation.
    let last_slot_write = {
        let environment: Vec<_> = record
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| is_write(op, ENVIRONMENT))
            .map(|(at, _)| at)
            .collect();
        let slot_b: Vec<_> =
            record.ops.iter().enumerate().filter(|(_, op)| is_write(op, SLOT_B)).map(|(at, _)| at).collect();
        let last = slot_b.last().copied();
        last.filter(|last| environment.iter().any(|at| at > last))
    };
    let Some(slot_write) = last_slot_write else { anyhow::bail!("no write to disorder") };
    let op = record.ops.remove(slot_write);
    let flush =
        record.ops[slot_write..].iter().position(|op| matches!(op, Op::Flush { disk } if *disk == SLOT_B));
    if let Some(flush) = flush {
        record.ops.remove(slot_write + flush);
    }
    let activation = record.ops[slot_write..].iter().position(|op| is_write(op, ENVIRONMENT));
    let after = slot_write + activation.unwrap_or(0) + 2;
    record.ops.insert(after, op);
    record.ops.insert(after + 1, Op::Flush { disk: SLOT_B });
    Ok(())
}
