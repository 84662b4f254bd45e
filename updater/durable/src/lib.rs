//! Durable file writes, the one place where Vigil's own files are put on disk: temporary file, fsync, rename,
//! fsync of the directory. (What a bootloader reads has its own rules and does not come through here.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

mod crash;
mod share;

pub use crash::crash_point;
pub use share::Share;

/// Who may read a file that this crate writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0600: keys, credentials.
    Private,
    /// 0640: state that a group of administrators may read.
    Group,
    /// 0644: public keys, checkpoints.
    Public,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Group => 0o640,
            Self::Public => 0o644,
        }
    }
}

/// Replaces `path` by `bytes`, durably and atomically: after a power cut the file holds the old bytes or the new
/// ones, never a mixture. `point` names the write for the crash-point tests.
pub fn write(point: &str, path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    crash_point(point, "before");
    let temporary = temporary_name(path);
    let result = write_and_rename(&temporary, path, bytes, mode);
    if result.is_err() {
        // A full disk must not stay full of our own leftovers.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    crash_point(point, "after");
    Ok(())
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode.bits()).open(temporary)?;
    file.write_all(bytes)?;
    vigil_turns::sync(|| file.sync_all())?;
    drop(file);
    fs::rename(temporary, path)?;
    sync_directory_of(path)
}

/// Appends `bytes` to an open log and waits until they are on the disk.
pub fn append(point: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
    crash_point(point, "before");
    file.write_all(bytes)?;
    vigil_turns::sync(|| file.sync_data())?;
    crash_point(point, "after");
    Ok(())
}

/// Removes a file durably; a file that is not there is as good as removed.
pub fn remove(point: &str, path: &Path) -> io::Result<()> {
    crash_point(point, "before");
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    crash_point(point, "after");
    Ok(())
}

/// Makes a directory and its parents, durably, readable by the owner and group.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    builder.recursive(true).create(path)?;
    sync_directory_of(path)
}

/// Opens a regular file, and nothing else: a pipe in its place would let whoever opens it wait for ever.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let message = format!("{} is not a regular file", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Reads a whole file, unless it is larger than `limit` bytes; `Ok(None)` when there is none.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is larger than the {limit} bytes it may have", path.display()),
        ));
    }
    Ok(Some(bytes))
}

/// Puts a damaged file aside as `name.damaged`, so that evidence is kept and the next start is not stopped by it.
pub fn set_aside(point: &str, path: &Path) -> io::Result<PathBuf> {
    crash_point(point, "before");
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    sync_directory_of(path)?;
    crash_point(point, "after");
    Ok(aside)
}

/// Makes the renames and removals inside the directory that holds `path` durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory)?;
    vigil_turns::sync(|| directory.sync_all())
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_no_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        write("test", &path, b"a longer first version", Mode::Private).unwrap();
        write("test", &path, b"second", Mode::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_file_and_removes_its_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"old").unwrap();
        assert!(write("test", &path, b"new", Mode::Private).is_err());
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_in_a_files_place_is_refused_and_not_waited_for() {
        use rustix::fs::{CWD, FileType, mknodat};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0).unwrap();
        assert!(read_bounded(&path, 10).is_err());
        for options in [OpenOptions::new().read(true), OpenOptions::new().append(true).create(true)] {
            assert!(open(&path, options).is_err());
        }
    }

    #[test]
    fn a_file_over_its_limit_is_refused_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        assert!(read_bounded(&path, 10).is_err());
        assert_eq!(read_bounded(&path, 11).unwrap().unwrap().len(), 11);
        assert!(read_bounded(&directory.path().join("none"), 1).unwrap().is_none());
    }
}
