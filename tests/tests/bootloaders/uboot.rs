//! U-Boot: its own environment in flash, and our script on that and on two raw copies on a disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::InTurn;
use vigil_tests::board::with_board;
use vigil_updater::boot::{BootControl, BootOrder, Running, UbootBoot};

use crate::machine::{Device, a_alone, both, power_cycle, started};

const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const SCRIPT: &str = include_str!("../../../packaging/uboot/boot.cmd");
/// Size of U-Boot's own environment on this machine.
const OWN_BYTES: usize = 0x40000;
/// As the board's part of the script says it in the test.
const COPIES: [u64; 2] = [0x1000, 0x2000];
const COPY_BYTES: usize = 0x1000;
const ON_DISK: &str = "\
    vigil_disk=virtio\nvigil_disk_number=0\nvigil_copy_1=8\nvigil_copy_2=10\nvigil_copy_blocks=8\n\
    vigil_memory=45000000\nvigil_also=serial_number\n";
const IN_ITS_OWN: &str = "vigil_disk=\n";
const LOAD: &str = "if test \"${vigil_slot}\" != \"${broken}\"; then vigil_loaded=yes; fi\n";
const START: &str = "echo \"STARTED ${vigil_slot}\"\npoweroff\n";

/// The machine, off.
struct Machine {
    directory: tempfile::TempDir,
    boot: UbootBoot,
}

impl Machine {
    /// Its U-Boot does `command` at power-on; `script` is in memory then. The updater's variables are where
    /// `fw_env_config` says, with DISK and FLASH for the files.
    fn new(command: &str, fw_env_config: &str, script: Option<&str>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        for (name, bytes) in [("disk", 1 << 20), ("flash", 64 << 20)] {
            File::create(at(name))?.set_len(bytes)?;
        }
        std::fs::write(at("cmdline"), "vigil.slot=A\n")?;
        std::fs::write(at("boot_id"), "1\n")?;
        let path = |name: &str| at(name).display().to_string();
        let text = fw_env_config.replace("DISK", &path("disk")).replace("FLASH", &path("flash"));
        std::fs::write(at("fw_env.config"), text)?;
        std::fs::write(at("initial"), "")?;
        let running = Running::new(&at("cmdline"), &at("boot_id"));
        let boot = UbootBoot::new(&at("fw_env.config"), &at("initial"), running.clone());

        // U-Boot's own environment is written by the same back-end, from what initial_env names.
        std::fs::write(at("own.config"), format!("{} 0 {OWN_BYTES:#x}\n", path("flash")))?;
        std::fs::write(at("own.initial"), format!("bootcmd={command}; poweroff\nbootdelay=0\n"))?;
        UbootBoot::new(&at("own.config"), &at("own.initial"), running).write_in_turn("test", &both())?;

        std::fs::write(at("boot.cmd"), script.unwrap_or("true\n"))?;
        let made = Command::new("mkimage")
            .args("-A arm64 -T script -C none -n vigil -d boot.cmd boot.scr".split(' '))
            .current_dir(directory.path())
            .output()
            .context("mkimage is needed; run tests/run, which installs it")?;
        ensure!(made.status.success(), "mkimage: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { directory, boot })
    }

    /// With our script and two raw copies on the disk. `broken` is a slot that does not load.
    fn with_raw_copies(broken: &str) -> anyhow::Result<Self> {
        let config = COPIES.map(|at| format!("DISK {at:#x} {COPY_BYTES:#x}\n")).concat();
        let script = with_board(SCRIPT, &[ON_DISK, LOAD, START])?;
        Self::new(&format!("broken={broken}; source 43000000"), &config, Some(&script))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self) -> anyhow::Result<String> {
        let arguments = [
            // Without this Debian 12's QEMU tells U-Boot half the size of its flash sectors, and saveenv fails.
            "-global driver=cfi.pflash01,property=old-multiple-chip-handling,value=on",
            &format!("-bios {UBOOT} -drive if=pflash,index=1,format=raw,file=flash"),
            "-drive if=none,id=disk,file=disk,format=raw -device virtio-blk-device,drive=disk",
            "-device loader,file=boot.scr,addr=0x43000000",
        ];
        let arguments: Vec<_> = arguments.iter().flat_map(|part| part.split(' ')).collect();
        let said = power_cycle(self.directory.path(), &arguments)?;
        self.complete_flash()?;
        Ok(said)
    }

    /// Of what U-Boot writes to it in one go, QEMU's flash keeps the first 2 KiB. The rest of this environment is
    /// padding: zeros, as its checksum confirms.
    fn complete_flash(&self) -> anyhow::Result<()> {
        let flash = File::options().read(true).write(true).open(self.file("flash"))?;
        let mut padding = vec![0; OWN_BYTES - 2048];
        flash.read_exact_at(&mut padding, 2048)?;
        if padding.iter().all(|byte| *byte == 0xff) {
            padding.fill(0);
            flash.write_all_at(&padding, 2048)?;
        }
        Ok(())
    }

    /// Flips a bit in the data of a copy on the disk.
    fn damage(&self, copy: usize) -> anyhow::Result<()> {
        let disk = File::options().read(true).write(true).open(self.file("disk"))?;
        let mut byte = [0];
        disk.read_exact_at(&mut byte, COPIES[copy] + 20)?;
        Ok(disk.write_all_at(&[byte[0] ^ 1], COPIES[copy] + 20)?)
    }

    fn flags(&self) -> anyhow::Result<[u8; 2]> {
        let disk = std::fs::read(self.file("disk"))?;
        Ok(COPIES.map(|at| disk[at as usize + 4]))
    }

    fn set_flags(&self, flags: [u8; 2]) -> anyhow::Result<()> {
        let disk = File::options().write(true).open(self.file("disk"))?;
        for (at, flag) in COPIES.iter().zip(flags) {
            disk.write_all_at(&[flag], at + 4)?;
        }
        Ok(())
    }
}

impl Device for Machine {
    fn power_on(&self) -> anyhow::Result<String> {
        started(&self.run()?)
    }

