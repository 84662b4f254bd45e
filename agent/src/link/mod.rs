//! The link to the broker: what must be said (outbox), what of it is on the disk (keeper) within what may be written there
//! (flash), and what became of it (ledger); over which connection (session), by which way (dial), in which words (mqtt) and
//! turns (exchange), how long an acknowledgement may take (patience), how soon after a lost one (backoff), in which version
//! (fallback) and where (redirect) the next is tried, and under one signature (digest).

mod backoff;
mod dial;
mod digest;
mod exchange;
mod fallback;
pub mod flash;
mod hearing;
mod keeper;
mod ledger;
mod mqtt;
mod outbox;
mod patience;
mod redirect;
mod session;

pub use backoff::{Backoff, spread};
pub use dial::{Dial, Proxy};
pub use digest::sign as sign_digest;
pub use fallback::{Fallback, Verdict, VersionChoice};
pub use hearing::Hearing;
pub use keeper::{Change, Keeper, Kept, Unsaved, Waits};
pub use ledger::{Account, Ledger};
pub use mqtt::{Ending, Message, Version};
pub use outbox::{Outbox, Publication, diagnosis_of};
pub use patience::Patience;
pub use redirect::{Place, Redirects, Reference};
pub use session::{Connection, Granted, LinkEvent, LinkOptions, Settings};
