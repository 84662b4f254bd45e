//! The two listeners. Each request is turned into a call to the daemon, which owns all state, and waits for its
//! answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::{Access, Need, Peer};

/// Connections at a time, on each socket; of one user; and so many more for root and the admins alone, so that whoever fills
/// the others locks nobody out who comes to help.
const CONNECTIONS: usize = 16;
const CONNECTIONS_OF_ONE: usize = 4;
const CONNECTIONS_FOR_ADMINS: usize = 4;
const CONNECTIONS_FOR_ROOT: usize = 4;
/// A request's head must be here within this time.
const HEAD: Duration = Duration::from_secs(10);
/// The longest call is a diagnosis.
const ANSWER: Duration = Duration::from_secs(120);
const AUDIT_PAGE: usize = 100;

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// How the device stands.
    Status,
    /// The newest health snapshot.
    Health,
    /// How updates stand.
    Update,
    /// Audit entries.
    Audit {
        /// From this index on; the newest when there is none.
        first: Option<u64>,
        /// At most so many.
        limit: usize,
    },
    /// Test the network.
    Diagnose,
}

/// A call and where its answer goes.
pub struct Request {
    /// What.
    pub call: Call,
    /// By whom.
    pub peer: Peer,
    /// The answer.
    pub answer: oneshot::Sender<Answer>,
}

/// Status and JSON.
pub type Answer = (StatusCode, Value);

/// A request that was not allowed.
#[derive(Debug)]
pub struct Refused {
    /// By whom.
    pub peer: Peer,
    /// For what.
    pub what: String,
}

/// The two sockets.
pub struct Listeners {
    status: UnixListener,
    admin: UnixListener,
}

impl Listeners {
    /// Makes both sockets in `directory`. Anyone may connect; the daemon decides.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        vigil_durable::create_directory(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            status: bind(&directory.join("status.sock"))?,
            admin: bind(&directory.join("admin.sock"))?,
        })
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

struct Shared {
    access: Access,
    calls: mpsc::Sender<Request>,
    refused: mpsc::Sender<Refused>,
}

/// Serves both sockets. `calls` and `refused` lead to the daemon.
pub fn serve(
    listeners: Listeners,
    access: Access,
    calls: mpsc::Sender<Request>,
    refused: mpsc::Sender<Refused>,
) -> tokio::task::JoinHandle<()> {
    let shared = Rc::new(Shared { access, calls, refused });
    let admin = accept(listeners.admin, Need::Act, Rc::clone(&shared));
    let status = accept(listeners.status, Need::Read, shared);
    tokio::task::spawn_local(vigil_turns::task("local sockets", async move {
        tokio::join!(admin, status);
    }))
}

async fn accept(listener: UnixListener, socket: Need, shared: Rc<Shared>) {
    let places = Rc::new(RefCell::new(Places::default()));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: it passes, and a tight loop would not help.
                warn!(%error, "the local socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(peer) = Peer::of(&stream) else { continue };
        let (uid, is_admin) = (peer.uid, shared.access.allows(&peer, Need::Act));
        // Without a place the connection is closed at once: a peer that opens many must not starve the others.
        if !places.borrow_mut().take(uid, is_admin) {
            continue;
        }
        let (shared, places) = (Rc::clone(&shared), Rc::clone(&places));
        tokio::task::spawn_local(vigil_turns::task("local connection", async move {
            if let Err(error) = connection(stream, peer, socket, shared).await {
                debug!(%error, "a local connection");
            }
            places.borrow_mut().give_back(uid, is_admin);
        }));
    }
}

/// Who has how many connections to a socket. Pure.
#[derive(Debug, Default)]
struct Places {
    /// Of everybody, and of root and the admins.
    taken: [usize; 2],
    by_user: BTreeMap<u32, usize>,
}

impl Places {
    /// Takes a place for a user, if one is left to him.
    fn take(&mut self, uid: u32, is_admin: bool) -> bool {
        let own = self.by_user.get(&uid).copied().unwrap_or(0);
        let all = self.taken[0] + self.taken[1];
        let has_room = if uid == 0 {
            all < CONNECTIONS + CONNECTIONS_FOR_ADMINS + CONNECTIONS_FOR_ROOT
        } else if is_admin {
            own < CONNECTIONS_OF_ONE
                && (self.taken[1] < CONNECTIONS_FOR_ADMINS || all < CONNECTIONS + CONNECTIONS_FOR_ADMINS)
        } else {
            self.taken[0] < CONNECTIONS && own < CONNECTIONS_OF_ONE
        };
        if has_room {
            self.taken[usize::from(is_admin)] += 1;
            self.by_user.insert(uid, own + 1);
        }
        has_room
    }

    fn give_back(&mut self, uid: u32, is_admin: bool) {
        let place = &mut self.taken[usize::from(is_admin)];
        *place = place.saturating_sub(1);
        let own = self.by_user.get(&uid).copied().unwrap_or(0);
        if own <= 1 {
            self.by_user.remove(&uid);
        } else {
            self.by_user.insert(uid, own - 1);
        }
    }
}

