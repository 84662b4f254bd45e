//! Where bytes really lie, whatever name leads there: which range of which disk or file. Two names for one place are found by it,
//! and a name that leads to another disk than it did.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use vigil_text::clean;

const SMALL_BYTES: u64 = 8 * 1024;
const FILE_BYTES: u64 = 1024 * 1024;
/// A loop device over a loop device over …: nobody has more.
const DEPTH: u32 = 4;
const SECTOR: u64 = 512;
/// What tells one disk from another is no longer.
const IDENTITY_CHARS: usize = 160;
/// Mounts that are looked at.
const MOUNTS: usize = 4096;

/// A range of bytes of a disk or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    base: Base,
    begin: u64,
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// A whole disk, by its number.
    Disk(u64),
    /// A file, by its file system's number and its own.
    File(u64, u64),
}

impl Extent {
    /// Whether they have a byte in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.base == other.base && self.begin < other.end && other.begin < self.end
    }

    /// So many bytes from `offset` on; from the end if that is negative.
    pub(crate) fn part(&self, offset: i64, length: u64) -> Self {
        let begin = if offset < 0 {
            self.end.saturating_sub(offset.unsigned_abs())
        } else {
            self.begin.saturating_add(offset.unsigned_abs())
        };
        Self { begin, end: begin.saturating_add(length), ..*self }
    }
}

/// Where the kernel tells. Another tree in tests.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    devices: PathBuf,
    mountinfo: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { devices: "/sys/dev".into(), mountinfo: "/proc/self/mountinfo".into() }
    }
}

impl Kernel {
    /// Where the bytes of a file or a block device lie; none for what is neither.
    pub(crate) fn extent(&self, path: &Path) -> io::Result<Option<Extent>> {
        self.extent_of(path, DEPTH)
    }

    fn extent_of(&self, path: &Path, depth: u32) -> io::Result<Option<Extent>> {
        let found = std::fs::metadata(path)?;
        if found.file_type().is_block_device() {
            return Ok(self.device(found.rdev(), depth));
        }
        let base = Base::File(found.dev(), found.ino());
        Ok(found.is_file().then_some(Extent { base, begin: 0, end: found.len() }))
    }

    /// The same of a block device, by its number.
    pub(crate) fn block(&self, device: u64) -> Option<Extent> {
        self.device(device, DEPTH)
    }

    fn device(&self, device: u64, depth: u32) -> Option<Extent> {
        let at = self.directory("block", device);
        let number = |name: &str| line(&at.join(name)).parse::<u64>().ok();
        let length = number("size")?.checked_mul(SECTOR)?;
        let backing = line(&at.join("loop/backing_file"));
        if !backing.is_empty() && depth > 0 {
            let offset = number("loop/offset").unwrap_or(0);
            if let Ok(Some(under)) = self.extent_of(Path::new(&backing), depth - 1) {
                return Some(under.part(offset.try_into().ok()?, length));
            }
        }
        if !at.join("partition").exists() {
            return Some(Extent { base: Base::Disk(device), begin: 0, end: length });
        }
        let disk = numbers(&line(&at.join("../dev")))?;
        let whole = self.device(disk, depth.checked_sub(1)?)?;
        let begin = number("start")?.checked_mul(SECTOR)?;
        Some(whole.part(begin.try_into().ok()?, length))
    }

    /// What is mounted where: the extents of block devices, with their mount points.
    pub(crate) fn mounted(&self) -> Vec<(Extent, String)> {
        let text = text(&self.mountinfo, FILE_BYTES);
        text.lines()
            .take(MOUNTS)
            .filter_map(|line| {
                let mut words = line.split(' ').skip(2);
                let device = numbers(words.next()?)?;
                let place = words.nth(1)?;
                Some((self.block(device)?, clean(place, IDENTITY_CHARS)))
            })
            .collect()
    }

