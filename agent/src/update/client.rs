//! A connection to `vigil-updaterd`: one request, one answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use vigil_text::Sentence;
use vigil_wire::{Decoder, FrameError, Request, Response, WIRE_VERSION, encode};

/// Reading a slot back takes long, but is done in steps between two answers.
const ANSWER: Duration = Duration::from_secs(20);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket.
    #[error("vigil-updaterd does not answer: {0}")]
    Io(#[from] io::Error),
    /// What came is no answer.
    #[error("vigil-updaterd: {0}")]
    Frame(#[from] FrameError),
    /// No answer in time.
    #[error("vigil-updaterd did not answer within {} s", ANSWER.as_secs())]
    Silent,
    /// It refused.
    #[error("vigil-updaterd refused: {message} ({code})")]
    Refused {
        /// The stable code.
        code: String,
        /// For people.
        message: Sentence,
    },
    /// An answer to something else.
    #[error("vigil-updaterd gave an answer that does not fit: {0}")]
    Unexpected(&'static str),
}

/// The connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    /// Connects and greets.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", socket.display())))?;
        let mut client = Self { stream, decoder: Decoder::default() };
        match client.ask(&Request::Hello { version: WIRE_VERSION }, &[]).await? {
            (Response::Hello { .. }, _) => Ok(client),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Asks and waits for the answer. A refusal is an error.
    pub async fn ask(&mut self, request: &Request, blob: &[u8]) -> Result<(Response, Vec<u8>), ClientError> {
        let answer =
            timeout(ANSWER, self.exchange(request, blob)).await.map_err(|_| ClientError::Silent)??;
        match answer {
            (Response::Refused { code, message }, _) => Err(ClientError::Refused { code, message }),
            answer => Ok(answer),
        }
    }

    async fn exchange(&mut self, request: &Request, blob: &[u8]) -> Result<(Response, Vec<u8>), ClientError> {
        self.stream.write_all(&encode(request, blob)?).await?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(answer) = self.decoder.take()? {
                return Ok(answer);
            }
            let wanted = self.decoder.wanted()?.min(buffer.len());
            let count = self.stream.read(&mut buffer[..wanted]).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.decoder.push(&buffer[..count])?;
        }
    }
}

pub(super) fn unexpected(response: &Response) -> ClientError {
    ClientError::Unexpected(response.name())
}
