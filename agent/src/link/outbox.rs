//! What must be said to the broker: the newest of each state topic, and results in order. A plain value; one
//! publication is under way at a time, which keeps the order and stays clear of packet-id collisions.

use std::collections::{BTreeMap, VecDeque};

use vigil_protocol::state::TopicDigest;
use vigil_protocol::topic::StateTopic;

use super::flash::Priority;
use super::keeper::Waits;
use super::ledger::{Account, Ledger};

/// Messages that wait at most, and their bytes; final answers are durable elsewhere, so what is dropped of them here is
/// said again after the next connection.
const MESSAGES: usize = 256;
const MESSAGE_BYTES: usize = 1024 * 1024;
/// From so many on no more commands are taken in: the broker keeps them.
const CROWDED: usize = 64;
/// What a packet adds to its payload: topic, properties, header.
const PACKET_OVERHEAD: usize = 512;

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
    /// Whether the broker has ever acknowledged it: then saying it again is a repetition.
    was_acknowledged: bool,
}

impl State {
    fn is_waiting(&self) -> bool {
        self.acknowledged < self.seq
    }
}

#[derive(Debug)]
struct Waiting {
    topic: String,
    payload: Vec<u8>,
    id: String,
    is_final: bool,
    /// The broker has acknowledged it before: it is not part of the account's sum.
    is_repeated: bool,
    /// It is durable nowhere else.
    is_diagnosis: bool,
}

/// The outbox.
#[derive(Debug, Default)]
pub struct Outbox {
    states: BTreeMap<StateTopic, State>,
    messages: VecDeque<Waiting>,
    message_bytes: usize,
    in_flight: Option<Publication>,
    /// The largest packet that the broker takes.
    max_packet_bytes: Option<usize>,
    ledger: Ledger,
    connected: bool,
}

/// What the key of a diagnosis begins with, as its topic does.
const DIAGNOSIS: &str = "diagnosis/";

/// The id of the diagnosis that is kept under a key.
pub fn diagnosis_of(key: &str) -> Option<&str> {
    key.strip_prefix(DIAGNOSIS)
}

/// What goes first. The digest goes last: it vouches for what went before.
fn priority(topic: StateTopic) -> u8 {
    match topic {
        StateTopic::Presence => 0,
        // Here come the messages.
        StateTopic::Incident(_) => 1,
        StateTopic::Update | StateTopic::Config | StateTopic::Inventory => 2,
        StateTopic::Health => 3,
        StateTopic::Digest => 4,
    }
}

impl Outbox {
    /// Goes on with the account of an earlier process, of whose messages `messages` are still to be said, and of whose
    /// states `states`: they come with [`Outbox::push_again`], [`Outbox::push_diagnosis_again`] and
    /// [`Outbox::set_state_again`].
    pub fn resume(&mut self, mut ledger: Ledger, messages: usize, states: usize) {
        ledger.messages.resume(messages as u64);
        ledger.states.resume(states as u64);
        self.ledger = ledger;
    }

    /// Takes in a state that waited when the process before ended.
    pub fn set_state_again(&mut self, topic: StateTopic, seq: u64, payload: Vec<u8>) {
        let sha256 = vigil_protocol::keys::sha256_hex(&payload);
        self.states.insert(topic, State { seq, sha256, payload, acknowledged: 0, was_acknowledged: false });
    }

    /// Takes in a state; an older one of the same topic that still waits is replaced by it.
    pub fn set_state(&mut self, topic: StateTopic, seq: u64, payload: Vec<u8>) {
        let state = self.states.entry(topic).or_default();
        if state.is_waiting() && !state.was_acknowledged {
            self.ledger.states.compacted += 1;
        }
        self.ledger.states.produced += 1;
        let sha256 = vigil_protocol::keys::sha256_hex(&payload);
        *state = State { seq, sha256, payload, acknowledged: state.acknowledged, was_acknowledged: false };
    }

    /// Takes in the answer to the command `id`.
    pub fn push(&mut self, topic: String, payload: Vec<u8>, id: String, is_final: bool) {
        self.ledger.messages.produced += 1;
        self.enqueue(Waiting { topic, payload, id, is_final, is_repeated: false, is_diagnosis: false });
    }

    /// Takes in a diagnosis.
    pub fn push_diagnosis(&mut self, topic: String, payload: Vec<u8>, id: String) {
        self.ledger.messages.produced += 1;
        self.push_diagnosis_again(topic, payload, id);
    }

