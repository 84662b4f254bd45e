//! `diagnose`: whose fault it is, with the evidence.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use vigil_protocol::command::{Kind, Status, Target};
use vigil_protocol::diagnosis::{Diagnosis, FaultDomain, Outcome};

use super::Context;
use super::follow::{conclude, follow, show_result};
use crate::answers::What;
use crate::failure::Failure;
use crate::order;
use crate::text::{self, Tone, clean, line, table};

/// Whom to ask.
#[derive(Args)]
pub struct Diagnose {
    /// The device
    pub device: String,
    /// For this connection of the device only, as in 'send'
    #[arg(long)]
    pub nonce: bool,
    /// How long to wait for the findings
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = order::duration)]
    pub timeout: Duration,
}

/// Asks the device to test its network, and shows what it found.
pub async fn diagnose(context: &Context, diagnose: &Diagnose) -> Result<(), Failure> {
    let target = Target::Device(diagnose.device.clone());
    let order = context.sign(Kind::Diagnose, [].into(), target, diagnose.timeout, diagnose.nonce).await?;
    let mut found = None;
    let answers = follow(context, &order, diagnose.timeout, |answers, news| {
        match &news.what {
            What::Diagnosis(diagnosis) if context.json => {
                text::json(&json!({"device": news.device, "diagnosis": news.body}))?;
                found = Some(diagnosis.verdict.domain);
            }
            What::Diagnosis(diagnosis) => {
                show_diagnosis(&news.device, diagnosis)?;
                found = Some(diagnosis.verdict.domain);
            }
            What::Result(result) if context.json || result.status != Status::Succeeded => {
                show_result(context, news)?;
            }
            _ => {}
        }
        // The findings are said before the last answer, but a broker may turn the order of two topics round.
        Ok(answers.failed() > 0 || (answers.finished() > 0 && found.is_some()))
    })
    .await?;
    conclude(&answers, Some(1), &order, diagnose.timeout)?;
    match found {
        Some(FaultDomain::None) => Ok(()),
        // A check that found something, as everywhere else.
        Some(_) => Err(Failure::Said(1)),
        None => Err(Failure::NoAnswer(
            "the device says that it is done, but its findings did not come; ask once more".to_owned(),
        )),
    }
}

/// The verdict, and what it rests on.
pub(super) fn show_diagnosis(device: &str, diagnosis: &Diagnosis) -> Result<(), Failure> {
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
