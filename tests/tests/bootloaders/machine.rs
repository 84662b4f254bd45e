//! An emulated machine for one power cycle, and what the scripts' tests share.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use vigil_tests::InTurn;
use vigil_tests::process::Process;
use vigil_updater::boot::{BootControl, BootOrder};

/// Most take one second.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts the machine, waits until it switches itself off, and gives back what it said on its serial console.
pub(crate) fn power_cycle(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("qemu-system-aarch64");
    command.args("-M virt -cpu cortex-a57 -m 256 -nographic -nodefaults -no-reboot -serial stdio".split(' '));
    command.args(arguments).current_dir(directory);
    let log = directory.join("console");
    let _ = std::fs::remove_file(&log);
    let mut machine = Process::start("qemu-system-aarch64", command, &log)
        .context("it is needed; run tests/run, which installs it")?;
    let status = machine.wait(LIMIT);
    let said = String::from_utf8_lossy(&std::fs::read(&log)?).replace('\r', "");
    let status = status.with_context(|| said.clone())?;
    ensure!(status.success(), "qemu: {status}: {said}");
    Ok(said)
}

/// The slot that a script said it starts.
pub(crate) fn started(said: &str) -> anyhow::Result<String> {
    let mut lines = said.lines().filter_map(|line| line.split_once("STARTED ")).map(|(_, slot)| slot);
    let slot = lines.next().with_context(|| format!("nothing was started: {said}"))?;
    ensure!(lines.next().is_none(), "more than one slot was started: {said}");
    Ok(slot.trim().to_owned())
}

pub(crate) fn both() -> BootOrder {
    BootOrder::default().first("B").first("A")
}

/// A alone, though B has tries left.
pub(crate) fn a_alone() -> BootOrder {
    let mut order = both().without("B");
    order.left.insert("B".to_owned(), 3);
    order
}

/// A device that can be switched on.
pub(crate) trait Device {
    /// One power cycle; the slot that was started.
    fn power_on(&self) -> anyhow::Result<String>;
    /// What it chooses from.
    fn boot(&mut self) -> anyhow::Result<Box<dyn BootControl + '_>>;

    /// Writes the order, and then the real bootloader and `BootOrder::select` must choose the same slot at each of so
    /// many power cycles, and leave the same tries.
    fn chooses_as_select(&mut self, order: &BootOrder, cycles: usize) -> anyhow::Result<Vec<String>> {
        self.boot()?.write_in_turn("test", order)?;
        let mut expected = order.clone();
        let mut chosen = Vec::new();
        for cycle in 0..cycles {
            let slot = expected.select().context("an empty order")?;
            let real = self.power_on()?;
            ensure!(real == slot, "cycle {cycle} of {order:?}: {real} was started, not {slot}");
            let reading = self.boot()?.read()?;
            ensure!(reading.order == expected, "cycle {cycle}: {reading:?} is left, not {expected:?}");
            chosen.push(slot);
        }
        Ok(chosen)
    }
}
