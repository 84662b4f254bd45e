//! What `send`, `sign` and `plan` are asked for: a command in words, or an envelope in a file.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;
use vigil_protocol::command::{Kind, Target};
use vigil_protocol::limits;

use super::nonce::NOT_FOR_GROUPS;
use crate::failure::Failure;
use crate::order::{self, Order, Request};

/// A command in words.
#[derive(Args)]
pub struct Ask {
    /// The device, or with --group the group
    #[arg(value_name = "DEVICE")]
    pub target: Option<String>,
    /// What it is to do
    #[arg(value_name = "KIND", value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::name)))]
    pub kind: Option<String>,
    /// An argument of the command; repeatable. Numbers, true, false and {...} are JSON, everything else is text
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = order::argument)]
    pub args: Vec<(String, Value)>,
    /// DEVICE names a group
    #[arg(long)]
    pub group: bool,
    /// How long the command is valid, and kept for a device that is away: up to 168h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = order::duration)]
    pub expires: Duration,
    /// The command's id; a random one unless given. A device obeys an id once
    #[arg(long)]
    pub id: Option<String>,
}

impl Ask {
    /// Whom it is for, if that is said.
    pub fn target(&self) -> Option<Target> {
        let name = self.target.clone()?;
        Some(if self.group { Target::Group(name) } else { Target::Device(name) })
    }

    /// The command that is to be signed.
    pub fn request<'a>(&'a self, tenant: &'a str, nonce: Option<String>) -> Result<Request<'a>, Failure> {
        let (Some(target), Some(kind)) = (self.target(), self.kind.as_deref()) else {
            return Err(Failure::Usage(
                "give a DEVICE and a KIND, or an envelope in a file; see --help".to_owned(),
            ));
        };
        if nonce.is_some() && self.group {
            return Err(Failure::Usage(NOT_FOR_GROUPS.to_owned()));
        }
        let args = self.args.iter().cloned().collect();
        Ok(Request { id: self.id.as_deref(), kind, args, tenant, target, lifetime: self.expires, nonce })
    }
}

/// Reads an envelope that was signed elsewhere.
pub(super) fn read_envelope(file: &Path) -> Result<Order, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let bytes = vigil_durable::read_bounded(file, limits::COMMAND_BYTES as u64)
        .map_err(|error| wrong(error.to_string()))?
        .ok_or_else(|| wrong("no such file".to_owned()))?;
    Order::ready(bytes).map_err(|error| wrong(error.to_string()))
}

/// An envelope for `wanted` is sent to nobody else.
pub(super) fn hold_against(order: &Order, wanted: Option<&Target>) -> Result<(), Failure> {
    match wanted {
        Some(wanted) if *wanted != order.command.target => Err(Failure::Usage(format!(
            "the envelope is for {}, not for {}",
            order::target(&order.command.target),
            order::target(wanted)
        ))),
        _ => Ok(()),
    }
}
