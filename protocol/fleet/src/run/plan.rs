//! `plan`: what each device would do with a command, before anyone signs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use vigil_protocol::command::{Command, Target};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::limits;
use vigil_protocol::operators::Operators;

use super::ask::{Ask, hold_against, read_envelope};
use super::{Context, drain};
use crate::failure::Failure;
use crate::keys;
use crate::link::Link;
use crate::order::{self, Order};
use crate::plan::{Question, Release, Row, Snapshot, Would};
use crate::text::{self, Tone, line, table};

/// A manifest's bytes at most.
const MANIFEST_BYTES: u64 = 256 * 1024;

/// What would be sent, and by whom.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    ask: Ask,
    /// The tenant's operators list as it is published, operators/TENANT.json
    #[arg(long, value_name = "FILE")]
    pub operators: PathBuf,
    /// Who would sign, by their names in the list [default: the owner of the operator_key]
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub signers: Vec<String>,
    /// For update.install: the release's manifest as it is published, releases/PRODUCT/VERSION.json
    #[arg(long, value_name = "FILE")]
    pub release: Option<PathBuf>,
    /// With the nonce of the device's session
    #[arg(long)]
    pub nonce: bool,
    /// Plan for this envelope, as signed by those who have signed it, and by --signers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "args", "id", "nonce"])]
    pub envelope: Option<PathBuf>,
    /// Show the devices as well that would not hear it
    #[arg(long)]
    pub all: bool,
    /// How long the broker may take to deliver
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = order::duration)]
    pub wait: Duration,
}

/// Asks the retained state.
pub async fn plan(context: &Context, plan: &Plan) -> Result<(), Failure> {
    let now = Timestamp::now();
    let operators = Operators::parse(&read(&plan.operators, limits::OPERATORS_BYTES as u64)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", plan.operators.display())))?;
    let release = plan.release.as_deref().map(read_release).transpose()?;
    let mut signers = named(&operators, &plan.signers)?;
    let mut command = match &plan.envelope {
        Some(file) => {
            let order = read_envelope(file)?;
            hold_against(&order, plan.ask.target().as_ref())?;
            let envelope = order.parsed().map_err(|error| Failure::Usage(error.to_string()))?;
            signers.extend(envelope.signers(operators.operators.iter().map(|operator| &operator.key)));
            order.command
        }
        None => {
            if signers.is_empty() {
                signers = owner(context, &operators)?;
            }
            let nonce = plan.nonce.then(String::new);
            Order::command(plan.ask.request(context.settings.tenant()?, nonce)?, now)?
        }
    };

    let prefix = context.settings.prefix()?;
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&Snapshot::LEVELS.map(|level| format!("{prefix}/+/{level}"))).await?;
    let mut snapshot = Snapshot::default();
    drain(&mut link, Instant::now() + plan.wait, |message| {
        snapshot.take(prefix, &message.topic, &message.payload);
    })
    .await?;
    if plan.nonce
        && let Target::Device(device) = &command.target
    {
        command.nonce = snapshot.nonce(device).map(str::to_owned);
    }
    let question = Question {
        command: &command,
        signers: &signers,
        operators: &operators,
        release: release.as_ref(),
        now,
    };
    let rows = snapshot.ask(&question, plan.all);
    show(context, &command, &rows, snapshot.devices())?;
    if rows.is_empty() {
        return Err(Failure::Failed(format!(
            "no device would hear it: none says that it is in {}",
            order::target(&command.target)
        )));
    }
    let refused = rows.values().any(|row| row.would == Would::Refuse);
    if refused { Err(Failure::Said(1)) } else { Ok(()) }
}

fn show(
    context: &Context,
    command: &Command,
    rows: &BTreeMap<String, Row>,
    devices: usize,
) -> Result<(), Failure> {
    let elsewhere = devices.saturating_sub(rows.len());
    if context.json {
        return text::json(&json!({"command": command, "devices": rows, "elsewhere": elsewhere}));
    }
    let lines = rows.iter().map(|(device, row)| {
        let (word, tone) = match row.would {
            Would::Obey => ("obey", Tone::Good),
            Would::Refuse => ("refuse", Tone::Bad),
            Would::Unknown => ("unknown", Tone::Warning),
        };
        (vec![device.clone(), word.to_owned(), row.reason.clone(), row.note.clone()], tone)
    });
    if !rows.is_empty() {
        table(&["DEVICE", "WOULD", "REASON", "NOTE"], lines.collect())?;
    }
    let count = |would: Would| rows.values().filter(|row| row.would == would).count();
    line(
        &format!(
            "{} for {}: {} obey, {} refuse, {} unknown; {elsewhere} others do not hear it",
            command.kind,
            order::target(&command.target),
            count(Would::Obey),
            count(Would::Refuse),
            count(Would::Unknown),
        ),
        Tone::Bold,
    )
}

/// The positions of those who would sign.
fn named(operators: &Operators, names: &[String]) -> Result<Vec<usize>, Failure> {
    let mut positions = Vec::new();
    for name in names {
        let of_name = operators.operators.iter().enumerate().filter(|(_, operator)| operator.name == *name);
        let before = positions.len();
        positions.extend(of_name.map(|(position, _)| position));
        if positions.len() == before {
            let known: Vec<&str> =
                operators.operators.iter().map(|operator| operator.name.as_str()).collect();
            return Err(Failure::Usage(format!("--signers {name:?}: the list names {}", known.join(", "))));
        }
    }
    Ok(positions)
}

/// The position of the one whose key is in the settings; a key that the list does not name is nobody's.
fn owner(context: &Context, operators: &Operators) -> Result<Vec<usize>, Failure> {
    let file = context
        .settings
        .operator_key()
        .map_err(|error| Failure::Usage(format!("who would sign? Give --signers NAME; or else: {error}")))?;
    let key = PublicKey::from(keys::load(file)?.verifying_key());
    let position = operators.operators.iter().position(|operator| operator.key == key);
    Ok(position.into_iter().collect())
}

fn read_release(file: &Path) -> Result<Release, Failure> {
    serde_json::from_slice(&read(file, MANIFEST_BYTES)?)
        .map_err(|error| Failure::Usage(format!("{}: not a release's manifest: {error}", file.display())))
}

fn read(file: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    vigil_durable::read_bounded(file, limit)
        .map_err(|error| wrong(error.to_string()))?
        .ok_or_else(|| wrong("no such file".to_owned()))
}
