//! One conversation with the broker: what may be said when, what an answer belongs to, when the broker has gone silent.
//! Pure: packets, requests and times in, bytes and events out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::mqtt::{Ending, Heard, Message, Outgoing, Receipt, Refusal, Say, Version};
use super::session::{Granted, LinkEvent};

/// The kind of packet that answers CONNECT.
const CONNACK: u8 = 2;
/// The shortest time that an answer to a ping is waited for.
const LEAST_GRACE: Duration = Duration::from_secs(5);
/// Publications that may wait for their acknowledgement; the outbox has one under way at a time.
const UNDER_WAY: usize = 16;
/// Messages with QoS 2, which nobody asked for, between their two steps.
const HALF_RECEIVED: usize = 16;

/// A conversation.
pub(super) struct Exchange {
    version: Version,
    filters: Vec<String>,
    keep_alive: Duration,
    is_up: bool,
    subscribing: Option<u16>,
    last_id: u16,
    under_way: VecDeque<u16>,
    half_received: Vec<u16>,
    last_said: Instant,
    last_heard: Instant,
    /// When the answer to a ping must be there.
    pong_by: Option<Instant>,
    /// What the broker takes at most.
    max_packet_bytes: Option<u32>,
    out: BytesMut,
}

impl Exchange {
    /// Begins with what `say` is to the broker: CONNECT. `answer_by` is when its answer must be there.
    pub(super) fn begin(
        version: Version,
        connect: Say<'_>,
        filters: Vec<String>,
        keep_alive: Duration,
        answer_by: Instant,
        now: Instant,
    ) -> Result<Self, Refusal> {
        let mut exchange = Self {
            version,
            filters,
            keep_alive,
            is_up: false,
            subscribing: None,
            last_id: 0,
            under_way: VecDeque::new(),
            half_received: Vec::new(),
            last_said: now,
            last_heard: now,
            pong_by: Some(answer_by),
            max_packet_bytes: None,
            out: BytesMut::new(),
        };
        exchange.say(connect, now)?;
        Ok(exchange)
    }

    /// Whether the broker has accepted the connection.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// What is to be sent.
    pub(super) fn take_out(&mut self) -> BytesMut {
        self.out.split()
    }

    /// Takes the next whole packet off what came.
    pub(super) fn read(&self, from: &mut BytesMut) -> Result<Option<Heard>, Refusal> {
        // Whatever else it is, its length would be waited for.
        if !self.is_up && from.first().is_some_and(|first| first >> 4 != CONNACK) {
            return Err(no_broker("something else came"));
        }
        self.version.read(from).map_err(|error| if self.is_up { broken(&error) } else { no_broker(&error) })
    }

