//! Which address is tried when, if a name has several (RFC 8305, "happy eyeballs"): the families take turns, the next one
//! begins after a quarter of a second or at once when one has failed, and the first to answer wins. Pure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// RFC 8305, section 5: "Connection Attempt Delay".
const DELAY: Duration = Duration::from_millis(250);
/// Addresses that are tried at most: a name may have as many as somebody likes.
const ADDRESSES: usize = 16;

/// The attempts at one name.
pub(super) struct Race {
    waiting: VecDeque<SocketAddr>,
    running: usize,
    next_at: Option<Instant>,
    failures: Vec<String>,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Begin with this one.
    Begin(SocketAddr),
    /// Wait for one of those under way, and until then at most.
    Wait(Option<Instant>),
    /// All have failed; for people.
    Lost(String),
}

impl Race {
    /// The system's order is by preference (RFC 6724); within each family it stays so.
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            if !found.contains(&address) && found.len() < ADDRESSES {
                found.push(address);
            }
        }
        let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
        let (mut first, mut other): (VecDeque<_>, VecDeque<_>) =
            found.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
        let mut waiting = VecDeque::new();
        while !first.is_empty() || !other.is_empty() {
            waiting.extend(first.pop_front());
            waiting.extend(other.pop_front());
        }
        Self { waiting, running: 0, next_at: None, failures: Vec::new() }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Instant) -> Move {
        let is_due = self.next_at.is_none_or(|at| now >= at);
        if is_due && let Some(address) = self.waiting.pop_front() {
            self.running += 1;
            self.next_at = Some(now + DELAY);
            return Move::Begin(address);
        }
        if self.running == 0 && self.waiting.is_empty() {
            if self.failures.is_empty() {
                self.failures.push("the name has no address".to_owned());
            }
            return Move::Lost(self.failures.join(", "));
        }
        Move::Wait(self.next_at.filter(|_| !self.waiting.is_empty()))
    }

    /// One that was begun has failed: the next need not wait.
    pub(super) fn failed(&mut self, address: SocketAddr, why: &str) {
        self.running -= 1;
        self.next_at = None;
        self.failures.push(format!("{}: {why}", address.ip()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 8883)).collect()
    }

    /// The order in which all are begun, if none ever answers.
    fn order(texts: &[&str]) -> Vec<String> {
        let (mut race, mut now, mut found) = (Race::new(addresses(texts)), Instant::now(), Vec::new());
        loop {
            match race.next(now) {
                Move::Begin(address) => found.push(address.ip().to_string()),
                Move::Wait(Some(at)) => now = at,
                Move::Wait(None) | Move::Lost(_) => return found,
            }
        }
    }

    #[test]
    fn the_families_take_turns_beginning_with_the_preferred_one() {
        assert_eq!(
            order(&["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]
        );
        assert_eq!(
            order(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
        );
    }

    #[test]
    fn each_address_is_tried_once_and_no_more_than_sixteen() {
        assert_eq!(order(&["192.0.2.1", "192.0.2.1"]), ["192.0.2.1"]);
        let many: Vec<String> = (0..100).map(|last| format!("192.0.2.{last}")).collect();
        assert_eq!(order(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), 16);
    }

    #[test]
    fn the_next_begins_after_a_quarter_of_a_second_and_not_before() {
        let now = Instant::now();
        let mut race = Race::new(addresses(&["192.0.2.1", "192.0.2.2"]));
        assert!(matches!(race.next(now), Move::Begin(_)));
        assert_eq!(race.next(now), Move::Wait(Some(now + DELAY)));
        assert_eq!(race.next(now + DELAY / 2), Move::Wait(Some(now + DELAY)));
        assert!(matches!(race.next(now + DELAY), Move::Begin(_)));
        assert_eq!(race.next(now + DELAY), Move::Wait(None), "there is no other");
    }

    #[test]
    fn a_failure_lets_the_next_begin_at_once_and_the_last_one_ends_it_with_all_the_reasons() {
        let now = Instant::now();
        let both = addresses(&["192.0.2.1", "192.0.2.2"]);
        let mut race = Race::new(both.clone());
        assert_eq!(race.next(now), Move::Begin(both[0]));
        race.failed(both[0], "refused");
        assert_eq!(race.next(now), Move::Begin(both[1]));
        assert_eq!(race.next(now), Move::Wait(None));
        race.failed(both[1], "unreachable");
        assert_eq!(race.next(now), Move::Lost("192.0.2.1: refused, 192.0.2.2: unreachable".to_owned()));
    }

    #[test]
    fn a_name_without_addresses_is_lost_at_once() {
        assert_eq!(Race::new([]).next(Instant::now()), Move::Lost("the name has no address".to_owned()));
    }
}
