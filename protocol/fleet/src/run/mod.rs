//! The subcommands, one small file each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use vigil_protocol::command::{Kind, Target};

use crate::failure::Failure;
use crate::keys;
use crate::link::{Link, Message};
use crate::order::{Order, Request};
use crate::settings::Layer;

mod ask;
mod check;
mod config;
mod diagnose;
mod follow;
mod key;
mod ls;
mod nonce;
mod plan;
mod send;
mod sign;
mod status;
mod update;
mod watch;

pub use ask::Ask;
pub use check::{Check, check};
pub use config::{Config, config};
pub use diagnose::{Diagnose, diagnose};
pub use key::{Key, key};
pub use ls::{Ls, ls};
pub use plan::{Plan, plan};
pub use send::{Send, send};
pub use sign::{Sign, sign};
pub use status::status;
pub use update::{Update, update};
pub use watch::{Watch, watch};

/// When nothing has come for so long after the subscription, the broker has delivered what it keeps. MQTT has no mark
/// for the last retained message.
const QUIET: Duration = Duration::from_millis(300);

/// What every subcommand has.
pub struct Context {
    /// Where the broker is and who we are.
    pub settings: Layer,
    /// The keys of earlier checks.
    pub known_devices: PathBuf,
    /// JSON instead of text.
    pub json: bool,
}

impl Context {
    /// A command by this operator; `with_nonce`, for the device's session of now only.
    async fn sign(
        &self,
        kind: Kind,
        args: BTreeMap<String, Value>,
        target: Target,
        lifetime: Duration,
        with_nonce: bool,
    ) -> Result<Order, Failure> {
        // What is wrong with key or tenant is said before the network is asked.
        let key = keys::load(self.settings.operator_key()?)?;
        let tenant = self.settings.tenant()?;
        let nonce = match &target {
            _ if !with_nonce => None,
            Target::Device(device) => Some(nonce::session_nonce(self, device, None).await?),
            Target::Group(_) => return Err(Failure::Usage(nonce::NOT_FOR_GROUPS.to_owned())),
        };
        let request = Request { id: None, kind: kind.name(), args, tenant, target, lifetime, nonce };
        Order::sign(request, &key, Timestamp::now())
    }
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
