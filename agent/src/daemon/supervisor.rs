//! The service manager's watchdog (`WatchdogSec=`): fed by the loop itself, so that one which stands still is restarted.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// When it is fed next, where there is one.
pub(super) struct Supervisor(Option<(Duration, Instant)>);

impl Supervisor {
    /// Says that the daemon is ready.
    pub(super) fn ready() -> Self {
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        Self(sd_notify::watchdog_enabled().map(|limit| (limit / 2, Instant::now())))
    }

    /// Feeds it if it is time, and says when it is the next time.
    pub(super) fn feed(&mut self) -> Option<Instant> {
        let (every, due) = self.0.as_mut()?;
        if Instant::now() >= *due {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            *due = Instant::now() + *every;
        }
        Some(*due)
    }
}
