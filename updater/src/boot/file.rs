//! Boot variables in a file, for containers, tests and devices whose first stage reads a file system: `boot.env`
//! holds `NAME=value` lines with the names that U-Boot scripts use, and the first stage leaves `booted`.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vigil_durable::Mode;

use super::claims::{Claims, Look};
use super::variables::{self, Variables};
use super::{BootControl, BootOrder, Booted, Reading, invalid};
use crate::extent::Kernel;

const LIMIT: u64 = 64 * 1024;

/// The back-end.
#[derive(Debug)]
pub struct FileBoot {
    directory: PathBuf,
    claims: Claims,
}

#[derive(Serialize, Deserialize)]
struct BootedFile {
    slot: String,
    boot_id: String,
}

impl FileBoot {
    /// The variables in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), claims: Claims::default() }
    }

    /// With what was proven before.
    #[must_use]
    pub fn with(self, claims: Claims) -> Self {
        Self { claims, ..self }
    }

    /// What the first stage does at power-on: chooses a slot, spends a try, leaves word of it, all durably.
    pub fn power_on(&mut self, boot_id: &str) -> io::Result<String> {
        if !self.variables().exists() {
            return Err(invalid(
                &self.variables(),
                "not there; the factory writes it: BOOT_ORDER=A B, BOOT_A_LEFT=3, BOOT_B_LEFT=3, a line each",
            ));
        }
        let mut order = self.read()?.order;
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

    fn place(&self) -> String {
        format!("file {}, {}", self.variables().display(), Kernel::default().identity(&self.directory))
    }

    fn variables(&self) -> PathBuf {
        self.directory.join("boot.env")
    }

    fn look<'a>(&self, variables: &Variables, damage: Option<&'a str>) -> Look<'a> {
        let is_empty = std::fs::metadata(self.variables()).is_ok_and(|found| found.len() == 0);
        // The directory is the first stage's: it has left word there of what runs. The file may be another's all the same.
        if variables.contains_key("BOOT_ORDER") {
            Look::Valid
        } else if is_empty || !self.variables().exists() {
            Look::Blank
        } else {
            Look::Other(damage.unwrap_or("no BOOT_ORDER in it"))
        }
    }

    /// The variables, and what was damaged. A line that is none is left out.
    fn read_variables(&self) -> io::Result<(Variables, Option<String>)> {
        let path = self.variables();
        let damaged = |what: &str| Some(format!("{}: {what}", path.display()));
        let bytes = match vigil_durable::read_bounded(&path, LIMIT) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok((Variables::new(), damaged("not there"))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok((Variables::new(), damaged("larger than boot variables are")));
            }
            Err(error) => return Err(error),
        };
        let Ok(text) = String::from_utf8(bytes) else { return Ok((Variables::new(), damaged("not text"))) };
        let (mut variables, mut damage) = (Variables::new(), None);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match line.split_once('=') {
                Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
                None => damage = damaged("a line without '='"),
            }
        }
        Ok((variables, damage))
    }
}

impl BootControl for FileBoot {
    fn guarantee(&self) -> &'static str {
        "atomic: the file is replaced by a rename, so a power cut leaves the old variables or the new ones"
    }

    fn booted(&self) -> io::Result<Booted> {
        let path = self.directory.join("booted");
        let bytes = vigil_durable::read_bounded(&path, LIMIT)?
            .ok_or_else(|| invalid(&path, "not there; the first stage writes it at power-on"))?;
        let file: BootedFile = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(&path, &vigil_text::json_fault(&error)))?;
        Ok(Booted { slot: file.slot, boot_id: file.boot_id })
    }

    fn read(&self) -> io::Result<Reading> {
        let (variables, damage) = self.read_variables()?;
        variables::from_uboot(&variables, damage, &|| self.booted())
    }

    fn remember(&self) -> io::Result<()> {
        let is_valid =
            matches!(self.read_variables()?, (variables, None) if variables.contains_key("BOOT_ORDER"));
        if is_valid { self.claims.keep(&self.place()) } else { Ok(()) }
    }

    fn is_remembered(&self) -> bool {
        self.claims.hold(&self.place())
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.variables().exists() {
            super::check_writable(&self.variables())?;
        }
        let (variables, damage) = self.read_variables()?;
        self.claims.check(&self.place(), self.look(&variables, damage.as_deref()))
    }

    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()> {
        // Variables that are not ours are kept.
        let (mut variables, damage) = self.read_variables()?;
        let place = self.place();
        self.claims.prove(&place, self.look(&variables, damage.as_deref()))?;
        variables.extend(variables::to_uboot(order));
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
        let order = boot.read().unwrap().order;
        assert_eq!(order.left["A"], 10);
        boot.write("test", &order.without("B")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "BOOT_A_LEFT=a\nBOOT_B_LEFT=0\nBOOT_ORDER=A\nbootdelay=2\n");
    }

    #[test]
    fn a_damaged_file_reads_as_the_running_slot_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut boot = FileBoot::new(directory.path());
        assert!(boot.read().is_err(), "nobody knows what runs");
        std::fs::write(directory.path().join("booted"), r#"{"slot":"B","boot_id":"1"}"#).unwrap();
        let running = BootOrder::default().first("B");
        assert_eq!(boot.read().unwrap().order, running);
        let long = vec![b'x'; 70_000];
        for text in [&b""[..], b"garbage", b"BOOT_A_LEFT=3\n", b"\xff", b"BOOT_ORDER=\n", &long] {
            std::fs::write(directory.path().join("boot.env"), text).unwrap();
            let reading = boot.read().unwrap();
            assert_eq!((reading.order.order, reading.order.left["B"]), (running.order.clone(), 3));
            assert!(reading.damage.unwrap().contains("the running slot B stands in"));
        }
        std::fs::write(directory.path().join("boot.env"), "somebody else's notes\n").unwrap();
        let error = boot.write("test", &running).unwrap_err().to_string();
        assert!(error.contains("not written to"), "{error}");
        assert_eq!(std::fs::read(directory.path().join("boot.env")).unwrap(), b"somebody else's notes\n");
        std::fs::write(directory.path().join("boot.env"), "").unwrap();
        boot.write("test", &running).unwrap();
        // Once it is proven, damage is repaired.
        std::fs::write(directory.path().join("boot.env"), "garbage").unwrap();
        boot.write("test", &running).unwrap();
        assert_eq!(boot.read().unwrap(), Reading { order: running, damage: None, made_up: false });
    }

    #[test]
    fn power_on_spends_a_try_and_leaves_word_of_what_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut boot = FileBoot::new(directory.path());
        boot.write("test", &BootOrder::default().first("A").first("B")).unwrap();
        assert_eq!(boot.power_on("boot-1").unwrap(), "B");
        assert_eq!(boot.booted().unwrap(), Booted { slot: "B".into(), boot_id: "boot-1".into() });
        assert_eq!(boot.read().unwrap().order.left["B"], 2);
    }
}
