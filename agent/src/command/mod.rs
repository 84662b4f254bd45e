//! Commands: verified, admitted once, durable before they run, answered with a reason.

mod flood;
mod journal;
mod rate;

pub use flood::{Flood, Verdict};
pub use journal::{CommandJournal, Pending};
pub use rate::CommandRate;
