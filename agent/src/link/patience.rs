//! How long the broker may take to acknowledge a publication. One that answers pings and acknowledges nothing would hold
//! up the outbox for ever: only one publication is under way at a time.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait, however often the broker is pinged.
const LEAST: Duration = Duration::from_secs(20);

/// What is under way, as a time.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    ends: Option<Instant>,
}

impl Patience {
    /// Twice the keep-alive, and 20 s at least.
    pub fn new(keep_alive: Duration) -> Self {
        Self { limit: (2 * keep_alive).max(LEAST), ends: None }
    }

    /// A publication was given to the connection.
    pub fn published(&mut self, now: Instant) {
        self.ends = Some(now + self.limit);
    }

    /// The broker has answered it, or the connection is gone.
    pub fn answered(&mut self) {
        self.ends = None;
    }

    /// When the connection is given up; none while nothing is under way.
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// For people.
    pub fn reason(&self) -> String {
        format!(
            "the broker does not acknowledge: no answer to a publication within {} s",
            self.limit.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_two_keep_alives_and_never_before_20_seconds() {
        let now = Instant::now();
        for (keep_alive, limit) in [(10, 20), (5, 20), (60, 120)] {
            let mut patience = Patience::new(Duration::from_secs(keep_alive));
            patience.published(now);
            assert_eq!(patience.ends(), Some(now + Duration::from_secs(limit)));
        }
    }

    #[test]
    fn an_answer_ends_the_wait_and_the_next_publication_begins_another() {
        let now = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(60));
        assert_eq!(patience.ends(), None);
        patience.published(now);
        patience.answered();
        assert_eq!(patience.ends(), None);
        let later = now + Duration::from_secs(100);
        patience.published(later);
        assert_eq!(patience.ends(), Some(later + Duration::from_secs(120)));
        assert!(patience.reason().contains("within 120 s"));
    }
}
