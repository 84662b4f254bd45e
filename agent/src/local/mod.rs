//! The local socket, for a technician at the device: HTTP/1.1 and JSON over `status.sock` (read) and `admin.sock`
//! (act).

mod access;
mod peer;
mod server;

pub use access::{Access, Need};
pub use peer::Peer;
pub use peer::group_number;
pub use server::{Answer, Call, Listeners, Refused, Request, error_body, serve};
