//! What time it is at least. `vigil-updaterd` proves it by signatures; it is kept over restarts, and all that is judged by time
//! (commands, operators' keys, certificates) is judged at the later of it and the clock: a clock that was put back makes
//! nothing valid again. One for the process, since TLS asks for it from wherever a connection is made.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::store::{Loaded, Store};

/// The proven time as of the kernel's start, in seconds since 1970; 0 when nothing is known.
static AT_BOOT: AtomicI64 = AtomicI64::new(0);
/// The publisher's clock and the device's oscillator may be off by so much before the clock is called wrong.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(10);
/// It is written when it has moved on by so much: four small writes a day.
const KEEP_SECONDS: i64 = 6 * 3600;
/// A clock is believed so far beyond the proven time where it locks something out for good.
const BELIEVED_SECONDS: i64 = 30 * 86_400;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    at: i64,
}

/// Takes up what an earlier process knew.
pub fn open(state: &Path) -> Store {
    let store = Store::new(state.join("proven.json"), "proven", 1, 1024);
    if let Ok(Loaded::Content(Kept { at: at @ 1.. })) = store.load() {
        advance(at);
    }
    store
}

/// The updater has proven a time, in seconds since 1970. Kept, once in a while.
pub fn on_proven(store: &Store, at: i64) {
    advance(at);
    let kept = match store.load() {
        Ok(Loaded::Content(Kept { at })) => at,
        _ => 0,
    };
    if at >= kept.saturating_add(KEEP_SECONDS)
        && let Err(error) = store.save(&Kept { at })
    {
        warn!(%error, "the proven time is not kept");
    }
}

/// Root at the device knows that it was wrong: what is proven from now on counts.
pub fn forget(store: &Store) {
    AT_BOOT.store(0, Ordering::Relaxed);
    if let Err(error) = store.save(&Kept::default()) {
        warn!(%error, "the proven time is not forgotten for good");
    }
}

fn advance(at: i64) {
    AT_BOOT.fetch_max(at.saturating_sub(boot_seconds()), Ordering::Relaxed);
}

fn boot_seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec
}

/// The time that is proven; none when nothing is known.
pub fn least() -> Option<Timestamp> {
    let at_boot = AT_BOOT.load(Ordering::Relaxed);
    (at_boot != 0).then(|| Timestamp::from_second(at_boot.saturating_add(boot_seconds())).ok())?
}

/// The time by which is judged: the clock's, but never before the proven one.
pub fn wall() -> Timestamp {
    let clock = Timestamp::now();
    least().map_or(clock, |least| clock.max(least))
}

/// Whether the clock may say anything: it is behind what is proven, or nothing is.
pub fn is_clock_doubtful() -> bool {
    is_doubtful(Timestamp::now(), least())
}

/// Up to when envelopes are refused where the used ones were lost: the clock counts, as far as it can be believed.
pub fn watermark() -> Timestamp {
    believed(Timestamp::now(), least())
}

fn is_doubtful(clock: Timestamp, least: Option<Timestamp>) -> bool {
    least.is_none_or(|least| least.duration_since(clock) > TOLERANCE)
}

fn believed(clock: Timestamp, least: Option<Timestamp>) -> Timestamp {
    // Where nothing is proven, a command needs the nonce of its session.
    let Some(least) = least else { return Timestamp::UNIX_EPOCH };
    let most = least.as_second().saturating_add(BELIEVED_SECONDS);
    clock.max(least).min(Timestamp::from_second(most).unwrap_or(least))
}

/// No device of ours was made before this; a clock that says so was never set.
const FIRST_SECOND: i64 = 1_767_225_600;

/// The time for TLS: a device whose clock says 1970 would be kept away from everything that could tell it better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTime {
    /// As commands are judged.
    Proven,
    /// The clock's, unless it was never set. For the repository: what comes from there is signed, and a proven time that was signed
    /// wrongly must not keep away the root that mends it.
    Clock,
}

impl TlsTime {
    fn at(self, clock: Timestamp) -> Timestamp {
        match self {
            Self::Clock if clock.as_second() >= FIRST_SECOND => clock,
            Self::Clock | Self::Proven => least().map_or(clock, |least| clock.max(least)),
        }
    }
}

impl tokio_rustls::rustls::time_provider::TimeProvider for TlsTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = u64::try_from(self.at(Timestamp::now()).as_second()).unwrap_or(0);
        Some(rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_behind_what_is_proven_and_a_time_of_which_nothing_is_known_are_doubtful() {
        let proven = Some(at("2026-06-01T00:00:00Z"));
        assert!(is_doubtful(at("1970-01-01T00:10:00Z"), proven));
        assert!(is_doubtful(at("2026-05-31T23:49:59Z"), proven));
        assert!(!is_doubtful(at("2026-05-31T23:50:00Z"), proven));
        assert!(!is_doubtful(at("2027-01-01T00:00:00Z"), proven));
        assert!(is_doubtful(at("2026-06-01T00:00:00Z"), None));
    }

    #[test]
    fn a_clock_in_2099_locks_nobody_out_for_good() {
        let proven = Some(at("2026-06-01T00:00:00Z"));
        assert_eq!(believed(at("2099-01-01T00:00:00Z"), proven), at("2026-07-01T00:00:00Z"));
        assert_eq!(believed(at("2026-06-03T00:00:00Z"), proven), at("2026-06-03T00:00:00Z"));
        assert_eq!(believed(at("1970-01-01T00:00:00Z"), proven), at("2026-06-01T00:00:00Z"));
        assert_eq!(believed(at("2026-06-03T00:00:00Z"), None), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_was_proven_is_known_to_the_next_process_and_written_rarely() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let kept = || match store.load().unwrap() {
            Loaded::Content(Kept { at }) => at,
            _ => 0,
        };
        let then = at("2001-01-01T00:00:00Z").as_second();
        on_proven(&store, then);
        assert_eq!(kept(), then);
        on_proven(&store, then + KEEP_SECONDS - 1);
        assert_eq!(kept(), then);
        on_proven(&store, then + KEEP_SECONDS);
        assert_eq!(kept(), then + KEEP_SECONDS);
        assert!(least().unwrap() >= at("2001-01-01T00:00:00Z"));
        // A proven time far ahead keeps no root away that heals it; a clock that was never set keeps nothing away.
        advance(at("2036-01-01T00:00:00Z").as_second());
        let clock = at("2026-06-01T00:00:00Z");
        assert_eq!(TlsTime::Clock.at(clock), clock);
        assert!(TlsTime::Proven.at(clock) >= at("2036-01-01T00:00:00Z"));
        assert!(TlsTime::Clock.at(at("1970-01-01T00:01:00Z")) >= at("2036-01-01T00:00:00Z"));
        forget(&store);
        assert_eq!((least(), kept()), (None, 0));
    }
}
