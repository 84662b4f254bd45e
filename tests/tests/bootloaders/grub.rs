//! GRUB on UEFI firmware, with our grub.cfg and the block in a file on the EFI partition.

use std::os::unix::fs::FileExt;
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
/// What the shipped script needs besides: docs/integration.md names them.
const SHIPPED_MODULES: &str = "ext2 regexp probe linux";
/// Where the partitions of the shipped script's disk begin, and their size.
const PARTITIONS: [u64; 3] = [1 << 20, 9 << 20, 17 << 20];
const PARTITION_BYTES: u64 = 8 << 20;

/// The machine, off.
struct Machine {
    directory: tempfile::TempDir,
    /// Its disk, and the EFI partition on it as mtools name it.
    disk: &'static str,
    esp: String,
}

/// Where tests/run unpacks Debian's packages for arm64.
fn unpacked() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/arm64");
    std::env::var_os("VIGIL_ARM64").map_or_else(default, PathBuf::from)
}

impl Machine {
    /// `broken` is a slot that does not load.
    fn new(broken: &str) -> anyhow::Result<Self> {
        let machine = Self { directory: tempfile::tempdir()?, disk: "esp", esp: "esp".to_owned() };
        let load = format!("if [ \"$1\" != \"{broken}\" ]; then\necho \"STARTED $1\"\nhalt\nfi\n");
        let script = with_board(SCRIPT, &["vigil_env=\"${prefix}/grubenv\"\n", &load])?;
        std::fs::File::create(machine.at("esp"))?.set_len(PARTITION_BYTES)?;
        machine.image("BOOTAA64.EFI", "/EFI/vigil", "", MODULES)?;
        machine.fill_esp(&(script + "halt\n"))?;
        Ok(machine)
    }

