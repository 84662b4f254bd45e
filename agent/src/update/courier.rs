//! The courier's round: connect to `vigil-updaterd`, bring what it asks for, hand on what it says.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use vigil_wire::{BLOB_BYTES, Contact, Event, Fetch, Need, Request, Response, State, Trouble, UpdateStatus};

use super::client::{Client, ClientError, unexpected};
use super::fetch::{FetchError, Fetcher, Piece};
use super::pace::Pace;
use super::rate::Rate;

const RECONNECT: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// While the updater waits for a gate or a contact.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);
const IDLE_PAUSE: Duration = Duration::from_secs(15);
/// The pause after a first failure is twice this; it doubles with each, so many times.
const RETRY: Duration = Duration::from_secs(2);
const MOST_FAILURES: u32 = 12;
/// How often progress is looked at while bytes flow.
const PROGRESS: Duration = Duration::from_millis(500);

/// Settings.
pub struct CourierOptions {
    /// `vigil-updaterd`'s socket.
    pub socket: PathBuf,
    /// The partners whose profiles are followed.
    pub partners: Vec<String>,
    /// Between two refreshes.
    pub refresh_interval: Duration,
    /// The newest of the updater's events that the audit log has.
    pub last_event: u64,
    /// Bytes per second at most, if there is a limit.
    pub max_rate: Option<u64>,
    /// `random` shares of the interval: a fleet must not ask all at once.
    pub jitter: f64,
}

/// What the daemon wants.
#[derive(Debug)]
pub enum Ask {
    /// What an operator's envelope asks of the updater. The answer is `Ok` or the updater's reason.
    Order(Request, oneshot::Sender<Result<(), ClientError>>),
    /// What is seen of the network has changed.
    Contact(Contact),
    /// Look for what is new now, instead of at the next refresh.
    Refresh,
    /// The newest checkpoint of the audit log, for the updater to keep.
    Witness(String),
}

/// What the courier learns.
#[derive(Debug)]
pub enum News {
    /// The updater answers, and this is how it stands.
    Status(Box<UpdateStatus>),
    /// It does not answer.
    Unavailable(String),
    /// A document that the updater has verified, under its target name; none if it is revoked.
    Document(String, Option<Vec<u8>>),
    /// Events for the audit log.
    Events(Vec<Event>),
    /// A refresh failed.
    RefreshFailed(String),
    /// The checkpoint of the audit log that the updater keeps.
    Witnessed(Option<String>),
    /// A refresh that was due went through.
    Refreshed,
}

/// What the two halves share: one of them talks, the other fetches, and neither waits for the other. A mirror that drips must
/// hold up no word that a release on trial depends on.
struct Shared {
    /// There may be something to fetch.
    errand: Notify,
    /// A refresh was begun and has not ended.
    refreshing: Cell<bool>,
    state: Cell<State>,
}

/// How a refresh ended.
enum Refresh {
    Done,
    Failed(String),
}

/// Runs until `asks` is closed.
pub async fn run(
    options: CourierOptions,
    fetcher: Option<Fetcher>,
    asks: mpsc::Receiver<Ask>,
    news: mpsc::Sender<News>,
) {
    let shared = Rc::new(Shared {
        errand: Notify::new(),
        refreshing: Cell::new(false),
        state: Cell::new(State::Idle),
    });
    let (refreshed, refreshes) = mpsc::channel(4);
    let fetching = Fetching {
        socket: options.socket.clone(),
        has_none: fetcher.is_none(),
        fetcher,
        rate: Rate::new(options.max_rate),
        begun: Instant::now(),
        shared: Rc::clone(&shared),
        refreshed,
    };
    let talking = Talking {
        last_event: options.last_event,
        can_refresh: !fetching.has_none,
        options,
        news,
        shared,
        refreshes,
        contact: None,
        refresh_at: Instant::now(),
        failures: 0,
        has_asked_witness: false,
        checkpoint: None,
        documents: BTreeMap::new(),
    };
    tokio::select! {
        () = talking.run(asks) => {}
        () = fetching.run() => {}
    }
}

