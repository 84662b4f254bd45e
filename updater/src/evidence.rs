//! How the boot before this one ended: what the kernel's crash records, the watchdog and the board say.

use std::path::Path;

use tracing::debug;

use crate::config::EvidenceConfig;
use crate::engine::LastBoot;

const RECORDS: usize = 64;
const RECORD_BYTES: u64 = 256 * 1024;
const WORDS_BYTES: usize = 300;

/// The crash records that are there, each under a name that a later one of the same file name has not.
pub fn crash_records(config: &EvidenceConfig) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(&config.crash_records) else { return vec![] };
    let mut records: Vec<_> = entries
        .flatten()
        .take(RECORDS)
        .map(|entry| {
            let time = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let time = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let nanos = time.map_or(0, |time| time.as_nanos());
            format!("{}@{nanos}", entry.file_name().to_string_lossy())
        })
        .collect();
    records.sort();
    records
}

/// How the boot before this one ended. Crash records that were `known` before it are older.
pub fn last_boot(config: &EvidenceConfig, known: &[String]) -> LastBoot {
    let new = crash_records(config).into_iter().find(|record| !known.contains(record));
    let panic = new.and_then(|record| {
        let name = record.rsplit_once('@')?.0.to_owned();
        last_words(&config.crash_records.join(name))
    });
    let text = |path: &Path| {
        let bytes = vigil_durable::read_bounded(path, 4096).ok().flatten()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let watchdog = text(&config.watchdog_status)
        .and_then(|status| {
            let digits = status.strip_prefix("0x");
            digits.map_or_else(|| status.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
        })
        .is_some_and(|status| status != 0);
    let reason = config.reset_reason.as_deref().and_then(text).unwrap_or_default().to_lowercase();
    let words: Vec<_> = reason.split(|character: char| !character.is_alphanumeric()).collect();
    let power = config.power_words.iter().any(|word| words.contains(&word.to_lowercase().as_str()));
    debug!(?panic, watchdog, reason, "how the boot before ended");
    LastBoot { panic, watchdog, power: power && !watchdog }
}

/// The line in which the kernel says why it panicked, or the last one.
fn last_words(path: &Path) -> Option<String> {
    let bytes = vigil_durable::read_bounded(path, RECORD_BYTES).ok().flatten()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| line.contains("Kernel panic"));
    let line = line.or_else(|| text.lines().rfind(|line| !line.trim().is_empty())).unwrap_or("no words");
    let mut line: String = line.chars().filter(|character| !character.is_control()).collect();
    line.truncate(line.floor_char_boundary(WORDS_BYTES));
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path) -> EvidenceConfig {
        EvidenceConfig {
            crash_records: directory.join("pstore"),
            watchdog_status: directory.join("bootstatus"),
            reset_reason: Some(directory.join("reason")),
            ..EvidenceConfig::default()
        }
    }

    #[test]
    fn a_crash_record_that_was_there_before_is_not_the_last_boots() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        std::fs::create_dir(&config.crash_records).unwrap();
        let old = config.crash_records.join("dmesg-ramoops-0");
        std::fs::write(&old, "Panic#1\n<0>[ 1.0] Kernel panic - not syncing: old\n").unwrap();
        let known = crash_records(&config);
        assert_eq!(last_boot(&config, &known), LastBoot::default());

        std::fs::write(
            config.crash_records.join("dmesg-ramoops-1"),
            "Panic#2\n<0>[ 9.1] Kernel panic - not syncing: VFS: \x07no root\n<0>[ 9.2] ---[ end ]---\n",
        )
        .unwrap();
        let last = last_boot(&config, &known);
        assert_eq!(last.panic.as_deref(), Some("<0>[ 9.1] Kernel panic - not syncing: VFS: no root"));
    }

    #[test]
    fn the_watchdog_and_the_board_tell_a_hang_from_a_power_failure() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let last = |status: &str, reason: &str| {
            std::fs::write(&config.watchdog_status, status).unwrap();
            std::fs::write(config.reset_reason.as_ref().unwrap(), reason).unwrap();
            let last = last_boot(&config, &[]);
            (last.watchdog, last.power)
        };
        assert_eq!(last("32\n", ""), (true, false));
        assert_eq!(last("0x20", "POR"), (true, false), "a watchdog reset may look like power on");
        assert_eq!(last("0\n", "Power-on reset"), (false, true));
        assert_eq!(last("0\n", "powerful words, software reset"), (false, false));
        assert_eq!(last("garbage", "\u{fffd}\0"), (false, false));
    }

    #[test]
    fn nothing_is_known_where_nothing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(last_boot(&config(directory.path()), &[]), LastBoot::default());
        std::fs::create_dir(directory.path().join("pstore")).unwrap();
        let huge = directory.path().join("pstore/dmesg-ramoops-0");
        std::fs::File::create(huge).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(last_boot(&config(directory.path()), &[]), LastBoot::default());
    }
}
