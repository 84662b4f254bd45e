//! Whether the broker takes what this device says, and whether somebody else speaks under its id. A device that is connected
//! and heard by nobody looks healthy to whoever only asks whether it is connected. Pure.

use std::time::Duration;

use vigil_text::Sentence;

/// A broker passes our own presence back within this time: where it does not, it has dropped it.
const ECHO: Duration = Duration::from_secs(60);
/// So long it is told that another client was seen.
const RIVAL: Duration = Duration::from_secs(3600);

/// What was seen of it.
#[derive(Debug, Default)]
pub struct Hearing {
    /// Publications that the broker refused on this connection, and why it did last.
    refused: u64,
    reason: Option<Sentence>,
    /// The session of this connection, and since when.
    session: Option<(u64, Duration)>,
    /// The session before it in this process.
    before: Option<u64>,
    /// Our own presence came back.
    is_echoed: bool,
    /// When another client with our id was seen last.
    rival: Option<Duration>,
}

impl Hearing {
    /// A connection is up.
    pub fn on_connected(&mut self, session: u64, now: Duration) {
        let before = self.session.map(|(session, _)| session);
        let rival = self.rival;
        *self = Self { session: Some((session, now)), before, rival, ..Self::default() };
    }

    /// The broker refused a publication. Whether that is news on this connection.
    pub fn on_refused(&mut self, reason: &Sentence) -> bool {
        self.refused = self.refused.saturating_add(1);
        let is_news = self.reason.as_ref() != Some(reason);
        self.reason = Some(reason.clone());
        is_news
    }

    /// What is said of our presence: online in this session, or something else; and whether it is what this process has said, to
    /// the byte.
    pub fn on_presence(&mut self, online: Option<u64>, is_ours: bool, now: Duration) {
        let Some((own, _)) = self.session else { return };
        match online {
            Some(session) if session == own && is_ours => self.is_echoed = true,
            Some(session) if session == own => self.rival = Some(now),
            // What the broker still keeps of our own session before is no rival's.
            Some(session) if self.is_echoed || self.before.is_some_and(|before| before != session) => {
                self.rival = Some(now);
            }
            _ => {}
        }
    }

    /// The broker ended the connection because another client came with our id.
    pub fn on_taken_over(&mut self, now: Duration) {
        self.rival = Some(now);
    }

    /// What somebody has to look after, a sentence each.
    pub fn problems(&self, device: &str, is_connected: bool, now: Duration) -> Vec<String> {
        let mut problems = Vec::new();
        if is_connected && let Some(reason) = &self.reason {
            problems.push(format!(
                "the broker refused {} of this device's messages: {reason}; check that its access list lets the name in the \
                 device's certificate write under {device}/",
                self.refused
            ));
        } else if is_connected
            && !self.is_echoed
            && self.session.is_some_and(|(_, since)| now.saturating_sub(since) >= ECHO)
        {
            problems.push(format!(
                "the broker does not pass on what this device publishes: its own presence did not come back; check that its \
                 access list lets the device read and write under {device}/"
            ));
        }
        if self.rival.is_some_and(|at| now.saturating_sub(at) < RIVAL) {
            problems.push(format!(
                "another client connects to the broker as {device}, and the two turn each other out: a device's id and \
                 certificate must be its own"
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn problems(hearing: &Hearing, seconds: u32) -> String {
        hearing.problems("bar-1", true, seconds * SECOND).join("\n")
    }

    #[test]
    fn a_device_whose_messages_are_refused_is_told_what_to_check_once_as_news_and_always_as_a_problem() {
        let mut hearing = Hearing::default();
        hearing.on_connected(1, SECOND);
        assert_eq!(problems(&hearing, 2), "");
        let reason = Sentence::new("NotAuthorized");
        assert!(hearing.on_refused(&reason) && !hearing.on_refused(&reason));
        assert!(problems(&hearing, 3).contains("refused 2 of this device's messages: NotAuthorized"));
        assert!(hearing.problems("bar-1", false, SECOND).is_empty());
        hearing.on_connected(2, 10 * SECOND);
        assert_eq!(problems(&hearing, 11), "");
    }

    #[test]
    fn where_a_broker_drops_without_a_word_the_missing_echo_tells() {
        let mut hearing = Hearing::default();
        hearing.on_connected(1, Duration::ZERO);
        assert_eq!(problems(&hearing, 59), "");
        assert!(problems(&hearing, 60).contains("did not come back"));
        hearing.on_presence(Some(1), true, 61 * SECOND);
        assert_eq!(problems(&hearing, 62), "");
    }

    #[test]
    fn two_devices_with_one_id_are_named_by_either_sign() {
        let mut hearing = Hearing::default();
        hearing.on_connected(7, Duration::ZERO);
        // What an earlier process left at the broker is ours as well.
        hearing.on_presence(Some(6), true, SECOND);
        assert_eq!(problems(&hearing, 2), "");
        hearing.on_presence(Some(7), true, SECOND);
        hearing.on_presence(Some(3), true, 2 * SECOND);
        assert!(problems(&hearing, 3).contains("another client connects"));
        // Turned out without a word, it finds the other one's presence when it is back.
        let mut hearing = Hearing::default();
        hearing.on_connected(7, Duration::ZERO);
        hearing.on_connected(8, SECOND);
        hearing.on_presence(Some(7), true, SECOND);
        assert_eq!(problems(&hearing, 2), "");
        hearing.on_presence(Some(3), true, SECOND);
        assert!(problems(&hearing, 2).contains("another client connects"));
        // A copy of the device has the same number, and other words.
        let mut hearing = Hearing::default();
        hearing.on_connected(7, Duration::ZERO);
        hearing.on_presence(Some(7), false, SECOND);
        assert!(problems(&hearing, 2).contains("another client connects"));
        let mut hearing = Hearing::default();
        hearing.on_taken_over(Duration::ZERO);
        assert!(problems(&hearing, 1).contains("another client connects"));
        assert_eq!(problems(&hearing, 3601), "");
    }
}