async fn connection(
    stream: UnixStream,
    peer: Peer,
    socket: Need,
    shared: Rc<Shared>,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let shared = Rc::clone(&shared);
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(respond(&request, peer, socket, &shared).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond(
    request: &hyper::Request<Incoming>,
    peer: Peer,
    socket: Need,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let (status, body) = match route(request.method(), request.uri().path(), request.uri().query(), socket) {
        Err((status, message)) => (status, error_body("no_such_request", &message)),
        Ok((need, call)) if shared.access.allows(&peer, need) => ask(call, peer, shared).await,
        Ok((need, call)) => {
            let groups = if need == Need::Act { "the admin group" } else { "the read or the admin group" };
            let what = format!("{} {}", request.method(), request.uri().path());
            debug!(uid = peer.uid, ?call, "refused");
            let _ = shared.refused.send(Refused { peer, what }).await;
            let message =
                format!("permission denied: be root or a member of {groups} (see [local] in vigil.toml)");
            (StatusCode::FORBIDDEN, error_body("not_permitted", &message))
        }
    };
    let mut text = body.to_string();
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn ask(call: Call, peer: Peer, shared: &Shared) -> Answer {
    let (answer, answered) = oneshot::channel();
    let unavailable =
        || (StatusCode::SERVICE_UNAVAILABLE, error_body("busy", "vigild is busy or stopping; try again"));
    if shared.calls.send(Request { call, peer, answer }).await.is_err() {
        return unavailable();
    }
    match tokio::time::timeout(ANSWER, answered).await {
        Ok(Ok(answer)) => answer,
        _ => unavailable(),
    }
}

/// The JSON of an error.
pub fn error_body(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

/// What a request asks, and what it needs.
fn route(
    method: &Method,
    path: &str,
    query: Option<&str>,
    socket: Need,
) -> Result<(Need, Call), (StatusCode, String)> {
    let call = match path {
        "/v1/status" => Call::Status,
        "/v1/health" => Call::Health,
        "/v1/update" => Call::Update,
        "/v1/audit" => audit_call(query)?,
        "/v1/diagnose" => Call::Diagnose,
        _ => {
            return Err((StatusCode::NOT_FOUND, "there is no such path; see docs/technicians.md".to_owned()));
        }
    };
    let (wanted, need) =
        if call == Call::Diagnose { (Method::POST, Need::Act) } else { (Method::GET, Need::Read) };
    if *method != wanted {
        return Err((StatusCode::METHOD_NOT_ALLOWED, format!("use {wanted} {path}")));
    }
    if need == Need::Act && socket == Need::Read {
        return Err((StatusCode::NOT_FOUND, "this socket only answers; act over admin.sock".to_owned()));
    }
    Ok((need, call))
}

fn audit_call(query: Option<&str>) -> Result<Call, (StatusCode, String)> {
    let (mut first, mut limit) = (None, AUDIT_PAGE);
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let number =
            || value.parse().map_err(|_| (StatusCode::BAD_REQUEST, format!("{name}: a number is needed")));
        match &*name {
            "first" => first = Some(number()?),
            "limit" => limit = (number()? as usize).clamp(1, AUDIT_PAGE),
            _ => {
                return Err((
                    StatusCode::BAD_REQUEST,
                    "only 'first' and 'limit' can be asked for".to_owned(),
                ));
            }
        }
    }
    Ok(Call::Audit { first, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_and_no_crowd_of_users_takes_the_places_of_root_and_the_admins() {
        let mut places = Places::default();
        let taken = (0..100).filter(|_| places.take(1000, false)).count();
        assert_eq!(taken, CONNECTIONS_OF_ONE);
        let taken = (0..100).filter(|uid| places.take(2000 + uid, false)).count();
        assert_eq!(taken, CONNECTIONS - CONNECTIONS_OF_ONE);
        // An admin has no more than anybody else, and all admins together leave root its own.
        let taken = (0..100).filter(|_| places.take(3000, true)).count();
        assert_eq!(taken, CONNECTIONS_OF_ONE);
        assert_eq!((0..100).filter(|uid| places.take(4000 + uid, true)).count(), 0);
        let taken = (0..100).filter(|_| places.take(0, true)).count();
        assert_eq!(taken, CONNECTIONS_FOR_ROOT);
        places.give_back(1000, false);
        places.give_back(0, true);
        assert!(places.take(0, true));
        for _ in 0..CONNECTIONS_OF_ONE {
            places.give_back(3000, true);
        }
        for _ in 0..CONNECTIONS_OF_ONE {
            places.give_back(1000, false);
        }
        assert_eq!(places.by_user.get(&1000), None);
    }

    #[test]
    fn acting_is_for_the_admin_socket_alone() {
        let post = |socket| route(&Method::POST, "/v1/diagnose", None, socket);
        assert_eq!(post(Need::Act).unwrap(), (Need::Act, Call::Diagnose));
        assert_eq!(post(Need::Read).unwrap_err().0, StatusCode::NOT_FOUND);
        let get = route(&Method::GET, "/v1/diagnose", None, Need::Act);
        assert_eq!(get.unwrap_err().0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn audit_pages_are_bounded_and_nonsense_is_refused() {
        let ask = |query| route(&Method::GET, "/v1/audit", Some(query), Need::Read).map(|(_, call)| call);
        assert_eq!(ask("first=3&limit=9999").unwrap(), Call::Audit { first: Some(3), limit: AUDIT_PAGE });
        assert_eq!(ask("").unwrap(), Call::Audit { first: None, limit: AUDIT_PAGE });
        assert!(ask("first=-1").is_err());
        assert!(ask("everything=1").is_err());
    }
}
