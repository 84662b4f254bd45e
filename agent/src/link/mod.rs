//! The link to the broker: what must be said (outbox), over which connection (session), how soon after a lost one
//! (backoff), and under one signature (digest).

mod backoff;
mod digest;
mod outbox;
mod session;

pub use backoff::Backoff;
pub use digest::sign as sign_digest;
pub use outbox::{Outbox, Publication};
pub use session::{Connection, Granted, LinkEvent, LinkOptions, Settings};
