//! Whether a part of a slot is in use: mounted, or what the running system lies on. A part that is written over while
//! somebody reads it is lost for both. By device number, never by name.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::extent::{Kernel, numbers as numbers_in, text};

const FILE_BYTES: u64 = 1024 * 1024;
const SMALL_BYTES: u64 = 8 * 1024;
/// Entries of /sys/class/block that are looked at.
const DEVICES: usize = 1024;

/// Where the kernel tells. Another tree in tests.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) mountinfo: PathBuf,
    pub(super) block: PathBuf,
    pub(super) root: PathBuf,
    pub(super) kernel: Kernel,
}

impl Default for System {
    fn default() -> Self {
        Self {
            mountinfo: "/proc/self/mountinfo".into(),
            block: "/sys/class/block".into(),
            root: "/".into(),
            kernel: Kernel::default(),
        }
    }
}

impl System {
    /// Why what is at `path` must not be written to, if that is so. `file` is what was opened there.
    pub(super) fn in_use(&self, path: &Path, file: &File) -> io::Result<Option<String>> {
        let found = file.metadata()?;
        if found.file_type().is_block_device() {
            let device = found.rdev();
            if let Some(why) = self.ambiguous(path) {
                return Ok(Some(why));
            }
            return Ok(self.device_in_use(device).or_else(|| self.loop_over(path, device)));
        }
        Ok(self.loop_over(path, 0))
    }

    fn device_in_use(&self, device: u64) -> Option<String> {
        if std::fs::metadata(&self.root).is_ok_and(|root| root.dev() == device) {
            return Some(
                "the running system lies on it; is the slot named rightly (vigil.slot=)?".to_owned(),
            );
        }
        let number = numbers(device);
        let text = text(&self.mountinfo, FILE_BYTES);
        let mounted = text.lines().find_map(|line| {
            let mut words = line.split(' ').skip(2);
            (words.next()? == number).then(|| words.nth(1).unwrap_or_default().to_owned())
        })?;
        Some(format!("it is mounted at {}; unmount it", vigil_text::Label::new(&mounted)))
    }

    /// What a loop device lies over, mounted or not, changes under whoever uses that. `own` is the device itself, if it is one.
    fn loop_over(&self, path: &Path, own: u64) -> Option<String> {
        let extent = self.kernel.extent(path).ok().flatten()?;
        let entries = std::fs::read_dir(&self.block).ok()?;
        for entry in entries.flatten().take(DEVICES) {
            let name = entry.file_name();
            let number = text(&entry.path().join("dev"), SMALL_BYTES);
            let Some(device) = numbers_in(number.trim()).filter(|device| *device != own) else { continue };
            if name.to_string_lossy().starts_with("loop")
                && entry.path().join("loop").exists()
                && self.kernel.block(device).is_some_and(|over| over.overlaps(&extent))
            {
                let name = name.to_string_lossy().into_owned();
                return Some(format!("the loop device /dev/{name} lies over it; detach that"));
            }
        }
        None
    }

    /// Two disks with the same partition labels: which of them the name leads to is chance.
    fn ambiguous(&self, path: &Path) -> Option<String> {
        let label = path.strip_prefix("/dev/disk/by-partlabel").ok()?.to_str()?;
        let wanted = format!("PARTNAME={label}");
        let entries = std::fs::read_dir(&self.block).ok()?;
        let of_that_label = entries.flatten().take(DEVICES).filter(|entry| {
            text(&entry.path().join("uevent"), SMALL_BYTES).lines().any(|line| line == wanted)
        });
        (of_that_label.count() > 1).then(|| {
            "several partitions have this label; remove the other disk, or name the part by /dev/disk/by-partuuid".to_owned()
        })
    }
}

fn numbers(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in which a device is mounted, and which label and loop devices there are.
    fn system(directory: &Path) -> System {
        let system = System {
            mountinfo: directory.join("mountinfo"),
            block: directory.join("block"),
            root: directory.to_owned(),
            kernel: Kernel::default(),
        };
        std::fs::write(
            &system.mountinfo,
            "22 1 179:3 / /srv/room\u{1b} rw,relatime shared:1 - ext4 /dev/mmcblk0p3 rw\n25 1 0:5 / /dev rw - devtmpfs udev rw\n",
        )
        .unwrap();
        for (name, label) in [("sda2", "rootfs-B"), ("sdb2", "rootfs-B"), ("sda1", "rootfs-A")] {
            std::fs::create_dir_all(system.block.join(name)).unwrap();
            std::fs::write(system.block.join(name).join("uevent"), format!("MAJOR=8\nPARTNAME={label}\n"))
                .unwrap();
        }
        system
    }

    #[test]
    fn a_mounted_device_and_the_one_the_system_lies_on_are_in_use_by_their_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let system = system(directory.path());
        let device = rustix::fs::makedev(179, 3);
        assert_eq!(system.device_in_use(device).unwrap(), "it is mounted at /srv/room\u{fffd}; unmount it");
        assert_eq!(system.device_in_use(rustix::fs::makedev(179, 2)), None);
        let own = std::fs::metadata(directory.path()).unwrap().dev();
        assert!(system.device_in_use(own).unwrap().contains("vigil.slot="));
    }

    #[test]
    fn a_label_that_two_partitions_have_names_neither() {
        let directory = tempfile::tempdir().unwrap();
        let system = system(directory.path());
        let ambiguous = |label: &str| system.ambiguous(&Path::new("/dev/disk/by-partlabel").join(label));
        assert!(ambiguous("rootfs-B").unwrap().contains("by-partuuid"));
        assert_eq!(ambiguous("rootfs-A"), None);
        assert_eq!(system.ambiguous(Path::new("/dev/sda2")), None);
    }
}
