//! Feeds the hardware watchdog, so that a kernel or updater that hangs is reset and the bootloader can fall back. (A
//! `vigild` that hangs is the gate's to notice.)

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use crate::config::WatchdogConfig;

/// The watchdog. It is never disarmed: when this process ends and does not come back, the device is reset.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    feed: Duration,
    due: Duration,
}

impl Watchdog {
    /// Opens it, which arms it.
    pub fn open(config: &WatchdogConfig) -> io::Result<Self> {
        let device = OpenOptions::new().write(true).open(&config.device).map_err(|error| {
            io::Error::new(error.kind(), format!("watchdog {}: {error}", config.device.display()))
        })?;
        Ok(Self { device, feed: config.feed_seconds, due: Duration::ZERO })
    }

    /// Feeds it if it is time, and says when it is the next time.
    pub fn feed(&mut self, now: Duration) -> Duration {
        if now >= self.due {
            // If this fails the device will be reset, which is what a watchdog is for.
            let _ = self.device.write_all(b"\0");
            self.due = now + self.feed;
        }
        self.due
    }
}

/// The service manager's own watchdog (`WatchdogSec=`), where it asks for one: it restarts a daemon whose loop stands still.
#[derive(Debug)]
pub struct Supervisor {
    feed: Option<Duration>,
    due: Duration,
}

impl Supervisor {
    /// Says that the daemon is ready, and asks how often it is to be told that it goes on.
    pub fn ready() -> Self {
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        // Twice within the time, as sd_watchdog_enabled(3) recommends.
        let feed = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { feed, due: Duration::ZERO }
    }

    /// Tells it if it is time, and says when it is the next time.
    pub fn feed(&mut self, now: Duration) -> Option<Duration> {
        let feed = self.feed?;
        if now >= self.due {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            self.due = now + feed;
        }
        Some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_when_it_is_time_and_never_disarmed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = WatchdogConfig { device: file.path().to_owned(), feed_seconds: Duration::from_secs(10) };
        let mut watchdog = Watchdog::open(&config).unwrap();
        for second in 0..=20 {
            watchdog.feed(Duration::from_secs(second));
        }
        drop(watchdog);
        // The byte V would disarm it.
        assert_eq!(std::fs::read(file.path()).unwrap(), b"\0\0\0");
    }
}
