//! What a copy of the environment lies on: a block device or a file, of which single sectors are overwritten, or NOR
//! flash, whose sectors are erased first.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use vigil_durable::crash_point;

use super::environment::{FLAG_AT, LARGEST, OBSOLETE, Scheme};
use super::fw_env::Place;
use super::mtd;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// One copy's place.
pub(super) trait Medium {
    /// How copies on such a medium say which is newer.
    fn scheme(&self) -> Scheme;
    /// All bytes of the copy.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Replaces the copy, durably. Where the medium allows it, a sector that holds the right bytes is not touched.
    fn write(&self, point: &str, copy: &[u8]) -> io::Result<()>;
    /// Marks the copy as no longer counting. For [`Scheme::Boolean`].
    fn mark_obsolete(&self) -> io::Result<()>;
}

/// The medium that a line of fw_env.config names.
pub(super) fn open(place: &Place, writable: bool) -> io::Result<Box<dyn Medium>> {
    let path = &place.device;
    let kind = std::fs::metadata(path)?.file_type();
    if !(kind.is_file() || kind.is_block_device() || kind.is_char_device()) {
        return Err(refused("neither a file nor a block device nor MTD"));
    }
    let file = OpenOptions::new().read(true).write(writable).open(path)?;
    if kind.is_char_device() {
        let chip = Chip::open(file)?;
        let sector = place.sector.unwrap_or(chip.sector);
        let offset = from_start(place.offset, chip.bytes)?;
        return Ok(Box::new(Nor::new(chip, offset, place.size, sector)?));
    }
    let end = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
    Ok(Box::new(Blocks { offset: from_start(place.offset, end)?, size: place.size, file }))
}