    /// What comes of it may be nothing for anybody else.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant) -> Result<Option<LinkEvent>, Refusal> {
        self.last_heard = now;
        if self.is_up {
            self.pong_by = None;
        }
        match heard {
            Heard::Accepted(granted) if !self.is_up => self.accepted(granted, now).map(Some),
            Heard::Accepted(_) => Err(broken("it accepted one connection twice")),
            Heard::Ended(refusal) => Err(refusal),
            Heard::Misplaced(what) => Err(broken(&format!("it sent {what}"))),
            Heard::Message(message) => self.message(message),
            Heard::Acknowledged { id, declined } => {
                let place = self.under_way.iter().position(|under_way| *under_way == id);
                let Some(place) = place else {
                    return Err(broken(&format!("it acknowledged {id}, which was not sent")));
                };
                self.under_way.remove(place);
                Ok(Some(match declined {
                    None => LinkEvent::Acknowledged,
                    Some(reason) => LinkEvent::Declined { reason },
                }))
            }
            Heard::Subscribed { id, refused } if self.subscribing == Some(id) => {
                self.subscribing = None;
                refused_subscription(&self.filters, &refused).map_or(Ok(None), Err)
            }
            Heard::Released { id } => {
                let Some(place) = self.half_received.iter().position(|half| *half == id) else {
                    return Err(broken(&format!("it released {id}, which was not received")));
                };
                self.half_received.swap_remove(place);
                self.say(Say::Completed(id), now)?;
                Ok(None)
            }
            Heard::Subscribed { .. } | Heard::Pong | Heard::Nothing => Ok(None),
        }
    }

    fn accepted(&mut self, granted: Granted, now: Instant) -> Result<LinkEvent, Refusal> {
        self.is_up = true;
        self.pong_by = None;
        self.max_packet_bytes = granted.max_packet_bytes;
        // Pinging more often than the broker asks for is allowed; more seldom, or never, and nobody would notice that
        // it is gone.
        if let Some(seconds) = granted.keep_alive_seconds.filter(|seconds| *seconds > 0) {
            self.keep_alive = self.keep_alive.min(Duration::from_secs(u64::from(seconds)));
        }
        let id = self.next_id();
        self.subscribing = Some(id);
        let filters = std::mem::take(&mut self.filters);
        let said = self.say(Say::Subscribe { id, filters: &filters }, now);
        self.filters = filters;
        said.map(|()| LinkEvent::Connected(granted))
    }

    fn message(&mut self, message: Message) -> Result<Option<LinkEvent>, Refusal> {
        if let Receipt::TwoSteps(_) = message.receipt
            && self.half_received.len() >= HALF_RECEIVED
        {
            return Err(broken("it sends more with QoS 2 than it releases"));
        }
        Ok(Some(LinkEvent::Message(message)))
    }

    /// Publishes.
    pub(super) fn publish(&mut self, mut outgoing: Outgoing, now: Instant) -> Result<(), Refusal> {
        if self.under_way.len() >= UNDER_WAY {
            return Err(broken("it acknowledges nothing"));
        }
        outgoing.id = self.next_id();
        self.under_way.push_back(outgoing.id);
        self.say(Say::Publish(outgoing), now)
    }

    /// Tells the broker that a message is ours to keep.
    pub(super) fn acknowledge(&mut self, receipt: Receipt, now: Instant) -> Result<(), Refusal> {
        match receipt {
            Receipt::None => Ok(()),
            Receipt::Once(id) => self.say(Say::Acknowledge(id), now),
            Receipt::TwoSteps(id) => {
                if !self.half_received.contains(&id) {
                    self.half_received.push(id);
                }
                self.say(Say::Received(id), now)
            }
        }
    }

    /// Says good-bye, so that the will is not published.
    pub(super) fn say_good_bye(&mut self, now: Instant) -> Result<(), Refusal> {
        self.say(Say::GoodBye, now)
    }

    /// When [`Self::on_time`] is to be called.
    pub(super) fn wakes_at(&self) -> Instant {
        self.pong_by.unwrap_or_else(|| self.last_said.min(self.last_heard) + self.keep_alive)
    }

    /// How long the broker may take to answer a ping, or to take a packet: with the keep-alive before the ping, one and a
    /// half keep-alives from its last sign of life to the end of the connection.
    pub(super) fn grace(&self) -> Duration {
        (self.keep_alive / 2).max(LEAST_GRACE)
    }

    /// The time of [`Self::wakes_at`] has come: pings, or gives the connection up.
    pub(super) fn on_time(&mut self, now: Instant) -> Result<(), Refusal> {
        if now < self.wakes_at() {
            return Ok(());
        }
        if self.pong_by.is_some() {
            let (reason, ending) = if self.is_up {
                let seconds = self.grace().as_secs();
                let reason = format!("the broker has gone silent: no answer to a ping within {seconds} s");
                (reason, Ending::Passing)
            } else {
                let reason = "the broker does not answer CONNECT: is this the address of an MQTT broker?";
                (reason.to_owned(), Ending::Silence)
            };
            return Err(Refusal { reason, ending });
        }
        self.say(Say::Ping, now)?;
        self.pong_by = Some(now + self.grace());
        Ok(())
    }

    fn say(&mut self, say: Say<'_>, now: Instant) -> Result<(), Refusal> {
        self.last_said = now;
        let before = self.out.len();
        let cannot = |reason| Refusal { reason, ending: Ending::Lasting };
        self.version
            .write(say, &mut self.out)
            .map_err(|error| cannot(format!("a packet cannot be made: {error}")))?;
        let bytes = self.out.len() - before;
        match self.max_packet_bytes {
            Some(most) if bytes > most as usize => Err(cannot(format!(
                "the broker takes packets of {most} bytes at most, and this one has {bytes}: allow larger ones there"
            ))),
            _ => Ok(()),
        }
    }

    /// Packet ids are never 0, and none is used twice at a time.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.under_way.contains(&self.last_id) && self.subscribing != Some(self.last_id) {
                return self.last_id;
            }
        }
    }
}

fn no_broker(what: &str) -> Refusal {
    let reason = format!("no answer to CONNECT, {what}: is this the address of an MQTT broker?");
    Refusal { reason, ending: Ending::Passing }
}

fn broken(what: &str) -> Refusal {
    Refusal { reason: format!("the broker breaks the protocol: {what}"), ending: Ending::Lasting }
}

/// A device without its subscriptions would look alive and hear nothing. The answers stand in the order of the filters
/// (MQTT 5, section 3.9.3; MQTT 3.1.1 as well).
fn refused_subscription(filters: &[String], answers: &[Option<String>]) -> Option<Refusal> {
    if answers.len() != filters.len() {
        return Some(broken(&format!("it answered {} of {} subscriptions", answers.len(), filters.len())));
    }
    let (filter, reason) =
        filters.iter().zip(answers).find_map(|(filter, answer)| Some((filter, answer.as_ref()?)))?;
    Some(Refusal {
        reason: format!(
            "the broker refused the subscription to {filter} ({reason}): its access list must allow the device to \
             subscribe there"
        ),
        ending: Ending::Lasting,
    })
}

#[cfg(test)]
mod tests;
