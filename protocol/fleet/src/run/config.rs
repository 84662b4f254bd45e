//! `config`: what a device's configuration is, and a change of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::Instant;
use vigil_protocol::command::{Kind, Target};
use vigil_protocol::limits;
use vigil_protocol::state::{Config as ConfigState, Message};
use vigil_protocol::topic::{StateTopic, Topics};

use super::follow::{conclude, follow, show_result};
use super::{Context, drain};
use crate::config::{at, difference, patch, settings};
use crate::failure::Failure;
use crate::link::Link;
use crate::order;
use crate::text::{self, Tone, clean, line, table};

/// How long the broker may take to deliver the retained configuration.
const WAIT: Duration = Duration::from_secs(10);
/// A setting is shown so long at most.
const SHOWN: usize = 200;

/// What to do with a configuration.
#[derive(Subcommand)]
pub enum Config {
    /// Show the configuration that is in effect
    Show {
        /// The device
        device: String,
        /// Only this section or section.key
        #[arg(value_name = "KEY")]
        setting: Option<String>,
    },
    /// Change settings
    Set {
        /// The device
        device: String,
        /// What to set. Numbers, true, false, [...] and {...} are JSON, everything else is text
        #[arg(value_name = "SECTION.KEY=VALUE", value_parser = order::argument, required_unless_present = "unset")]
        settings: Vec<(String, Value)>,
        /// Back to the image's default; repeatable
        #[arg(long, value_name = "SECTION.KEY")]
        unset: Vec<String>,
        /// How
        #[command(flatten)]
        change: Change,
    },
    /// Apply a JSON merge patch (RFC 7396), or a TOML file of the settings to change
    Apply {
        /// The device
        device: String,
        /// The patch; with the ending .toml it is TOML
        file: PathBuf,
        /// How
        #[command(flatten)]
        change: Change,
    },
}

/// How a change is made.
#[derive(Args)]
pub struct Change {
    /// Take the change back unless the device reaches the broker with it within 30s to 1h
    #[arg(long, value_name = "TIME", value_parser = within)]
    pub confirm_within: Option<Duration>,
    /// Show the difference and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For this connection of the device only, as in 'send'
    #[arg(long)]
    pub nonce: bool,
    /// How long the command is valid
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = order::duration)]
    pub expires: Duration,
    /// How long to wait for the device
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = order::duration)]
    pub timeout: Duration,
}

fn within(text: &str) -> Result<Duration, String> {
    let time = order::duration(text)?;
    let bounds = Duration::from_secs(30)..=Duration::from_secs(3600);
    bounds.contains(&time).then_some(time).ok_or_else(|| "expected 30s to 1h".to_owned())
}

/// Shows or changes it.
pub async fn config(context: &Context, config: &Config) -> Result<(), Failure> {
    match config {
        Config::Show { device, setting } => show(context, device, setting.as_deref()).await,
        Config::Set { device, settings, unset, change } => {
            apply(context, device, patch(settings, unset)?, change).await
        }
        Config::Apply { device, file, change } => apply(context, device, read_patch(file)?, change).await,
    }
}

async fn show(context: &Context, device: &str, key: Option<&str>) -> Result<(), Failure> {
    let state = retained(context, device).await?;
    let value = match key {
        None => &state.body.effective,
        Some(key) => at(&state.body.effective, key).ok_or_else(|| {
            Failure::Failed(format!("{device} has no setting {key:?}; leave it out to see all of them"))
        })?,
    };
    if context.json {
        let version = state.body.overlay_version;
        return text::json(
            &json!({"device": device, "overlay_version": version, "key": key, "effective": value}),
        );
    }
    for (name, value) in settings(key.unwrap_or_default(), value) {
        line(&format!("{} = {}", clean(&name, 80), clean(&value, 2000)), Tone::Plain)?;
    }
    eprintln!(
        "overlay {} on the image's defaults; not verified, 'vigil-fleet check' does that",
        state.body.overlay_version
    );
    Ok(())
}

async fn apply(context: &Context, device: &str, patch: Value, change: &Change) -> Result<(), Failure> {
    let state = retained(context, device).await?;
    let changes = difference(&state.body.effective, &patch);
    let version = state.body.overlay_version;
    if context.json {
        text::json(
            &json!({"device": device, "expected_version": version, "patch": patch, "changes": changes}),
        )?;
    } else if changes.is_empty() {
        line("nothing differs from what is in effect", Tone::Warning)?;
    } else {
        let value = |value: &Option<Value>, none: &str| {
            value.as_ref().map_or_else(|| none.to_owned(), |value| clean(&value.to_string(), SHOWN))
        };
        let rows = changes.iter().map(|change| {
            let to = value(&change.to, "(the image's default)");
            (vec![clean(&change.key, 80), value(&change.from, "-"), to], Tone::Plain)
        });
        table(&["SETTING", "NOW", "THEN"], rows.collect())?;
    }
    if change.dry_run {
        return Ok(());
    }
    let mut args = [("patch".to_owned(), patch), ("expected_version".to_owned(), version.into())].to_vec();
    if let Some(time) = change.confirm_within {
        args.push(("confirm_within".to_owned(), time.as_secs().into()));
    }
    let target = Target::Device(device.to_owned());
    let order = context
        .sign(Kind::ConfigApply, args.into_iter().collect(), target, change.expires, change.nonce)
        .await?;
    let answers = follow(context, &order, change.timeout, |answers, news| {
        show_result(context, news)?;
        Ok(answers.finished() > 0)
    })
    .await?;
    conclude(&answers, Some(1), &order, change.timeout)
}

async fn retained(context: &Context, device: &str) -> Result<Message<ConfigState>, Failure> {
    let prefix = context.settings.prefix()?;
    let topics = Topics::new(prefix, device).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&[topics.state(StateTopic::Config)]).await?;
    let mut payload = link.next(Instant::now() + WAIT).await?.map(|message| message.payload);
    // One that was published in the same moment is newer.
    drain(&mut link, Instant::now() + WAIT, |message| payload = Some(message.payload)).await?;
    let payload = payload.filter(|payload| payload.len() <= limits::PAYLOAD_BYTES).ok_or_else(|| {
        Failure::Failed(format!(
            "the broker keeps no configuration of {device}; 'vigil-fleet ls' shows the devices it knows"
        ))
    })?;
    serde_json::from_slice(&payload)
        .map_err(|error| Failure::Failed(format!("the configuration of {device} cannot be read: {error}")))
}

fn read_patch(file: &Path) -> Result<Value, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let bytes = vigil_durable::read_bounded(file, limits::COMMAND_BYTES as u64)
        .map_err(|error| wrong(error.to_string()))?
        .ok_or_else(|| wrong("no such file".to_owned()))?;
    let value: Value = if file.extension().is_some_and(|extension| extension == "toml") {
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))?
    } else {
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?
    };
    if value.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(wrong("a patch is an object with at least one section".to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_read_from_json_and_from_toml_and_is_never_empty() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            read_patch(&file)
        };
        let wanted = json!({"health": {"interval": "30s"}});
        assert_eq!(read("a.json", r#"{"health": {"interval": "30s"}}"#).unwrap(), wanted);
        assert_eq!(read("a.toml", "[health]\ninterval = '30s'\n").unwrap(), wanted);
        for (name, text) in [("b.json", "{}"), ("b.json", "[1]"), ("b.toml", ""), ("b.json", "health = 1")] {
            assert!(read(name, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_change_is_confirmed_within_half_a_minute_to_an_hour() {
        assert_eq!(within("2m"), Ok(Duration::from_mins(2)));
        assert!(within("29s").is_err() && within("61m").is_err());
    }
}
