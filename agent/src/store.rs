//! Small versioned JSON files in the state directory: read with a limit, written durably, put aside when damaged.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vigil_durable::Mode;

use crate::link::flash::replacing;

/// A file of one kind of content.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    point: &'static str,
    version: u32,
    limit: u64,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    content: T,
}

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded<T> {
    /// There was none.
    Nothing,
    /// Its content.
    Content(T),
    /// It could not be read as this version, and was put aside. The text says what was wrong and where it is now.
    Damaged(String),
}

impl Store {
    /// `point` names the write for the crash-point tests.
    pub fn new(path: PathBuf, point: &'static str, version: u32, limit: u64) -> Self {
        Self { path, point, version, limit }
    }

    /// Reads the file.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Loaded<T>> {
        let why = match vigil_durable::read_bounded(&self.path, self.limit) {
            Ok(None) => return Ok(Loaded::Nothing),
            Ok(Some(bytes)) => match serde_json::from_slice::<Versioned<T>>(&bytes) {
                Ok(found) if found.v == self.version => return Ok(Loaded::Content(found.content)),
                Ok(found) => format!("version {}, this release reads {}", found.v, self.version),
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
            Err(error) => return Err(named(&self.path, &error)),
        };
        let aside = vigil_durable::set_aside(self.point, &self.path)?;
        Ok(Loaded::Damaged(format!("{}: {why}; kept as {}", self.path.display(), aside.display())))
    }

    /// Writes the file. Returns what the flash has written for it.
    pub fn save<T: Serialize>(&self, content: &T) -> io::Result<u64> {
        let bytes = serde_json::to_vec(&Versioned { v: self.version, content })?;
        if bytes.len() as u64 > self.limit {
            return Err(io::Error::other(format!(
                "{}: over its limit of {} bytes",
                self.path.display(),
                self.limit
            )));
        }
        vigil_durable::write(self.point, &self.path, &bytes, Mode::Private)
            .map_err(|error| named(&self.path, &error))?;
        Ok(replacing(bytes.len() as u64))
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Content {
        count: u32,
    }

    #[test]
    fn a_truncated_or_foreign_file_is_put_aside_and_said_so() {
        for text in ["{\"v\":1,\"cou", "{\"v\":2,\"count\":1}", "[]"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store.json");
            let store = Store::new(path.clone(), "test", 1, 1000);
            std::fs::write(&path, text).unwrap();
            assert!(matches!(store.load::<Content>().unwrap(), Loaded::Damaged(_)), "{text}");
            assert_eq!(store.load::<Content>().unwrap(), Loaded::Nothing);
            store.save(&Content { count: 7 }).unwrap();
            assert_eq!(store.load().unwrap(), Loaded::Content(Content { count: 7 }));
            assert_eq!(std::fs::read_to_string(directory.path().join("store.json.damaged")).unwrap(), text);
        }
    }
}