/// Hands on what the daemon says and what the updater tells.
struct Talking {
    options: CourierOptions,
    can_refresh: bool,
    news: mpsc::Sender<News>,
    shared: Rc<Shared>,
    refreshes: mpsc::Receiver<Refresh>,
    contact: Option<Contact>,
    refresh_at: Instant,
    failures: u32,
    last_event: u64,
    /// Asked once: afterwards it keeps what this process hands it.
    has_asked_witness: bool,
    /// The newest checkpoint of the audit log, until the updater has it.
    checkpoint: Option<String>,
    /// SHA-256 of the documents that were handed on, by target name.
    documents: BTreeMap<String, String>,
}

impl Talking {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut was_available = true;
        loop {
            let error = match Client::connect(&self.options.socket).await {
                Ok(mut client) => {
                    was_available = true;
                    match self.serve(&mut client, &mut asks).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if std::mem::take(&mut was_available) {
                warn!(%error, "no updates until vigil-updaterd answers");
            }
            if self.news.send(News::Unavailable(error.to_string())).await.is_err() {
                return;
            }
            let until = Instant::now() + RECONNECT;
            loop {
                match timeout_at(until, asks.recv()).await {
                    Err(_) => break,
                    Ok(None) => return,
                    Ok(Some(Ask::Contact(contact))) => self.contact = Some(contact),
                    Ok(Some(Ask::Refresh)) => self.refresh_at = Instant::now(),
                    Ok(Some(Ask::Witness(note))) => self.checkpoint = Some(note),
                    Ok(Some(Ask::Order(_, answer))) => {
                        let error = std::io::Error::from(std::io::ErrorKind::NotConnected);
                        let _ = answer.send(Err(error.into()));
                    }
                }
            }
        }
    }

    /// Until the connection breaks (an error) or the daemon ends (`Ok`).
    async fn serve(
        &mut self,
        client: &mut Client,
        asks: &mut mpsc::Receiver<Ask>,
    ) -> Result<(), ClientError> {
        let partners = self.options.partners.clone();
        client.ask(&Request::Follow { partners }, &[]).await?;
        if !std::mem::replace(&mut self.has_asked_witness, true)
            && let (Response::Witnessed { note }, _) = client.ask(&Request::Witnessed, &[]).await?
        {
            self.tell(News::Witnessed(note)).await?;
        }
        self.hand_over_checkpoint(client).await?;
        loop {
            if let Some(contact) = self.contact {
                client.ask(&Request::Contact(contact), &[]).await?;
            }
            if Instant::now() >= self.refresh_at && self.can_refresh {
                self.begin_refresh(client).await?;
            }
            self.look(client).await?;
            let state = self.shared.state.get();
            let pause = match state {
                State::Trial | State::Good => TRIAL_PAUSE,
                _ if state.is_under_way() || self.shared.refreshing.get() => PROGRESS,
                _ => IDLE_PAUSE,
            };
            let until = (Instant::now() + pause).min(self.refresh_at.max(Instant::now()));
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    Some(refresh) = self.refreshes.recv() => {
                        self.on_refresh(refresh).await?;
                        break;
                    }
                    ask = asks.recv() => match ask {
                        None => return Ok(()),
                        Some(Ask::Refresh) => {
                            self.refresh_at = Instant::now();
                            break;
                        }
                        Some(Ask::Witness(note)) => {
                            self.checkpoint = Some(note);
                            self.hand_over_checkpoint(client).await?;
                        }
                        Some(Ask::Contact(contact)) => {
                            let changed = self.contact != Some(contact);
                            self.contact = Some(contact);
                            if changed {
                                break;
                            }
                        }
                        Some(Ask::Order(request, answer)) => {
                            let _ = answer.send(client.ask(&request, &[]).await.map(drop));
                            self.shared.errand.notify_one();
                            break;
                        }
                    },
                }
            }
        }
    }

    async fn hand_over_checkpoint(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let Some(note) = self.checkpoint.clone() else { return Ok(()) };
        match client.ask(&Request::Witness { note }, &[]).await {
            Ok(_) => {}
            Err(ClientError::Refused { message, .. }) => {
                warn!(%message, "vigil-updaterd does not keep the audit log's checkpoint");
            }
            Err(error) => return Err(error),
        }
        self.checkpoint = None;
        Ok(())
    }

    async fn begin_refresh(&mut self, client: &mut Client) -> Result<(), ClientError> {
        // That it was begun is no success yet: what has failed so far counts until it went through.
        self.schedule(self.options.refresh_interval);
        match client.ask(&Request::Refresh, &[]).await {
            Ok(_) => {
                self.shared.refreshing.set(true);
                self.shared.errand.notify_one();
                Ok(())
            }
            // Root has it in hand, or its own state cannot be used just now.
            Err(ClientError::Refused { message, .. }) => {
                self.on_refresh(Refresh::Failed(message.into_string())).await
            }
            Err(error) => Err(error),
        }
    }

    async fn on_refresh(&mut self, refresh: Refresh) -> Result<(), ClientError> {
        match refresh {
            Refresh::Done => {
                self.failures = 0;
                self.tell(News::Refreshed).await
            }
            Refresh::Failed(why) => {
                self.failures = (self.failures + 1).min(MOST_FAILURES);
                self.schedule(retry_pause(self.failures, self.options.refresh_interval));
                self.tell(News::RefreshFailed(why)).await
            }
        }
    }

    /// The next refresh comes after `pause`, spread by the jitter.
    fn schedule(&mut self, pause: Duration) {
        self.refresh_at = Instant::now() + pause.mul_f64(0.75 + 0.25 * self.options.jitter);
    }

    /// Hands on how the updater stands, its new events, and documents that are new or revoked.
    async fn look(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let status = match client.ask(&Request::Status, &[]).await?.0 {
            Response::Status(status) => status,
            other => return Err(unexpected(&other)),
        };
        // Its list begins anew where its state was lost: what follows is new all the same.
        self.last_event = self.last_event.min(status.last_event);
        while self.last_event < status.last_event {
            let (Response::Events { events }, _) =
                client.ask(&Request::Events { after: self.last_event }, &[]).await?
            else {
                break;
            };
            let Some(last) = events.last() else { break };
            self.last_event = last.number;
            self.tell(News::Events(events)).await?;
        }
        let known: BTreeSet<_> =
            self.documents.keys().chain(status.trust.documents.keys()).cloned().collect();
        for name in known {
            let sha256 = status.trust.documents.get(&name);
            if self.documents.get(&name) != sha256 {
                self.hand_on(client, name, sha256).await?;
            }
        }
        let was_under_way = self.shared.state.replace(status.state).is_under_way();
        if status.state.is_under_way() && !was_under_way {
            self.shared.errand.notify_one();
        }
        self.tell(News::Status(status)).await
    }

    async fn hand_on(
        &mut self,
        client: &mut Client,
        name: String,
        sha256: Option<&String>,
    ) -> Result<(), ClientError> {
        let Some(sha256) = sha256 else {
            self.documents.remove(&name);
            return self.tell(News::Document(name, None)).await;
        };
        match client.ask(&Request::Target { name: name.clone() }, &[]).await {
            Ok((_, bytes)) => {
                self.documents.insert(name.clone(), sha256.clone());
                self.tell(News::Document(name, Some(bytes))).await
            }
            // Revoked just now: the next look sees it.
            Err(ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, news: News) -> Result<(), ClientError> {
        let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "vigild ends");
        Ok(self.news.send(news).await.map_err(gone)?)
    }
}

