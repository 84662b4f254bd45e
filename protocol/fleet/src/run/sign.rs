//! `sign`: makes an envelope, or adds a signature to one, without a broker.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use vigil_durable::Mode;
use vigil_protocol::keys::PublicKey;

use super::Context;
use super::ask::{Ask, hold_against, read_envelope};
use crate::failure::Failure;
use crate::keys;
use crate::order::{self, Order};
use crate::text::{Tone, clean, line};

/// What to sign.
#[derive(Args)]
pub struct Sign {
    #[command(flatten)]
    ask: Ask,
    /// The nonce of the device's session, as its digest has it
    #[arg(long, value_name = "TEXT")]
    pub nonce: Option<String>,
    /// Add this operator's signature to the envelope in FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "args", "id", "nonce"])]
    pub add: Option<PathBuf>,
    /// With --add: sign without being asked
    #[arg(long, requires = "add")]
    pub yes: bool,
    /// Write the envelope to FILE, which may be that of --add, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Shows what is signed, signs it and gives it out. What is shown goes to standard error: the envelope is the output.
pub fn sign(context: &Context, sign: &Sign) -> Result<(), Failure> {
    let key = keys::load(context.settings.operator_key()?)?;
    let now = Timestamp::now();
    let order = match &sign.add {
        None => {
            let request = sign.ask.request(context.settings.tenant()?, sign.nonce.clone())?;
            let order = Order::sign(request, &key, now)?;
            show(&order, now);
            order
        }
        Some(file) => {
            let order = read_envelope(file)?;
            hold_against(&order, sign.ask.target().as_ref())?;
            show(&order, now);
            if !sign.yes {
                confirm()?;
            }
            order.cosign(&key, now)?
        }
    };
    let id = PublicKey::from(key.verifying_key()).id();
    eprintln!("signed by {}, {} in all", &id[..16], signatures(order.signatures()));
    let text = String::from_utf8_lossy(&order.envelope).into_owned();
    match &sign.out {
        Some(file) => write(file, &text),
        None => line(&text, Tone::Plain),
    }
}

fn signatures(count: usize) -> String {
    if count == 1 { "1 signature".to_owned() } else { format!("{count} signatures") }
}

fn show(order: &Order, now: Timestamp) {
    let command = &order.command;
    let field = |name: &str, value: &str| eprintln!("{name:<9} {}", clean(value, 2000));
    field("id", &command.id);
    field("kind", &command.kind);
    for (name, value) in &command.args {
        field("argument", &format!("{name} = {value}"));
    }
    field("tenant", &command.tenant);
    field("target", &order::target(&command.target));
    field("issued", &command.issued.to_string());
    let over = if command.expires <= now { " (that is over)" } else { "" };
    field("expires", &format!("{}{over}", command.expires));
    if let Some(nonce) = &command.nonce {
        field("nonce", nonce);
    }
}

/// Whoever adds a signature has not written the command: a person must have looked at it.
fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("look at what is signed here, then give --yes".to_owned()));
    }
    eprint!("sign this? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::Failed(format!("cannot read the answer: {error}")))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Failed("nothing was signed".to_owned()))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    vigil_durable::write("fleet.envelope", file, format!("{text}\n").as_bytes(), Mode::Public)
        .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))
}
