//! A static file server with ranges, as any web server or bucket is one; and with the faults that they have.

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read and sent at once.
const CHUNK: usize = 256 * 1024;

/// How the server misbehaves, for paths that contain a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 404.
    Missing,
    /// Bytes of the right length that are not the file's.
    Garbage,
    /// Half of what was asked for, and then the end.
    Half,
    /// More than was asked for.
    Longer,
    /// No answer at all.
    Stall,
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// 503.
    Unavailable,
    /// 416 for every range.
    NotSatisfiable,
    /// The first half of what was asked for, and then the connection breaks; once.
    Break,
    /// The connection breaks when so many bytes of such paths have gone into it, over as many requests as that takes; once. Of
    /// several the first in turn counts.
    BreakAfter(u64),
}

/// A request that was served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its path.
    pub path: String,
    /// Bytes of the body that went into the connection.
    pub bytes: u64,
    /// When it began.
    pub at: Instant,
}

#[derive(Default)]
struct State {
    faults: Vec<(String, Fault)>,
    served: Vec<Served>,
    /// How often they were taken.
    taken: u64,
    wire_bytes: u64,
}

impl State {
    /// The bytes after which an answer for `path` breaks, if that is the fault in turn.
    fn break_after(&mut self, path: &str) -> Option<(usize, &mut u64)> {
        let at = self.faults.iter().position(|(part, _)| path.contains(part))?;
        match &mut self.faults[at].1 {
            Fault::BreakAfter(left) => Some((at, left)),
            _ => None,
        }
    }
}

/// The answer that goes into a connection.
struct Sending {
    path: String,
    /// Which of what is served it is: of which taking, and its position.
    served: (u64, usize),
    /// Ends of lines in a row, until two of them have ended the header.
    line_ends: u8,
}

impl Sending {
    /// How many of `bytes` are still of the header.
    fn pass_header(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.line_ends < 2 && passed < bytes.len() {
            self.line_ends = match bytes[passed] {
                b'\n' => self.line_ends + 1,
                b'\r' => self.line_ends,
                _ => 0,
            };
            passed += 1;
        }
        passed
    }
}

/// The server.
#[derive(Clone)]
pub struct FileServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FileServer {
    /// Serves `root` on a port of loopback, in a thread of its own, until the process ends.
    pub fn start(root: PathBuf) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let (root, state) = (root.clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        let shared = Arc::clone(&state);
                        let sending = Arc::<Mutex<Option<Sending>>>::default();
                        let stream = Counted { stream, state, sending: Arc::clone(&sending) };
                        let service = service_fn(move |request| {
                            respond(request, root.clone(), Arc::clone(&shared), Arc::clone(&sending))
                        });
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        Ok(Self { address, state })
    }

    /// Its address, as a configuration names it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Misbehaves from now on for paths that contain `path`.
    pub fn misbehave(&self, path: &str, fault: Fault) {
        if let Ok(mut state) = self.state.lock() {
            state.faults.push((path.to_owned(), fault));
        }
    }

    /// Behaves from now on.
    pub fn behave(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.faults.clear();
        }
    }

    /// How many faults there are still.
    pub fn faults(&self) -> usize {
        self.state.lock().map_or(0, |state| state.faults.len())
    }

    /// What was served since the last call.
    pub fn take_served(&self) -> Vec<Served> {
        let Ok(mut state) = self.state.lock() else { return Vec::new() };
        state.taken += 1;
        std::mem::take(&mut state.served)
    }

    /// Bytes of requests and answers since the last call, of their headers too.
    pub fn take_wire_bytes(&self) -> u64 {
        self.state.lock().map(|mut state| std::mem::take(&mut state.wire_bytes)).unwrap_or_default()
    }
}

/// A connection whose bytes are counted, in both directions, as they go; and that breaks where it is to.
struct Counted {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    sending: Arc<Mutex<Option<Sending>>>,
}

