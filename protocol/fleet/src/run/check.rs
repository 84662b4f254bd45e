//! `check`: whether what the broker keeps of a device is what the device said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tokio::time::Instant;
use vigil_protocol::command::{Kind, Target};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::merkle::is_consistent;
use vigil_protocol::note::Checkpoint;
use vigil_protocol::topic::{self, StateTopic, Topics};

use super::follow::follow;
use super::{Context, drain};
use crate::check::{Outcome, Report};
use crate::failure::Failure;
use crate::known::{Known, KnownDevices};
use crate::link::Link;
use crate::order;
use crate::text::{self, Tone, line, table};

/// How long the request for a proof is valid, and how long its answer may take.
const PROOF_LIFETIME: Duration = Duration::from_secs(120);
const PROOF_WAIT: Duration = Duration::from_secs(30);

/// Whom to check, and by which key.
#[derive(Args)]
pub struct Check {
    /// The device
    pub device: String,
    /// The device's key, base64, from its enrolment
    #[arg(long, value_name = "BASE64", conflicts_with_all = ["known", "accept_new"])]
    pub device_key: Option<String>,
    /// The keys of earlier checks [default: ~/.config/vigil/known_devices.json]
    #[arg(long, value_name = "FILE")]
    pub known: Option<PathBuf>,
    /// Pin the key that a new device claims in its inventory
    #[arg(long)]
    pub accept_new: bool,
    /// How long a newer digest may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = order::duration)]
    pub wait: Duration,
}

/// Fetches, checks and reports.
pub async fn check(context: &Context, check: &Check) -> Result<(), Failure> {
    let prefix = context.settings.prefix()?;
    let topics = Topics::new(prefix, &check.device).map_err(|error| Failure::Usage(error.to_string()))?;
    let given = check.device_key.clone().map(PublicKey::try_from).transpose();
    let given = given.map_err(|error| Failure::Usage(format!("--device-key: {error}")))?;
    let mut known = KnownDevices::load(check.known.as_deref().unwrap_or(&context.known_devices))?;

    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&StateTopic::ALL.map(|topic| topics.state(topic))).await?;
    let deadline = Instant::now() + check.wait;
    let mut retained = BTreeMap::new();
    collect(&mut link, prefix, deadline, &mut retained).await?;
    if retained.is_empty() {
        return Err(Failure::Failed(format!(
            "the broker keeps nothing of {}; 'vigil-fleet ls' shows the devices it knows",
            check.device
        )));
    }
    let remembered = known.get(&check.device).cloned();
    let key = match (given.clone(), &remembered) {
        (Some(key), _) => key,
        (None, Some(known)) => known.key.clone(),
        (None, None) => claimed_key(&retained, check)?,
    };

    let mut report = watch(&mut link, prefix, check, &key, deadline, &mut retained, |report| {
        if let Some(known) = remembered.as_ref().filter(|known| known.key == key) {
            report.hold_against(known.digest_seq, known.audit_size, known.audit_root.as_deref());
        }
    })
    .await?;
    if let Some(known) = remembered.as_ref().filter(|known| known.key == key)
        && report.is_fine()
        && report.has_grown_since(known.audit_size)
    {
        prove(context, check, known, &mut report).await?;
    }
    show(context, &report, remembered.is_none() && given.is_none())?;
    if !report.is_fine() {
        return Err(Failure::Said(1));
    }
    if given.is_none() {
        let digest_seq = report.digest.as_ref().map_or(0, |digest| digest.seq);
        let (audit_size, audit_root) = (report.audit_size.unwrap_or(0), report.audit_root.clone());
        known.remember(&check.device, Known { key, digest_seq, audit_size, audit_root })?;
    }
    Ok(())
}

