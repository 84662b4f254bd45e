//! The link to the broker: what must be said (outbox) and what became of it (ledger), over which connection (session), how long an
//! acknowledgement may take (patience), how soon after a lost one (backoff), and under one signature (digest). What of the
//! outbox is on the disk (keeper), within what may be written there (flash).

mod backoff;
mod digest;
pub mod flash;
mod keeper;
mod ledger;
mod outbox;
mod patience;
mod session;

pub use backoff::{Backoff, spread};
pub use digest::sign as sign_digest;
pub use keeper::{Change, Keeper, Kept, Unsaved, Waits};
pub use ledger::{Account, Ledger};
pub use outbox::{Outbox, Publication, diagnosis_of};
pub use patience::Patience;
pub use session::{Connection, Granted, LinkEvent, LinkOptions, Settings};
