//! `ls`: the fleet at a glance.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::{Context, drain};
use crate::failure::Failure;
use crate::filter::Filter;
use crate::fleet::{Fleet, Overview};
use crate::link::Link;
use crate::order;
use crate::text::{Tone, ago, json, table};

/// Which devices, and how long to wait for them.
#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    filter: Filter,
    /// How long the broker may take to deliver
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = order::duration)]
    pub wait: Duration,
}

/// Lists the devices that the broker keeps something of.
pub async fn ls(context: &Context, ls: &Ls) -> Result<(), Failure> {
    let prefix = context.settings.prefix()?;
    let mut link = Link::open(&context.settings).await?;
    let levels = ["presence", "inventory", "update", "health", "incident/+"];
    link.subscribe(&levels.map(|level| format!("{prefix}/+/{level}"))).await?;
    let mut fleet = Fleet::default();
    drain(&mut link, Instant::now() + ls.wait, |message| {
        fleet.take(prefix, &message.topic, &message.payload);
    })
    .await?;

    let listed: BTreeMap<&String, &Overview> = fleet
        .devices()
        .iter()
        .filter(|(device, overview)| ls.filter.lets_through(device, overview))
        .collect();
    if context.json {
        return json(&json!({"devices": listed, "unreadable": fleet.unreadable()}));
    }
    if fleet.devices().is_empty() {
        eprintln!("no devices under {prefix}/; is the prefix right, and may this operator read there?");
    } else if listed.is_empty() {
        eprintln!("none of {} devices is like that", fleet.devices().len());
    } else {
        let now = Timestamp::now();
        let rows = listed.iter().map(|(device, overview)| row(device, overview, now)).collect();
        let heading = [
            "DEVICE",
            "STATUS",
            "SESSION",
            "PRODUCT",
            "RELEASE",
            "SLOT",
            "UPDATE",
            "INCIDENTS",
            "LOAD",
            "LAST SEEN",
        ];
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
        _ if !overview.incidents.is_empty() => Tone::Warning,
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
        overview.incidents.len().to_string(),
        overview.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}")),
        overview.last_seen.map_or_else(|| "-".to_owned(), |seen| ago(seen, now)),
    ];
    (cells, tone)
}
