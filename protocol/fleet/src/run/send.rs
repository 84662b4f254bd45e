//! `send`: asks a device or a group, and follows the answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use vigil_protocol::command::{CommandResult, Status, Target};
use vigil_protocol::diagnosis::{Diagnosis, Outcome};
use vigil_protocol::{limits, topic};

use super::Context;
use crate::failure::Failure;
use crate::fleet;
use crate::keys;
use crate::link::{Link, Message};
use crate::order::{self, Order, Request};
use crate::text::{self, Tone, clean, line, table};

/// Answering devices at most; a group is never so large.
const DEVICES: usize = 100_000;

/// What to send.
#[derive(Args)]
pub struct Send {
    /// The device, or with --group the group
    #[arg(value_name = "DEVICE")]
    pub target: String,
    /// ping, diagnose, update.install, update.pause, update.resume, update.cancel or update.rollback
    #[arg(required_unless_present = "envelope")]
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
    /// Do not wait for answers
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for answers
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    pub timeout: Duration,
    /// End when so many devices have given their final answer [default: 1, or with --group none]
    #[arg(long, value_name = "N")]
    pub expect: Option<usize>,
    /// The command's id; a random one unless given. A device obeys an id once
    #[arg(long)]
    pub id: Option<String>,
    /// Print the signed envelope and send nothing
    #[arg(long)]
    pub print_envelope: bool,
    /// Send this envelope, signed elsewhere
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "args", "id", "print_envelope"])]
    pub envelope: Option<PathBuf>,
}

/// Signs, sends and follows.
pub async fn send(context: &Context, send: &Send) -> Result<(), Failure> {
    let order = prepare(context, send)?;
    if send.print_envelope {
        return line(&String::from_utf8_lossy(&order.envelope), Tone::Plain);
    }
    let prefix = context.settings.prefix()?;
    let topic = order.topic(prefix)?;
    let now = Timestamp::now();
    let left = order.command.expires.as_second() - now.as_second();
    if left <= 0 {
        return Err(Failure::Usage("the envelope has expired; sign a new one".to_owned()));
    }
    let mut link = Link::open(&context.settings).await?;
    if !send.no_wait {
        link.subscribe(&order.answers(prefix)).await?;
    }
    link.publish(&topic, order.envelope.clone(), Duration::from_secs(left.unsigned_abs())).await?;
    if context.json {
        text::json(&json!({"sent": order.command.id, "topic": topic, "expires": order.command.expires}))?;
    } else {
        line(&format!("sent {} {} to {topic}", order.command.kind, order.command.id), Tone::Plain)?;
    }
    if send.no_wait {
        return Ok(());
    }

    let expected = send.expect.or((!send.group).then_some(1));
    let deadline = Instant::now() + send.timeout;
    let mut answers: BTreeMap<String, Status> = BTreeMap::new();
    let done =
        |answers: &BTreeMap<String, Status>| answers.values().filter(|status| status.is_final()).count();
    while expected.is_none_or(|expected| done(&answers) < expected) {
        let Some(message) = link.next(deadline).await? else { break };
        show(context, prefix, &order, &message, &mut answers)?;
    }
    conclude(&answers, expected, &order, send)
}

fn prepare(context: &Context, send: &Send) -> Result<Order, Failure> {
    let target =
        if send.group { Target::Group(send.target.clone()) } else { Target::Device(send.target.clone()) };
    if let Some(file) = &send.envelope {
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
        let bytes = vigil_durable::read_bounded(file, limits::COMMAND_BYTES as u64)
            .map_err(|error| wrong(error.to_string()))?
            .ok_or_else(|| wrong("no such file".to_owned()))?;
        let order = Order::ready(bytes)?;
        if order.command.target != target {
            return Err(wrong(format!("it is for {:?}, not for {target:?}", order.command.target)));
        }
        return Ok(order);
    }
    let key = keys::load(context.settings.operator_key()?)?;
    let request = Request {
        id: send.id.as_deref(),
        kind: send.kind.as_deref().unwrap_or_default(),
        args: send.args.iter().cloned().collect(),
        tenant: context.settings.tenant()?,
        target,
        lifetime: send.expires,
        nonce: None,
    };
    Order::sign(request, &key, Timestamp::now())
}

