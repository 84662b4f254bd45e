//! A static file server with ranges, as any web server or bucket is one; and with the faults that they have.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;

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
}

/// A request that was served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its path.
    pub path: String,
    /// Bytes of the body.
    pub bytes: u64,
}

#[derive(Default)]
struct State {
    faults: Vec<(String, Fault)>,
    served: Vec<Served>,
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
                    let (root, state) = (root.clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        let service =
                            service_fn(move |request| respond(request, root.clone(), Arc::clone(&state)));
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

    /// What was served since the last call.
    pub fn take_served(&self) -> Vec<Served> {
        self.state.lock().map(|mut state| std::mem::take(&mut state.served)).unwrap_or_default()
    }
}

async fn respond(
    request: Request<Incoming>,
    root: PathBuf,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let fault = state.lock().ok().and_then(|state| {
        state.faults.iter().find(|(part, _)| path.contains(part)).map(|(_, fault)| fault.clone())
    });
    if fault == Some(Fault::Stall) {
        std::future::pending::<()>().await;
    }
    let status = |status| Response::builder().status(status).body(Full::default()).unwrap_or_default();
    if fault == Some(Fault::Unavailable) {
        return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
    }
    let file = if path.contains("..") || fault == Some(Fault::Missing) {
        None
    } else {
        std::fs::read(root.join(&path)).ok()
    };
    let Some(file) = file else { return Ok(status(StatusCode::NOT_FOUND)) };
    let range =
        request.headers().get(header::RANGE).and_then(|value| parse_range(value.to_str().ok()?, file.len()));
    let range = range.filter(|_| fault != Some(Fault::IgnoreRange));
    let (start, end) = range.unwrap_or((0, file.len()));
    let mut body = file.get(start..end).unwrap_or_default().to_vec();
    match fault {
        Some(Fault::Garbage) => body.iter_mut().for_each(|byte| *byte ^= 0x5a),
        Some(Fault::Half) => body.truncate(body.len() / 2),
        Some(Fault::Longer) => body.extend_from_slice(&[b'x'; 4096]),
        _ => {}
    }
    if let Ok(mut state) = state.lock() {
        state.served.push(Served { path, bytes: body.len() as u64 });
    }
    let response = match range {
        None => Response::builder().status(StatusCode::OK),
        Some(_) => Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", end.saturating_sub(1), file.len())),
    };
    Ok(response.body(Full::new(Bytes::from(body))).unwrap_or_default())
}

fn parse_range(value: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = if end.is_empty() { length } else { end.parse::<usize>().ok()? + 1 };
    (start < length && start < end).then_some((start, end.min(length)))
}
