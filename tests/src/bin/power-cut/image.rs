//! What the whole device is made of: a disk with two slots, U-Boot's copies and a data partition, and releases, each an
//! ext4 file system with a kernel, what it starts from memory, and `vigil-updaterd`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::InTurn;
use vigil_tests::board::with_board;
use vigil_tests::disk::SECTOR;
use vigil_tests::machine::{DEVICE, Random};
use vigil_tests::vendor::{PRODUCT, TENANT};
use vigil_updater::boot::{BootOrder, Running, UbootBoot};

/// U-Boot's copies on the disk.
pub(crate) const COPIES: [usize; 2] = [0x20000, 0x22000];
const COPY_BYTES: usize = 0x2000;
const MIB: usize = 1 << 20;
/// The slots and the data partition: first byte and length.
pub(crate) const SLOTS: [(usize, usize); 2] = [(MIB, 22 * MIB), (23 * MIB, 22 * MIB)];
pub(crate) const DATA: (usize, usize) = (45 * MIB, 16 * MIB);
const DISK_BYTES: usize = 62 * MIB;
/// An image's: what is left of the slot is not written.
const IMAGE_KIB: usize = 20 * 1024;

const SCRIPT: &str = include_str!("../../../../packaging/uboot/boot.cmd");
const VARIABLES: &str = "\
vigil_disk=virtio
vigil_disk_number=0
vigil_copy_1=100
vigil_copy_2=110
vigil_copy_blocks=10
vigil_memory=48000000
vigil_also=
";
const LOAD: &str = "\
vigil_part=1
if test ${vigil_slot} = B; then vigil_part=2; fi
if load virtio 0:${vigil_part} 4a000000 boot/kernel.gz && unzip 4a000000 40400000 && load virtio 0:${vigil_part} 44000000 boot/initrd; then vigil_loaded=yes; fi
";
const START: &str = "\
setenv bootargs \"console=ttyAMA0 quiet panic=1 vigil.slot=${vigil_slot}\"
booti 40400000 44000000:${filesize} ${fdtcontroladdr}
";

/// The first program of the device.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mkdir -p /run/vigil-updater /run/lock
ln -s /run /var/run
ln -s /run/lock /var/lock
# Which of the first two needs the other depends on the kernel's version.
for module in virtio_ring virtio virtio_ring virtio_mmio virtio_blk virtio_console; do
    if [ -f /modules/$module.ko ] && ! [ -d /sys/module/$module ]; then insmod /modules/$module.ko; fi
done
slot=
for word in $(cat /proc/cmdline); do
    case $word in vigil.slot=*) slot=${word#*=} ;; esac
done
case $slot in A) part=1 ;; B) part=2 ;; esac
mount -t ext4 -o ro /dev/vda$part /slot || reboot -f
echo "vigil-device: slot $slot version $(cat /slot/etc/version) end"
e2fsck -p /dev/vda3 >/run/e2fsck 2>&1
if [ $? -gt 2 ]; then
    cat /run/e2fsck
    echo "vigil-device: e2fsck -y"
    e2fsck -y /dev/vda3
fi
mount -t ext4 /dev/vda3 /var/lib || reboot -f
VIGIL_LOG=info /slot/usr/bin/vigil-updaterd --config /etc/updater.toml &
while [ ! -S /run/vigil-updater/updater.sock ]; do sleep 0.1; done
echo "vigil-device: up"
while true; do
    relay /run/vigil-updater/updater.sock /dev/vport*p1
    sleep 0.1
done
"#;

const UPDATER: &str = r#"
reboot = ["/bin/reboot", "-f"]
state = "/var/lib/vigil-updater"

[boot]
kind = "uboot"
fw_env_config = "/etc/fw_env.config"
initial_env = "/etc/u-boot-initial-env"

[[slots]]
name = "A"
parts = { rootfs = "/dev/vda1" }

[[slots]]
name = "B"
parts = { rootfs = "/dev/vda2" }

[trial]
deadline_seconds = 300
stable_seconds = 0
gate_pause_seconds = 0.1
contact_seconds = 300
courier_seconds = 300

[fetch]
pause_seconds = 0.1

[[gate]]
name = "self-test"
command = ["/bin/true"]
"#;

/// A directory in which releases are made.
pub(crate) struct Factory {
    directory: PathBuf,
}

