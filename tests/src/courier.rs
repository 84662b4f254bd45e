//! `vigild`'s side of the wire to `vigil-updaterd`, for tests in which `vigild` is an intruder's, or is not the matter.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use vigil_protocol::command::{Command, Target};
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope};
use vigil_updater::release::target_name;
use vigil_wire::{
    Contact, Decoder, Fetch, Need, Request, Response, State, UpdateStatus, WIRE_VERSION, encode,
};

use crate::vendor::{PRODUCT, TENANT};
use crate::wait_for;

const LIMIT: Duration = Duration::from_secs(40);
const CHUNK: usize = 256 * 1024;

/// vigild's side of the wire.
pub struct Courier {
    stream: UnixStream,
    decoder: Decoder,
    repository: PathBuf,
}

impl Courier {
    /// Connects to an updater and greets it. What it wants fetched is read from `repository`.
    pub fn connect(socket: &Path, repository: &Path) -> anyhow::Result<Self> {
        let stream = wait_for("vigil-updaterd's socket", LIMIT, || UnixStream::connect(socket).ok())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Self::over(stream, repository)
    }

    /// Greets an updater to which there is a connection.
    pub fn over(stream: UnixStream, repository: &Path) -> anyhow::Result<Self> {
        let mut courier = Self { stream, decoder: Decoder::default(), repository: repository.to_owned() };
        match courier.ask(&Request::Hello { version: WIRE_VERSION })? {
            Response::Hello { version: WIRE_VERSION, .. } => Ok(courier),
            other => bail!("{other:?}"),
        }
    }