    /// Takes in a diagnosis that waited when the process before ended.
    pub fn push_diagnosis_again(&mut self, topic: String, payload: Vec<u8>, id: String) {
        self.enqueue(Waiting { topic, payload, id, is_final: false, is_repeated: false, is_diagnosis: true });
    }

    /// Takes in a final answer that was made before, and is said until the broker has it.
    pub fn push_again(&mut self, topic: String, payload: Vec<u8>, id: String) {
        self.enqueue(Waiting { topic, payload, id, is_final: true, is_repeated: false, is_diagnosis: false });
    }

    /// Takes in a final answer that the broker has acknowledged once, and may have lost.
    pub fn push_repeated(&mut self, topic: String, payload: Vec<u8>, id: String) {
        self.enqueue(Waiting { topic, payload, id, is_final: true, is_repeated: true, is_diagnosis: false });
    }

    fn enqueue(&mut self, message: Waiting) {
        self.message_bytes += message.payload.len();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES || self.message_bytes > MESSAGE_BYTES {
            // What only tells of progress goes first, and never what is under way.
            let under_way =
                usize::from(matches!(&self.in_flight, Some(Publication { what: What::Message { .. }, .. })));
            let progress =
                |message: &Waiting| !message.is_final && !message.is_diagnosis || message.is_repeated;
            let position = self.messages.iter().skip(under_way).position(progress).unwrap_or(0) + under_way;
            let Some(dropped) = self.messages.remove(position) else { return };
            self.message_bytes -= dropped.payload.len();
            self.ledger.messages.dropped_full += u64::from(!dropped.is_repeated);
        }
    }

    /// Whether the final answer to a command waits already.
    pub fn holds(&self, id: &str) -> bool {
        self.messages.iter().any(|message| message.is_final && message.id == id)
    }

    /// Whether so much waits that no more should be asked for.
    pub fn is_crowded(&self) -> bool {
        self.messages.len() >= CROWDED
    }