impl Factory {
    /// Takes the kernel and programs for arm64 from `target`, where `tests/bench/power-cut` puts them.
    pub(crate) fn new(directory: &Path, target: &Path, root: &Path) -> anyhow::Result<Self> {
        let directory = directory.join("factory");
        let slot = directory.join("slot");
        for name in ["boot", "usr/bin", "lib", "etc/vigil"] {
            std::fs::create_dir_all(slot.join(name))?;
        }
        let arm64 = target.join("arm64");
        let kernel = kernel(&arm64)?;
        let release = kernel.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"));
        let release = release.context("a kernel has a release")?;
        std::fs::write(slot.join("boot/kernel.gz"), gzip(&kernel)?)?;

        let mut archive = Archive::default();
        for name in ["bin", "dev", "etc", "modules", "proc", "run", "slot", "sys", "var", "var/lib"] {
            archive.add(name, 0o40_755, b"", 0);
        }
        archive.add("dev/console", 0o20_600, b"", 5 << 8 | 1);
        archive.add("init", 0o100_755, INIT.as_bytes(), 0);
        archive.add("lib", 0o120_777, b"slot/lib", 0);
        for name in ["updater.toml", "vigil", "fw_env.config", "u-boot-initial-env"] {
            archive.add(&format!("etc/{name}"), 0o120_777, format!("/slot/etc/{name}").as_bytes(), 0);
        }
        for (name, path) in [
            ("busybox", arm64.join("bin/busybox")),
            ("e2fsck", arm64.join("sbin/e2fsck.static")),
            ("relay", arm64.join("relay")),
        ] {
            archive.add(&format!("bin/{name}"), 0o100_755, &read(&path)?, 0);
        }
        let modules = arm64.join("lib/modules").join(release).join("kernel/drivers");
        for (name, place) in [
            ("virtio", "virtio"),
            ("virtio_ring", "virtio"),
            ("virtio_mmio", "virtio"),
            ("virtio_blk", "block"),
            ("virtio_console", "char"),
        ] {
            let name = format!("{name}.ko");
            archive.add(&format!("modules/{name}"), 0o100_644, &read(&modules.join(place).join(&name))?, 0);
        }
        let initrd = directory.join("initrd");
        std::fs::write(&initrd, archive.end())?;
        std::fs::write(slot.join("boot/initrd"), gzip(&initrd)?)?;

        let built = target.join("cross/dist/aarch64-unknown-linux-gnu/vigil-updaterd");
        let cross = Path::new("/usr/aarch64-linux-gnu/lib");
        for (from, to) in [
            (built, "usr/bin/vigil-updaterd"),
            (cross.join("ld-linux-aarch64.so.1"), "lib/ld-linux-aarch64.so.1"),
            (cross.join("libc.so.6"), "lib/libc.so.6"),
            (cross.join("libm.so.6"), "lib/libm.so.6"),
            (cross.join("libgcc_s.so.1"), "lib/libgcc_s.so.1"),
            (root.to_owned(), "etc/vigil/root.json"),
        ] {
            std::fs::write(slot.join(to), read(&from)?)?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        for name in ["usr/bin/vigil-updaterd", "lib/ld-linux-aarch64.so.1"] {
            std::fs::set_permissions(slot.join(name), Clone::clone(&mode))?;
        }
        std::fs::write(
            slot.join("etc/vigil/vigil.toml"),
            format!("[device]\nid = {DEVICE:?}\ntenant = {TENANT:?}\nproduct = {PRODUCT:?}\n"),
        )?;
        std::fs::write(slot.join("etc/updater.toml"), UPDATER)?;
        std::fs::write(slot.join("etc/fw_env.config"), fw_env("/dev/vda", &COPIES, COPY_BYTES))?;
        std::fs::write(slot.join("etc/u-boot-initial-env"), "bootdelay=0\n")?;
        Ok(Self { directory })
    }

    /// The image of a release: the number shifts what all have in common, so that no two have much in the same place.
    pub(crate) fn release(&self, version: &str, sequence: u64) -> anyhow::Result<Vec<u8>> {
        let slot = self.directory.join("slot");
        let mut random = Random(sequence);
        let pad: Vec<u8> =
            (0..(64 + sequence % 32 * 4) * 128).flat_map(|_| random.number().to_le_bytes()).collect();
        std::fs::write(slot.join("0-pad"), pad)?;
        std::fs::write(slot.join("etc/version"), version)?;
        let image = self.directory.join("image");
        let _ = std::fs::remove_file(&image);
        let size = format!("{IMAGE_KIB}k");
        let options = ["-q", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-N", "64", "-m", "0"];
        let mut command = Command::new("mke2fs");
        run(command.args(options).arg("-d").arg(&slot).arg(&image).arg(size))?;
        Ok(std::fs::read(&image)?)
    }

    /// A disk as the factory delivers it: `image` in slot A, which alone is in the boot order.
    pub(crate) fn disk(&self, image: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut disk = vec![0; DISK_BYTES];
        for (number, (start, length)) in [SLOTS[0], SLOTS[1], DATA].into_iter().enumerate() {
            let entry = &mut disk[446 + 16 * number..][..16];
            entry[1..8].copy_from_slice(&[0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
            entry[8..12].copy_from_slice(&u32::try_from(start / SECTOR)?.to_le_bytes());
            entry[12..].copy_from_slice(&u32::try_from(length / SECTOR)?.to_le_bytes());
        }
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[SLOTS[0].0..][..image.len()].copy_from_slice(image);
        disk[SLOTS[1].0..][..SLOTS[1].1].fill(0xff);

        let data = self.directory.join("data");
        let _ = std::fs::remove_file(&data);
        let mut command = Command::new("mke2fs");
        run(command.args(["-q", "-t", "ext4", "-b", "1024", "-J", "size=1"]).arg(&data).arg("16M"))?;
        let data = std::fs::read(&data)?;
        disk[DATA.0..][..data.len()].copy_from_slice(&data);

        let path = self.directory.join("disk");
        std::fs::write(&path, &disk)?;
        let mut order = BootOrder::default().first("A");
        order.left.insert("B".to_owned(), 0);
        self.uboot(&fw_env(&path.display().to_string(), &COPIES, COPY_BYTES), "bootdelay=0\n")?
            .write_in_turn("factory", &order)?;
        Ok(std::fs::read(&path)?)
    }

    /// The board's own: the boot script, and flash in which U-Boot finds that it should start it at once.
    pub(crate) fn board(&self) -> anyhow::Result<[PathBuf; 2]> {
        let [script, flash] = ["boot.scr", "flash"].map(|name| self.directory.join(name));
        let source = self.directory.join("boot.cmd");
        std::fs::write(&source, with_board(SCRIPT, &[VARIABLES, LOAD, START])?)?;
        let options = ["-A", "arm64", "-T", "script", "-C", "none", "-n", "vigil", "-d"];
        run(Command::new("mkimage").args(options).arg(&source).arg(&script))?;
        std::fs::File::create(&flash)?.set_len(64 << 20)?;
        let initial = "bootcmd=source 43000000; poweroff\nbootdelay=0\n";
        self.uboot(&fw_env(&flash.display().to_string(), &[0], 0x40000), initial)?
            .write_in_turn("factory", &BootOrder::default())?;
        Ok([script, flash])
    }

    fn uboot(&self, config: &str, initial: &str) -> anyhow::Result<UbootBoot> {
        let at = |name: &str| self.directory.join(name);
        std::fs::write(at("fw_env.config"), config)?;
        std::fs::write(at("initial"), initial)?;
        std::fs::write(at("cmdline"), "vigil.slot=none\n")?;
        std::fs::write(at("boot_id"), "factory\n")?;
        let running = Running::new(&at("cmdline"), &at("boot_id"));
        Ok(UbootBoot::new(&at("fw_env.config"), &at("initial"), running))
    }
}

fn fw_env(device: &str, copies: &[usize], bytes: usize) -> String {
    copies.iter().map(|at| format!("{device} {at:#x} {bytes:#x}\n")).collect::<Vec<_>>().concat()
}

/// The kernel that was unpacked.
fn kernel(arm64: &Path) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(arm64.join("boot"))
        .context("no kernel: run tests/bench/power-cut, which unpacks one")?;
    let mut kernels: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    kernels
        .retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
    kernels.sort();
    kernels.pop().context("no kernel: run tests/bench/power-cut, which unpacks one")
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path)
        .with_context(|| format!("{}: run tests/bench/power-cut, which makes it", path.display()))
}

fn gzip(path: &Path) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("gzip").args(["-n", "-9", "-c"]).arg(path).output().context("gzip")?;
    ensure!(output.status.success(), "gzip {}: {}", path.display(), output.status);
    Ok(output.stdout)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the kernel unpacks into memory: a cpio archive of the kind "newc".
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: usize,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8], node: u32) {
        self.files += 1;
        let (major, minor) = (node >> 8, node & 0xff);
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{major:08x}{minor:08x}{:08x}{:08x}{name}\0",
            self.files,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            name.len() + 1,
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"", 0);
        self.bytes
    }
}
