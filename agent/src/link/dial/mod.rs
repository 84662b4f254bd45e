//! The way to the broker, one step after the other: its name, TCP, a proxy, TLS, a WebSocket. Each step has an error of
//! its own that says what to do, and so has one that takes too long.

mod http;
mod proxy;
mod race;
mod websocket;
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

pub use proxy::Proxy;
use race::{Move, Race};
use wire::Stream;
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
    /// The path of its WebSockets; none where MQTT is spoken without.
    pub websocket: Option<String>,
    /// What stands between.
    pub proxy: Option<Proxy>,
}

impl Dial {
    /// Host and port as people write them.
    pub fn place(&self) -> String {
        place(&self.host, self.port)
    }

    /// As HTTP names it: without the port that goes without saying.
    fn authority(&self) -> String {
        let place = self.place();
        let usual = if self.tls.is_some() { ":443" } else { ":80" };
        place.strip_suffix(usual).map_or_else(|| place.clone(), str::to_owned)
    }

    /// Whom the TCP connection is with.
    fn first_hop(&self) -> (&str, u16) {
        self.proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port))
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
    Proxy,
    Tls,
    WebSocket,
}

impl Step {
    /// For people: what took too long.
    pub(super) fn hangs(self, to: &Dial, limit: Duration) -> String {
        let (host, port) = to.first_hop();
        let hop = place(host, port);
        let broker = to.place();
        let what = match self {
            Self::Name => format!("the name {host} was not resolved: does the room's name server answer?"),
            Self::Tcp => format!("no connection to {hop}: is the address right, and not filtered?"),
            Self::Proxy => format!("the proxy {hop} does not answer CONNECT: does it reach {broker}?"),
            Self::Tls => format!("{broker} does not answer the TLS handshake: is it a TLS port?"),
            Self::WebSocket => format!("{broker} does not answer HTTP: is it the port of its WebSockets?"),
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
    #[error("the proxy {place} {why}")]
    Proxy { place: String, why: String, is_lasting: bool },
    #[error("TLS with {place}: {error}{advice}")]
    Tls { place: String, error: io::Error, advice: &'static str },
    #[error("WebSocket with {place}: {why}")]
    WebSocket { place: String, why: String },
}

impl DialError {
    /// Trying again soon will not help; with wrong credentials it may lock them.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Proxy { is_lasting: true, .. })
    }
}

/// Connects. `step` is where it stands.
pub(super) async fn dial(to: &Dial, step: &Cell<Step>) -> Result<Wire, DialError> {
    let (host, port) = to.first_hop();
    let mut stream: Box<dyn Stream> = Box::new(connect(host, port, step).await?);
    if let Some(proxy) = &to.proxy {
        step.set(Step::Proxy);
        stream = proxy::connect(proxy, &to.place(), stream).await?;
    }
    if let Some(tls) = &to.tls {
        step.set(Step::Tls);
        stream = handshake(to, tls, stream).await?;
    }
    match &to.websocket {
        None => Ok(Wire::Bytes(stream)),
        Some(path) => {
            step.set(Step::WebSocket);
            websocket::open(to, path, stream).await
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
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, DialError> {
    let failed = |error: io::Error| DialError::Tls { place: to.place(), advice: advice(&error), error };
    let name = ServerName::try_from(to.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)?;
    Ok(Box::new(stream))
}

/// What the error of a handshake asks for. In TLS 1.3 the other side's refusal comes after it (RFC 8446, section 2).
pub(super) fn advice(error: &io::Error) -> &'static str {
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
        Some(rustls::Error::AlertReceived(Alert::NoApplicationProtocol)) => {
            "; it speaks no protocol that broker.alpn names"
        }
        Some(rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::HandshakeFailure
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnknownCA
            | Alert::AccessDenied,
        )) => "; it wants a certificate of this device that it knows: see broker.client_cert_file",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