/// Fetches what the updater names.
struct Fetching {
    socket: PathBuf,
    fetcher: Option<Fetcher>,
    has_none: bool,
    rate: Rate,
    /// What the rate's times count from.
    begun: Instant,
    shared: Rc<Shared>,
    refreshed: mpsc::Sender<Refresh>,
}

impl Fetching {
    async fn run(mut self) {
        loop {
            if let Ok(mut client) = Client::connect(&self.socket).await {
                // That it is gone, the other half tells.
                let _ = self.serve(&mut client).await;
            }
            sleep(RECONNECT).await;
        }
    }

    async fn serve(&mut self, client: &mut Client) -> Result<(), ClientError> {
        loop {
            let is_busy = self.bring(client).await?;
            let pause = match self.shared.state.get() {
                _ if !is_busy => IDLE_PAUSE,
                State::Trial | State::Good => TRIAL_PAUSE,
                _ => BUSY_PAUSE,
            };
            let _ = timeout(pause, self.shared.errand.notified()).await;
        }
    }

    /// Brings what is needed until nothing is. Whether the updater is busy with something of its own.
    async fn bring(&mut self, client: &mut Client) -> Result<bool, ClientError> {
        loop {
            // As of before the question: a refresh that begins meanwhile is not the one that nothing is needed for.
            let was_refreshing = self.shared.refreshing.get();
            match client.ask(&Request::Next, &[]).await?.0 {
                Response::Idle => {
                    if was_refreshing {
                        self.end_refresh(Refresh::Done).await;
                    }
                    return Ok(false);
                }
                Response::Working => return Ok(true),
                Response::Need(need) => match self.bring_one(client, &need).await {
                    Ok(()) => {}
                    // The updater judged what was brought. It waits before it asks again, and so do we.
                    Err(ClientError::Refused { code, message }) => {
                        info!(code, %message, "vigil-updaterd refused what was fetched");
                        // What an install fetches says nothing of the refresh that goes on beside it.
                        if was_refreshing && !need.path.starts_with("blobs/") {
                            self.end_refresh(Refresh::Failed(message.into_string())).await;
                        }
                        return Ok(true);
                    }
                    Err(error) => return Err(error),
                },
                other => return Err(unexpected(&other)),
            }
        }
    }

