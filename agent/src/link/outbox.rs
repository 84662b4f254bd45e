//! What must be said to the broker: the newest of each state topic, and results in order. A plain value; one
//! publication is under way at a time, which keeps the order and stays clear of packet-id collisions.

use std::collections::{BTreeMap, VecDeque};

use vigil_protocol::state::TopicDigest;
use vigil_protocol::topic::StateTopic;

/// Results that wait at most; they are durable elsewhere, so what is dropped here is said again after a restart.
const MESSAGES: usize = 256;

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Under which topic.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    State(StateTopic, u64),
    Message { id: String, is_final: bool },
}

#[derive(Debug, Default)]
struct State {
    seq: u64,
    sha256: String,
    payload: Vec<u8>,
    /// Sequence number that the broker has acknowledged in this session.
    acknowledged: u64,
}

#[derive(Debug)]
struct Waiting {
    topic: String,
    payload: Vec<u8>,
    id: String,
    is_final: bool,
}

/// The outbox.
#[derive(Debug, Default)]
pub struct Outbox {
    states: BTreeMap<StateTopic, State>,
    messages: VecDeque<Waiting>,
    in_flight: Option<Publication>,
    dropped: u64,
    compacted: u64,
    connected: bool,
}

impl Outbox {
    /// Takes in a state; an older one of the same topic that still waits is replaced by it.
    pub fn set_state(&mut self, topic: StateTopic, seq: u64, payload: Vec<u8>) {
        let state = self.states.entry(topic).or_default();
        if state.acknowledged < state.seq {
            self.compacted += 1;
        }
        let sha256 = vigil_protocol::keys::sha256_hex(&payload);
        *state = State { seq, sha256, payload, acknowledged: state.acknowledged };
    }

    /// Takes in the answer to the command `id`, or a diagnosis.
    pub fn push(&mut self, topic: String, payload: Vec<u8>, id: String, is_final: bool) {
        if self.messages.len() >= MESSAGES {
            self.messages.pop_front();
            self.dropped += 1;
        }
        self.messages.push_back(Waiting { topic, payload, id, is_final });
    }

    /// Whether the final answer to a command waits already.
    pub fn holds(&self, id: &str) -> bool {
        self.messages.iter().any(|message| message.is_final && message.id == id)
    }

    /// A connection is up. Unless the broker kept the session, it may have lost what is retained as well: everything
    /// is said again.
    pub fn connected(&mut self, session_present: bool) {
        self.connected = true;
        self.in_flight = None;
        for (topic, state) in &mut self.states {
            if !session_present || matches!(topic, StateTopic::Presence | StateTopic::Digest) {
                state.acknowledged = 0;
            }
        }
    }

