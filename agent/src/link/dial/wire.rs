//! What carries MQTT's bytes.

use std::io;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// What is read at once at most, where no more is known to come.
const READ_BYTES: usize = 4096;

/// A stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(crate) enum Wire {
    Bytes(Box<dyn Stream>),
    WebSocket(Box<WebSocketStream<Box<dyn Stream>>>),
}

impl Wire {
    /// Reads what has come behind what is there; 0 is the end. Given up half-way, nothing is lost.
    pub(crate) async fn read(&mut self, to: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Bytes(stream) => {
                to.reserve(READ_BYTES);
                stream.read_buf(to).await
            }
            Self::WebSocket(socket) => loop {
                match socket.next().await {
                    // Packets may begin and end anywhere in a message (MQTT 5, section 6).
                    Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => {
                        to.extend_from_slice(&bytes);
                        return Ok(bytes.len());
                    }
                    Some(Ok(Message::Text(_))) => {
                        return Err(io::Error::other("text in the WebSocket: MQTT is binary"));
                    }
                    None | Some(Ok(Message::Close(_))) => return Ok(0),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(io::Error::other(error)),
                }
            },
        }
    }

    /// Writes all of it.
    pub(crate) async fn write(&mut self, bytes: BytesMut) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
            Self::WebSocket(socket) => {
                socket.send(Message::Binary(bytes.freeze())).await.map_err(io::Error::other)
            }
        }
    }

    /// Ends it in good order.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => stream.shutdown().await,
            Self::WebSocket(socket) => socket.close().await.map_err(io::Error::other),
        }
    }
}
