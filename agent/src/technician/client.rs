//! One request over a Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

const ANSWER_BYTES: usize = 4 * 1024 * 1024;
const ANSWER: Duration = Duration::from_secs(130);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon.
    #[error("cannot reach vigild at {0}: {1}; is it running? (systemctl status vigild)")]
    Unreachable(PathBuf, String),
    /// Not allowed.
    #[error("{0}")]
    NotPermitted(String),
    /// Another error that the daemon names.
    #[error("{0}")]
    Refused(String),
}

/// Asks `socket` and gives back its JSON.
pub fn ask(socket: &Path, method: Method, path: &str) -> Result<Value, AskError> {
    let unreachable =
        |error: &dyn std::fmt::Display| AskError::Unreachable(socket.to_owned(), error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(&error))?;
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "vigil")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(&error))?;
        let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| AskError::Refused(format!("the answer cannot be read: {error}")))?;
        let value: Value = serde_json::from_slice(&body.to_bytes())
            .map_err(|error| AskError::Refused(format!("the answer is no JSON: {error}")))?;
        Ok((status, value))
    };
    let (status, value) = runtime
        .block_on(async { tokio::time::timeout(ANSWER, exchange).await })
        .map_err(|_| unreachable(&"no answer in time"))??;
    if status.is_success() {
        return Ok(value);
    }
    let message =
        value.pointer("/error/message").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
    Err(if status == StatusCode::FORBIDDEN {
        AskError::NotPermitted(message)
    } else {
        AskError::Refused(message)
    })
}
