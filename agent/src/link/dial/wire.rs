//! What carries MQTT's bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is read at once at most, where no more is known to come.
const READ_BYTES: usize = 4096;

/// A stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(crate) enum Wire {
    Bytes(Box<dyn Stream>),
}

impl Wire {
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        Self::Bytes(Box::new(stream))
    }

    /// Reads what has come behind what is there; 0 is the end. Given up half-way, nothing is lost.
    pub(crate) async fn read(&mut self, to: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Bytes(stream) => {
                to.reserve(READ_BYTES);
                stream.read_buf(to).await
            }
        }
    }

    /// Writes all of it.
    pub(crate) async fn write(&mut self, bytes: BytesMut) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Ends it in good order.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => stream.shutdown().await,
        }
    }
}