    /// The connection, for what is no request.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.ask_with(request, &[])
    }

    /// Asks with a blob.
    pub fn ask_with(&mut self, request: &Request, blob: &[u8]) -> anyhow::Result<Response> {
        self.stream.write_all(&encode(request, blob)?)?;
        self.answer()
    }

    /// Waits for an answer.
    pub fn answer(&mut self) -> anyhow::Result<Response> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some((response, _)) = self.decoder.take::<Response>()? {
                return Ok(response);
            }
            let wanted = self.decoder.wanted()?.min(buffer.len());
            let count = self.stream.read(&mut buffer[..wanted])?;
            ensure!(count > 0, "the updater closed the connection");
            self.decoder.push(&buffer[..count])?;
        }
    }

    /// How the updater stands.
    pub fn status(&mut self) -> anyhow::Result<UpdateStatus> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => bail!("{other:?}"),
        }
    }

    /// What the refusal's code is; empty when there was none.
    pub fn code(response: &Response) -> &str {
        match response {
            Response::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Orders an install by an envelope; the refusal's code, empty when there was none.
    pub fn install(&mut self, envelope: &str) -> anyhow::Result<String> {
        let request =
            Request::Install { envelope: Some(envelope.to_owned()), release: None, reinstall: false };
        Ok(Self::code(&self.ask(&request)?).to_owned())
    }

    /// Orders an install by the release's own policy.
    pub fn install_by_policy(&mut self, version: &str) -> anyhow::Result<String> {
        let request = Request::Install {
            envelope: None,
            release: Some(target_name(PRODUCT, version)),
            reinstall: false,
        };
        Ok(Self::code(&self.ask(&request)?).to_owned())
    }

    /// The kinds of all events.
    pub fn events(&mut self) -> anyhow::Result<Vec<String>> {
        let mut after = 0;
        let mut kinds = Vec::new();
        loop {
            match self.ask(&Request::Events { after })? {
                Response::Events { events } if events.is_empty() => return Ok(kinds),
                Response::Events { events } => {
                    after = events.last().map_or(after, |event| event.number);
                    kinds.extend(events.into_iter().map(|event| event.kind));
                }
                other => bail!("{other:?}"),
            }
        }
    }

    /// Brings what one need asks for, changed by `tamper`. Gives back the last answer.
    pub fn bring(&mut self, need: &Need, tamper: &mut Tamper<'_>) -> anyhow::Result<Response> {
        let Ok(file) = std::fs::File::open(self.repository.join(&need.path)) else {
            return self.ask(&Request::Feed {
                need: need.need,
                offset: need.offset,
                fetch: Fetch::Missing,
                trouble: None,
                passed_over: 0,
            });
        };
        let length = file.metadata()?.len().saturating_sub(need.offset).min(need.length);
        let mut bytes = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut bytes, need.offset)?;
        tamper(&need.path, &mut bytes);
        let mut offset = need.offset;
        let mut chunks = bytes.chunks(CHUNK).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let fetch = if chunks.peek().is_some() { Fetch::More } else { Fetch::Last };
            let feed =
                |offset| Request::Feed { need: need.need, offset, fetch, trouble: None, passed_over: 0 };
            let mut response = self.ask_with(&feed(offset), chunk)?;
            offset += chunk.len() as u64;
            while response == Response::Working {
                response = self.ask_with(&feed(offset), &[])?;
            }
            if response != Response::Continue {
                return Ok(response);
            }
        }
    }

    /// One turn of vigild's loop.
    pub fn turn(&mut self, tamper: &mut Tamper<'_>) -> anyhow::Result<Response> {
        match self.ask(&Request::Next)? {
            Response::Need(need) => self.bring(&need, tamper),
            other => {
                std::thread::sleep(Duration::from_millis(20));
                Ok(other)
            }
        }
    }

    /// Carries until the updater is in one of `states`.
    pub fn carry_until(&mut self, states: &[State], tamper: &mut Tamper<'_>) -> anyhow::Result<UpdateStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.status()?;
            if states.contains(&status.state) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "waited in vain for {states:?}: {status:?}");
            self.turn(tamper)?;
        }
    }

    /// Refreshes the trusted metadata and the operators list honestly.
    pub fn refresh(&mut self) -> anyhow::Result<()> {
        ensure!(self.ask(&Request::Refresh)? == Response::Done);
        let until = Instant::now() + LIMIT;
        while self.turn(&mut honest)? != Response::Idle {
            ensure!(Instant::now() < until, "the refresh does not end");
        }
        Ok(())
    }

    /// Says that all is well, and refreshes.
    pub fn praise(&mut self) -> anyhow::Result<UpdateStatus> {
        let contact = Contact { ready: true, broker: true, carrier: true, gateway: true };
        ensure!(self.ask(&Request::Contact(contact))? == Response::Done);
        ensure!(self.ask(&Request::Refresh)? == Response::Done);
        for _ in 0..12 {
            self.turn(&mut honest)?;
        }
        self.status()
    }

    /// Says so until the updater is in one of `states`.
    pub fn praise_until(&mut self, states: &[State]) -> anyhow::Result<UpdateStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.praise()?;
            if states.contains(&status.state) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "waited in vain for {states:?}: {status:?}");
        }
    }
}

/// What changes the bytes of a file, by its path, on the way.
pub type Tamper<'t> = dyn FnMut(&str, &mut Vec<u8>) + 't;

/// Changes nothing.
pub fn honest(_: &str, _: &mut Vec<u8>) {}

/// An operator's command to install a release, valid for ten minutes.
pub fn command(device: &str, id: &str, version: &str) -> Command {
    let now = Timestamp::now();
    Command {
        v: 1,
        id: id.to_owned(),
        kind: "update.install".to_owned(),
        args: BTreeMap::from([("version".to_owned(), version.into())]),
        tenant: TENANT.to_owned(),
        target: Target::Device(device.to_owned()),
        issued: now - SignedDuration::from_secs(120),
        expires: now + SignedDuration::from_secs(600),
        nonce: None,
    }
}

/// Its envelope.
pub fn sign(command: &Command, key: &SigningKey) -> anyhow::Result<String> {
    Ok(Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(command)?, key).to_json())
}
