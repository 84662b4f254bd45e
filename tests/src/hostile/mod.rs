//! A broker that does what a test says, right or wrong. Plain TCP: what a hostile broker may do does not depend on how
//! its bytes are sealed on the way, and it holds the certificate that devices trust.

pub mod packet;
pub mod repeated;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::wait_for;
use packet::{Properties, Publish, Received};

const LIMIT: Duration = Duration::from_secs(30);

/// What it does with the publications of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// PUBACK, as it should.
    Once,
    /// Two of them.
    Twice,
    /// Nothing.
    Never,
    /// PUBACK for all but this packet id.
    AllBut(u16),
    /// PUBACK for another packet id.
    Another(u16),
    /// PUBACK with this reason code.
    Reason(u8),
    /// A PUBREC: as if it had been QoS 2.
    AsQosTwo,
}

/// How it answers.
#[derive(Clone, Debug)]
pub struct Manners {
    /// All bytes that answer CONNECT.
    pub connack: Vec<u8>,
    /// The reason code for each subscription.
    pub suback: u8,
    /// What it does with publications.
    pub acknowledge: Acknowledge,
}

impl Manners {
    /// An honest broker that has lost the session or kept it.
    pub fn honest(session_present: bool) -> Self {
        Self { connack: connack(session_present, 0, &[0]), suback: 1, acknowledge: Acknowledge::Once }
    }
}

/// A CONNACK; `properties` are bytes, with their length before them.
pub fn connack(session_present: bool, reason: u8, properties: &[u8]) -> Vec<u8> {
    packet::packet(0x20, &[&[u8::from(session_present), reason], properties].concat())
}

/// What it has seen.
#[derive(Default)]
pub struct Seen {
    /// CONNECTs.
    pub connects: u32,
    /// Connections that were served: they have subscribed.
    pub served: u32,
    /// Connections that have ended, whoever ended them.
    pub ended: u32,
    /// Publications of the device.
    pub published: Vec<Publish>,
    /// What it subscribed to last.
    pub topics: Vec<String>,
    /// Packet ids that the device has acknowledged.
    pub acknowledged: Vec<u16>,
    /// PINGREQs.
    pub pings: u32,
    /// The will of each connection.
    pub wills: Vec<Publish>,
    open: Option<TcpStream>,
}

struct Shared {
    manners: Mutex<Manners>,
    seen: Mutex<Seen>,
}

/// The broker.
pub struct Broker {
    /// Its port.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Broker {
    /// Listens, with good manners.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            manners: Mutex::new(Manners::honest(false)),
            seen: Mutex::new(Seen::default()),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || {
                    // Whatever ends it is an end.
                    let _ = serve(&shared, stream);
                    lock(&shared.seen).ended += 1;
                });
            }
        });
        Ok(Self { port, shared })
    }

    /// From now on it answers so.
    pub fn behave(&self, manners: Manners) {
        *lock(&self.shared.manners) = manners;
    }

    /// What it has seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.shared.seen)
    }

    /// Waits for something that it sees.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> anyhow::Result<T> {
        wait_for(what, LIMIT, || look(&self.seen()))
    }

    /// Sends bytes to the device.
    pub fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = {
            let seen = self.seen();
            seen.open.as_ref().context("the device is not connected")?.try_clone()?
        };
        Ok(stream.write_all(bytes)?)
    }

    /// Closes the connection.
    pub fn close(&self) {
        if let Some(stream) = &self.seen().open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(shared: &Shared, mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    loop {
        // What is said between two of the device's packets is never inside one of ours: each is one write.
        match packet::read(&mut stream)? {
            Received::Connect { will } => {
                let mut seen = lock(&shared.seen);
                // Under the lock: what is closed after a change of manners is every connection under the old ones.
                let manners = lock(&shared.manners).clone();
                seen.connects += 1;
                seen.wills.push(will);
                seen.open = Some(stream.try_clone()?);
                drop(seen);
                writer.write_all(&manners.connack)?;
            }
            Received::Subscribe { id, topics } => {
                let manners = lock(&shared.manners).clone();
                let codes = vec![manners.suback; topics.len()];
                let body = [&id.to_be_bytes()[..], &[0], &codes].concat();
                writer.write_all(&packet::packet(0x90, &body))?;
                let mut seen = lock(&shared.seen);
                seen.topics = topics;
                seen.served += 1;
            }
            Received::Publish(publish) => {
                let id = publish.id;
                let acknowledge = lock(&shared.manners).acknowledge;
                lock(&shared.seen).published.push(publish);
                writer.write_all(&answer(acknowledge, id))?;
            }
            Received::PubAck(id) => lock(&shared.seen).acknowledged.push(id),
            Received::PingReq => {
                lock(&shared.seen).pings += 1;
                writer.write_all(&packet::packet(0xd0, &[]))?;
            }
            Received::Other(_) => {}
        }
    }
}

fn answer(acknowledge: Acknowledge, id: u16) -> Vec<u8> {
    let puback = |id: u16, more: &[u8]| packet::packet(0x40, &[&id.to_be_bytes(), more].concat());
    match acknowledge {
        Acknowledge::Once => puback(id, &[]),
        Acknowledge::Twice => [puback(id, &[]), puback(id, &[])].concat(),
        Acknowledge::AllBut(other) if other != id => puback(id, &[]),
        Acknowledge::Never | Acknowledge::AllBut(_) => Vec::new(),
        Acknowledge::Another(other) => puback(other, &[]),
        Acknowledge::Reason(reason) => puback(id, &[reason]),
        Acknowledge::AsQosTwo => packet::packet(0x50, &id.to_be_bytes()),
    }
}

/// Properties as bytes, for a CONNACK.
pub fn properties(table: &Properties) -> anyhow::Result<Vec<u8>> {
    packet::properties(table)
}