fn from_start(offset: i64, end: u64) -> io::Result<u64> {
    let start = if offset < 0 { end.checked_sub(offset.unsigned_abs()) } else { Some(offset.unsigned_abs()) };
    start.ok_or_else(|| refused("the offset is before the start of the device"))
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// A block device or a file.
struct Blocks {
    file: File,
    offset: u64,
    size: usize,
}

impl Medium for Blocks {
    fn scheme(&self) -> Scheme {
        Scheme::Counter
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut copy = vec![0; self.size];
        match self.file.read_exact_at(&mut copy, self.offset) {
            Ok(()) => Ok(copy),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(refused("it reaches beyond the end of the device"))
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self, point: &str, copy: &[u8]) -> io::Result<()> {
        let old = self.read().unwrap_or_default();
        let mut start = 0;
        while start < copy.len() {
            let place = self.offset + start as u64;
            let end = copy.len().min(start + (SECTOR - place % SECTOR) as usize);
            if old.get(start..end) != Some(&copy[start..end]) {
                self.file.write_all_at(&copy[start..end], place)?;
                crash_point(point, "sector");
            }
            start = end;
        }
        vigil_turns::sync(|| self.file.sync_all())
    }

    fn mark_obsolete(&self) -> io::Result<()> {
        Err(refused("copies on a disk are not marked as obsolete"))
    }
}

/// What NOR flash can do: bits go from 1 to 0 anywhere, and back to 1 by whole sectors.
pub(super) trait Flash {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn program(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn erase(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// A copy in NOR flash, in sectors of its own.
pub(super) struct Nor<F> {
    flash: F,
    offset: u64,
    size: usize,
    sector: u64,
}

impl<F: Flash> Nor<F> {
    pub(super) fn new(flash: F, offset: u64, size: usize, sector: u64) -> io::Result<Self> {
        if sector == 0 || sector > LARGEST as u64 {
            return Err(refused("no flash has such sectors"));
        }
        if !offset.is_multiple_of(sector) {
            return Err(refused("in flash the environment must begin where a sector does"));
        }
        Ok(Self { flash, offset, size, sector })
    }
}

impl<F: Flash> Medium for Nor<F> {
    fn scheme(&self) -> Scheme {
        Scheme::Boolean
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut copy = vec![0; self.size];
        self.flash.read(self.offset, &mut copy)?;
        Ok(copy)
    }

    fn write(&self, point: &str, copy: &[u8]) -> io::Result<()> {
        // What else lies in the last sector is kept.
        let length = (copy.len() as u64).next_multiple_of(self.sector);
        let mut sectors = vec![0; length as usize];
        self.flash.read(self.offset, &mut sectors)?;
        sectors[..copy.len()].copy_from_slice(copy);
        for start in (0..length).step_by(self.sector as usize) {
            let bytes = &sectors[start as usize..(start + self.sector) as usize];
            self.flash.erase(self.offset + start, self.sector)?;
            self.flash.program(self.offset + start, bytes)?;
            crash_point(point, "sector");
        }
        // The CRC is of what was meant to be written; flash that is worn out keeps something else.
        let mut written = vec![0; copy.len()];
        self.flash.read(self.offset, &mut written)?;
        if written == copy {
            Ok(())
        } else {
            Err(io::Error::other("the flash does not keep what is written"))
        }
    }

    fn mark_obsolete(&self) -> io::Result<()> {
        self.flash.program(self.offset + FLAG_AT as u64, &[OBSOLETE])
    }
}

/// A flash chip or a part of one, `/dev/mtdN`.
struct Chip {
    file: File,
    bytes: u64,
    sector: u64,
}

impl Chip {
    fn open(file: File) -> io::Result<Self> {
        let device = file.metadata()?.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let sysfs = format!("/sys/dev/char/{major}:{minor}");
        let attribute = |name: &str| {
            let text = vigil_durable::read_bounded(&Path::new(&sysfs).join(name), 4096).ok().flatten();
            text.and_then(|text| String::from_utf8(text).ok()).map(|text| text.trim().to_owned())
        };
        let number = |name: &str| attribute(name).and_then(|text| text.parse().ok());
        match (attribute("type").as_deref(), number("size"), number("erasesize")) {
            (Some("nor"), Some(bytes), Some(sector)) => Ok(Self { file, bytes, sector }),
            (Some(kind), Some(_), Some(_)) => Err(refused(&format!(
                "flash of the type {kind}: only NOR is supported; put the environment on NOR or on a block device"
            ))),
            _ => Err(refused(
                "a character device that is no NOR flash; raw NAND and UBI are not supported: put the environment \
                 on NOR or on a block device",
            )),
        }
    }
}

impl Flash for Chip {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn program(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A write to MTD is done when it returns.
        self.file.write_all_at(bytes, offset)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        mtd::erase(&self.file, offset, length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// NOR flash in memory, which loses power after so many erased sectors and programmed bytes.
    #[derive(Clone)]
    pub(in super::super) struct SimulatedNor {
        pub(in super::super) bytes: Rc<RefCell<Vec<u8>>>,
        pub(in super::super) sector: usize,
        pub(in super::super) power: Rc<RefCell<Option<u64>>>,
    }

    impl SimulatedNor {
        pub(in super::super) fn new(bytes: usize, sector: usize) -> Self {
            Self { bytes: Rc::new(RefCell::new(vec![0xff; bytes])), sector, power: Rc::default() }
        }

        fn spend(&self) -> io::Result<()> {
            match &mut *self.power.borrow_mut() {
                Some(0) => Err(io::Error::other("the power is cut")),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }
    }

    impl Flash for SimulatedNor {
        fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.copy_from_slice(&self.bytes.borrow()[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn program(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            for (index, byte) in bytes.iter().enumerate() {
                self.spend()?;
                self.bytes.borrow_mut()[offset as usize + index] &= byte;
            }
            Ok(())
        }

        fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
            let (offset, length) = (offset as usize, length as usize);
            assert!(
                offset.is_multiple_of(self.sector) && length.is_multiple_of(self.sector),
                "{offset}+{length}"
            );
            self.spend()?;
            self.bytes.borrow_mut()[offset..offset + length].fill(0xff);
            Ok(())
        }
    }

    fn place(path: &Path, offset: i64, size: usize) -> Place {
        Place { device: path.to_owned(), offset, size, sector: None }
    }

    #[test]
    fn an_offset_below_zero_counts_from_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        open(&place(file.path(), -1024, 512), true).unwrap().write("test", &[7; 512]).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(
            bytes[3072..3584].iter().all(|byte| *byte == 7) && bytes[3584..].iter().all(|byte| *byte == 0)
        );
        assert!(open(&place(file.path(), -4097, 512), true).is_err());
    }

    #[test]
    fn a_character_device_that_is_no_nor_flash_is_refused_with_what_to_do() {
        let error = open(&place(Path::new("/dev/null"), 0, 512), true).err().unwrap().to_string();
        assert!(error.contains("put the environment on NOR or on a block device"), "{error}");
        assert!(open(&place(Path::new("/"), 0, 512), false).is_err());
    }

    #[test]
    fn what_else_lies_in_a_flash_sector_is_kept() {
        let flash = SimulatedNor::new(8192, 4096);
        flash.program(4096 + 1024, b"neighbour").unwrap();
        let nor = Nor::new(flash.clone(), 4096, 1024, 4096).unwrap();
        nor.write("test", &[5; 1024]).unwrap();
        nor.write("test", &[6; 1024]).unwrap();
        assert_eq!(nor.read().unwrap(), [6; 1024]);
        assert_eq!(&flash.bytes.borrow()[4096 + 1024..][..9], b"neighbour");
        assert!(Nor::new(flash.clone(), 100, 1024, 4096).is_err());
        assert!(Nor::new(flash, 0, 1024, 1 << 40).is_err(), "and nothing of that size is allocated");
    }
}
