//! Boot variables in a file, for containers, tests and devices whose first stage reads a file system: `boot.env`
//! holds `NAME=value` lines with the names that U-Boot scripts use, and the first stage leaves `booted`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vigil_durable::Mode;

use super::{BootControl, BootOrder, Booted};

const LIMIT: u64 = 64 * 1024;

/// The back-end.
#[derive(Debug)]
pub struct FileBoot {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct BootedFile {
    slot: String,
    boot_id: String,
}

impl FileBoot {
    /// The variables in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// What the first stage does at power-on: chooses a slot, spends a try, leaves word of it, all durably.
    pub fn power_on(&mut self, boot_id: &str) -> io::Result<String> {
        let mut order = self.read()?;
        let slot = order.select().ok_or_else(|| {
            io::Error::other(format!("{}: no slot in BOOT_ORDER", self.variables().display()))
        })?;
        self.write("first-stage.env", &order)?;
        let booted = BootedFile { slot: slot.clone(), boot_id: boot_id.to_owned() };
        vigil_durable::write(
            "first-stage.booted",
            &self.directory.join("booted"),
            &serde_json::to_vec(&booted)?,
            Mode::Public,
        )?;
        Ok(slot)
    }

    fn variables(&self) -> PathBuf {
        self.directory.join("boot.env")
    }

    fn read_variables(&self) -> io::Result<BTreeMap<String, String>> {
        let path = self.variables();
        let bytes = vigil_durable::read_bounded(&path, LIMIT)?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{}: not there; restore it with BOOT_ORDER, BOOT_<slot>_LEFT", path.display()),
            )
        })?;
        let text = String::from_utf8(bytes).map_err(|_| invalid(&path, "not text"))?;
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (name, value) =
                    line.split_once('=').ok_or_else(|| invalid(&path, "a line without '='"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

impl BootControl for FileBoot {
    fn guarantee(&self) -> &'static str {
        "atomic: the file is replaced by a rename, so a power cut leaves the old variables or the new ones"
    }

    fn booted(&self) -> io::Result<Booted> {
        let path = self.directory.join("booted");
        let bytes = vigil_durable::read_bounded(&path, LIMIT)?
            .ok_or_else(|| invalid(&path, "not there; the first stage writes it at power-on"))?;
        let file: BootedFile =
            serde_json::from_slice(&bytes).map_err(|error| invalid(&path, &error.to_string()))?;
        Ok(Booted { slot: file.slot, boot_id: file.boot_id })
    }

    fn read(&self) -> io::Result<BootOrder> {
        let path = self.variables();
        let variables = self.read_variables()?;
        let order = variables.get("BOOT_ORDER").ok_or_else(|| invalid(&path, "no BOOT_ORDER"))?;
        let order: Vec<String> = order.split_whitespace().map(str::to_owned).collect();
        let mut left = BTreeMap::new();
        for (name, value) in &variables {
            if let Some(slot) = name.strip_prefix("BOOT_").and_then(|rest| rest.strip_suffix("_LEFT")) {
                // Hexadecimal without a prefix, as U-Boot's setexpr writes it.
                let tries = u32::from_str_radix(value.trim_start_matches("0x"), 16)
                    .map_err(|_| invalid(&path, &format!("{name}={value}: not a hexadecimal number")))?;
                left.insert(slot.to_owned(), tries);
            }
        }
        Ok(BootOrder { order, left })
    }

    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()> {
        // Variables that are not ours are kept.
        let mut variables = match self.read_variables() {
            Ok(variables) => variables,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        variables.insert("BOOT_ORDER".to_owned(), order.order.join(" "));
        for (slot, left) in &order.left {
            variables.insert(format!("BOOT_{slot}_LEFT"), format!("{left:x}"));
        }
        let mut text = String::new();
        for (name, value) in variables {
            let _ = writeln!(text, "{name}={value}");
        }
        vigil_durable::write(point, &self.variables(), text.as_bytes(), Mode::Public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_variables_are_kept_and_counters_are_hexadecimal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot.env");
        std::fs::write(&path, "BOOT_ORDER=A B\nBOOT_A_LEFT=a\nBOOT_B_LEFT=3\nbootdelay=2\n").unwrap();
        let mut boot = FileBoot::new(directory.path());
        let order = boot.read().unwrap();
        assert_eq!(order.left["A"], 10);
        boot.write("test", &order.without("B")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "BOOT_A_LEFT=a\nBOOT_B_LEFT=0\nBOOT_ORDER=A\nbootdelay=2\n");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_reads_as_no_slots() {
        let directory = tempfile::tempdir().unwrap();
        let boot = FileBoot::new(directory.path());
        assert!(boot.read().is_err());
        for text in ["", "garbage", "BOOT_A_LEFT=3\n", "BOOT_ORDER=A\nBOOT_A_LEFT=zz\n"] {
            std::fs::write(directory.path().join("boot.env"), text).unwrap();
            assert!(boot.read().is_err(), "{text:?}");
        }
    }

    #[test]
    fn power_on_spends_a_try_and_leaves_word_of_what_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut boot = FileBoot::new(directory.path());
        boot.write("test", &BootOrder::default().first("A").first("B")).unwrap();
        assert_eq!(boot.power_on("boot-1").unwrap(), "B");
        assert_eq!(boot.booted().unwrap(), Booted { slot: "B".into(), boot_id: "boot-1".into() });
        assert_eq!(boot.read().unwrap().left["B"], 2);
    }
}
