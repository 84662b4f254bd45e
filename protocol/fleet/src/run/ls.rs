//! `ls`: the fleet at a glance.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::{Context, drain};
use crate::failure::Failure;
use crate::fleet::{Fleet, Overview};
use crate::link::Link;
use crate::text::{Tone, ago, json, table};

/// Lists every device that the broker keeps something of.
pub async fn ls(context: &Context, wait: Duration) -> Result<(), Failure> {
    let prefix = context.settings.prefix()?;
    let mut link = Link::open(&context.settings).await?;
    let filters = ["presence", "inventory", "update", "health"].map(|level| format!("{prefix}/+/{level}"));
    link.subscribe(&filters).await?;
    let mut fleet = Fleet::default();
    drain(&mut link, Instant::now() + wait, |message| fleet.take(prefix, &message.topic, &message.payload))
        .await?;

    if context.json {
        return json(&json!({"devices": fleet.devices(), "unreadable": fleet.unreadable()}));
    }
    if fleet.devices().is_empty() {
        eprintln!("no devices under {prefix}/; is the prefix right, and may this operator read there?");
    } else {
        let now = Timestamp::now();
        let rows = fleet.devices().iter().map(|(device, overview)| row(device, overview, now)).collect();
        let heading =
            ["DEVICE", "STATUS", "SESSION", "PRODUCT", "RELEASE", "SLOT", "UPDATE", "LOAD", "LAST SEEN"];
        table(&heading, rows)?;
    }
    if fleet.unreadable() > 0 {
        eprintln!("{} messages could not be read", fleet.unreadable());
    }
    Ok(())
}

fn row(device: &str, overview: &Overview, now: Timestamp) -> (Vec<String>, Tone) {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let tone = match (overview.status.as_deref(), overview.update.as_deref()) {
        (Some("lost"), _) | (_, Some("failed" | "rolled_back")) => Tone::Bad,
        (Some("online"), Some("unavailable")) => Tone::Warning,
        (Some("online"), _) => Tone::Good,
        _ => Tone::Warning,
    };
    let cells = vec![
        device.to_owned(),
        or_dash(&overview.status),
        overview.session.map_or_else(|| "-".to_owned(), |session| session.to_string()),
        or_dash(&overview.product),
        or_dash(&overview.release),
        or_dash(&overview.slot),
        or_dash(&overview.update),
        overview.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}")),
        overview.last_seen.map_or_else(|| "-".to_owned(), |seen| ago(seen, now)),
    ];
    (cells, tone)
}
