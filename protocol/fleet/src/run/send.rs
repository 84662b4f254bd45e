//! `send`: asks a device or a group, and follows the answers.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use vigil_protocol::command::Target;

use super::Context;
use super::ask::{Ask, hold_against, read_envelope};
use super::diagnose::show_diagnosis;
use super::follow::{conclude, follow, publish, show_result};
use super::nonce::session_nonce;
use crate::answers::{Answers, News, What};
use crate::failure::Failure;
use crate::fleet;
use crate::keys;
use crate::link::Link;
use crate::order::{self, Order};
use crate::text::{self, Tone, line};

/// What to send.
#[derive(Args)]
pub struct Send {
    #[command(flatten)]
    ask: Ask,
    /// For this connection of the device only: take the nonce from its signed digest. A device that doubts its clock
    /// demands that. The device's key must be pinned, see 'check'
    #[arg(long)]
    pub nonce: bool,
    /// The keys of earlier checks [default: ~/.config/vigil/known_devices.json]
    #[arg(long, value_name = "FILE", requires = "nonce")]
    pub known: Option<PathBuf>,
    /// Do not wait for answers
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for answers
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    pub timeout: Duration,
    /// End when so many devices have given their final answer [default: 1, or for a group none]
    #[arg(long, value_name = "N")]
    pub expect: Option<usize>,
    /// Print the signed envelope and send nothing
    #[arg(long)]
    pub print_envelope: bool,
    /// Send this envelope, signed elsewhere
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "args", "id", "nonce", "print_envelope"])]
    pub envelope: Option<PathBuf>,
}

/// Signs, sends and follows.
pub async fn send(context: &Context, send: &Send) -> Result<(), Failure> {
    let order = prepare(context, send).await?;
    if send.print_envelope {
        return line(&String::from_utf8_lossy(&order.envelope), Tone::Plain);
    }
    if send.no_wait {
        let mut link = Link::open(&context.settings).await?;
        return publish(context, &mut link, &order).await;
    }
    let one = matches!(order.command.target, Target::Device(_)).then_some(1);
    let expected = send.expect.or(one);
    let answers = follow(context, &order, send.timeout, |answers, news| {
        show(context, answers, news)?;
        Ok(expected.is_some_and(|expected| answers.finished() >= expected))
    })
    .await?;
    conclude(&answers, expected, &order, send.timeout)
}

async fn prepare(context: &Context, send: &Send) -> Result<Order, Failure> {
    if let Some(file) = &send.envelope {
        let order = read_envelope(file)?;
        hold_against(&order, send.ask.target().as_ref())?;
        return Ok(order);
    }
    let key = keys::load(context.settings.operator_key()?)?;
    let nonce = match &send.ask.target {
        Some(device) if send.nonce && !send.ask.group => {
            Some(session_nonce(context, device, send.known.as_deref()).await?)
        }
        // A group's is refused where the request is made.
        _ => send.nonce.then(String::new),
    };
    Order::sign(send.ask.request(context.settings.tenant()?, nonce)?, &key, Timestamp::now())
}

fn show(context: &Context, answers: &Answers, news: &News) -> Result<(), Failure> {
    let device = &news.device;
    match &news.what {
        What::Result(_) => show_result(context, news),
        What::Diagnosis(_) if context.json => text::json(&json!({"device": device, "diagnosis": news.body})),
        What::Diagnosis(diagnosis) => show_diagnosis(device, diagnosis),
        What::Update if context.json => text::json(&json!({"device": device, "update": news.body})),
        // Before the device has accepted, its update state is an earlier one's.
        What::Update if answers.of(device).is_some() => {
            let state = fleet::update(&news.body).unwrap_or_default();
            line(&format!("{device}  update: {state}"), Tone::Plain)
        }
        What::Update | What::Unreadable => Ok(()),
    }
}