    fn boot(&mut self) -> anyhow::Result<Box<dyn BootControl + '_>> {
        let at = |name: &str| self.directory.path().join(name);
        let running = Running::new(&at("cmdline"), &at("boot_id"));
        Ok(Box::new(UbootBoot::new(&at("fw_env.config"), &at("initial"), running)))
    }
}

#[test]
fn u_boot_reads_the_environment_that_we_write_to_its_flash_and_we_what_it_saves() -> anyhow::Result<()> {
    let mut machine = Machine::new(
        "printenv BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; setexpr BOOT_B_LEFT 0x${BOOT_B_LEFT} - 1; setenv Added yes; saveenv",
        &format!("FLASH 0 {OWN_BYTES:#x}\n"),
        None,
    )?;
    machine.boot.write_in_turn("test", &both().first("B"))?;
    for left in [3, 2] {
        let said = machine.run()?;
        ensure!(!said.contains("bad CRC"), "{said}");
        for line in ["BOOT_ORDER=B A".to_owned(), "BOOT_A_LEFT=3".to_owned(), format!("BOOT_B_LEFT={left}")] {
            ensure!(said.lines().any(|said| said == line), "{line} is not in {said}");
        }
        let reading = machine.boot.read()?;
        let mut expected = both().first("B");
        expected.left.insert("B".to_owned(), left - 1);
        ensure!(reading.order == expected && reading.damage.is_none(), "{reading:?}");
    }
    // U-Boot has sorted the variables; its own are kept, and ours change in the first sector.
    let before = std::fs::read(machine.file("flash"))?;
    machine.boot.write_in_turn("test", &both().without("B"))?;
    let after = std::fs::read(machine.file("flash"))?;
    ensure!(before[..512] != after[..512] && before[512..] == after[512..]);
    ensure!(machine.run()?.lines().any(|line| line.trim_end() == "BOOT_ORDER=A"));
    Ok(())
}

#[test]
fn with_raw_copies_u_boot_takes_the_slots_that_select_takes_and_the_flag_wraps() -> anyhow::Result<()> {
    let mut machine = Machine::with_raw_copies("")?;
    // Twice, so that there are two copies.
    machine.boot.write_in_turn("test", &both())?;
    machine.boot.write_in_turn("test", &both())?;
    machine.set_flags([253, 254])?;
    let chosen = machine.chooses_as_select(&both().first("B"), 7)?;
    ensure!(chosen.concat() == "BBBAAAB", "{chosen:?}");
    let mut flags = machine.flags()?;
    flags.sort_unstable();
    ensure!(flags == [5, 6], "{flags:?}");
    Ok(())
}