    /// The connection is gone; what was under way is said again.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.in_flight = None;
    }

    /// Says a state again, although nothing in it has changed.
    pub fn assert_again(&mut self, topic: StateTopic) {
        if let Some(state) = self.states.get_mut(&topic) {
            state.acknowledged = 0;
        }
    }

    /// What to publish now, if a connection is up and nothing is under way. `topic_name` names a state topic.
    pub fn next(&mut self, topic_name: impl Fn(StateTopic) -> String) -> Option<Publication> {
        if !self.connected || self.in_flight.is_some() {
            return None;
        }
        // Results before states, and the digest last: it vouches for what went before.
        let state = |(topic, state): (&StateTopic, &State)| {
            (state.acknowledged < state.seq).then(|| Publication {
                topic: topic_name(*topic),
                payload: state.payload.clone(),
                retain: true,
                what: What::State(*topic, state.seq),
            })
        };
        let presence = self.states.get_key_value(&StateTopic::Presence).and_then(state);
        let message = || {
            self.messages.front().map(|message| Publication {
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                retain: false,
                what: What::Message { id: message.id.clone(), is_final: message.is_final },
            })
        };
        let next = presence.or_else(message).or_else(|| self.states.iter().find_map(state))?;
        self.in_flight = Some(next.clone());
        Some(next)
    }

    /// The broker has what was under way. Returns the id of a command whose final answer it was.
    pub fn acknowledged(&mut self) -> Option<String> {
        match self.in_flight.take()?.what {
            What::State(topic, seq) => {
                if let Some(state) = self.states.get_mut(&topic) {
                    state.acknowledged = state.acknowledged.max(seq);
                }
                None
            }
            What::Message { id, is_final } => {
                // A flood may have pushed it out of the queue in the meantime.
                if self.messages.front().is_some_and(|front| front.id == id && front.is_final == is_final) {
                    self.messages.pop_front();
                }
                is_final.then_some(id)
            }
        }
    }

    /// The newest message of each topic but the digest itself, for the digest.
    pub fn topics(&self) -> BTreeMap<String, TopicDigest> {
        self.states
            .iter()
            .filter(|(topic, _)| **topic != StateTopic::Digest)
            .map(|(topic, state)| {
                (topic.level().to_owned(), TopicDigest { seq: state.seq, sha256: state.sha256.clone() })
            })
            .collect()
    }

    /// Whether the broker has everything but the digest: then is the time to sign one.
    pub fn is_digest_due(&self) -> bool {
        self.connected
            && self
                .states
                .iter()
                .all(|(topic, state)| *topic == StateTopic::Digest || state.acknowledged >= state.seq)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_none()
            && self.messages.is_empty()
            && self.states.values().all(|state| state.acknowledged >= state.seq)
    }

    /// Messages that were dropped, and states that were replaced before they were sent.
    pub fn counts(&self) -> (u64, u64) {
        (self.dropped, self.compacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(topic: StateTopic) -> String {
        topic.level().to_owned()
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(publication) = outbox.next(name) {
            said.push(format!("{}={}", publication.topic, String::from_utf8_lossy(&publication.payload)));
            outbox.acknowledged();
        }
        said
    }

    fn outbox() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.set_state(StateTopic::Digest, 1, b"d".to_vec());
        outbox.set_state(StateTopic::Health, 1, b"h".to_vec());
        outbox.set_state(StateTopic::Presence, 1, b"p".to_vec());
        outbox.push("result/1".into(), b"r".to_vec(), "1".into(), true);
        outbox
    }

    #[test]
    fn presence_is_said_first_then_results_then_states_and_the_digest_last() {
        let mut outbox = outbox();
        assert_eq!(outbox.next(name), None, "nothing without a connection");
        outbox.connected(false);
        assert_eq!(drain(&mut outbox), ["presence=p", "result/1=r", "health=h", "digest=d"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn only_the_newest_state_waits_and_what_was_replaced_is_counted() {
        let mut outbox = outbox();
        outbox.set_state(StateTopic::Health, 2, b"new".to_vec());
        outbox.connected(true);
        assert!(drain(&mut outbox).contains(&"health=new".to_owned()));
        assert_eq!(outbox.counts(), (0, 1));
    }

    #[test]
    fn what_was_under_way_when_the_link_broke_is_said_again() {
        let mut outbox = outbox();
        outbox.connected(false);
        drain(&mut outbox);
        outbox.push("result/2".into(), b"r".to_vec(), "2".into(), true);
        assert!(outbox.next(name).is_some());
        outbox.disconnected();
        assert_eq!(outbox.acknowledged(), None, "a late word of the old connection");
        outbox.connected(true);
        assert_eq!(drain(&mut outbox), ["presence=p", "result/2=r", "digest=d"]);
    }

    #[test]
    fn a_state_that_changes_while_its_older_self_is_under_way_is_said_again() {
        let mut outbox = outbox();
        outbox.connected(false);
        drain(&mut outbox);
        outbox.set_state(StateTopic::Health, 2, b"2".to_vec());
        assert!(outbox.next(name).is_some());
        outbox.set_state(StateTopic::Health, 3, b"3".to_vec());
        outbox.acknowledged();
        assert!(!outbox.is_digest_due());
        assert_eq!(drain(&mut outbox), ["health=3"]);
    }

    #[test]
    fn a_flood_of_messages_drops_the_oldest_and_counts_them() {
        let mut outbox = Outbox::default();
        for number in 0..MESSAGES + 3 {
            outbox.push(format!("result/{number}"), vec![], number.to_string(), true);
        }
        assert_eq!(outbox.counts().0, 3);
        outbox.connected(true);
        assert_eq!(outbox.next(name).unwrap().topic, "result/3");
    }
}