    async fn end_refresh(&self, refresh: Refresh) {
        self.shared.refreshing.set(false);
        let _ = self.refreshed.send(refresh).await;
    }

    async fn bring_one(&mut self, client: &mut Client, need: &Need) -> Result<(), ClientError> {
        debug!(path = need.path, offset = need.offset, length = need.length, "fetching");
        let Some(mut fetcher) = self.fetcher.take() else {
            let trouble = Trouble { range: false, message: "[repository] url is not set".into() };
            return self.feed_trouble(client, need, 0, Fetch::Failed, trouble).await;
        };
        let result = self.stream(client, &mut fetcher, need).await;
        match &result {
            // It goes on with the rest elsewhere.
            Err(Broken::Fetch(_, error)) if !matches!(error, FetchError::Missing(..)) => fetcher.fail_over(),
            // What came was not what was signed, or is out of date.
            Err(Broken::Client(ClientError::Refused { .. })) => fetcher.fail_over(),
            _ => {}
        }
        self.fetcher = Some(fetcher);
        match result {
            Ok(()) => Ok(()),
            Err(Broken::Client(error)) => Err(error),
            Err(Broken::Fetch(received, error)) => {
                debug!(%error, "could not fetch");
                let fetch =
                    if matches!(error, FetchError::Missing(..)) { Fetch::Missing } else { Fetch::Failed };
                let range = match &error {
                    FetchError::Range(_) => true,
                    FetchError::Status(_, status) => *status == StatusCode::RANGE_NOT_SATISFIABLE,
                    _ => false,
                };
                let trouble = Trouble { range, message: error.to_string().into() };
                self.feed_trouble(client, need, received, fetch, trouble).await
            }
        }
    }

