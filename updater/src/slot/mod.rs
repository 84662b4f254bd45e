//! Slots: where images are written and read back. A part of a slot is a file or a block device of fixed size.

mod flusher;
mod map;
mod mounts;
mod seeds;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, OFlags, fadvise};
use vigil_durable::crash_point;

use crate::extent::Kernel;

pub use flusher::Flusher;
pub use map::{Cut, CutUnit, Cutter, Map, MapWriter};
pub use seeds::{Seed, Seeds};

use self::mounts::System;

/// What is blank at the beginning of each part while a slot is being written, so that no bootloader and no kernel takes
/// it for a system: superblocks lie at 0 (squashfs, FAT, XFS, a kernel), 1 KiB (ext4, EROFS, F2FS) or 64 KiB (btrfs).
pub const HEAD_BYTES: usize = crate::release::FIRST_UNIT_BYTES as usize;

/// One part of a slot, open for writing and reading back.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
}

impl Part {
    /// Opens a file or block device that nobody uses, and of which none of `others` has a byte: each is given with its name. Its
    /// size is what it is: a slot is never grown, since on a device it cannot be.
    pub fn open(path: &Path, others: impl Iterator<Item = (String, PathBuf)>) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("slot {}: {error}", path.display()));
        let kind = std::fs::metadata(path).map_err(named)?.file_type();
        if !(kind.is_file() || kind.is_block_device()) {
            return Err(named(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a block device",
            )));
        }
        // Of a block device O_EXCL asks that no file system, swap or other device is on it, and keeps them off.
        let exclusive = if kind.is_block_device() { OFlags::EXCL } else { OFlags::empty() };
        let flags = (exclusive | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let busy = |why: &str| named(io::Error::new(io::ErrorKind::ResourceBusy, why.to_owned()));
        let file = match file {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let why = File::open(path).and_then(|file| System::default().in_use(path, &file));
                return Err(busy(why.ok().flatten().as_deref().unwrap_or("it is in use")));
            }
            Err(error) => return Err(named(error)),
        };
        if let Some(why) = System::default().in_use(path, &file).map_err(named)? {
            return Err(busy(&why));
        }
        let kernel = Kernel::default();
        let own = kernel.extent(path).map_err(named)?;
        for (name, other) in others {
            let other = kernel.extent(&other).ok().flatten();
            if own.zip(other).is_some_and(|(own, other)| own.overlaps(&other)) {
                return Err(busy(&format!(
                    "{name} lies there too; put the configuration of the slots right"
                )));
            }
        }
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(named)?;
        read_what_is_asked(&file).map_err(named)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), size })
    }

    /// Makes the file of an image that is kept as one: of `size` bytes, which are there, or it fails at once.
    pub fn make(path: &Path, size: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            vigil_durable::create_directory(directory)?;
        }
        let file = vigil_durable::open(
            path,
            OpenOptions::new().read(true).write(true).create(true).truncate(false),
        )?;
        file.set_len(size)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?;
        vigil_turns::sync(|| file.sync_all())?;
        vigil_durable::sync_directory_of(path)?;
        drop(file);
        Self::open(path, std::iter::empty())
    }

    /// Bytes that fit.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `bytes` at `offset` and waits until they are on the disk. `point` names the write for the crash-point
    /// tests.
    pub fn write(&self, point: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        crash_point(point, "before");
        self.put(offset, bytes)?;
        vigil_turns::sync(|| self.file.sync_data())?;
        crash_point(point, "after");
        Ok(())
    }

    /// Writes `bytes` at `offset`; see [`Self::flush_behind`].
    pub fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.size {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("slot {}: the image is larger than the slot", self.path.display()),
            ));
        }
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("slot {}: {error}", self.path.display()));
        self.file.write_all_at(bytes, offset).map_err(named)
    }

    /// Lets `flusher` bring what was put to the disk: it is there when it says so.
    pub fn flush_behind(&self, flusher: &mut Flusher) -> io::Result<()> {
        flusher.begin(&self.file)
    }

    /// Reads what was written, wherever it is.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Blanks the first [`HEAD_BYTES`], as far as the part goes, and waits until that is on the disk.
    pub fn seal(&self) -> io::Result<()> {
        self.write("slot.seal", 0, &vec![0; HEAD_BYTES.min(self.size as usize)])
    }

    /// Reads `buffer.len()` bytes at `offset` from the disk and not from the page cache, which would tell what was
    /// meant to be written instead of what was.
    pub fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = std::num::NonZeroU64::new(buffer.len() as u64);
        fadvise(&*self.file, offset, length, Advice::DontNeed)?;
        self.file.read_exact_at(buffer, offset)?;
        // What was read will not be read again, and the room's applications need the memory.
        fadvise(&*self.file, offset, length, Advice::DontNeed)?;
        Ok(())
    }
}

/// Opens what is read in large pieces, here and there.
pub fn open_in_pieces(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    read_what_is_asked(&file)?;
    Ok(file)
}

/// The kernel would read on behind each piece, as much as its settings say: nobody may ever ask for that, and a turn of the loop
/// would wait for it.
fn read_what_is_asked(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::Random)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_mounted_or_under_a_loop_device_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let run = |words: &[&str]| {
            let output = std::process::Command::new(words[0]).args(&words[1..]).output().unwrap();
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::fs::create_dir(at("mnt")).unwrap();
        File::create(at("part")).unwrap().set_len(4 << 20).unwrap();
        run(&["/sbin/mkfs.ext4", "-q", &at("part")]);
        Part::open(Path::new(&at("part")), std::iter::empty()).unwrap();
        let device = run(&["/sbin/losetup", "--find", "--show", &at("part")]);
        run(&["/bin/mount", &device, &at("mnt")]);
        let error = |path: &str| Part::open(Path::new(path), std::iter::empty()).unwrap_err().to_string();
        let (mounted, backing) = (error(&device), error(&at("part")));
        run(&["/bin/umount", &at("mnt")]);
        let over = run(&["/sbin/losetup", "--find", "--show", &device]);
        let looped = error(&device);
        run(&["/sbin/losetup", "--detach", &over]);
        let other = [("part \"rootfs\" of slot A".to_owned(), PathBuf::from(&device))];
        let twice = Part::open(Path::new(&device), other.into_iter()).unwrap_err().to_string();
        let free =
            Part::open(Path::new(&device), std::iter::empty()).map(drop).map_err(|error| error.to_string());
        run(&["/sbin/losetup", "--detach", &device]);
        assert!(mounted.contains("it is mounted at") && mounted.contains("mnt"), "{mounted}");
        assert!(backing.contains("lies over it"), "{backing}");
        assert!(looped.contains("lies over it"), "{looped}");
        assert!(twice.contains("of slot A lies there too"), "{twice}");
        assert_eq!(free, Ok(()));
        assert!(error("/dev/null").contains("neither a file nor a block device"));
    }

    #[test]
    fn a_write_past_the_end_of_the_slot_is_refused_and_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10).unwrap();
        let part = Part::open(file.path(), std::iter::empty()).unwrap();
        assert_eq!(part.write("test", 4, &[1; 7]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        part.write("test", 4, &[1; 6]).unwrap();
        let mut read = [9; 10];
        part.read_back(0, &mut read).unwrap();
        assert_eq!(read, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    }
}
