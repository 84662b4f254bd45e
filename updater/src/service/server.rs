//! The socket: one thread, `poll(2)`, a handful of peers. A peer that sends nonsense or stops in the middle loses its
//! connection and nothing else.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, warn};
use vigil_wire::{Decoder, Request, Response, encode};

use super::courier::refused;
use super::request::Asker;
use super::{Pause, Service, now};
use crate::watchdog::Supervisor;

const PEERS: usize = 8;
/// So many of the places are root's alone: a `vigild` that is not its own master must not lock out who comes to rescue it.
const PLACES_FOR_ROOT: usize = 2;
/// A peer that has begun a frame, or does not read its answer, has this long.
const STALL: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 64 * 1024;

struct Peer {
    asker: Asker,
    stream: UnixStream,
    decoder: Decoder,
    answer: Vec<u8>,
    greeted: bool,
    last_moved: Duration,
}

/// Who may connect, by user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody of ours.
    None,
    /// The courier.
    Courier,
    /// Root, at a device whose courier is somebody else.
    Root,
}

/// Serves until the process is ended. `access` says what a user may do.
pub fn serve(
    service: &mut Service,
    listener: &UnixListener,
    access: impl Fn(u32) -> Access,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let mut peers: Vec<Peer> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut refused_peers = Refusals::default();
    let mut last_peer = 0;
    let mut supervisor = Supervisor::ready();
    loop {
        let time = now();
        let turn = vigil_turns::begin("work");
        let pause = service.work(time);
        let stalls = peers.iter().filter(|peer| peer.is_mid_way()).map(|peer| peer.last_moved + STALL);
        let feed = [service.feed(time.boot), supervisor.feed(time.boot)].into_iter().flatten();
        let pause = stalls.chain(refused_peers.due()).chain(feed).fold(pause, Pause::at_most);
        drop(turn);
        let ready = wait(listener, &peers, pause)?;

        let before = time.boot;
        let time = now();
        if let Pause::Until(due) = pause
            && time.boot > due
        {
            vigil_turns::late(time.boot.saturating_sub(due.max(before)));
        }
        let turn = vigil_turns::begin("peers");
        for (peer, ready) in peers.iter_mut().zip(&ready[1..]) {
            if *ready {
                let _turn = vigil_turns::begin("request");
                peer.last_moved = time.boot;
                if let Err(error) = peer.serve(service, &mut buffer) {
                    debug!(%error, "a peer is gone");
                    peer.end();
                }
            }
        }
        let stalled = |peer: &Peer| peer.is_mid_way() && time.boot >= peer.last_moved + STALL;
        peers.retain(|peer| !(peer.is_ended() || stalled(peer)));
        service.keep_claim(|claim| peers.iter().any(|peer| peer.asker.peer == claim));
        if ready[0] {
            last_peer += 1;
            accept(listener, &mut peers, &access, last_peer, time.boot, &mut refused_peers);
        }
        if let Some(count) = refused_peers.report(time.boot) {
            service.note("peer.refused", &format!("{count} connections by users without permission"));
        }
        drop(turn);
    }
}

