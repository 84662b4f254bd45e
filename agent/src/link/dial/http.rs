//! One HTTP request that turns a connection into another: CONNECT, or a WebSocket's upgrade. Whoever answers is a
//! stranger: hyper reads no more of a head than is allowed here.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;

use super::wire::Stream;

/// Bytes and fields of an answer's head.
const HEAD_BYTES: usize = 16 * 1024;
const FIELDS: usize = 64;

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The connection, if it was turned, and what came behind the head.
    pub(super) turned: Option<(Box<dyn Stream>, Bytes)>,
}

/// Asks, and gives the connection back if the answer allows it.
pub(super) async fn ask(stream: Box<dyn Stream>, request: Request<Empty<Bytes>>) -> hyper::Result<Answer> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_headers(FIELDS)
        .handshake(TokioIo::new(stream))
        .await?;
    let answer = async {
        let mut response = sender.send_request(request).await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let is_turned = status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = if is_turned { Some(hyper::upgrade::on(response).await?) } else { None };
        let turned = upgraded.and_then(|upgraded| upgraded.downcast::<TokioIo<Box<dyn Stream>>>().ok());
        let turned = turned.map(|parts| (parts.io.into_inner(), parts.read_buf));
        hyper::Result::Ok(Answer { status, headers, turned })
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection.with_upgrades()));
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // It ends when the connection is handed over; an error of its own the answer tells as well.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
