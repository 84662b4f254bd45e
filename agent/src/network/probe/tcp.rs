//! A TCP connection to a partner's endpoint.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use vigil_protocol::diagnosis::{Evidence, Layer};

use super::{Look, code};

/// Tries the addresses one after the other; `limit` is for all of them together.
pub async fn probe(
    addresses: &[IpAddr],
    port: u16,
    partner: &str,
    subject: &str,
    limit: Duration,
) -> (Evidence, Option<TcpStream>) {
    let look = Look::at(Layer::Tcp, subject).of(Some(partner));
    let deadline = Instant::now() + limit;
    let mut failure: Option<(SocketAddr, io::Error)> = None;
    for (index, address) in addresses.iter().enumerate() {
        let address = SocketAddr::new(*address, port);
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - index) as u32;
        let result = timeout(share, TcpStream::connect(address)).await;
        match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                return (look.ok(format!("{subject} accepts connections at {address}")), Some(stream));
            }
            Err(error) if failure.as_ref().is_none_or(|(_, worst)| says_more(&error, worst)) => {
                failure = Some((address, error));
            }
            Err(_) => {}
        }
    }
    let Some((address, error)) = failure else {
        return (look.skipped("no_address", format!("{subject} has no address to connect to")), None);
    };
    let how = match code(&error) {
        "timeout" => "does not answer",
        "refused" => "refuses the connection",
        "no_route" => "cannot be reached: the device has no route to it",
        "not_permitted" => "may not be connected to: a firewall on the device forbids it",
        _ => "cannot be reached",
    };
    (look.failed(code(&error), format!("{subject} ({address}) {how}")), None)
}

/// A refusal is an answer, silence at least a way out; an address of a family that the device has not says nothing.
fn says_more(error: &io::Error, than: &io::Error) -> bool {
    let rank = |error| match code(error) {
        "refused" => 4,
        "not_permitted" => 3,
        "timeout" => 2,
        "unreachable" => 1,
        _ => 0,
    };
    rank(error) > rank(than)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use vigil_protocol::diagnosis::Outcome;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn closed_port() -> u16 {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_no_address_is_not_tried() {
        let port = closed_port().await;
        let (evidence, stream) = probe(&[Ipv4Addr::LOCALHOST.into()], port, "a", "a:1", LIMIT).await;
        assert_eq!((evidence.outcome, evidence.code.as_str()), (Outcome::Failed, "refused"));
        assert!(stream.is_none());
        assert_eq!(probe(&[], port, "a", "a:1", LIMIT).await.0.outcome, Outcome::Skipped);
    }

    #[tokio::test]
    async fn the_second_address_is_tried_when_the_first_fails() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [Ipv4Addr::new(127, 0, 0, 99).into(), Ipv4Addr::LOCALHOST.into()];
        assert_eq!(probe(&addresses, port, "a", "a:1", LIMIT).await.0.outcome, Outcome::Ok);
    }
}
