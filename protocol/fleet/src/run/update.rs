//! `update`: installs a release on a device or a group and shows how far each one is; or stops, resumes, cancels.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use semver::Version;
use serde_json::{Value, json};
use tokio::time::Instant;
use vigil_protocol::command::{Kind, Target};
use vigil_protocol::topic::is_name;

use super::follow::{conclude, follow, show_result};
use super::{Context, drain};
use crate::answers::What;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::link::Link;
use crate::order::{self, Order};
use crate::rollout::{End, Rollout, Standing};
use crate::text::{self, Tone, line};

/// Lines that are drawn anew at most; the devices beyond are told of when they end.
const BARS: usize = 20;
/// How long the broker may take to deliver the inventories.
const INVENTORY_WAIT: Duration = Duration::from_secs(3);

/// What to do, and where.
#[derive(Args)]
#[command(override_usage = "vigil-fleet update [OPTIONS] <DEVICE> \
                            <RELEASE|--pause|--resume|--cancel|--rollback|--check>")]
#[command(group(
    ArgGroup::new("what").required(true).args(["release", "pause", "resume", "cancel", "rollback", "check"])
))]
pub struct Update {
    /// The device, or with --group the group
    #[arg(value_name = "DEVICE")]
    pub target: String,
    /// The release to install: a semantic version
    #[arg(value_name = "RELEASE")]
    pub release: Option<Version>,
    /// DEVICE names a group
    #[arg(long)]
    pub group: bool,
    /// Install it even where it was at fault before
    #[arg(long, requires = "release")]
    pub lift_quarantine: bool,
    /// Also where it runs already: it is written over the other slot, and the fall-back there is gone
    #[arg(long, requires = "release")]
    pub reinstall: bool,
    /// Stop the install that is under way until it is resumed
    #[arg(long)]
    pub pause: bool,
    /// Go on with it
    #[arg(long)]
    pub resume: bool,
    /// Give it up, before the new release runs
    #[arg(long)]
    pub cancel: bool,
    /// Go back from a release that is not confirmed yet
    #[arg(long)]
    pub rollback: bool,
    /// Look for a newer release now
    #[arg(long)]
    pub check: bool,
    /// For this connection of the device only, as in 'send'
    #[arg(long)]
    pub nonce: bool,
    /// How long the command is valid, and kept for a device that is away: up to 168h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = order::duration)]
    pub expires: Duration,
    /// How long to follow
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = order::duration)]
    pub timeout: Duration,
    /// End when it has ended on so many devices [default: 1, or for a group all that say they are in it]
    #[arg(long, value_name = "N")]
    pub expect: Option<usize>,
}

impl Update {
    fn kind(&self) -> Kind {
        let asked = [
            (self.pause, Kind::UpdatePause),
            (self.resume, Kind::UpdateResume),
            (self.cancel, Kind::UpdateCancel),
            (self.rollback, Kind::UpdateRollback),
            (self.check, Kind::UpdateCheck),
        ];
        asked.into_iter().find(|(given, _)| *given).map_or(Kind::UpdateInstall, |(_, kind)| kind)
    }
}

/// Sends it and follows it to the end.
pub async fn update(context: &Context, update: &Update) -> Result<(), Failure> {
    if !is_name(&update.target) {
        return Err(Failure::Usage(format!("{:?} is no name of a device or group", update.target)));
    }
    let mut args: BTreeMap<String, Value> = BTreeMap::new();
    if let Some(version) = &update.release {
        args.insert("version".to_owned(), version.to_string().into());
    }
    if update.lift_quarantine {
        args.insert("lift_quarantine".to_owned(), true.into());
    }
    if update.reinstall {
        args.insert("reinstall".to_owned(), true.into());
    }
    let name = update.target.clone();
    let target = if update.group { Target::Group(name) } else { Target::Device(name) };
    let order = context.sign(update.kind(), args, target, update.expires, update.nonce).await?;
    let members = if update.group { members(context, &update.target).await? } else { BTreeSet::new() };
    let known = if update.group { (!members.is_empty()).then_some(members.len()) } else { Some(1) };
    let expected = update.expect.or(known);
    match &update.release {
        Some(version) => install(context, update, &order, &version.to_string(), expected, &members).await,
        None => {
            let answers = follow(context, &order, update.timeout, |answers, news| {
                show_result(context, news)?;
                Ok(expected.is_some_and(|expected| answers.finished() >= expected))
            })
            .await?;
            conclude(&answers, expected, &order, update.timeout)
        }
    }
}