    async fn stream(
        &mut self,
        client: &mut Client,
        fetcher: &mut Fetcher,
        need: &Need,
    ) -> Result<(), Broken> {
        let length = need.exact.then_some(need.length);
        let (mut received, mut passed_over) = (0, 0);
        let mut download = fetcher
            .get(&need.path, need.offset, length)
            .await
            .map_err(|error| Broken::Fetch(received, error))?;
        let mut pace = Pace::default();
        // One chunk is held back, so that the last one can be named as such.
        let mut held: Option<Bytes> = None;
        loop {
            let room =
                need.length - (received + held.as_ref().map_or(0, |held| held.len() as u64)).min(need.length);
            // One byte more than a limit is brought on, so that the updater sees that it was passed.
            let room = if need.exact { room } else { room + 1 };
            // The rest of a whole file is not this need's.
            let next = if room == 0 && download.is_whole() {
                Ok(None)
            } else {
                let began = Instant::now();
                let piece = download.piece().await;
                let bytes = piece.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, Piece::bytes));
                match piece {
                    Ok(_) if pace.is_too_slow(bytes, began.elapsed()) => {
                        Err(FetchError::Slow(need.path.clone()))
                    }
                    other => other,
                }
            };
            let next = match next {
                Ok(Some(Piece::PassedOver(bytes))) => {
                    passed_over += bytes;
                    self.keep_to_rate(bytes).await;
                    continue;
                }
                Ok(Some(Piece::Bytes(mut next))) => {
                    let rest = next.split_off(next.len().min(room as usize));
                    download.give_back(rest);
                    Some(next).filter(|next| !next.is_empty())
                }
                Ok(None) => None,
                Err(error) => {
                    // What came before the link broke has its use.
                    let bytes = held.unwrap_or_default();
                    for part in bytes.chunks(BLOB_BYTES) {
                        let passed_over = std::mem::take(&mut passed_over);
                        if !self.feed(client, need, received, Fetch::More, part, passed_over).await? {
                            return Ok(());
                        }
                        received += part.len() as u64;
                    }
                    return Err(Broken::Fetch(received, error));
                }
            };
            let is_last = next.is_none();
            let bytes = match (held.take(), is_last) {
                (None, false) => {
                    held = next;
                    continue;
                }
                (bytes, _) => bytes.unwrap_or_default(),
            };
            held = next;
            let mut parts = bytes.chunks(BLOB_BYTES).peekable();
            if parts.peek().is_none() {
                self.feed(client, need, received, Fetch::Last, &[], passed_over).await?;
                return Ok(());
            }
            while let Some(part) = parts.next() {
                let fetch = if is_last && parts.peek().is_none() { Fetch::Last } else { Fetch::More };
                let passed_over = std::mem::take(&mut passed_over);
                let go_on = self.feed(client, need, received, fetch, part, passed_over).await?;
                received += part.len() as u64;
                if !go_on {
                    if fetch == Fetch::Last {
                        fetcher.keep(download);
                    }
                    return Ok(());
                }
                self.keep_to_rate(part.len() as u64).await;
            }
        }
    }

    async fn keep_to_rate(&mut self, bytes: u64) {
        let pause = self.rate.pause(bytes, self.begun.elapsed());
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    /// Whether the updater wants more of the same file.
    async fn feed(
        &self,
        client: &mut Client,
        need: &Need,
        received: u64,
        fetch: Fetch,
        blob: &[u8],
        passed_over: u64,
    ) -> Result<bool, ClientError> {
        let feed = |offset, passed_over| {
            let offset = need.offset + offset;
            Request::Feed { need: need.need, offset, fetch, trouble: None, passed_over }
        };
        let mut answer = client.ask(&feed(received, passed_over), blob).await?.0;
        while answer == Response::Working {
            answer = client.ask(&feed(received + blob.len() as u64, 0), &[]).await?.0;
        }
        match answer {
            Response::Continue => Ok(true),
            Response::Done => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells the updater why something could not be fetched.
    async fn feed_trouble(
        &self,
        client: &mut Client,
        need: &Need,
        received: u64,
        fetch: Fetch,
        trouble: Trouble,
    ) -> Result<(), ClientError> {
        let offset = need.offset + received;
        let trouble = Some(trouble);
        let request = Request::Feed { need: need.need, offset, fetch, trouble, passed_over: 0 };
        client.ask(&request, &[]).await.map(drop)
    }
}

/// How long to wait after so many failures in a row: doubled with each, and never longer than without any.
fn retry_pause(failures: u32, interval: Duration) -> Duration {
    (RETRY * 2_u32.saturating_pow(failures)).min(interval)
}

enum Broken {
    Client(ClientError),
    Fetch(u64, FetchError),
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_never_answers_is_asked_ever_more_rarely() {
        let hour = Duration::from_secs(3600);
        let pauses: Vec<_> =
            (1..=MOST_FAILURES).map(|failures| retry_pause(failures, hour).as_secs()).collect();
        assert_eq!(pauses, [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        assert_eq!(retry_pause(3, Duration::from_secs(10)), Duration::from_secs(10));
    }
}
