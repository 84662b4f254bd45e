//! Fetches files of the repository: plain HTTP/1.1, one connection kept open, ranges where they are asked for. Where there
//! are mirrors, from the one that served last, and from the next when that one fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// 404 or 403.
    #[error("{0}: not there ({1})")]
    Missing(String, StatusCode),
    /// Another status.
    #[error("{0}: the server answers {1}")]
    Status(String, StatusCode),
    /// Nothing came for too long.
    #[error("{0}: nothing came for {1} s")]
    Stalled(String, u64),
    /// The connection.
    #[error("{0}: {1}")]
    Connection(String, String),
    /// Too little came for too long.
    #[error("{0}: less than 16 KiB a second came for a minute")]
    Slow(String),
    /// Bytes from another place than asked for.
    #[error("{0}: the server sends another range than was asked for")]
    Range(String),
}

/// The client.
pub struct Fetcher {
    bases: Vec<Url>,
    /// Which of them is asked first.
    current: usize,
    tls: Option<Arc<ClientConfig>>,
    stall: Duration,
    connection: Option<SendRequest<Empty<Bytes>>>,
    /// A file that a server sends as a whole whatever range is asked for: it is read once, in order.
    open: Option<Download>,
}

/// A file as it comes.
pub struct Download {
    path: String,
    body: Incoming,
    stall: Duration,
    /// Where in the file the next byte of the body is, and from where on they are wanted.
    position: u64,
    from: u64,
    /// The server sends the whole file instead of the range that was asked for.
    is_whole: bool,
    /// What was read and not used.
    left: Bytes,
}

/// A part of what comes.
#[derive(Debug)]
pub enum Piece {
    /// So many bytes before what is wanted.
    PassedOver(u64),
    /// Bytes that are wanted.
    Bytes(Bytes),
}

impl Piece {
    /// How many came.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::PassedOver(bytes) => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl Fetcher {
    /// Under each of `bases` lie the same `metadata/`, `targets/` and `blobs/`. There is one at least.
    pub fn new(bases: Vec<Url>, ca_file: Option<&Path>, stall: Duration) -> std::io::Result<Self> {
        let has_tls = bases.iter().any(|base| base.scheme() == "https");
        let tls = if has_tls {
            Some(crate::tls::client(ca_file, None, crate::proven::TlsTime::Clock)?)
        } else {
            None
        };
        Ok(Self { bases, current: 0, tls, stall, connection: None, open: None })
    }

    /// What is asked first has not served well: the next one is, from now on.
    pub fn fail_over(&mut self) {
        self.turn_to((self.current + 1) % self.bases.len().max(1));
    }

    fn turn_to(&mut self, base: usize) {
        if base != self.current {
            self.current = base;
            self.connection = None;
            self.open = None;
        }
    }