fn wait(listener: &UnixListener, peers: &[Peer], pause: Pause) -> io::Result<Vec<bool>> {
    let timeout = match pause {
        Pause::None => Some(Duration::ZERO),
        Pause::Until(time) => Some(time.saturating_sub(now().boot)),
        Pause::Forever => None,
    };
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    for peer in peers {
        // An answer that waits comes first: no request is read before the one before it is answered.
        let flags = if peer.answer.is_empty() { PollFlags::IN } else { PollFlags::OUT };
        fds.push(PollFd::from_borrowed_fd(peer.stream.as_fd(), flags));
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

fn accept(
    listener: &UnixListener,
    peers: &mut Vec<Peer>,
    access: &impl Fn(u32) -> Access,
    number: u64,
    time: Duration,
    refused_peers: &mut Refusals,
) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let uid = rustix::net::sockopt::socket_peercred(&stream).map(|credentials| credentials.uid.as_raw());
    let reason = match uid {
        Ok(uid) if access(uid) == Access::None => {
            warn!(uid, "refused a peer: only vigild's user and root may connect");
            refused_peers.count(time);
            "only vigild's user and root may connect"
        }
        Ok(uid) if has_place(peers, access(uid) == Access::Root) => {
            if stream.set_nonblocking(true).is_ok() {
                peers.push(Peer {
                    asker: Asker { peer: number, is_root: access(uid) == Access::Root },
                    stream,
                    decoder: Decoder::default(),
                    answer: Vec::new(),
                    greeted: false,
                    last_moved: time,
                });
            }
            return;
        }
        Ok(_) => "too many connections; close one",
        Err(_) => return,
    };
    // It may be told nothing, should it not read; nobody waits for it.
    let _ = stream.set_nonblocking(true);
    if let Ok(bytes) = encode(&refused("not_permitted", reason), &[]) {
        let _ = stream.write_all(&bytes);
    }
}

/// Whether one more may stay, by whether it is root.
fn has_place(peers: &[Peer], is_root: bool) -> bool {
    let others = peers.iter().filter(|peer| !peer.asker.is_root).count();
    peers.len() < PEERS && (is_root || others < PEERS - PLACES_FOR_ROOT)
}

impl Peer {
    fn is_mid_way(&self) -> bool {
        self.decoder.is_mid_frame() || !self.answer.is_empty() || !self.greeted
    }

    fn end(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.answer.clear();
        self.greeted = false;
        self.last_moved = Duration::ZERO;
    }

    fn is_ended(&self) -> bool {
        !self.greeted && self.last_moved == Duration::ZERO
    }

    fn serve(&mut self, service: &mut Service, buffer: &mut [u8]) -> anyhow::Result<()> {
        if !self.answer.is_empty() {
            return self.send();
        }
        let wanted = self.decoder.wanted()?.min(buffer.len());
        let count = match self.stream.read(&mut buffer[..wanted]) {
            Ok(0) => anyhow::bail!("closed"),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let request = match self.decoder.push(&buffer[..count]).and_then(|_| self.decoder.take::<Request>()) {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => request,
            Err(error) => {
                service.note("peer.nonsense", &error.to_string());
                let bytes = encode(&refused("malformed", &error.to_string()), &[])?;
                let _ = self.stream.write_all(&bytes);
                return Err(error.into());
            }
        };
        let (request, blob) = request;
        let (response, blob) = if self.greeted || matches!(request, Request::Hello { .. }) {
            service.answer(request, &blob, self.asker)
        } else {
            (refused("hello", "say hello first"), Vec::new())
        };
        if matches!(response, Response::Hello { .. }) {
            self.greeted = true;
        }
        // Whatever an answer has grown to, its peer learns that it has: the connection and the others' go on.
        self.answer = encode(&response, &blob).or_else(|error| {
            warn!(%error, "an answer is too large to be sent");
            encode(&refused("too_large", "the answer is too large to be sent; see the updater's log"), &[])
        })?;
        self.send()
    }

    fn send(&mut self) -> anyhow::Result<()> {
        match self.stream.write(&self.answer) {
            Ok(0) => anyhow::bail!("closed"),
            Ok(count) => {
                self.answer.drain(..count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Pause {
    pub(super) fn at_most(self, time: Duration) -> Self {
        match self {
            Self::None => Self::None,
            Self::Until(other) => Self::Until(other.min(time)),
            Self::Forever => Self::Until(time),
        }
    }
}

/// Refused peers, counted and reported at most once in a while.
#[derive(Default)]
struct Refusals {
    count: u32,
    since: Option<Duration>,
}

impl Refusals {
    const WINDOW: Duration = Duration::from_secs(10);

    fn count(&mut self, time: Duration) {
        self.count += 1;
        self.since.get_or_insert(time);
    }

    fn due(&self) -> Option<Duration> {
        self.since.map(|since| since + Self::WINDOW)
    }

    fn report(&mut self, time: Duration) -> Option<u32> {
        self.due().filter(|due| time >= *due)?;
        self.since = None;
        Some(std::mem::take(&mut self.count))
    }
}

/// Makes the socket. Anyone may connect; who may stay is decided by the peer's user.
pub fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        vigil_durable::create_directory(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}