impl Counted {
    fn count(&self, bytes: usize) {
        if let Ok(mut state) = self.state.lock() {
            state.wire_bytes += bytes as u64;
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.count(buffer.filled().len() - before);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Counted { stream, state, sending } = &mut *self;
        let (Ok(mut state), Ok(mut sending)) = (state.lock(), sending.lock()) else {
            return Poll::Ready(Err(std::io::ErrorKind::Other.into()));
        };
        let Some(sending) = &mut *sending else {
            let count = std::task::ready!(Pin::new(stream).poll_write(context, bytes))?;
            state.wire_bytes += count as u64;
            return Poll::Ready(Ok(count));
        };
        let before = sending.line_ends;
        let mut most = bytes.len();
        if let Some((at, left)) = state.break_after(&sending.path) {
            if *left == 0 {
                state.faults.remove(at);
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            most = most.min(sending.pass_header(bytes).saturating_add(*left as usize));
            sending.line_ends = before;
        }
        let count = std::task::ready!(Pin::new(stream).poll_write(context, &bytes[..most]))?;
        let body = (count - sending.pass_header(&bytes[..count])) as u64;
        if let Some((_, left)) = state.break_after(&sending.path) {
            *left -= body;
        }
        let (taken, at) = sending.served;
        if taken == state.taken {
            state.served[at].bytes += body;
        }
        state.wire_bytes += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn respond(
    request: Request<Incoming>,
    root: PathBuf,
    state: Arc<Mutex<State>>,
    sending: Arc<Mutex<Option<Sending>>>,
) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    if let Ok(mut sending) = sending.lock() {
        *sending = None;
    }
    let fault = state.lock().ok().and_then(|state| {
        state.faults.iter().find(|(part, _)| path.contains(part)).map(|(_, fault)| fault.clone())
    });
    if fault == Some(Fault::Stall) {
        std::future::pending::<()>().await;
    }
    let status = |status| {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = status;
        response
    };
    if fault == Some(Fault::Unavailable) {
        return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
    }
    if fault == Some(Fault::NotSatisfiable) && request.headers().contains_key(header::RANGE) {
        return Ok(status(StatusCode::RANGE_NOT_SATISFIABLE));
    }
    let file = if path.contains("..") || fault == Some(Fault::Missing) {
        None
    } else {
        File::open(root.join(&path)).ok().filter(|file| file.metadata().is_ok_and(|it| it.is_file()))
    };
    let Some(file) = file else { return Ok(status(StatusCode::NOT_FOUND)) };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let range =
        request.headers().get(header::RANGE).and_then(|value| parse_range(value.to_str().ok()?, length));
    let range = range.filter(|_| fault != Some(Fault::IgnoreRange));
    let (start, end) = range.unwrap_or((0, length));
    let body = match fault {
        None | Some(Fault::IgnoreRange | Fault::NotSatisfiable | Fault::BreakAfter(_)) => {
            Either::Right(FileBody { file, offset: start, end, breaks: None, buffer: vec![0; CHUNK] })
        }
        Some(Fault::Break) => {
            if let Ok(mut state) = state.lock() {
                state.faults.retain(|(_, fault)| *fault != Fault::Break);
            }
            let breaks = Some(start + (end - start) / 2);
            Either::Right(FileBody { file, offset: start, end, breaks, buffer: vec![0; CHUNK] })
        }
        Some(fault) => {
            let mut body = vec![0; (end - start) as usize];
            let _ = file.read_exact_at(&mut body, start);
            match fault {
                Fault::Garbage => body.iter_mut().for_each(|byte| *byte ^= 0x5a),
                Fault::Half => body.truncate(body.len() / 2),
                Fault::Longer => body.extend_from_slice(&[b'x'; 4096]),
                _ => {}
            }
            Either::Left(Full::new(Bytes::from(body)))
        }
    };
    if let (Ok(mut state), Ok(mut sending)) = (state.lock(), sending.lock()) {
        let served = (state.taken, state.served.len());
        *sending = Some(Sending { path: path.clone(), served, line_ends: 0 });
        state.served.push(Served { path, bytes: 0, at: Instant::now() });
    }
    let response = match range {
        None => Response::builder().status(StatusCode::OK),
        Some(_) => Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", end.saturating_sub(1))),
    };
    Ok(response.body(body).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR)))
}

type Answer = Either<Full<Bytes>, FileBody>;

/// A part of a file, read as it is sent.
struct FileBody {
    file: File,
    offset: u64,
    end: u64,
    /// Where the connection breaks.
    breaks: Option<u64>,
    buffer: Vec<u8>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let FileBody { file, offset, end, breaks, buffer } = &mut *self;
        if breaks.is_some_and(|at| *offset >= at) {
            return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())));
        }
        let length = (breaks.unwrap_or(*end) - *offset).min(CHUNK as u64) as usize;
        match file.read_at(&mut buffer[..length], *offset) {
            Ok(count) if count > 0 => {
                *offset += count as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&buffer[..count])))))
            }
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.offset)
    }
}

fn parse_range(value: &str, length: u64) -> Option<(u64, u64)> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = start.parse().ok()?;
    let end = if end.is_empty() { length } else { end.parse::<u64>().ok()? + 1 };
    (start < length && start < end).then_some((start, end.min(length)))
}