    /// A connection is up. Unless the broker kept the session, it may have lost what is retained as well: everything
    /// is said again. Nothing larger than `max_packet_bytes` is sent.
    pub fn connected(&mut self, session_present: bool, max_packet_bytes: Option<usize>) {
        self.connected = true;
        self.in_flight = None;
        self.max_packet_bytes = max_packet_bytes;
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

    /// Says every state again, tombstones as well.
    pub fn assert_all_again(&mut self) {
        for state in self.states.values_mut() {
            state.acknowledged = 0;
        }
    }

    /// What to publish now, if a connection is up and nothing is under way. `topic_name` names a state topic.
    pub fn next(&mut self, topic_name: impl Fn(StateTopic) -> String) -> Option<Publication> {
        if !self.connected || self.in_flight.is_some() {
            return None;
        }
        self.drop_too_large();
        let state = self
            .states
            .iter()
            .filter(|(_, state)| state.is_waiting())
            .min_by_key(|(topic, _)| (priority(**topic), **topic));
        let next = match (state, self.messages.front()) {
            (Some((StateTopic::Presence, _)), _) | (Some(_), None) => {
                state.map(|(topic, state)| Publication {
                    topic: topic_name(*topic),
                    payload: state.payload.clone(),
                    retain: true,
                    what: What::State(*topic, state.seq),
                })
            }
            (_, Some(message)) => Some(Publication {
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                retain: false,
                what: What::Message { id: message.id.clone(), is_final: message.is_final },
            }),
            (None, None) => None,
        }?;
        self.in_flight = Some(next.clone());
        Some(next)
    }

    /// A broker that is sent more than it takes closes the connection, every time anew.
    fn drop_too_large(&mut self) {
        let Some(limit) = self.max_packet_bytes else { return };
        let fits = |payload: &[u8]| payload.len() + PACKET_OVERHEAD <= limit;
        while let Some(message) = self.messages.front().filter(|message| !fits(&message.payload)) {
            self.message_bytes -= message.payload.len();
            self.ledger.messages.dropped_too_large += u64::from(!message.is_repeated);
            self.messages.pop_front();
        }
        for state in self.states.values_mut().filter(|state| state.is_waiting() && !fits(&state.payload)) {
            if !state.was_acknowledged {
                self.ledger.states.dropped_too_large += 1;
                state.was_acknowledged = true;
            }
            state.acknowledged = state.seq;
        }
    }

    /// The broker has what was under way. Returns the id of a command whose final answer it was.
    pub fn acknowledged(&mut self) -> Option<String> {
        self.settled(|account| &mut account.acknowledged)
    }

    /// The broker does not take what was under way: it is not said again on this connection, and counts as refused.
    pub fn refused(&mut self) {
        let _ = self.settled(|account| &mut account.refused);
    }

    fn settled(&mut self, entry: impl Fn(&mut Account) -> &mut u64) -> Option<String> {
        match self.in_flight.take()?.what {
            What::State(topic, seq) => {
                if let Some(state) = self.states.get_mut(&topic) {
                    state.acknowledged = state.acknowledged.max(seq);
                    if state.seq == seq {
                        let account = &mut self.ledger.states;
                        *if state.was_acknowledged { &mut account.repeated } else { entry(account) } += 1;
                        state.was_acknowledged = true;
                    }
                    // An older one was counted as replaced when the newer one came.
                }
                None
            }
            What::Message { id, is_final } => {
                if let Some(message) = self.messages.pop_front() {
                    self.message_bytes -= message.payload.len();
                    let account = &mut self.ledger.messages;
                    *if message.is_repeated { &mut account.repeated } else { entry(account) } += 1;
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
            && self.states.iter().all(|(topic, state)| *topic == StateTopic::Digest || !state.is_waiting())
    }

    /// What would be lost with the process, and has not reached the broker yet. Final answers are kept with the
    /// commands, progress is of no use after a restart, presence and digest are about this session.
    pub fn to_keep(&self) -> Vec<Waits<'_>> {
        let states = self.states.iter().filter_map(|(topic, state)| {
            let priority = match topic {
                StateTopic::Presence | StateTopic::Digest => return None,
                // That one is over is seen again after a restart.
                StateTopic::Incident(_) if !state.payload.is_empty() => Priority::First,
                StateTopic::Health => Priority::Metrics,
                _ => Priority::State,
            };
            let waits = state.is_waiting() && !state.was_acknowledged;
            waits.then(|| Waits {
                key: topic.level().to_owned(),
                seq: state.seq,
                payload: &state.payload,
                priority,
            })
        });
        let diagnoses = self.messages.iter().filter(|message| message.is_diagnosis).map(|message| Waits {
            key: format!("{DIAGNOSIS}{}", message.id),
            seq: 0,
            payload: &message.payload,
            priority: Priority::First,
        });
        diagnoses.chain(states).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_none()
            && self.messages.is_empty()
            && self.states.values().all(|state| !state.is_waiting())
    }

    /// The account of all that was to be said.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigil_protocol::topic::IncidentId;

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
        outbox.connected(false, None);
        assert_eq!(drain(&mut outbox), ["presence=p", "result/1=r", "health=h", "digest=d"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_the_broker_refuses_has_an_account_of_its_own_and_is_not_said_again_on_this_connection() {
        let mut outbox = outbox();
        outbox.connected(false, None);
        for _ in 0..4 {
            outbox.next(name).unwrap();
            outbox.refused();
        }
        assert_eq!(outbox.next(name), None);
        let Ledger { states, messages } = outbox.ledger();
        assert_eq!((states.refused, states.acknowledged, states.waiting()), (3, 0, 0));
        assert_eq!((messages.refused, messages.acknowledged, messages.waiting()), (1, 0, 0));
        outbox.disconnected();
        outbox.connected(false, None);
        assert_eq!(drain(&mut outbox).len(), 3, "the state is said again on the next");
        assert_eq!(outbox.ledger().states.repeated, 3);
    }

    #[test]
    fn only_the_newest_state_waits_and_what_was_replaced_is_counted() {
        let mut outbox = outbox();
        outbox.set_state(StateTopic::Health, 2, b"new".to_vec());
        outbox.connected(true, None);
        assert!(drain(&mut outbox).contains(&"health=new".to_owned()));
        let states = outbox.ledger().states;
        assert_eq!((states.produced, states.acknowledged, states.compacted), (4, 3, 1));
    }

    #[test]
    fn what_was_under_way_when_the_link_broke_is_said_again() {
        let mut outbox = outbox();
        outbox.connected(false, None);
        drain(&mut outbox);
        outbox.push("result/2".into(), b"r".to_vec(), "2".into(), true);
        assert!(outbox.next(name).is_some());
        outbox.disconnected();
        assert_eq!(outbox.acknowledged(), None, "a late word of the old connection");
        outbox.connected(true, None);
        assert_eq!(drain(&mut outbox), ["presence=p", "result/2=r", "digest=d"]);
    }

    #[test]
    fn a_state_that_changes_while_its_older_self_is_under_way_is_said_again() {
        let mut outbox = outbox();
        outbox.connected(false, None);
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
        assert_eq!(outbox.ledger().messages.dropped_full, 3);
        outbox.connected(true, None);
        assert_eq!(outbox.next(name).unwrap().topic, "result/3");
    }

    #[test]
    fn incidents_go_before_other_states_and_metrics_last() {
        let mut outbox = outbox();
        outbox.set_state(StateTopic::Incident(IncidentId::RepositoryFrozen), 1, b"i".to_vec());
        outbox.set_state(StateTopic::Update, 1, b"u".to_vec());
        outbox.connected(false, None);
        let order: Vec<_> =
            drain(&mut outbox).iter().map(|said| said.split('=').next().unwrap().to_owned()).collect();
        assert_eq!(
            order,
            ["presence", "result/1", "incident/repository-frozen", "update", "health", "digest"]
        );
    }

    #[test]
    fn progress_is_dropped_before_any_final_answer() {
        let mut outbox = Outbox::default();
        for number in 0..MESSAGES {
            outbox.push(format!("result/{number}"), vec![], number.to_string(), number != 7);
        }
        outbox.push("result/new".into(), vec![], "new".into(), true);
        outbox.connected(true, None);
        let said = drain(&mut outbox);
        assert_eq!(said.len(), MESSAGES);
        assert!(!said.contains(&"result/7=".to_owned()));
    }

    #[test]
    fn what_the_broker_does_not_take_is_dropped_and_counted_and_the_rest_goes_on() {
        let mut outbox = outbox();
        outbox.set_state(StateTopic::Health, 2, vec![b'x'; 2000]);
        outbox.connected(false, Some(1024));
        assert_eq!(drain(&mut outbox), ["presence=p", "result/1=r", "digest=d"]);
        assert_eq!(outbox.ledger().states.dropped_too_large, 1);
        assert_eq!(outbox.ledger().states.waiting(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        State(u8, usize),
        Message(bool, usize),
        Repeat(usize),
        Connect(bool, Option<usize>),
        Disconnect,
        Next,
        Acknowledge,
        AssertAgain(u8),
        Restart(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), 0_usize..2000).prop_map(|(topic, size)| Step::State(topic, size)),
            (any::<bool>(), 0_usize..200_000).prop_map(|(is_final, size)| Step::Message(is_final, size)),
            (0_usize..2000).prop_map(Step::Repeat),
            (any::<bool>(), prop::option::of(600_usize..3000))
                .prop_map(|(kept, limit)| Step::Connect(kept, limit)),
            Just(Step::Disconnect),
            Just(Step::Next),
            Just(Step::Next),
            Just(Step::Acknowledge),
            Just(Step::Acknowledge),
            any::<u8>().prop_map(Step::AssertAgain),
            (0_usize..5).prop_map(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn the_account_balances_after_every_step(steps in prop::collection::vec(step(), 0..200)) {
            let mut outbox = Outbox::default();
            let topic = |number: u8| StateTopic::ALL[usize::from(number) % StateTopic::ALL.len()];
            let mut seq = 0;
            for step in steps {
                seq += 1;
                match step {
                    Step::State(number, size) => outbox.set_state(topic(number), seq, vec![0; size]),
                    Step::Message(is_final, size) => {
                        outbox.push("r".into(), vec![0; size], seq.to_string(), is_final);
                    }
                    Step::Repeat(size) => outbox.push_repeated("r".into(), vec![0; size], seq.to_string()),
                    Step::Connect(kept, limit) => outbox.connected(kept, limit),
                    Step::Disconnect => outbox.disconnected(),
                    Step::Next => drop(outbox.next(name)),
                    Step::Acknowledge => drop(outbox.acknowledged()),
                    Step::AssertAgain(number) => outbox.assert_again(topic(number)),
                    Step::Restart(kept) => {
                        let mut next = Outbox::default();
                        next.resume(outbox.ledger(), kept, 0);
                        for number in 0..kept {
                            next.push_again("r".into(), vec![], format!("again-{number}"));
                        }
                        outbox = next;
                    }
                }
                let ledger = outbox.ledger();
                let fresh = outbox.messages.iter().filter(|message| !message.is_repeated).count();
                prop_assert_eq!(ledger.messages.waiting(), fresh as u64);
                let states = outbox.states.values().filter(|state| state.is_waiting() && !state.was_acknowledged);
                prop_assert_eq!(ledger.states.waiting(), states.count() as u64);
                let bytes: usize = outbox.messages.iter().map(|message| message.payload.len()).sum();
                prop_assert_eq!(bytes, outbox.message_bytes);
                prop_assert!(outbox.messages.len() <= MESSAGES && bytes <= MESSAGE_BYTES);
            }
        }
    }
}
