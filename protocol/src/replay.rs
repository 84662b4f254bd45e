//! Which command ids were seen: none runs twice, whatever the clock does. Pure; whoever owns one makes it durable
//! before the command runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Reason};

/// What is kept of one id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    issued: Timestamp,
    expires: Timestamp,
}

/// The ids seen, and the watermark below which they were forgotten.
///
/// An id is forgotten only after its command has expired, and the watermark then rises to its issue time: a clock
/// that is stepped back makes the command valid again, but it is now below the watermark. It rises to the issue
/// times of commands that operators really signed and never to the clock itself, so that a clock in 2099 does not
/// lock the device out for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    watermark: Option<Timestamp>,
    seen: BTreeMap<String, Seen>,
    #[serde(skip, default = "default_capacity")]
    capacity: usize,
}

fn default_capacity() -> usize {
    1024
}

impl Default for Replay {
    fn default() -> Self {
        Self { watermark: None, seen: BTreeMap::new(), capacity: default_capacity() }
    }
}

impl Replay {
    /// An empty store that holds at most `capacity` ids.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// A store that has lost its ids: everything issued up to `now` is refused.
    pub fn refusing_until(now: Timestamp) -> Self {
        Self { watermark: Some(now), ..Self::default() }
    }

    /// Takes in a command's id, or says why the command must not run. After `Ok` the store must be made durable
    /// before the command runs.
    pub fn admit(&mut self, command: &Command, now: Timestamp) -> Result<(), Reason> {
        if self.seen.contains_key(&command.id) {
            return Err(Reason::Replayed);
        }
        if self.watermark.is_some_and(|watermark| command.issued <= watermark) {
            return Err(Reason::BelowWatermark);
        }
        if self.seen.len() >= self.capacity {
            self.forget_expired(now);
        }
        // Forgetting may have raised the watermark above this very command.
        if self.watermark.is_some_and(|watermark| command.issued <= watermark) {
            return Err(Reason::BelowWatermark);
        }
        if self.seen.len() >= self.capacity {
            return Err(Reason::StoreFull);
        }
        self.seen.insert(command.id.clone(), Seen { issued: command.issued, expires: command.expires });
        Ok(())
    }

    /// Whether an id is held.
    pub fn contains(&self, id: &str) -> bool {
        self.seen.contains_key(id)
    }

