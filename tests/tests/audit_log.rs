//! An audit log that is deleted, rewritten or put back to an old copy, by somebody who is root for a moment: the device says so
//! itself, held against what its updater keeps, and an operator's check says so, held against what it saw before.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::device::Daemon;
use vigil_tests::room::{DEVICE, LIMIT, Room};
use vigil_tests::wait_for;

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp");
    Ok(())
}

struct Site {
    room: Room,
    log: PathBuf,
    known: PathBuf,
}

impl Site {
    fn new() -> anyhow::Result<Self> {
        let room = Room::at_a_broker("")?;
        let log = room.device.disk.join("data/audit");
        let known = room.directory.path().join("known_devices.json");
        Ok(Self { room, log, known })
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.room.device.daemon(Daemon::Vigild)?.stop().map(drop)
    }

    /// Starts vigild, and waits until it has found out what became of its log.
    fn start(&mut self) -> anyhow::Result<()> {
        self.room.device.start_vigild()?;
        self.room.wait_ready()
    }

    fn entries(&self) -> anyhow::Result<u64> {
        let entries = self.room.status()?["audit"]["entries"].as_u64();
        entries.context("no number of entries")
    }

    /// The size of the log that the updater keeps the checkpoint of.
    fn witnessed(&self) -> u64 {
        let note = std::fs::read_to_string(self.room.device.disk.join("updater/witness")).unwrap_or_default();
        note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    /// What the device itself says of its log.
    fn problem(&self) -> anyhow::Result<Option<String>> {
        let status = self.room.status()?;
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        Ok(problems
            .iter()
            .filter_map(|problem| problem.as_str())
            .find(|problem| problem.contains("audit log"))
            .map(str::to_owned))
    }

    /// What an operator's check says of it: whether all is well, and its words.
    fn check(&self) -> anyhow::Result<(bool, String)> {
        let known = self.known.display().to_string();
        let output =
            self.room.operator()?.command(&["check", DEVICE, "--known", &known, "--accept-new"])?.output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Both say that something is wrong, the device with these words.
    fn is_found_out(&self, words: &str) -> anyhow::Result<()> {
        let said = wait_for("the device to name it", LIMIT, || self.problem().ok()?)?;
        ensure!(said.contains(words), "{words:?} is not in {said}");
        ensure!(!self.room.audited("audit.discontinued").is_empty(), "it is not in the log itself");
        wait_for("the operator's check to fail", LIMIT, || (!self.check().ok()?.0).then_some(()))?;
        let (_, said) = self.check()?;
        ensure!(said.contains("audit"), "{said}");
        Ok(())
    }
}

#[test]
fn a_log_that_was_deleted_rewritten_or_restored_from_an_old_copy_is_named_on_both_sides() -> anyhow::Result<()>
{
    let mut site = Site::new()?;
    let kept = |name: &str| site.room.directory.path().join(name);
    let (old, whole) = (kept("old"), kept("whole"));
    site.room.device.power_on()?;
    site.room.wait_ready()?;
    wait_for("the updater to keep a checkpoint", LIMIT, || (site.witnessed() > 0).then_some(()))?;
    site.stop()?;
    copy(&site.log, &old)?;
    let old_entries = site.witnessed();

    // It grows, the updater hears of it with the next start, and an operator has seen it.
    for _ in 0..2 {
        site.start()?;
        ensure!(site.room.send("ping", &[])? == "ok");
        site.stop()?;
    }
    site.room.device.daemon(Daemon::Updaterd)?.stop()?;
    std::fs::remove_file(site.room.device.disk.join("updater/witness"))?;
    site.room.device.start_updaterd()?;
    site.start()?;
    wait_for("the updater to keep a newer one", LIMIT, || (site.witnessed() > old_entries).then_some(()))?;
    wait_for("a check that is content", LIMIT, || site.check().ok()?.0.then_some(()))?;
    ensure!(site.problem()?.is_none());
    site.stop()?;
    copy(&site.log, &whole)?;
    let entries = site.witnessed();

    // Deleted.
    std::fs::remove_dir_all(&site.log)?;
    site.start()?;
    site.is_found_out("was deleted, or put back to an old copy")?;
    site.stop()?;

    // Put back to an old copy.
    copy(&old, &site.log)?;
    site.start()?;
    site.is_found_out("was deleted, or put back to an old copy")?;
    site.stop()?;

    // Rewritten: it begins anew and grows past what is known, while nobody looks.
    std::fs::remove_dir_all(&site.log)?;
    site.room.device.daemon(Daemon::Updaterd)?.stop()?;
    for _ in 0..40 {
        site.room.device.start_vigild()?;
        let is_long = site.entries()? > entries + 2;
        site.stop()?;
        if is_long {
            break;
        }
    }
    site.room.device.start_updaterd()?;
    site.start()?;
    site.is_found_out("it was rewritten")?;
    site.stop()?;

    // The true one again: all is well.
    copy(&whole, &site.log)?;
    site.start()?;
    wait_for("a check that is content", LIMIT, || site.check().ok()?.0.then_some(()))?;
    ensure!(site.problem()?.is_none(), "{:?}", site.problem()?);
    Ok(())
}