fn show(
    context: &Context,
    prefix: &str,
    order: &Order,
    message: &Message,
    answers: &mut BTreeMap<String, Status>,
) -> Result<(), Failure> {
    let Some((device, rest)) = topic::parse(prefix, &message.topic) else { return Ok(()) };
    let Some(body) = fleet::read(&message.payload) else {
        eprintln!("{device}: unreadable answer of {} bytes", message.payload.len());
        return Ok(());
    };
    match rest.split('/').next() {
        Some("result") => {
            let Ok(result) = serde_json::from_value::<CommandResult>(body.clone()) else {
                eprintln!("{device}: an answer that this version cannot read");
                return Ok(());
            };
            // A final answer is final: at least once means that an earlier one may come again after it.
            let settled = answers.get(device).is_some_and(|status| status.is_final());
            if result.device != device || result.id != order.command.id || settled || answers.len() >= DEVICES
            {
                return Ok(());
            }
            answers.insert(device.to_owned(), result.status);
            if context.json {
                text::json(&json!({"device": device, "result": body}))
            } else {
                show_result(&result)
            }
        }
        Some("diagnosis") => match serde_json::from_value::<Diagnosis>(body.clone()) {
            _ if context.json => text::json(&json!({"device": device, "diagnosis": body})),
            Ok(diagnosis) => show_diagnosis(device, &diagnosis),
            Err(_) => Ok(()),
        },
        Some("update") if context.json => text::json(&json!({"device": device, "update": body})),
        // Before the device has accepted, its update state is an earlier one's.
        Some("update") if answers.contains_key(device) => {
            let state = fleet::update(&body).unwrap_or_default();
            line(&format!("{device}  update: {state}"), Tone::Plain)
        }
        _ => Ok(()),
    }
}

fn show_result(result: &CommandResult) -> Result<(), Failure> {
    let tone = match result.status {
        Status::Succeeded => Tone::Good,
        Status::Accepted | Status::Running => Tone::Plain,
        Status::Failed | Status::Interrupted | Status::Rejected => Tone::Bad,
    };
    let mut words =
        format!("{}  {}", clean(&result.device, 64), format!("{:?}", result.status).to_lowercase());
    if result.reason != vigil_protocol::command::Reason::Ok {
        words = format!("{words} ({})", result.reason.code());
    }
    if !result.message.is_empty() {
        words = format!("{words}: {}", clean(&result.message, 300));
    }
    line(&words, tone)?;
    // A diagnosis comes on its own topic as well, and reads better there.
    if !result.output.is_null() && result.kind != "diagnose" {
        line(&format!("  {}", clean(&result.output.to_string(), 2000)), Tone::Plain)?;
    }
    Ok(())
}

fn show_diagnosis(device: &str, diagnosis: &Diagnosis) -> Result<(), Failure> {
    let rows = diagnosis.evidence.iter().take(200).map(|evidence| {
        let tone = match evidence.outcome {
            Outcome::Ok => Tone::Good,
            Outcome::Warning => Tone::Warning,
            Outcome::Skipped => Tone::Plain,
            Outcome::Failed => Tone::Bad,
        };
        let cells = vec![
            format!("{:?}", evidence.layer).to_lowercase(),
            clean(&evidence.subject, 48),
            format!("{:?}", evidence.outcome).to_lowercase(),
            clean(&evidence.code, 32),
            evidence.millis.map_or_else(String::new, |millis| format!("{millis} ms")),
            clean(&evidence.message, 80),
        ];
        (cells, tone)
    });
    table(&["LAYER", "SUBJECT", "OUTCOME", "CODE", "TOOK", "SEEN"], rows.collect())?;
    let verdict = &diagnosis.verdict;
    let domain = format!("{:?}", verdict.domain).to_lowercase();
    line(&format!("{device}  verdict {domain}: {}", clean(&verdict.summary, 300)), Tone::Bold)?;
    line(&format!("  next: {}", clean(&verdict.advice, 300)), Tone::Plain)
}

fn conclude(
    answers: &BTreeMap<String, Status>,
    expected: Option<usize>,
    order: &Order,
    send: &Send,
) -> Result<(), Failure> {
    let finished = answers.values().filter(|status| status.is_final()).count();
    let failed = answers.values().filter(|status| status.is_final() && **status != Status::Succeeded).count();
    if failed > 0 {
        // Said already, device by device.
        return Err(Failure::Said(1));
    }
    if finished >= expected.unwrap_or(answers.len().max(1)) {
        return Ok(());
    }
    let advice = if answers.is_empty() {
        "is it online ('vigil-fleet status'), and in this tenant?"
    } else {
        "it is still at work; 'vigil-fleet watch' shows the end"
    };
    Err(Failure::NoAnswer(format!(
        "no final answer within {} s: {advice} The command is valid until {}.",
        send.timeout.as_secs(),
        order.command.expires
    )))
}