    /// Begins to fetch `path` from `offset` on, from the first that has it. `length` is how much will be read at most, if
    /// it is known exactly.
    pub async fn get(
        &mut self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Download, FetchError> {
        if let Some(mut open) = self.open.take().filter(|open| open.path == path && open.position <= offset) {
            open.from = offset;
            return Ok(open);
        }
        let mut result = self.get_from_current(path, offset, length).await;
        let mut told = self.current;
        for _ in 1..self.bases.len() {
            if result.is_ok() {
                return result;
            }
            self.fail_over();
            let next = self.get_from_current(path, offset, length).await;
            // That a file is not there is an answer; that nobody answers is none.
            let says_missing = |result: &Result<_, _>| matches!(result, Err(FetchError::Missing(..)));
            if next.is_ok() || says_missing(&next) && !says_missing(&result) {
                (result, told) = (next, self.current);
            }
        }
        self.turn_to(told);
        result
    }

    async fn get_from_current(
        &mut self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Download, FetchError> {
        let error = |what: &dyn std::fmt::Display| FetchError::Connection(path.to_owned(), what.to_string());
        let base = self.bases.get(self.current).ok_or_else(|| error(&"there is no repository"))?;
        let url = base.join(path).map_err(|what| error(&what))?;
        // The server may have closed a kept connection meanwhile: that is no failure yet.
        let mut kept = None;
        if let Some(mut connection) = self.connection.take()
            && let Ok(Ok(())) = timeout(self.stall, connection.ready()).await
            && let Ok(Ok(response)) =
                timeout(self.stall, self.request(&mut connection, &url, offset, length)).await
        {
            kept = Some((connection, response));
        }
        let (connection, response) = match kept {
            Some(pair) => pair,
            None => {
                let mut connection = timeout(self.stall, self.connect(&url))
                    .await
                    .map_err(|_| self.stalled(path))?
                    .map_err(|what| error(&what))?;
                let response = timeout(self.stall, self.request(&mut connection, &url, offset, length))
                    .await
                    .map_err(|_| self.stalled(path))?
                    .map_err(|what| error(&what))?;
                (connection, response)
            }
        };
        self.connection = Some(connection);
        let position = judge(path, &response, offset)?;
        let is_whole = response.status() == StatusCode::OK && (offset > 0 || length.is_some());
        if is_whole {
            // Nothing else comes on this connection before all of the file has.
            self.connection = None;
        }
        let (path, body, stall) = (path.to_owned(), response.into_body(), self.stall);
        Ok(Download { path, body, stall, position, from: offset, is_whole, left: Bytes::new() })
    }

    /// Keeps what is left of a whole file for the next range that is asked for.
    pub fn keep(&mut self, download: Download) {
        self.open = Some(download).filter(|download| download.is_whole);
    }

    fn stalled(&self, path: &str) -> FetchError {
        FetchError::Stalled(path.to_owned(), self.stall.as_secs())
    }

    async fn connect(&self, url: &Url) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error>> {
        let host = url.host_str().ok_or("the repository's address names no host")?;
        let port = url.port_or_known_default().unwrap_or(80);
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        tcp.set_nodelay(true)?;
        let sender = if let Some(tls) = self.tls.as_ref().filter(|_| url.scheme() == "https") {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(vigil_turns::task("CDN connection", connection));
            sender
        } else {
            let (sender, connection) = handshake(TokioIo::new(tcp)).await?;
            tokio::task::spawn_local(vigil_turns::task("CDN connection", connection));
            sender
        };
        Ok(sender)
    }

    async fn request(
        &self,
        connection: &mut SendRequest<Empty<Bytes>>,
        url: &Url,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error>> {
        let mut request = Request::get(url.path())
            .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::USER_AGENT, concat!("vigil/", env!("CARGO_PKG_VERSION")))
            // Metadata is held against its signature byte for byte: no re-encoding on the way.
            .header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 || length.is_some() {
            let end = length.map_or_else(String::new, |length| (offset + length.max(1) - 1).to_string());
            request = request.header(header::RANGE, format!("bytes={offset}-{end}"));
        }
        Ok(connection.send_request(request.body(Empty::new())?).await?)
    }
}

/// Whether the answer is what was asked for, and where in the file it begins: a server or proxy that ignores ranges sends
/// the file from its beginning.
fn judge(path: &str, response: &Response<Incoming>, offset: u64) -> Result<u64, FetchError> {
    match response.status() {
        StatusCode::OK => Ok(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let start =
                range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
            if start == Some(offset) { Ok(offset) } else { Err(FetchError::Range(path.to_owned())) }
        }
        status @ (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) => {
            Err(FetchError::Missing(path.to_owned(), status))
        }
        status => Err(FetchError::Status(path.to_owned(), status)),
    }
}

impl Download {
    /// Whether the server sends the whole file instead of a range of it.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes back what was read and is not wanted now.
    pub fn give_back(&mut self, bytes: Bytes) {
        self.position -= bytes.len() as u64;
        self.left = bytes;
    }

    /// The next part; none at the end.
    pub async fn piece(&mut self) -> Result<Option<Piece>, FetchError> {
        loop {
            let mut bytes = std::mem::take(&mut self.left);
            if bytes.is_empty() {
                let frame = timeout(self.stall, self.body.frame())
                    .await
                    .map_err(|_| FetchError::Stalled(self.path.clone(), self.stall.as_secs()))?;
                match frame {
                    None => return Ok(None),
                    Some(Err(error)) => {
                        return Err(FetchError::Connection(self.path.clone(), error.to_string()));
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => bytes = data,
                        _ => continue,
                    },
                }
            }
            let before = self.from.saturating_sub(self.position).min(bytes.len() as u64);
            if before > 0 {
                self.left = bytes.split_off(before as usize);
                self.position += before;
                return Ok(Some(Piece::PassedOver(before)));
            }
            self.position += bytes.len() as u64;
            return Ok(Some(Piece::Bytes(bytes)));
        }
    }
}
