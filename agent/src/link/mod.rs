//! The link to the broker: what must be said (outbox) and what became of it (ledger), over which connection (session), how long an
//! acknowledgement may take (patience), how soon after a lost one (backoff), and under one signature (digest).

mod backoff;
mod digest;
mod ledger;
mod outbox;
mod patience;
mod session;

pub use backoff::{Backoff, spread};
pub use digest::sign as sign_digest;
pub use ledger::{Account, Ledger};
pub use outbox::{Outbox, Publication};
pub use patience::Patience;
pub use session::{Connection, Granted, LinkEvent, LinkOptions, Settings};
