//! The way to the broker, one step after the other: its name, TCP, TLS. Each step has a time, and an error of its own
//! that says what to do.

mod race;
mod wire;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig};

use race::{Move, Race};
pub(super) use wire::Wire;

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Its name or address: what is resolved, what its certificate must be for.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// None for plaintext.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    fn place(&self) -> String {
        place(&self.host, self.port)
    }
}

/// Host and port as people write them.
fn place(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name,
    Tcp,
    Tls,
}

impl Step {
    /// For people: what took too long.
    pub(super) fn hangs(self, to: &Dial, limit: Duration) -> String {
        let place = to.place();
        let what = match self {
            Self::Name => {
                format!("the name {} was not resolved: does the room's name server answer?", to.host)
            }
            Self::Tcp => format!("no connection to {place}: is the address right, and not filtered?"),
            Self::Tls => format!("{place} does not answer the TLS handshake: is it a TLS port?"),
        };
        format!("{what} (within {} s)", limit.as_secs())
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(
        "the name {host} does not resolve: {error}; is it right, and does the room's name server know it?"
    )]
    Name { host: String, error: io::Error },
    #[error("no connection to {place}: {failures}")]
    Tcp { place: String, failures: String },
    #[error("TLS with {place}: {error}{advice}")]
    Tls { place: String, error: io::Error, advice: &'static str },
}

impl DialError {
    /// Trying again soon will not help.
    pub(super) fn is_lasting(&self) -> bool {
        false
    }
}

/// Connects. `step` is where it stands.
pub(super) async fn dial(to: &Dial, step: &Cell<Step>) -> Result<Wire, DialError> {
    let stream = connect(&to.host, to.port, step).await?;
    match &to.tls {
        None => Ok(Wire::new(stream)),
        Some(tls) => {
            step.set(Step::Tls);
            Ok(Wire::new(handshake(to, tls, stream).await?))
        }
    }
}

/// Asks for the addresses anew each time: the broker may have moved since.
async fn connect(host: &str, port: u16, step: &Cell<Step>) -> Result<TcpStream, DialError> {
    step.set(Step::Name);
    let addresses =
        lookup_host((host, port)).await.map_err(|error| DialError::Name { host: host.to_owned(), error })?;
    step.set(Step::Tcp);
    let stream = first_of(Race::new(addresses))
        .await
        .map_err(|failures| DialError::Tcp { place: place(host, port), failures })?;
    // Small packets in both directions: without this, one waits 40 ms for the acknowledgement of another.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The first of the addresses that answers (RFC 8305).
async fn first_of(mut race: Race) -> Result<TcpStream, String> {
    let mut attempts = FuturesUnordered::new();
    loop {
        let until = match race.next(Instant::now()) {
            Move::Begin(address) => {
                attempts.push(async move { (address, TcpStream::connect(address).await) });
                continue;
            }
            Move::Wait(until) => until,
            Move::Lost(failures) => return Err(failures),
        };
        tokio::select! {
            Some((address, attempt)) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => race.failed(address, &error.to_string()),
            },
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
    }
}

async fn handshake(
    to: &Dial,
    tls: &Arc<ClientConfig>,
    stream: impl wire::Stream + 'static,
) -> Result<impl wire::Stream + 'static, DialError> {
    let failed = |error: io::Error| DialError::Tls { place: to.place(), advice: advice(&error), error };
    let name = ServerName::try_from(to.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)
}

/// What the error of a handshake asks for.
fn advice(error: &io::Error) -> &'static str {
    use rustls::AlertDescription as Alert;
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer => "; broker.ca_file must hold the authority of its certificate",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "; broker.url must name it as its certificate does"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => "; is this device's clock right?",
            _ => "",
        },
        Some(rustls::Error::InvalidMessage(_)) => "; is it a TLS port?",
        Some(rustls::Error::AlertReceived(
            Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate,
        )) => "; it may want this device's certificate: see broker.client_cert_file",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
