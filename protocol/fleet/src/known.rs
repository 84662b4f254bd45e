//! The devices that an operator has checked before: their keys, pinned, and how far they had come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vigil_durable::Mode;
use vigil_protocol::keys::PublicKey;

use crate::failure::Failure;

const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its key.
    pub key: PublicKey,
    /// The highest digest seen.
    #[serde(default)]
    pub digest_seq: u64,
    /// The largest audit log seen.
    #[serde(default)]
    pub audit_size: u64,
    /// Its root then, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_root: Option<String>,
}

/// The file.
#[derive(Debug)]
pub struct KnownDevices {
    path: PathBuf,
    devices: BTreeMap<String, Known>,
}

impl KnownDevices {
    /// Reads the file; a missing one knows nobody.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let devices =
            match vigil_durable::read_bounded(path, FILE_BYTES).map_err(|error| wrong(error.to_string()))? {
                Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?,
                None => BTreeMap::new(),
            };
        Ok(Self { path: path.to_owned(), devices })
    }

    /// A device of an earlier check.
    pub fn get(&self, device: &str) -> Option<&Known> {
        self.devices.get(device)
    }

    /// Remembers a device, durably. Others may check at the same time: what they have pinned since this was read stays.
    pub fn remember(&mut self, device: &str, known: Known) -> Result<(), Failure> {
        if self.devices.get(device) == Some(&known) {
            return Ok(());
        }
        let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", self.path.display()));
        if let Some(directory) = self.path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            vigil_durable::create_directory(directory).map_err(failed)?;
        }
        // The file itself is replaced as a whole, so that the lock is on one beside it.
        let lock = self.path.with_extension("lock");
        let lock =
            std::fs::File::options().create(true).truncate(false).write(true).open(lock).map_err(failed)?;
        lock.lock().map_err(failed)?;
        self.devices = Self::load(&self.path)?.devices;
        // A check that began earlier and ends later does not take back what a newer one saw.
        let newest = |ours: &Known| {
            let is_older = |found: &&Known| found.key == ours.key && found.digest_seq > ours.digest_seq;
            self.devices.get(device).filter(is_older).cloned()
        };
        let known = newest(&known).unwrap_or(known);
        self.devices.insert(device.to_owned(), known);
        let mut text = serde_json::to_vec_pretty(&self.devices).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        vigil_durable::write("fleet.known", &self.path, &text, Mode::Public).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_at_the_same_time_lose_no_pin_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_devices.json");
        let key = PublicKey::from(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key());
        let known = |digest_seq| Known { key: key.clone(), digest_seq, audit_size: 0, audit_root: None };
        // Both have read the file before either writes it.
        let (mut first, mut second) =
            (KnownDevices::load(&path).unwrap(), KnownDevices::load(&path).unwrap());
        first.remember("bar-1", known(7)).unwrap();
        second.remember("bar-2", known(1)).unwrap();
        second.remember("bar-1", known(5)).unwrap();
        let all = KnownDevices::load(&path).unwrap();
        assert_eq!((all.get("bar-1"), all.get("bar-2")), (Some(&known(7)), Some(&known(1))));
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (path, known) = (&path, known(number));
                scope.spawn(move || {
                    KnownDevices::load(path).unwrap().remember(&format!("room-{number}"), known).unwrap();
                });
            }
        });
        assert_eq!(KnownDevices::load(&path).unwrap().devices.len(), 18);
    }

    #[test]
    fn what_is_remembered_is_known_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vigil/known_devices.json");
        let key = PublicKey::from(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key());
        let known = Known { key, digest_seq: 3, audit_size: 4, audit_root: None };
        let mut devices = KnownDevices::load(&path).unwrap();
        assert!(devices.get("bar-1").is_none());
        devices.remember("bar-1", known.clone()).unwrap();
        assert_eq!(KnownDevices::load(&path).unwrap().get("bar-1"), Some(&known));
    }
}
