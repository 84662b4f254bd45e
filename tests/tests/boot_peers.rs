//! Boot variables and the tools that people use on them: what we write, `fw_printenv` and `grub-editenv` read; what
//! `fw_setenv`, `mkenvimage` and `grub-editenv` write, we read; and of damaged copies both choose the same one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::InTurn;
use vigil_updater::boot::{BootControl, BootOrder, GrubBoot, Reading, Running, UbootBoot};

const SIZE: usize = 0x2000;
const COPIES: [usize; 2] = [0x4000, 0x8000];

/// Runs a tool; its standard output.
fn run(program: &str, arguments: &[&str], file: Option<&Path>) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .args(file)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .with_context(|| format!("{program} is needed; run tests/run, which installs it"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn both() -> BootOrder {
    BootOrder::default().first("B").first("A")
}

/// A directory with what runs, for either back-end.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("cmdline"), "vigil.slot=B\n")?;
        std::fs::write(directory.path().join("boot_id"), "1\n")?;
        Ok(Self { directory })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn running(&self) -> Running {
        Running::new(&self.at("cmdline"), &self.at("boot_id"))
    }
}

/// An environment on a disk image, as fw_env.config describes it.
struct Disk {
    bench: Bench,
    boot: UbootBoot,
}

impl Disk {
    fn new(copies: usize) -> anyhow::Result<Self> {
        let bench = Bench::new()?;
        let disk = bench.at("disk");
        let lines = COPIES.iter().take(copies).map(|at| format!("{} {at:#x} {SIZE:#x}\n", disk.display()));
        std::fs::write(bench.at("fw_env.config"), format!("# of a test\n{}", lines.collect::<String>()))?;
        std::fs::write(bench.at("initial"), "bootcmd=run distro_bootcmd\n")?;
        std::fs::write(&disk, vec![0; 0x10000])?;
        let boot = UbootBoot::new(&bench.at("fw_env.config"), &bench.at("initial"), bench.running());
        Ok(Self { bench, boot })
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let (config, initial) = (self.bench.at("fw_env.config"), self.bench.at("initial"));
        let config = config.to_str().context("a path in UTF-8")?;
        let initial = initial.to_str().context("a path in UTF-8")?;
        run(program, &[&["-c", config, "-f", initial], arguments].concat(), None)
    }

    fn print(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.tool("fw_printenv", &["-n", name])?.trim_end_matches('\n').to_owned())
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) -> anyhow::Result<()> {
        let mut bytes = std::fs::read(self.bench.at("disk"))?;
        change(&mut bytes);
        Ok(std::fs::write(self.bench.at("disk"), bytes)?)
    }
}

#[test]
fn fw_printenv_reads_what_we_write_and_we_what_fw_setenv_writes() -> anyhow::Result<()> {
    for copies in [1, 2] {
        let mut disk = Disk::new(copies)?;
        disk.boot.write_in_turn("test", &both())?;
        disk.tool("fw_setenv", &["ethaddr", "02:00:00:00:00:01"])?;
        disk.tool("fw_setenv", &["odd", r"a\b;c=d  # e"])?;
        // More alternations than there are copies, so that each has been the newer one and was overwritten.
        for round in 0..6_u32 {
            let order = if round % 2 == 0 { both().without("B") } else { both().first("B") };
            disk.boot.write_in_turn("test", &order)?;
            ensure!(
                disk.print("BOOT_ORDER")?.trim_end() == order.order.join(" "),
                "{copies} copies, {round}"
            );
            ensure!(
                disk.print("BOOT_B_LEFT")? == format!("{:x}", order.left["B"]),
                "{copies} copies, {round}"
            );
            disk.tool("fw_setenv", &["BOOT_A_LEFT", "2"])?;
            let mut expected = Reading { order, damage: None, made_up: false };
            expected.order.left.insert("A".to_owned(), 2);
            ensure!(disk.boot.read()? == expected, "{copies} copies, {round}: {:?}", disk.boot.read()?);
        }
        ensure!(disk.print("bootcmd")? == "run distro_bootcmd");
        ensure!(disk.print("ethaddr")? == "02:00:00:00:00:01");
        ensure!(disk.print("odd")? == r"a\b;c=d  # e", "{}", disk.print("odd")?);
    }
    Ok(())
}