    /// What tells the disk, the flash or the file system behind a name from another one that has the name tomorrow, as far as
    /// the hardware tells.
    pub(crate) fn identity(&self, path: &Path) -> String {
        let Ok(found) = std::fs::metadata(path) else { return "not there".to_owned() };
        let kind = found.file_type();
        let said = if kind.is_block_device() {
            let at = self.directory("block", found.rdev());
            let disk = if at.join("partition").exists() { at.join("..") } else { at.clone() };
            let names = [
                "device/cid",
                "device/serial",
                "serial",
                "wwid",
                "device/wwid",
                "dm/uuid",
                "loop/backing_file",
            ];
            let serial = names.iter().map(|name| line(&disk.join(name))).find(|said| !said.is_empty());
            let place = ["start", "size"].map(|name| line(&at.join(name)));
            format!("disk {} {}+{}", serial.unwrap_or_default(), place[0], place[1])
        } else if kind.is_char_device() {
            let at = self.directory("char", found.rdev());
            format!("flash {} {}", line(&at.join("name")), line(&at.join("size")))
        } else {
            let system = rustix::fs::statvfs(path).map_or(0, |system| system.f_fsid);
            format!("file system {system:x}")
        };
        clean(&said, IDENTITY_CHARS)
    }

    fn directory(&self, kind: &str, device: u64) -> PathBuf {
        let name = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let link = self.devices.join(kind).join(name);
        // By its real name, so that what is above it is what it is a part of.
        link.canonicalize().unwrap_or(link)
    }
}

/// A device's number from the kernel's text.
pub(crate) fn numbers(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn line(path: &Path) -> String {
    text(path, SMALL_BYTES).lines().next().unwrap_or_default().trim().to_owned()
}

/// What the kernel tells in a file, as far as the limit goes.
pub(crate) fn text(path: &Path, limit: u64) -> String {
    let bytes = vigil_durable::read_bounded(path, limit).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with two partitions, a loop device over the second, and one over a file.
    fn kernel(directory: &Path) -> Kernel {
        let block = directory.join("devices");
        let put = |path: &str, text: &str| {
            let path = block.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("mmc/dev", "179:0\n");
        put("mmc/size", "100000\n");
        put("mmc/device/cid", "1501\u{1b}00\n");
        for (number, start) in [(1, 2048), (2, 10_000)] {
            put(&format!("mmc/p{number}/partition"), "1\n");
            put(&format!("mmc/p{number}/start"), &format!("{start}\n"));
            put(&format!("mmc/p{number}/size"), "4096\n");
        }
        put("loop7/size", "16\n");
        put("loop7/loop/backing_file", &format!("{}\n", directory.join("image").display()));
        put("loop7/loop/offset", "4096\n");
        std::fs::create_dir_all(directory.join("block")).unwrap();
        for (number, path) in [("179:0", "mmc"), ("179:1", "mmc/p1"), ("179:2", "mmc/p2"), ("7:7", "loop7")] {
            std::os::unix::fs::symlink(block.join(path), directory.join("block").join(number)).unwrap();
        }
        std::fs::write(directory.join("image"), vec![0; 65_536]).unwrap();
        std::fs::write(directory.join("mountinfo"), "22 1 179:2 / /srv rw - ext4 /dev/p2 rw\n").unwrap();
        Kernel { devices: directory.to_owned(), mountinfo: directory.join("mountinfo") }
    }

    #[test]
    fn a_partition_lies_on_its_disk_and_a_loop_device_in_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = kernel(directory.path());
        let device = |minor| kernel.block(rustix::fs::makedev(179, minor)).unwrap();
        let (disk, first, second) = (device(0), device(1), device(2));
        assert!(disk.overlaps(&first) && second.overlaps(&disk) && !first.overlaps(&second));
        assert!(disk.part(10_000 * 512, 1).overlaps(&second));
        assert!(!disk.part(10_000 * 512 - 1, 1).overlaps(&second));
        assert!(!disk.part(-512, 512).overlaps(&second));
        let file = kernel.extent(&directory.path().join("image")).unwrap().unwrap();
        let over = kernel.block(rustix::fs::makedev(7, 7)).unwrap();
        assert!(
            over.overlaps(&file) && over.overlaps(&file.part(4096, 1)) && !over.overlaps(&file.part(4095, 1))
        );
        assert_eq!(kernel.block(rustix::fs::makedev(8, 0)), None);
        assert_eq!(kernel.extent(Path::new("/dev/null")).unwrap(), None);
        assert_eq!(kernel.mounted(), [(second, "/srv".to_owned())]);
    }

    #[test]
    fn a_file_is_told_from_one_of_that_name_on_another_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel::default();
        let file = directory.path().join("boot.env");
        std::fs::write(&file, "").unwrap();
        assert_eq!(kernel.identity(&file), kernel.identity(directory.path()));
        assert_ne!(kernel.identity(&file), kernel.identity(Path::new("/proc/version")));
        assert_eq!(kernel.identity(&directory.path().join("none")), "not there");
    }
}
