//! MQTT in a WebSocket (RFC 6455; MQTT 5, section 6): the way through what lets nothing pass but HTTPS. The frames are
//! tungstenite's, the handshake is hyper's.

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Empty;
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::{HeaderMap, Request, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::wire::{Stream, Wire};
use super::{Dial, DialError, http};
use crate::link::mqtt::PACKET_BYTES;

const SUBPROTOCOL: &str = "mqtt";
/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A packet's header before what its length counts.
const FIXED_HEADER: usize = 5;

/// Asks for a WebSocket at `path`.
pub(super) async fn open(to: &Dial, path: &str, stream: Box<dyn Stream>) -> Result<Wire, DialError> {
    let failed = |why: String| DialError::WebSocket { place: to.place(), why };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| failed(format!("no random numbers: {error}")))?;
    let key = BASE64.encode(&nonce);
    let request = Request::get(path)
        .header(HOST, to.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = http::ask(stream, request)
        .await
        .map_err(|error| failed(format!("no HTTP answer ({error}): is it the port of its WebSockets?")))?;
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed(format!(
            "the answer to {path} is {}: broker.url must name the path of its WebSockets",
            answer.status.as_u16()
        )));
    }
    check(&answer.headers, &key).map_err(|why| failed(why.to_owned()))?;
    let Some((stream, early)) = answer.turned else {
        return Err(failed("the connection was not handed over".to_owned()));
    };
    let largest = Some(PACKET_BYTES + FIXED_HEADER);
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_frame_size(largest)
        .max_message_size(largest);
    let socket =
        WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Client, Some(config)).await;
    Ok(Wire::WebSocket(Box::new(socket)))
}

/// What a server that has agreed must say (RFC 6455, section 4.1; MQTT 5, section 6).
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    if !value(UPGRADE).eq_ignore_ascii_case("websocket")
        || value(SEC_WEBSOCKET_ACCEPT) != BASE64.encode(accept.as_ref())
    {
        Err("the answer is not that of a WebSocket")
    } else if value(SEC_WEBSOCKET_PROTOCOL) != SUBPROTOCOL {
        Err("its WebSockets carry no MQTT (subprotocol \"mqtt\"): is the path in broker.url right?")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and its answer are RFC 6455's own, section 1.3.
    fn check_with(change: impl Fn(&mut HeaderMap)) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, "WebSocket".parse().unwrap());
        headers.insert(SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, "mqtt".parse().unwrap());
        change(&mut headers);
        check(&headers, "dGhlIHNhbXBsZSBub25jZQ==")
    }

    #[test]
    fn a_server_that_agrees_as_the_standard_says_is_taken() {
        assert_eq!(check_with(|_| {}), Ok(()));
    }

    #[test]
    fn a_server_that_answers_another_key_or_carries_something_else_is_not() {
        let wrong = check_with(|headers| {
            headers.insert(SEC_WEBSOCKET_ACCEPT, "AAAALMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap());
        });
        assert!(wrong.unwrap_err().contains("not that of a WebSocket"));
        let chat =
            check_with(|headers| drop(headers.insert(SEC_WEBSOCKET_PROTOCOL, "chat".parse().unwrap())));
        assert!(chat.unwrap_err().contains("carry no MQTT"));
        let none = check_with(|headers| drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)));
        assert!(none.unwrap_err().contains("carry no MQTT"));
    }
}