#[test]
fn of_two_copies_fw_printenv_and_we_choose_the_same_whatever_their_flags_and_damage() -> anyhow::Result<()> {
    let mut disk = Disk::new(2)?;
    for slot in ["A", "B"] {
        disk.boot.write_in_turn("test", &BootOrder::default().first(slot))?;
    }
    let mut seen = std::collections::BTreeSet::new();
    for first in [0, 1, 2, 127, 128, 254, 255_u8] {
        for second in [0, 1, 2, 127, 128, 254, 255_u8] {
            for damaged in [None, Some(0), Some(1)] {
                // The checksum does not cover the flag.
                disk.change(|bytes| {
                    bytes[COPIES[0] + 4] = first;
                    bytes[COPIES[1] + 4] = second;
                    if let Some(copy) = damaged {
                        bytes[COPIES[copy] + 100] ^= 1;
                    }
                })?;
                let ours = disk.boot.read()?;
                let theirs = disk.print("BOOT_ORDER")?;
                ensure!(
                    ours.order.order == [theirs.as_str()],
                    "{first} {second} {damaged:?}: {ours:?}, {theirs}"
                );
                ensure!(ours.damage.is_some() == damaged.is_some(), "{ours:?}");
                if let Some(copy) = damaged {
                    disk.change(|bytes| bytes[COPIES[copy] + 100] ^= 1)?;
                }
                seen.insert(theirs);
            }
        }
    }
    ensure!(seen.len() == 2, "only {seen:?} was ever chosen");
    Ok(())
}

#[test]
fn of_a_second_copy_that_was_torn_anywhere_fw_printenv_and_we_choose_the_same() -> anyhow::Result<()> {
    let mut disk = Disk::new(2)?;
    disk.boot.write_in_turn("test", &both())?;
    disk.boot.write_in_turn("test", &both().without("B"))?;
    let before = std::fs::read(disk.bench.at("disk"))?;
    disk.boot.write_in_turn("test", &both().first("B"))?;
    let after = std::fs::read(disk.bench.at("disk"))?;
    let differ: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    ensure!(differ.len() > 4 && differ.iter().all(|at| *at < COPIES[1]), "not the first copy was written");
    for cut in differ.iter().flat_map(|at| [*at, at + 1]) {
        disk.change(|bytes| {
            bytes[..cut].copy_from_slice(&after[..cut]);
            bytes[cut..].copy_from_slice(&before[cut..]);
        })?;
        let (ours, theirs) = (disk.boot.read()?.order, disk.print("BOOT_ORDER")?);
        ensure!(ours.order.join(" ") == theirs, "cut at {cut:#x}: {ours:?}, {theirs}");
        ensure!(ours == both().without("B") || ours == both().first("B"), "cut at {cut:#x}: {ours:?}");
    }
    Ok(())
}

/// A block device over a file.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> anyhow::Result<Self> {
        Ok(Self(run("losetup", &["--find", "--show"], Some(file))?.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", &self.0], None);
    }
}

#[test]
fn on_a_block_device_counted_from_its_end_both_find_the_same() -> anyhow::Result<()> {
    let mut disk = Disk::new(2)?;
    let device = Loop::over(&disk.bench.at("disk"))?;
    let line = |from_end: usize| format!("{} -{from_end:#x} {SIZE:#x}\n", device.0);
    std::fs::write(disk.bench.at("fw_env.config"), line(2 * SIZE) + &line(SIZE))?;
    for order in [both(), both().without("B"), both().first("B")] {
        disk.boot.write_in_turn("test", &order)?;
        ensure!(disk.print("BOOT_ORDER")? == order.order.join(" "));
        disk.tool("fw_setenv", &["serial_number", "7"])?;
        ensure!(disk.boot.read()? == Reading { order, damage: None, made_up: false });
    }
    // In the file below it lies where the numbers say.
    let bytes = std::fs::read(disk.bench.at("disk"))?;
    let found = |at: usize| bytes[at..at + SIZE].windows(11).any(|bytes| bytes == b"BOOT_ORDER=");
    ensure!(found(bytes.len() - SIZE) && found(bytes.len() - 2 * SIZE) && !found(0));
    Ok(())
}

