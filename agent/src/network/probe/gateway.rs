//! The first router: an echo, and where that is not permitted or stays unanswered, other signs of life.
//!
//! Many routers drop pings. A datagram to a closed port is then answered by ICMP or, in any case, needs the
//! router's hardware address first: whoever answers ARP is there.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use vigil_protocol::diagnosis::{Evidence, Layer};

use super::{Look, code};
use crate::network::tables::{self, Route};

/// RFC 863.
const DISCARD: u16 = 9;
/// Echoes until it counts as silent.
const ECHOES: u16 = 3;
/// A neighbour that is gone is noticed after 5 s of DELAY and 3 probes of 1 s each (Linux's defaults).
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(10);

/// What a first look at a router gave.
#[derive(Debug)]
pub enum Sign {
    /// It is clear.
    Clear(Evidence),
    /// Only an ARP entry from before speaks for it; that may be old.
    Old(Look, IpAddr),
}

/// A first look at every router, side by side.
pub(in crate::network) async fn probe(routes: &[Route], limit: Duration) -> Vec<Sign> {
    futures_util::future::join_all(routes.iter().map(|route| probe_one(route, limit))).await
}

/// Settles what was not clear. Traffic that passes proves the router better than waiting for ARP does.
pub(in crate::network) async fn settle(signs: Vec<Sign>, traffic_passes: bool) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    for sign in signs {
        evidence.push(match sign {
            Sign::Clear(evidence) => evidence,
            Sign::Old(look, router) if traffic_passes => {
                look.warning("timeout", format!("the router {router} answers no ping, but lets traffic pass"))
            }
            Sign::Old(look, router) if stays_complete(router).await => {
                look.warning("timeout", format!("the router {router} answers ARP, but no ping"))
            }
            Sign::Old(look, router) => look
                .failed("unreachable", format!("the router {router} does not answer, not even ARP any more")),
        });
    }
    if evidence.is_empty() {
        let none = Look::at(Layer::Gateway, "gateway");
        evidence.push(none.skipped("no_route", "not probed: there is no default route"));
    }
    evidence
}

async fn probe_one(route: &Route, limit: Duration) -> Sign {
    let Some(router) = route.gateway else {
        let look = Look::at(Layer::Gateway, &route.interface);
        let message = format!("{} is a point-to-point link without a router", route.interface);
        return Sign::Clear(look.skipped("no_route", message));
    };
    let look = Look::at(Layer::Gateway, router.to_string());
    let was_known = tables::neighbour_is_complete(router);
    let address = with_scope(router, &route.interface);
    let silence = match echo(address, limit / 2).await {
        Ok(()) => return Sign::Clear(look.ok(format!("the router {router} answers"))),
        Err(error) => error,
    };
    match discard(address, limit / 2).await {
        Err(error) if code(&error) == "refused" => {
            Sign::Clear(look.ok(format!("the router {router} answers (not to ping)")))
        }
        _ if tables::neighbour_is_complete(router) && was_known => Sign::Old(look, router),
        _ if tables::neighbour_is_complete(router) => {
            Sign::Clear(look.warning("timeout", format!("the router {router} answers ARP, but no ping")))
        }
        // Whoever is there has answered ARP long before a probe ends.
        _ if router.is_ipv4() || code(&silence) == "unreachable" => Sign::Clear(
            look.failed("unreachable", format!("the router {router} does not answer, not even ARP")),
        ),
        _ => Sign::Clear(look.failed("timeout", format!("the router {router} does not answer"))),
    }
}

fn with_scope(router: IpAddr, interface: &str) -> SocketAddr {
    match router {
        IpAddr::V6(router) if router.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(router, 0, 0, tables::interface_index(interface)))
        }
        router => SocketAddr::new(router, 0),
    }
}

/// ICMP echo over a datagram socket, which needs no privilege where `net.ipv4.ping_group_range` allows it
/// (`icmp(7)`). The kernel fills in identifier and checksum, and hands over replies to this socket only.
async fn echo(router: SocketAddr, limit: Duration) -> io::Result<()> {
    let (domain, protocol, request, reply) = match router {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&router.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let mut token = [0; 8];
    getrandom::fill(&mut token).map_err(io::Error::other)?;
    for sequence in 1..=ECHOES {
        let [high, low] = sequence.to_be_bytes();
        let mut packet = vec![request, 0, 0, 0, 0, 0, high, low];
        packet.extend(token);
        socket.send(&packet).await?;
        if let Ok(result) = timeout(limit / u32::from(ECHOES), answer(&socket, reply, &token)).await {
            return result;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn answer(socket: &UdpSocket, reply: u8, token: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 128];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].first() == Some(&reply) && buffer[..length].get(8..) == Some(token) {
            return Ok(());
        }
    }
}

/// A datagram that nobody wants. `Err` with `refused` is a good sign: someone said so.
async fn discard(mut router: SocketAddr, limit: Duration) -> io::Result<()> {
    router.set_port(DISCARD);
    let local: SocketAddr = if router.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(router).await?;
    socket.send(&[]).await?;
    match timeout(limit, socket.recv(&mut [0; 1])).await {
        Ok(result) => result.map(drop),
        Err(_) => Ok(()),
    }
}

/// Watches the ARP entry for as long as the kernel needs to find a dead neighbour out.
async fn stays_complete(router: IpAddr) -> bool {
    let end = sleep_until(Instant::now() + NEIGHBOUR_TIMEOUT);
    tokio::pin!(end);
    let mut look_again = interval(Duration::from_millis(500));
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut end => return true,
            _ = look_again.tick() => if !tables::neighbour_is_complete(router) { return false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigil_protocol::diagnosis::Outcome;

    #[tokio::test]
    async fn a_closed_port_of_a_living_machine_refuses() {
        let error = discard("127.0.0.1:0".parse().unwrap(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(code(&error), "refused");
    }

    #[tokio::test]
    async fn traffic_that_passes_proves_a_silent_router() {
        let router: IpAddr = "192.0.2.1".parse().unwrap();
        let sign = Sign::Old(Look::at(Layer::Gateway, "192.0.2.1"), router);
        assert_eq!(settle(vec![sign], true).await[0].outcome, Outcome::Warning);
        assert_eq!(settle(Vec::new(), false).await[0].outcome, Outcome::Skipped);
    }
}
