//! The subcommands, one small file each.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;
use crate::link::{Link, Message};
use crate::settings::Layer;

mod check;
mod keygen;
mod ls;
mod send;
mod status;
mod watch;

pub use check::{Check, check};
pub use keygen::keygen;
pub use ls::ls;
pub use send::{Send, send};
pub use status::status;
pub use watch::{Watch, watch};

/// When nothing has come for so long after the subscription, the broker has delivered what it keeps. MQTT has no mark
/// for the last retained message.
const QUIET: Duration = Duration::from_millis(300);

/// What every subcommand has.
pub struct Context {
    /// Where the broker is and who we are.
    pub settings: Layer,
    /// JSON instead of text.
    pub json: bool,
}

/// Hands over what the broker delivers until it has been quiet for a while, or until the deadline.
async fn drain(link: &mut Link, deadline: Instant, mut take: impl FnMut(Message)) -> Result<(), Failure> {
    loop {
        let quiet = Instant::now() + QUIET;
        match link.next(quiet.min(deadline)).await? {
            Some(message) => take(message),
            None => return Ok(()),
        }
        if Instant::now() >= deadline {
            return Ok(());
        }
    }
}