#[test]
fn what_mkenvimage_makes_for_the_factory_is_read() -> anyhow::Result<()> {
    for copies in [1, 2] {
        let disk = Disk::new(copies)?;
        let (text, image) = (disk.bench.at("factory.txt"), disk.bench.at("factory.img"));
        std::fs::write(&text, "BOOT_ORDER=B A\nBOOT_A_LEFT=3\nBOOT_B_LEFT=1\nbootcmd=boot\n")?;
        let size = SIZE.to_string();
        let output = image.to_str().context("a path in UTF-8")?;
        let redundant = if copies == 2 { &["-r"][..] } else { &[] };
        run("mkenvimage", &[&["-s", &size, "-o", output], redundant].concat(), Some(&text))?;
        let image = std::fs::read(image)?;
        disk.change(|bytes| {
            for at in COPIES.iter().take(copies) {
                bytes[*at..at + SIZE].copy_from_slice(&image);
            }
        })?;
        let mut order = both().first("B");
        order.left.insert("B".to_owned(), 1);
        ensure!(
            disk.boot.read()? == Reading { order, damage: None, made_up: false },
            "{:?}",
            disk.boot.read()?
        );
    }
    Ok(())
}

fn list(grubenv: &Path) -> anyhow::Result<Vec<String>> {
    let path = grubenv.to_str().context("a path in UTF-8")?;
    Ok(run("grub-editenv", &[path, "list"], None)?.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn set(grubenv: &Path, assignment: &str) -> anyhow::Result<()> {
    let path = grubenv.to_str().context("a path in UTF-8")?;
    run("grub-editenv", &[path, "set", assignment], None).map(drop)
}

#[test]
fn grub_editenv_reads_what_we_write_and_we_what_it_writes() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    let grubenv = bench.at("grubenv");
    let mut boot = GrubBoot::new(&grubenv, bench.running());
    run("grub-editenv", &[grubenv.to_str().context("a path in UTF-8")?, "create"], None)?;
    ensure!(
        boot.read()?.order == BootOrder::default().first("B"),
        "an empty block reads as the running slot"
    );
    set(&grubenv, r"saved_entry=a\b c")?;
    boot.write_in_turn("test", &both())?;
    let others = || -> anyhow::Result<String> {
        list(&grubenv)?.into_iter().find(|line| line.starts_with("saved_entry=")).context("it is gone")
    };
    let entry = others()?;
    for round in 0..4_u32 {
        let order = if round % 2 == 0 { both().without("B") } else { both().first("B") };
        boot.write_in_turn("test", &order)?;
        let listed = list(&grubenv)?;
        for line in [
            format!("ORDER={}", order.order.join(" ")),
            format!("B_OK={}", u32::from(order.left["B"] > 0)),
            "A_TRY=0".to_owned(),
        ] {
            ensure!(listed.contains(&line), "{line} is not in {listed:?}");
        }
        ensure!(boot.read()? == Reading { order: order.clone(), damage: None, made_up: false });
        set(&grubenv, "A_TRY=2")?;
        ensure!(boot.read()?.order.left["A"] == 1);
        ensure!(others()? == entry);
    }
    Ok(())
}

#[test]
fn in_a_full_block_ours_move_into_the_first_sector_and_nothing_is_lost() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    let grubenv = bench.at("grubenv");
    let path = grubenv.to_str().context("a path in UTF-8")?;
    // Both sectors are in use, and ours are in the second one.
    run("grub-editenv", &[path, "create"], None)?;
    let foreign: Vec<String> = (0..14).map(|number| format!("other_{number}={}", "v".repeat(30))).collect();
    for assignment in foreign.iter().map(String::as_str).chain(["ORDER=B A", "A_OK=1", "B_OK=1", "A_TRY=1"]) {
        set(&grubenv, assignment)?;
    }
    let before = std::fs::read(&grubenv)?;
    let mut boot = GrubBoot::new(&grubenv, bench.running());
    boot.write_in_turn("test", &both().without("B"))?;
    let after = std::fs::read(&grubenv)?;
    ensure!(before[512..] != after[512..] && after[..512].windows(6).any(|bytes| bytes == b"ORDER="));
    for assignment in &foreign {
        ensure!(list(&grubenv)?.contains(assignment), "{assignment} is gone");
    }
    ensure!(
        boot.read()? == Reading { order: both().without("B"), damage: None, made_up: false },
        "{:?}",
        boot.read()?
    );
    // From now on it is one sector.
    boot.write_in_turn("test", &both())?;
    ensure!(std::fs::read(&grubenv)?[512..] == after[512..]);
    Ok(())
}
