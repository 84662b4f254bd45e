//! GRUB on UEFI firmware, with our grub.cfg and the block in a file on the EFI partition.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::InTurn;
use vigil_tests::board::with_board;
use vigil_updater::boot::{BootControl, BootOrder, Booted, GrubBoot, Reading, Running};

use crate::machine::{Device, a_alone, both, power_cycle, started};

const FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
const SCRIPT: &str = include_str!("../../../packaging/grub/grub.cfg");
const MODULES: &str = "part_gpt fat normal configfile loadenv test echo search search_label halt true";

/// The machine, off. Its EFI partition is the disk `esp`.
struct Machine {
    directory: tempfile::TempDir,
}

/// Where tests/run unpacks Debian's packages for arm64.
fn unpacked() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/arm64");
    std::env::var_os("VIGIL_ARM64").map_or_else(default, PathBuf::from)
}

impl Machine {
    /// `broken` is a slot that does not load.
    fn new(broken: &str) -> anyhow::Result<Self> {
        let machine = Self { directory: tempfile::tempdir()? };
        let at = |name: &str| machine.directory.path().join(name);
        let modules = unpacked().join("usr/lib/grub/arm64-efi");
        ensure!(modules.is_dir(), "{}: not there; tests/run unpacks it", modules.display());
        let modules = modules.display().to_string();
        let made = ["-O", "arm64-efi", "-d", &modules, "-p", "/EFI/vigil", "-o", "BOOTAA64.EFI"];
        machine.tool("grub-mkimage", &[&made[..], &MODULES.split(' ').collect::<Vec<_>>()].concat())?;
        let load = format!("if [ \"$1\" != \"{broken}\" ]; then\necho \"STARTED $1\"\nhalt\nfi\n");
        let script = with_board(SCRIPT, &["vigil_env=\"${prefix}/grubenv\"\n", &load])?;
        std::fs::write(at("grub.cfg"), script + "halt\n")?;
        std::fs::write(at("cmdline"), "vigil.slot=A\n")?;
        std::fs::write(at("boot_id"), "1\n")?;
        std::fs::File::create(at("esp"))?.set_len(8 << 20)?;
        machine.tool("grub-editenv", &["grubenv", "create"])?;
        machine.tool("mformat", &["-i", "esp", "::"])?;
        machine.tool("mmd", &["-i", "esp", "::EFI", "::EFI/BOOT", "::EFI/vigil"])?;
        machine.tool("mcopy", &["-i", "esp", "BOOTAA64.EFI", "::EFI/BOOT"])?;
        machine.tool("mcopy", &["-i", "esp", "grub.cfg", "grubenv", "::EFI/vigil"])?;
        Ok(machine)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .with_context(|| format!("{program} is needed; run tests/run, which installs it"))?;
        ensure!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn grubenv(&self) -> PathBuf {
        self.directory.path().join("grubenv")
    }

    /// Takes the block from the EFI partition, or puts it back over what is there.
    fn fetch(&self) -> anyhow::Result<()> {
        self.tool("mcopy", &["-n", "-o", "-i", "esp", "::EFI/vigil/grubenv", "grubenv"])
    }

    fn put(&self) -> anyhow::Result<()> {
        self.tool("mcopy", &["-n", "-o", "-i", "esp", "grubenv", "::EFI/vigil/grubenv"])
    }
}

impl Device for Machine {
    fn power_on(&self) -> anyhow::Result<String> {
        let arguments = [
            // Without a menu's wait the firmware starts in one second instead of six.
            &format!("-bios {FIRMWARE} -boot menu=on,splash-time=0"),
            "-drive if=none,id=esp,file=esp,format=raw -device virtio-blk-device,drive=esp",
        ];
        let arguments: Vec<_> = arguments.iter().flat_map(|part| part.split(' ')).collect();
        started(&power_cycle(self.directory.path(), &arguments)?)
    }

    fn boot(&mut self) -> anyhow::Result<Box<dyn BootControl + '_>> {
        self.fetch()?;
        let at = |name: &str| self.directory.path().join(name);
        let boot = GrubBoot::new(&self.grubenv(), Running::new(&at("cmdline"), &at("boot_id")));
        Ok(Box::new(OnPartition { boot, machine: self }))
    }
}

/// The block, on the partition again after each write.
struct OnPartition<'a> {
    boot: GrubBoot,
    machine: &'a Machine,
}

impl BootControl for OnPartition<'_> {
    fn guarantee(&self) -> &'static str {
        self.boot.guarantee()
    }

    fn booted(&self) -> std::io::Result<Booted> {
        self.boot.booted()
    }

    fn read(&self) -> std::io::Result<Reading> {
        self.boot.read()
    }

    fn remember(&self) -> std::io::Result<()> {
        self.boot.remember()
    }

    fn is_remembered(&self) -> bool {
        self.boot.is_remembered()
    }

    fn check_writable(&self) -> std::io::Result<()> {
        self.boot.check_writable()
    }

    fn write(&mut self, point: &str, order: &BootOrder) -> std::io::Result<()> {
        self.boot.write(point, order)?;
        self.machine.put().map_err(std::io::Error::other)
    }
}

#[test]
fn grub_takes_the_slots_that_select_takes() -> anyhow::Result<()> {
    let mut machine = Machine::new("")?;
    let chosen = machine.chooses_as_select(&both().first("B"), 7)?;
    ensure!(chosen.concat() == "BBBAAAB", "{chosen:?}");
    Ok(())
}

#[test]
fn grub_never_starts_a_slot_that_left_the_order() -> anyhow::Result<()> {
    let mut machine = Machine::new("")?;
    machine.boot()?.write_in_turn("test", &both())?;
    let chosen = machine.chooses_as_select(&a_alone(), 5)?;
    ensure!(chosen.concat() == "AAAAA", "{chosen:?}");
    Ok(())
}

#[test]
fn under_grub_a_slot_that_does_not_load_costs_a_try_and_the_next_one_starts() -> anyhow::Result<()> {
    let mut machine = Machine::new("B")?;
    machine.boot()?.write_in_turn("test", &both().first("B"))?;
    for left in [2, 1, 0, 2] {
        ensure!(machine.power_on()? == "A");
        let order = machine.boot()?.read()?.order;
        ensure!((order.left["A"], order.left["B"]) == (left, left), "{order:?}");
    }
    Ok(())
}

#[test]
fn a_block_that_is_lost_is_a_and_b_to_grub_and_the_running_slot_to_us() -> anyhow::Result<()> {
    let mut machine = Machine::new("")?;
    // What a power cut in the middle of a copy by somebody else leaves.
    for damaged in [&[][..], &[0; 1024]] {
        std::fs::write(machine.grubenv(), damaged)?;
        machine.put()?;
        ensure!(machine.power_on()? == "A");
        let reading = machine.boot()?.read()?;
        ensure!(reading.order == BootOrder::default().first("A") && reading.damage.is_some(), "{reading:?}");
    }
    // Our next write repairs it, and GRUB counts again.
    let chosen = machine.chooses_as_select(&both().first("B"), 1)?;
    ensure!(chosen == ["B"], "{chosen:?}");
    Ok(())
}
