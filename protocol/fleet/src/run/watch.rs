//! `watch`: what is said, as it is said.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use vigil_protocol::topic;

use super::Context;
use super::follow::Steady;
use crate::failure::Failure;
use crate::fleet;
use crate::link::Message;
use crate::order;
use crate::text::{Tone, json, line};

/// Longer than anybody watches; a deadline that never comes needs no second code path.
const FOR_EVER: Duration = Duration::from_hours(366 * 24);

/// What to watch, and until when.
#[derive(Args)]
pub struct Watch {
    /// Only this device
    pub device: Option<String>,
    /// End after so long, e.g. 30s
    #[arg(long = "for", value_name = "TIME", value_parser = order::duration)]
    pub duration: Option<Duration>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Divide the messages with everybody who watches under the same name (an MQTT shared subscription). What the
    /// broker keeps is not repeated then, only what is said from now on
    #[arg(long, value_name = "NAME")]
    pub share: Option<String>,
}

/// Prints one line for each message. A lost connection is made again; one that cannot be made at first is an error.
pub async fn watch(context: &Context, watch: &Watch) -> Result<(), Failure> {
    let prefix = context.settings.prefix()?;
    if let Some(device) = watch.device.as_deref().filter(|device| !topic::is_name(device)) {
        return Err(Failure::Usage(topic::TopicError::Name(device.to_owned()).to_string()));
    }
    let mut filter = format!("{prefix}/{}/#", watch.device.as_deref().unwrap_or("+"));
    if let Some(share) = &watch.share {
        if !topic::is_name(share) {
            return Err(Failure::Usage(format!("--share {share:?}: use 1 to 64 of A-Z a-z 0-9 . _ -")));
        }
        filter = format!("$share/{share}/{filter}");
    }
    let deadline = Instant::now() + watch.duration.unwrap_or(FOR_EVER);
    let mut left = watch.count.unwrap_or(u64::MAX);
    let mut steady = Steady::open(context, vec![filter]).await?;
    while left > 0
        && let Some(message) = steady.next(deadline).await?
    {
        left -= u64::from(show(context, prefix, &message)?);
    }
    Ok(())
}

/// Whether the message is one of a device, and was shown.
fn show(context: &Context, prefix: &str, message: &Message) -> Result<bool, Failure> {
    let Some((device, rest)) = topic::parse(prefix, &message.topic) else { return Ok(false) };
    let now = Timestamp::now();
    if context.json {
        let body = fleet::read(&message.payload);
        json(
            &json!({"at": now, "device": device, "topic": rest, "bytes": message.payload.len(), "message": body}),
        )?;
        return Ok(true);
    }
    let summary = fleet::summary(rest, &message.payload);
    let tone = match rest.split('/').next() {
        Some("presence") if summary.starts_with("lost") => Tone::Bad,
        Some("presence" | "result" | "diagnosis") => Tone::Bold,
        _ => Tone::Plain,
    };
    let rest = crate::text::clean(rest, 80);
    line(&format!("{}  {device:<20} {rest:<12} {summary}", now.strftime("%H:%M:%SZ")), tone)?;
    Ok(true)
}
