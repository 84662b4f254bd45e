//! Disks whose every write and flush is recorded, below any file system: files in a FUSE mount, which a loop device, the
//! updater or QEMU use as block devices. From the record, what a power cut leaves can be made: what was flushed, and
//! of the rest anything.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// The first disk's inode; the mount's root is 1.
const FIRST: u64 = 2;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes were written to a disk; until a flush they may be lost.
    Write {
        /// Which disk.
        disk: usize,
        /// Where.
        offset: usize,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// Everything that was written to a disk before is durable.
    Flush {
        /// Which disk.
        disk: usize,
    },
    /// A note of whoever drives the recording.
    Mark(usize),
}

/// A disk whose write does not reach it, although it says so.
#[derive(Clone, Copy, Debug)]
pub struct Lie {
    /// Which disk.
    pub disk: usize,
    /// Only writes of at least so many bytes count.
    pub at_least: usize,
    /// How many of them are done before the lie.
    pub after: usize,
    /// Reads give what was meant to be written: reading back shows nothing.
    pub hidden: bool,
    /// It is not the only one: every such write from then on is lost.
    pub again: bool,
}

/// The disks as they are, and what happened to them.
#[derive(Default)]
pub struct Record {
    /// Names, as files in the mount.
    pub names: Vec<String>,
    /// What each disk held when the recording began.
    pub bases: Vec<Arc<[u8]>>,
    /// What is read from each disk.
    pub contents: Vec<Vec<u8>>,
    /// What happened, in order over all disks.
    pub ops: Vec<Op>,
    /// A write that will be lost.
    pub lie: Option<Lie>,
    /// A disk whose flushes are not done although they are said to be.
    pub no_flush: Option<usize>,
}

/// The mounted disks.
pub struct Disks {
    record: Arc<Mutex<Record>>,
    directory: PathBuf,
    session: Option<BackgroundSession>,
}

struct Served(Arc<Mutex<Record>>);

impl Disks {
    /// Mounts disks of these names and contents at `directory`.
    pub fn mount(directory: &Path, disks: Vec<(&str, Vec<u8>)>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut record = Record::default();
        for (name, content) in disks {
            record.names.push(name.to_owned());
            record.bases.push(content.clone().into());
            record.contents.push(content);
        }
        let record = Arc::new(Mutex::new(record));
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("vigil-disks".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::clone(&record)), directory, &config)
            .context("FUSE: is /dev/fuse there, and are you root?")?;
        Ok(Self { record, directory: directory.to_owned(), session: Some(session) })
    }

    /// A disk's path.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The record.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// Notes something between two writes.
    pub fn mark(&self, number: usize) {
        self.record().ops.push(Op::Mark(number));
    }

    /// Unmounts, and gives back the record.
    pub fn unmount(mut self) -> anyhow::Result<Record> {
        if let Some(session) = self.session.take() {
            session.umount_and_join()?;
        }
        Ok(std::mem::take(&mut *lock(&self.record)))
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Record {
    /// Begins anew: what the disks hold now is what they held before.
    pub fn begin(&mut self) {
        self.ops.clear();
        self.bases = self.contents.iter().map(|content| content.clone().into()).collect();
    }

    fn write(&mut self, disk: usize, offset: usize, bytes: &[u8]) -> bool {
        let Some(place) = self.contents[disk].get_mut(offset..offset + bytes.len()) else { return false };
        if let Some(lie) = &mut self.lie
            && lie.disk == disk
            && bytes.len() >= lie.at_least
        {
            if lie.after == 0 {
                if lie.hidden {
                    place.copy_from_slice(bytes);
                }
                if !lie.again {
                    self.lie = None;
                }
                return true;
            }
            lie.after -= 1;
        }
        place.copy_from_slice(bytes);
        self.ops.push(Op::Write { disk, offset, bytes: bytes.into() });
        true
    }
}

impl Served {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let number = u64::from(inode);
        let (size, kind, perm) = if inode == INodeNo::ROOT {
            (0, FileType::Directory, 0o755)
        } else {
            let record = lock(&self.0);
            let disk = usize::try_from(number.checked_sub(FIRST)?).ok()?;
            (record.contents.get(disk)?.len() as u64, FileType::RegularFile, 0o644)
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn disk_of(inode: INodeNo) -> usize {
    usize::try_from(u64::from(inode).saturating_sub(FIRST)).unwrap_or(usize::MAX)
}

const TTL: Duration = Duration::from_secs(3600);

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let position = lock(&self.0).names.iter().position(|known| OsStr::new(known) == name);
        match position.and_then(|disk| self.attributes(INodeNo(disk as u64 + FIRST))) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // A disk keeps its size; times and modes are no matter.
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let record = lock(&self.0);
        let Some(content) = record.contents.get(disk_of(inode)) else { return reply.error(Errno::ENOENT) };
        let start = (offset as usize).min(content.len());
        reply.data(&content[start..(start + size as usize).min(content.len())]);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut record = lock(&self.0);
        if disk_of(inode) < record.contents.len() && record.write(disk_of(inode), offset as usize, data) {
            reply.written(data.len() as u32);
        } else {
            reply.error(Errno::ENOSPC);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // At close(2): no promise.
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let disk = disk_of(inode);
        let mut record = lock(&self.0);
        if record.no_flush != Some(disk) {
            record.ops.push(Op::Flush { disk });
        }
        reply.ok();
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let names = lock(&self.0).names.clone();
        for (disk, name) in names.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(disk as u64 + FIRST), disk as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