    /// Below or at this issue time everything is refused.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.watermark
    }

    /// Gives an id back that was admitted and is not durable yet: its command does not run before it is.
    pub fn take_back(&mut self, id: &str) {
        self.seen.remove(id);
    }

    /// Takes in an id from an older record: whoever admitted it decided that then.
    pub fn restore(&mut self, id: String, issued: Timestamp, expires: Timestamp) {
        self.seen.insert(id, Seen { issued, expires });
    }

    /// The same ids under another watermark.
    #[must_use]
    pub fn under(&self, watermark: Option<Timestamp>) -> Self {
        Self { watermark, ..self.clone() }
    }

    fn forget_expired(&mut self, now: Timestamp) {
        let mut watermark = self.watermark;
        self.seen.retain(|_, seen| {
            let keep = seen.expires > now;
            if !keep {
                watermark = watermark.max(Some(seen.issued));
            }
            keep
        });
        self.watermark = watermark;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Target;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn command(id: usize, issued: i64, lifetime: i64) -> Command {
        Command {
            v: 1,
            id: format!("c-{id}"),
            kind: "ping".into(),
            args: [].into(),
            tenant: "acme".into(),
            target: Target::Device("bar-1".into()),
            issued: at(issued),
            expires: at(issued + lifetime),
            nonce: None,
        }
    }

    #[test]
    fn a_full_store_refuses_new_commands_and_evicts_no_old_id() {
        let mut replay = Replay::with_capacity(2);
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(replay.admit(&command(1, 990, 100), now), Ok(()));
        assert_eq!(replay.admit(&command(2, 991, 100), now), Ok(()));
        assert_eq!(replay.admit(&command(3, 992, 100), now), Err(Reason::StoreFull));
        assert_eq!(replay.admit(&command(1, 990, 100), now), Err(Reason::Replayed));
    }

    #[test]
    fn a_forgotten_id_stays_refused_when_the_clock_goes_back() {
        let mut replay = Replay::with_capacity(1);
        assert_eq!(replay.admit(&command(1, 100, 10), at(105)), Ok(()));
        assert_eq!(replay.admit(&command(2, 200, 10), at(205)), Ok(()));
        assert!(!replay.contains("c-1"));
        assert_eq!(replay.admit(&command(1, 100, 10), at(105)), Err(Reason::BelowWatermark));
    }

    #[test]
    fn a_store_that_lost_its_ids_refuses_what_was_issued_until_then_and_nothing_later() {
        let mut replay = Replay::refusing_until(at(1_000));
        assert_eq!(replay.watermark(), Some(at(1_000)));
        assert_eq!(replay.admit(&command(1, 999, 100), at(1_000)), Err(Reason::BelowWatermark));
        assert_eq!(replay.admit(&command(2, 1_000, 100), at(1_000)), Err(Reason::BelowWatermark));
        assert_eq!(replay.admit(&command(3, 1_001, 100), at(1_000)), Ok(()));
        assert!(!replay.contains("c-1") && !replay.contains("c-2") && replay.contains("c-3"));
    }

    #[test]
    fn a_new_store_has_no_watermark_and_refuses_no_age() {
        let mut replay = Replay::default();
        assert_eq!(replay.watermark(), None);
        assert_eq!(replay.admit(&command(1, -1_000, 10), at(1_000)), Ok(()));
    }

    #[test]
    fn an_id_taken_back_may_be_admitted_again() {
        let mut replay = Replay::default();
        assert_eq!(replay.admit(&command(1, 990, 100), at(1_000)), Ok(()));
        assert_eq!(replay.admit(&command(2, 990, 100), at(1_000)), Ok(()));
        replay.take_back("c-1");
        assert!(!replay.contains("c-1"));
        assert_eq!(replay.admit(&command(2, 990, 100), at(1_000)), Err(Reason::Replayed));
        assert_eq!(replay.admit(&command(1, 990, 100), at(1_000)), Ok(()));
        assert_eq!(replay.admit(&command(1, 990, 100), at(1_000)), Err(Reason::Replayed));
    }

    #[test]
    fn an_id_from_an_older_record_is_a_replay_and_is_forgotten_by_its_own_times() {
        let mut replay = Replay::with_capacity(1);
        replay.restore("c-1".to_owned(), at(100), at(150));
        assert!(replay.contains("c-1"));
        assert_eq!(replay.admit(&command(1, 100, 50), at(120)), Err(Reason::Replayed));
        assert_eq!(replay.admit(&command(2, 110, 50), at(149)), Err(Reason::StoreFull));
        assert_eq!(replay.admit(&command(2, 110, 50), at(150)), Ok(()));
        assert!(!replay.contains("c-1"));
        assert_eq!(replay.watermark(), Some(at(100)));
    }

    #[test]
    fn an_id_is_kept_for_as_long_as_there_is_room_even_when_its_command_has_expired() {
        let mut replay = Replay::with_capacity(2);
        assert_eq!(replay.admit(&command(1, 100, 10), at(105)), Ok(()));
        assert_eq!(replay.admit(&command(2, 200, 10), at(205)), Ok(()));
        assert!(replay.contains("c-1"));
        assert_eq!(replay.watermark(), None);
    }

    #[test]
    fn a_full_store_forgets_an_id_when_its_command_expires_and_no_second_earlier() {
        let full = || {
            let mut replay = Replay::with_capacity(2);
            assert_eq!(replay.admit(&command(1, 100, 10), at(100)), Ok(()));
            assert_eq!(replay.admit(&command(2, 101, 50), at(101)), Ok(()));
            replay
        };
        let mut replay = full();
        assert_eq!(replay.admit(&command(3, 109, 50), at(109)), Err(Reason::StoreFull));
        assert!(replay.contains("c-1"));
        let mut replay = full();
        assert_eq!(replay.admit(&command(3, 109, 50), at(110)), Ok(()));
        assert!(!replay.contains("c-1") && replay.contains("c-2"));
        assert_eq!(replay.watermark(), Some(at(100)));
    }

    #[test]
    fn a_command_no_newer_than_what_is_forgotten_for_its_sake_is_refused_and_leaves_no_id() {
        for issued in [199, 200] {
            let mut replay = Replay::with_capacity(1);
            assert_eq!(replay.admit(&command(1, 200, 10), at(205)), Ok(()));
            assert_eq!(replay.admit(&command(2, issued, 100), at(210)), Err(Reason::BelowWatermark));
            assert!(!replay.contains("c-1") && !replay.contains("c-2"));
            assert_eq!(replay.watermark(), Some(at(200)));
        }
    }

    #[test]
    fn the_watermark_rises_to_the_newest_of_the_forgotten_and_never_falls() {
        let mut replay = Replay::with_capacity(2);
        assert_eq!(replay.admit(&command(1, 300, 10), at(305)), Ok(()));
        assert_eq!(replay.admit(&command(2, 200, 10), at(205)), Ok(()));
        assert_eq!(replay.admit(&command(3, 400, 10), at(405)), Ok(()));
        assert_eq!(replay.watermark(), Some(at(300)));
        let mut replay = replay.under(Some(at(500)));
        assert_eq!(replay.admit(&command(4, 501, 10), at(505)), Ok(()));
        assert_eq!(replay.admit(&command(5, 502, 10), at(505)), Ok(()));
        assert_eq!(replay.watermark(), Some(at(500)));
    }

    #[test]
    fn the_same_ids_under_another_watermark_refuse_by_that_one() {
        let mut replay = Replay::with_capacity(2);
        assert_eq!(replay.admit(&command(1, 990, 100), at(1_000)), Ok(()));
        let mut under = replay.under(Some(at(995)));
        assert_eq!(under.watermark(), Some(at(995)));
        assert_eq!(under.admit(&command(1, 990, 100), at(1_000)), Err(Reason::Replayed));
        assert_eq!(under.admit(&command(2, 995, 100), at(1_000)), Err(Reason::BelowWatermark));
        assert_eq!(under.admit(&command(2, 996, 100), at(1_000)), Ok(()));
        assert_eq!(under.admit(&command(3, 997, 100), at(1_000)), Err(Reason::StoreFull));
        assert_eq!(under.under(None).watermark(), None);
        assert_eq!(replay.watermark(), None);
    }

    #[test]
    fn a_store_holds_1024_ids_also_when_it_was_read_from_the_disk() {
        let read: Replay = serde_json::from_str(r#"{"watermark":null,"seen":{}}"#).unwrap();
        for mut replay in [Replay::default(), Replay::refusing_until(at(0)), read] {
            for id in 0..1_024 {
                assert_eq!(replay.admit(&command(id, 990, 100), at(1_000)), Ok(()), "{id}");
            }
            assert_eq!(replay.admit(&command(1_024, 990, 100), at(1_000)), Err(Reason::StoreFull));
        }
    }

    proptest! {
        #[test]
        fn no_id_is_admitted_twice_whatever_the_clock_does(
            steps in proptest::collection::vec((0_usize..12, 0_i64..4_000_000_000), 1..200),
        ) {
            let mut replay = Replay::with_capacity(4);
            let mut admitted = std::collections::BTreeSet::new();
            for (id, clock) in steps {
                let command = command(id, 1_000_000 + i64::try_from(id).unwrap() * 50, 60);
                let kept = serde_json::to_string(&replay).unwrap();
                let mut read: Replay = serde_json::from_str(&kept).unwrap();
                read.capacity = 4;
                prop_assert_eq!(&read, &replay);
                if replay.admit(&command, Timestamp::from_second(clock).unwrap()).is_ok() {
                    prop_assert!(admitted.insert(id), "c-{} ran twice", id);
                }
            }
        }
    }
}