/// The devices whose inventories name the group.
async fn members(context: &Context, group: &str) -> Result<BTreeSet<String>, Failure> {
    let prefix = context.settings.prefix()?;
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&["presence", "inventory"].map(|level| format!("{prefix}/+/{level}"))).await?;
    let mut fleet = Fleet::default();
    drain(&mut link, Instant::now() + INVENTORY_WAIT, |message| {
        fleet.take(prefix, &message.topic, &message.payload);
    })
    .await?;
    let named =
        fleet.devices().iter().filter(|(_, overview)| overview.groups.iter().any(|name| name == group));
    let away = named.clone().filter(|(_, overview)| overview.status.as_deref() != Some("online")).count();
    let members: BTreeSet<String> = named.map(|(device, _)| device.clone()).collect();
    if members.is_empty() {
        eprintln!("no device says that it is in the group {group}; waiting for whoever answers");
    } else {
        eprintln!("in the group {group} by their inventories: {}, of them away: {away}", members.len());
    }
    Ok(members)
}

async fn install(
    context: &Context,
    update: &Update,
    order: &Order,
    version: &str,
    expected: Option<usize>,
    members: &BTreeSet<String>,
) -> Result<(), Failure> {
    let mut rollout = Rollout::new(version);
    let mut screen = Screen::new(context);
    follow(context, order, update.timeout, |_, news| {
        let standing = match &news.what {
            What::Result(result) => rollout.on_result(result),
            What::Update => rollout.on_update(&news.device, &news.body),
            _ => None,
        };
        if let Some(standing) = standing {
            screen.show(&news.device, standing)?;
        }
        Ok(expected.is_some_and(|expected| rollout.ended() >= expected))
    })
    .await?;
    screen.clear();
    let silent: Vec<&String> =
        members.iter().filter(|member| !rollout.standings().any(|(device, _)| device == *member)).collect();
    summarize(context, update, &rollout, &silent)?;
    if rollout.failed() > 0 {
        return Err(Failure::Said(1));
    }
    let answered = rollout.standings().count();
    if rollout.ended() >= expected.unwrap_or(answered.max(1)) {
        return Ok(());
    }
    let advice =
        if answered == 0 { "is it online ('vigil-fleet ls')?" } else { "'vigil-fleet ls' shows the end." };
    Err(Failure::NoAnswer(format!(
        "not over after {} s, and nothing is withdrawn: {advice} The command is valid until {}.",
        update.timeout.as_secs(),
        order.command.expires
    )))
}

fn summarize(
    context: &Context,
    update: &Update,
    rollout: &Rollout,
    silent: &[&String],
) -> Result<(), Failure> {
    if context.json {
        let devices: BTreeMap<_, _> = rollout.standings().collect();
        return text::json(&json!({"devices": devices, "silent": silent}));
    }
    if !update.group {
        return Ok(());
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, standing) in rollout.standings() {
        let word = if standing.end.is_some() { standing.state.as_str() } else { "still at work" };
        *counts.entry(word).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if !silent.is_empty() {
        let names: Vec<&str> = silent.iter().take(10).map(|name| name.as_str()).collect();
        let more = if silent.len() > names.len() { ", …" } else { "" };
        parts.push(format!("{} silent ({}{more})", silent.len(), names.join(", ")));
    }
    line(&parts.join(", "), Tone::Bold)
}

/// One line a device, drawn anew on a terminal and written below each other elsewhere.
struct Screen<'a> {
    context: &'a Context,
    live: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
}

impl<'a> Screen<'a> {
    fn new(context: &'a Context) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let live = (terminal && !context.json).then(MultiProgress::new);
        Self { context, live, bars: BTreeMap::new() }
    }

    fn show(&mut self, device: &str, standing: &Standing) -> Result<(), Failure> {
        if self.context.json {
            return text::json(&json!({"device": device, "standing": standing}));
        }
        let words = format!("{device:<24} {}", standing.words());
        let tone = match standing.end {
            None => Tone::Plain,
            Some(End::Confirmed) => Tone::Good,
            Some(_) => Tone::Bad,
        };
        let Some(live) = &self.live else { return line(&words, tone) };
        if standing.end.is_some() {
            if let Some(bar) = self.bars.remove(device) {
                bar.finish_and_clear();
            }
            return live.suspend(|| line(&words, tone));
        }
        if let Some(bar) = self.bars.get(device) {
            bar.set_message(words);
        } else if self.bars.len() < BARS
            && let Ok(style) = ProgressStyle::with_template("{wide_msg}")
        {
            let bar = live.add(ProgressBar::new_spinner().with_style(style));
            bar.set_message(words);
            self.bars.insert(device.to_owned(), bar);
        }
        Ok(())
    }

    /// What is still under way stays to be read.
    fn clear(&mut self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }
}