/// Has the device prove that its audit log is the one that was checked before, and has only grown since: one that was deleted
/// or rewritten, and has grown past that size, looks like it otherwise.
async fn prove(context: &Context, check: &Check, known: &Known, report: &mut Report) -> Result<(), Failure> {
    let Some(root) = known.audit_root.as_deref().and_then(hash) else {
        report.note_audit("its growth is not proven: the earlier check has pinned no root");
        return Ok(());
    };
    if context.settings.operator_key().is_err() {
        report.note_audit(
            "that it only grew is not proven: the device is asked for that with an operator's key (--key)",
        );
        return Ok(());
    }
    let args = [("audit_from".to_owned(), json!(known.audit_size))].into();
    let target = Target::Device(check.device.clone());
    let order = context.sign(Kind::Refresh, args, target, PROOF_LIFETIME, false).await?;
    let answers =
        follow(context, &order, check.wait.max(PROOF_WAIT), |answers, _| Ok(answers.finished() >= 1)).await?;
    let Some(result) = answers.of(&check.device).filter(|result| result.status.is_final()) else {
        report.note_audit("that it only grew is not proven: the device did not answer in time");
        return Ok(());
    };
    let audit = &result.output["audit"];
    let prefix = context.settings.prefix()?;
    let (Some(note), Some(proof)) = (audit["checkpoint"].as_str(), audit["proof"].as_array()) else {
        let why = text::clean(&result.message, 200);
        report.note_audit(&format!("that it only grew is not proven: {why}"));
        return Ok(());
    };
    let origin = format!("{prefix}/{}/audit", check.device);
    let proof: Option<Vec<_>> = proof.iter().take(128).map(|part| part.as_str().and_then(hash)).collect();
    let is_proven = Checkpoint::verify(note, &origin, &known.key).is_ok_and(|now| {
        Some(now.size) >= report.audit_size
            && proof.is_some_and(|proof| is_consistent(known.audit_size, &root, now.size, &now.root, &proof))
    });
    if is_proven {
        report.note_audit(&format!("it has only grown since it had {}", known.audit_size));
    } else {
        report.disbelieve_audit(&format!(
            "is not the log that had {} entries in an earlier check: it was deleted or rewritten, and has grown past that since",
            known.audit_size
        ));
    }
    Ok(())
}

fn hash(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

async fn collect(
    link: &mut Link,
    prefix: &str,
    deadline: Instant,
    retained: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Failure> {
    drain(link, deadline, |message| {
        let Some((_, rest)) = topic::parse(prefix, &message.topic) else { return };
        if message.payload.is_empty() {
            retained.remove(rest);
        } else {
            retained.insert(rest.to_owned(), message.payload);
        }
    })
    .await
}

/// Checks, and again whenever something comes, until all is settled. A topic that has been newer than every digest for
/// the whole wait was not said by the device.
async fn watch(
    link: &mut Link,
    prefix: &str,
    check: &Check,
    key: &PublicKey,
    deadline: Instant,
    retained: &mut BTreeMap<String, Vec<u8>>,
    also: impl Fn(&mut Report),
) -> Result<Report, Failure> {
    let mut waiting: Option<BTreeSet<String>> = None;
    loop {
        let mut report = crate::check::check(prefix, &check.device, key, retained);
        also(&mut report);
        let unproven = report.unproven();
        // What is newly unproven has not waited long enough to be held against the device.
        let waited: BTreeSet<String> = match waiting {
            None => unproven.clone(),
            Some(before) => before.intersection(&unproven).cloned().collect(),
        };
        if report.is_fine() && unproven.is_empty() {
            return Ok(report);
        }
        if Instant::now() >= deadline {
            report.give_up_on(&waited);
            return Ok(report);
        }
        waiting = Some(waited);
        collect(link, prefix, deadline, retained).await?;
    }
}

fn claimed_key(retained: &BTreeMap<String, Vec<u8>>, check: &Check) -> Result<PublicKey, Failure> {
    let claim = retained
        .get(StateTopic::Inventory.level())
        .and_then(|payload| crate::fleet::read(payload))
        .and_then(|inventory| inventory["device_key"].as_str().map(str::to_owned))
        .and_then(|text| PublicKey::try_from(text).ok());
    match claim {
        Some(key) if check.accept_new => Ok(key),
        Some(key) => Err(Failure::Failed(format!(
            "{} has not been checked before. It claims the key\n  {key}\nCompare it with the device's own ('vigil \
             status' there, or its enrolment record), then give --device-key, or pin it with --accept-new.",
            check.device
        ))),
        None => Err(Failure::Failed(format!(
            "{} has not been checked before and its inventory names no key; give --device-key",
            check.device
        ))),
    }
}

fn show(context: &Context, report: &Report, pinned_now: bool) -> Result<(), Failure> {
    if context.json {
        let mut value = json!(report);
        value["ok"] = Value::Bool(report.is_fine());
        return text::json(&value);
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let rows = report.rows.iter().map(|row| {
        let tone = match row.outcome {
            Outcome::Ok => Tone::Good,
            Outcome::Will | Outcome::Newer => Tone::Warning,
            Outcome::Missing | Outcome::Stale | Outcome::Forged => Tone::Bad,
        };
        let outcome = format!("{:?}", row.outcome).to_lowercase();
        (vec![row.topic.clone(), outcome, number(row.seq), number(row.signed_seq), row.note.clone()], tone)
    });
    table(&["TOPIC", "OUTCOME", "SEQ", "SIGNED", "NOTE"], rows.collect())?;
    match (report.is_fine(), pinned_now) {
        (true, true) => line("all is well; the key is pinned from now on", Tone::Good),
        (true, false) => line("all is well", Tone::Good),
        (false, _) => line("do not believe the rows that are not ok: see NOTE", Tone::Bad),
    }
}