#[test]
fn with_raw_copies_a_slot_that_left_the_order_is_never_started() -> anyhow::Result<()> {
    let mut machine = Machine::with_raw_copies("")?;
    machine.boot.write_in_turn("test", &both())?;
    let chosen = machine.chooses_as_select(&a_alone(), 5)?;
    ensure!(chosen.concat() == "AAAAA", "{chosen:?}");
    Ok(())
}

#[test]
fn with_raw_copies_a_torn_one_counts_for_nothing_and_both_lost_are_a_and_b() -> anyhow::Result<()> {
    let mut machine = Machine::with_raw_copies("")?;
    machine.boot.write_in_turn("test", &both())?;
    machine.boot.write_in_turn("test", &both().first("B"))?;
    // The newer one is torn: the older one counts for U-Boot and for us.
    machine.damage(1)?;
    ensure!(machine.boot.read()?.order == both());
    ensure!(machine.power_on()? == "A");
    let mut expected = both();
    expected.select();
    let reading = machine.boot.read()?;
    // U-Boot has written over the torn one.
    ensure!(reading.order == expected && reading.damage.is_none(), "{reading:?}");
    machine.damage(0)?;
    machine.damage(1)?;
    ensure!(machine.boot.read()?.order == BootOrder::default().first("A"));
    ensure!(machine.power_on()? == "A");
    ensure!(machine.boot.read()?.order == expected, "the script begins anew with A and B");
    Ok(())
}

#[test]
fn with_raw_copies_a_power_cut_while_u_boot_writes_leaves_the_old_tries_or_the_new_ones() -> anyhow::Result<()>
{
    let mut machine = Machine::with_raw_copies("")?;
    machine.boot.write_in_turn("test", &both())?;
    machine.boot.write_in_turn("test", &both())?;
    let (old, before) = (machine.boot.read()?.order, std::fs::read(machine.file("disk"))?);
    machine.power_on()?;
    let (new, after) = (machine.boot.read()?.order, std::fs::read(machine.file("disk"))?);
    ensure!(old != new);
    let differ: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    ensure!(
        !differ.is_empty() && differ.iter().all(|at| *at < COPIES[1] as usize),
        "the copy that counts was written"
    );
    let cut_at = |cut: usize| [&after[..cut], &before[cut..]].concat();
    for cut in &differ {
        std::fs::write(machine.file("disk"), cut_at(*cut))?;
        let order = machine.boot.read()?.order;
        ensure!(order == old || order == new, "cut at {cut:#x}: {order:?}");
    }
    // In the middle of the checksum: U-Boot sees it as we do, and counts on from there.
    std::fs::write(machine.file("disk"), cut_at(COPIES[0] as usize + 2))?;
    ensure!(machine.boot.read()?.order == old);
    ensure!(machine.power_on()? == "A" && machine.boot.read()?.order == new);
    Ok(())
}

#[test]
fn with_raw_copies_a_slot_that_does_not_load_costs_a_try_and_the_next_one_starts() -> anyhow::Result<()> {
    let mut machine = Machine::with_raw_copies("B")?;
    machine.boot.write_in_turn("test", &both().first("B"))?;
    for left in [2, 1, 0] {
        ensure!(machine.power_on()? == "A");
        let order = machine.boot.read()?.order;
        ensure!((order.left["A"], order.left["B"]) == (left, left), "{order:?}");
    }
    // All are spent, and given anew; B costs one again.
    ensure!(machine.power_on()? == "A");
    let order = machine.boot.read()?.order;
    ensure!((order.left["A"], order.left["B"]) == (2, 2), "{order:?}");
    Ok(())
}

#[test]
fn in_u_boots_own_environment_the_script_counts_and_leaves_nothing_of_its_own() -> anyhow::Result<()> {
    let script = with_board(SCRIPT, &[IN_ITS_OWN, LOAD, START])?;
    let config = format!("FLASH 0 {OWN_BYTES:#x}\n");
    let mut machine = Machine::new("source 43000000", &config, Some(&script))?;
    let chosen = machine.chooses_as_select(&both().first("B"), 4)?;
    ensure!(chosen.concat() == "BBBA", "{chosen:?}");
    // An order that became shorter is filled up with a blank, which the script skips.
    let chosen = machine.chooses_as_select(&both().without("B"), 2)?;
    ensure!(chosen.concat() == "AA", "{chosen:?}");
    let flash = std::fs::read(machine.file("flash"))?;
    ensure!(
        !flash[..OWN_BYTES].windows(6).any(|bytes| bytes == b"vigil_"),
        "a variable of the script was saved"
    );
    Ok(())
}