    /// With the script as it is shipped, on a disk with both slots. What stands for a slot's kernel says on the console that it
    /// was started, and GRUB with which command line.
    fn as_shipped() -> anyhow::Result<Self> {
        let esp = format!("disk@@{}", PARTITIONS[0]);
        let machine = Self { directory: tempfile::tempdir()?, disk: "disk", esp };
        let disk = std::fs::File::create(machine.at("disk"))?;
        disk.set_len(PARTITIONS[2] + PARTITION_BYTES + (1 << 20))?;
        let table: Vec<_> = PARTITIONS
            .iter()
            .zip(["uefi", "linux", "linux"])
            .map(|(start, kind)| {
                format!("start={}, size={}, type={kind}", start / 512, PARTITION_BYTES / 512)
            })
            .collect();
        std::fs::write(machine.at("table"), format!("label: gpt\n{}\n", table.join("\n")))?;
        machine.tool("sh", &["-c", "sfdisk --quiet disk <table"])?;
        for (slot, start) in ["A", "B"].iter().zip(&PARTITIONS[1..]) {
            machine.image("kernel", "/", &format!("echo STARTED {slot}\nhalt\n"), "echo halt")?;
            let mut kernel = std::fs::read(machine.at("kernel"))?;
            // By this the header of a kernel for arm64 is known (Linux's Documentation/arch/arm64/booting.rst).
            kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
            std::fs::create_dir_all(machine.at("slot/boot"))?;
            std::fs::write(machine.at("slot/boot/vmlinuz"), kernel)?;
            // As a release brings it: the same label and the same UUID in both slots.
            let options = "-q -F -t ext4 -O ^has_journal -L rootfs -U 7a3e0b1c-52a4-4d0f-9a51-0d6a1f3c8e21 -d slot part";
            let size = format!("{}k", PARTITION_BYTES >> 10);
            machine.tool("mke2fs", &[&options.split(' ').collect::<Vec<_>>()[..], &[&size]].concat())?;
            disk.write_all_at(&std::fs::read(machine.at("part"))?, *start)?;
        }
        machine.image(
            "BOOTAA64.EFI",
            "/EFI/vigil",
            "set debug=linux\n",
            &format!("{MODULES} {SHIPPED_MODULES}"),
        )?;
        machine.fill_esp(SCRIPT)?;
        Ok(machine)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a GRUB that does `first` and then, if its prefix has one, what a grub.cfg says.
    fn image(&self, name: &str, prefix: &str, first: &str, modules: &str) -> anyhow::Result<()> {
        let from = unpacked().join("usr/lib/grub/arm64-efi");
        ensure!(from.is_dir(), "{}: not there; tests/run unpacks it", from.display());
        std::fs::write(self.at("first.cfg"), first)?;
        let from = from.display().to_string();
        let made = ["-O", "arm64-efi", "-d", &from, "-p", prefix, "-c", "first.cfg", "-o", name];
        self.tool("grub-mkimage", &[&made[..], &modules.split(' ').collect::<Vec<_>>()].concat())
    }

    /// Makes the EFI partition's file system, and what the updater's back-end reads besides.
    fn fill_esp(&self, script: &str) -> anyhow::Result<()> {
        std::fs::write(self.at("grub.cfg"), script)?;
        std::fs::write(self.at("cmdline"), "vigil.slot=A\n")?;
        std::fs::write(self.at("boot_id"), "1\n")?;
        self.tool("grub-editenv", &["grubenv", "create"])?;
        let sectors = (PARTITION_BYTES / 512).to_string();
        self.tool("mformat", &["-i", &self.esp, "-T", &sectors, "::"])?;
        self.tool("mmd", &["-i", &self.esp, "::EFI", "::EFI/BOOT", "::EFI/vigil"])?;
        self.tool("mcopy", &["-i", &self.esp, "BOOTAA64.EFI", "::EFI/BOOT"])?;
        self.tool("mcopy", &["-i", &self.esp, "grub.cfg", "grubenv", "::EFI/vigil"])
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
        self.at("grubenv")
    }

    /// Takes the block from the EFI partition, or puts it back over what is there.
    fn fetch(&self) -> anyhow::Result<()> {
        self.tool("mcopy", &["-n", "-o", "-i", &self.esp, "::EFI/vigil/grubenv", "grubenv"])
    }

    fn put(&self) -> anyhow::Result<()> {
        self.tool("mcopy", &["-n", "-o", "-i", &self.esp, "grubenv", "::EFI/vigil/grubenv"])
    }

    /// A power cycle; what was said on the console.
    fn run(&self) -> anyhow::Result<String> {
        let arguments = format!(
            // Without a menu's wait the firmware starts in one second instead of six.
            "-bios {FIRMWARE} -boot menu=on,splash-time=0 -drive if=none,id=disk,file={},format=raw \
             -device virtio-blk-device,drive=disk",
            self.disk
        );
        power_cycle(self.directory.path(), &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The GUID of the partition that begins there, as the partition table has it.
    fn guid(&self, start: u64) -> anyhow::Result<String> {
        let output = Command::new("sfdisk").arg("--dump").arg(self.at(self.disk)).output()?;
        let said = String::from_utf8(output.stdout)?;
        let start = (start / 512).to_string();
        let line = said.lines().find(|line| line.split([' ', ',', '=']).any(|word| word == start));
        let guid = line.and_then(|line| line.split_once("uuid=")).map(|(_, guid)| guid.trim().to_lowercase());
        guid.with_context(|| format!("no partition begins at {start}: {said}"))
    }
}

impl Device for Machine {
    fn power_on(&self) -> anyhow::Result<String> {
        started(&self.run()?)
    }

    fn boot(&mut self) -> anyhow::Result<Box<dyn BootControl + '_>> {
        self.fetch()?;
        let boot = GrubBoot::new(&self.grubenv(), Running::new(&self.at("cmdline"), &self.at("boot_id")));
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

#[test]
fn the_shipped_grub_cfg_starts_each_slot_by_its_partition_though_both_hold_the_same_file_system()
-> anyhow::Result<()> {
    let mut machine = Machine::as_shipped()?;
    for (slot, start) in [("B", PARTITIONS[2]), ("A", PARTITIONS[1])] {
        machine.boot()?.write_in_turn("test", &both().first(slot))?;
        let said = machine.run()?;
        ensure!(started(&said)? == slot, "{said}");
        // GRUB breaks its lines where the terminal's width ends.
        let said = said.replace('\n', " ");
        let wanted = format!("root=PARTUUID={} ro quiet vigil.slot={slot}", machine.guid(start)?);
        ensure!(said.contains(&wanted), "{wanted} is not in {said}");
        let order = machine.boot()?.read()?.order;
        ensure!(order.left[slot] == 2, "{order:?}");
    }
    Ok(())
}
