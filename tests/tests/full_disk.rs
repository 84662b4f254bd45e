//! A full disk, for each daemon in turn: what must be durable is refused with its reason, nothing that was durable is
//! lost, and with room again all goes on without a restart. The disks are small file systems of their own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use vigil_tests::image::{self, SOUND};
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::wait_for;

/// More commands than a block of the audit log has room for.
const COMMANDS: usize = 40;

/// A file system in memory over a directory, with what was in it.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn over(at: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&at)?;
        let aside = at.with_extension("aside");
        std::fs::rename(&at, &aside)?;
        std::fs::create_dir(&at)?;
        run("mount", &["-t", "tmpfs", "-o", "size=8m,mode=750", "tmpfs"], &[&at])?;
        let disk = Self { at };
        run("cp", &["-a"], &[&aside.join("."), &disk.at])?;
        Ok(disk)
    }

    /// Fills it to the last byte.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.at.join("filler"))?;
        for block in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'x'; block]).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.at.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy"], &[&self.at]);
    }
}

fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).args(paths).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn with_vigilds_disk_full_commands_are_refused_and_nothing_is_lost() -> anyhow::Result<()> {
    let mut room = Room::at_a_broker("")?;
    let disk = SmallDisk::over(room.device.disk.join("data"))?;
    room.device.power_on()?;
    room.wait_ready()?;
    ensure!(room.send("ping", &[])? == "ok");

    disk.fill()?;
    // The log of commands has its blocks, and the audit log's last block has some room: commands go on until that is
    // used up, and no further.
    let mut reason = String::from("ok");
    for _ in 0..COMMANDS {
        reason = room.send("ping", &[])?;
        if reason != "ok" {
            break;
        }
    }
    ensure!(reason == "storage", "a command that cannot be recorded was answered {reason:?}");
    room.lives()?;
    ensure!(room.status()?["broker"]["connected"] == true);

    disk.make_room()?;
    wait_for("commands to be obeyed again", LIMIT, || (room.send("ping", &[]).ok()? == "ok").then_some(()))?;
    room.lives()?;
    let state = disk.at.display().to_string();
    // What is entered is signed in the next quiet moment.
    wait_for("a believable log of what was done", LIMIT, || {
        let verified = room.device.vigil(&["audit", "verify", "--state", &state]).ok()?;
        (verified["verified"] == true && verified["report"]["size"].as_u64() > Some(3)).then_some(())
    })
}

#[test]
fn with_the_updaters_disk_full_an_install_is_refused_and_then_done() -> anyhow::Result<()> {
    let mut room = Room::at_a_broker("")?;
    let image = room.directory.path().join("2.0.0.img");
    image::build(&image, "2.0.0", SOUND, 1 << 20)?;
    room.vendor.release("2.0.0", 2, &image, "operator")?;
    let disk = SmallDisk::over(room.device.disk.join("updater"))?;
    room.device.power_on()?;
    room.wait_ready()?;

    disk.fill()?;
    let reason = room.send("update.install", &["--arg", "version=2.0.0"])?;
    ensure!(reason == "storage", "an order that cannot be durable was answered {reason:?}");
    room.lives()?;
    ensure!(room.status()?["update"]["state"] == "idle");
    room.wait("the full disk to be told", |status| {
        let problems = status["problems"].as_array()?;
        problems
            .iter()
            .any(|problem| problem.as_str().is_some_and(|problem| problem.contains("full")))
            .then_some(())
    })?;

    disk.make_room()?;
    let output =
        room.operator()?.run(&["send", "room-1", "update.install", "--arg", "version=2.0.0", "--no-wait"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_for("release 2 to be confirmed", LIMIT, || {
        let _ = room.device.restart_if_asked();
        let status = room.device.vigil(&["status"]).ok()?;
        (status["update"]["state"] == "confirmed").then_some(())
    })?;
    room.lives()
}
