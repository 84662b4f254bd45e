//! The rollback floor, in a file of its own: a journal that is damaged and put aside must not lower it.

use std::io;
use std::path::{Path, PathBuf};

use vigil_durable::Mode;

/// The file.
#[derive(Debug)]
pub struct FloorFile {
    path: PathBuf,
    value: u64,
}

impl FloorFile {
    /// Reads the floor. A damaged file is an error: guessing 0 would allow every downgrade.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("floor");
        let value = match vigil_durable::read_bounded(&path, 64)? {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().strip_prefix("1 ")?.parse().ok())
                .ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{}: not a floor of version 1; write '1 <sequence of the newest confirmed release>'", path.display()),
                    )
                })?,
        };
        Ok(Self { path, value })
    }

    /// The floor.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Raises it, durably; it never sinks.
    pub fn raise(&mut self, value: u64) -> io::Result<()> {
        if value > self.value {
            vigil_durable::write("floor", &self.path, format!("1 {value}\n").as_bytes(), Mode::Private)?;
            self.value = value;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_never_sinks_and_a_damaged_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut floor = FloorFile::open(directory.path()).unwrap();
        floor.raise(7).unwrap();
        floor.raise(3).unwrap();
        assert_eq!(FloorFile::open(directory.path()).unwrap().value(), 7);
        std::fs::write(directory.path().join("floor"), "1 ").unwrap();
        assert!(FloorFile::open(directory.path()).is_err());
    }
}
