//! One device at one hostile broker, and the scenarios that it goes through.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use vigil_protocol::command::{Reason, Status};
use vigil_tests::device::Daemon;
use vigil_tests::hostile::packet::Publish;
use vigil_tests::hostile::repeated::written_out;
use vigil_tests::hostile::{Acknowledge, Broker, Manners, connack, properties};
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::vendor::TENANT;
use vigil_tests::wait_for;

use super::people;
use super::scenario::{Acknowledges, Again, Bytes, List, Next, Plain, Scenario, Signed, Step, Via};

const PREFIX: &str = "vigil/v1";
const LIMIT: Duration = Duration::from_secs(30);
/// Refusals that a device tells one by one, from its start.
const TOLD: usize = 10;
/// Pings that a device sends in one scenario at most: none takes long.
const PINGS: u32 = 20;
/// Bytes of what a device records of, or answers to, a command that it refuses.
const REFUSAL_BYTES: usize = 2048;
/// In scenarios, a part of texts that nobody has vouched for: no message repeats it.
const MARKER: &str = "evil-marker";
/// Sets a process's clock as a file says.
pub(super) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A device at a broker.
pub(super) struct Stand {
    room: Room,
    broker: Broker,
    /// The files that say how far the clocks are off.
    clocks: Option<Clocks>,
    list: List,
    packet_id: u16,
    /// Refusals since the device started.
    refusals: usize,
    /// The number of the next audit entry that was not looked at.
    audited: u64,
}

struct Clocks {
    vigild: PathBuf,
    updaterd: PathBuf,
}

impl Clocks {
    fn new() -> anyhow::Result<Self> {
        let file =
            || -> anyhow::Result<PathBuf> { Ok(tempfile::NamedTempFile::new()?.into_temp_path().keep()?) };
        let clocks = Self { vigild: file()?, updaterd: file()? };
        set(&clocks.vigild, 0)?;
        set(&clocks.updaterd, 0)?;
        Ok(clocks)
    }

    fn environment(&self) -> Vec<(Daemon, String, String)> {
        let of = |daemon: Daemon, file: &Path| {
            let variables = [
                ("LD_PRELOAD", FAKETIME.to_owned()),
                ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ];
            variables.map(|(name, value)| (daemon, name.to_owned(), value))
        };
        [of(Daemon::Vigild, &self.vigild), of(Daemon::Updaterd, &self.updaterd)].concat()
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        for file in [&self.vigild, &self.updaterd] {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Sets a clock as a whole: its daemon reads the file at every look at it.
fn set(clock: &Path, seconds: i64) -> anyhow::Result<()> {
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}"))?;
    Ok(std::fs::rename(new, clock)?)
}

/// What must come of the scenario so far.
#[derive(Default)]
struct Expected {
    /// By reason, and the id that the refused command claims.
    refused: BTreeMap<(String, Option<String>), usize>,
    /// Ids, their kinds, and how they end.
    carried_out: BTreeMap<String, (Status, Reason)>,
    /// Ids whose last answer the broker did not take at first.
    said_again: Vec<String>,
    /// Connections that end.
    ends: u32,
}

/// What a scenario has done so far.
struct Play<'s> {
    stand: &'s mut Stand,
    name: &'s str,
    expected: Expected,
    /// Envelopes that were sent, by id.
    sent: BTreeMap<String, Vec<u8>>,
    /// Where the broker's record stood.
    published: usize,
    wills: usize,
    ended: u32,
    pings: u32,
    updater_clock: i64,
    /// The broker's manners are not the usual ones.
    dirty: bool,
    /// Every connection ends, as long as they are so.
    ends_again: bool,
}

impl Stand {
    /// Makes device and broker. With `clock` the device's clock can be set.
    pub(super) fn new(with_clock: bool) -> anyhow::Result<Self> {
        let broker = Broker::start()?;
        let clocks = with_clock.then(Clocks::new).transpose()?;
        let room = Room::elsewhere(|options| {
            options.broker = format!(
                "url = \"mqtt://localhost:{}\"\nallow_plaintext = true\nkeep_alive = \"10s\"\nbackoff_max = \"1s\"\nfleet_size = 1\n",
                broker.port
            );
            if let Some(clocks) = &clocks {
                options.environment = clocks.environment();
            }
        })?;
        let mut stand =
            Self { room, broker, clocks, list: List::Usual, packet_id: 0, refusals: 0, audited: 0 };
        stand.publish_list(List::Usual)?;
        stand.room.device.power_on()?;
        stand.wait_ready()?;
        Ok(stand)
    }

    fn publish_list(&mut self, list: List) -> anyhow::Result<()> {
        self.list = list;
        let name = format!("operators/{TENANT}.json");
        if list == List::None {
            return self.room.vendor.publish(&["remove", &name]).map(drop);
        }
        let file = self.room.directory.path().join("operators.json");
        std::fs::write(&file, serde_json::to_vec(&people::operators(list)?)?)?;
        self.room
            .vendor
            .publish(&["operators", "set", "--tenant", TENANT, "--file", &file.display().to_string()])
            .map(drop)
    }

    /// Until the device is served and has the operators list that the vendor published last.
    fn wait_ready(&self) -> anyhow::Result<()> {
        let expired = self.list == List::Expired;
        let withdrawn = self.list == List::None;
        self.room.wait("the broker and the operators list", |status| {
            let list = if withdrawn {
                status["operators"].is_null() && status["trust"]["refreshed_at"].is_number()
            } else {
                !status["operators"].is_null() && status["trust"]["operators_expired"] == expired
            };
            (list && status["broker"]["connected"] == true).then_some(())
        })?;
        self.broker.wait("the device to be served", |seen| {
            (seen.served > 0 && seen.connects == seen.ended + 1).then_some(())
        })
    }

    fn restart(&mut self, meanwhile: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let ended = self.broker.seen().connects;
        self.room.device.daemon(Daemon::Vigild)?.kill();
        self.broker.wait("the connection to end", |seen| (seen.ended >= ended).then_some(()))?;
        meanwhile(self)?;
        self.refusals = 0;
        let served = self.broker.seen().served;
        self.room.device.start_vigild()?;
        self.broker.wait("the device to come back", |seen| (seen.served > served).then_some(()))?;
        self.wait_ready()
    }

    /// Audit entries that were not looked at yet.
    fn audit(&self) -> anyhow::Result<(u64, Vec<Value>)> {
        let mut entries = Vec::new();
        let mut first = self.audited;
        loop {
            let page = self.room.device.vigil(&["audit", "show", "--first", &first.to_string()])?;
            let found = page["entries"].as_array().cloned().unwrap_or_default();
            first += found.len() as u64;
            let size = page["size"].as_u64().context("the log has no size")?;
            ensure!(!found.is_empty() || first >= size, "the log has a gap at {first}");
            entries.extend(found);
            if first >= size {
                return Ok((size, entries));
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = self.packet_id % 60_000 + 1;
        self.packet_id
    }

    /// Plays one scenario.
    pub(super) fn play(&mut self, name: &str, scenario: &Scenario) -> anyhow::Result<()> {
        let needs = if scenario.counted { TOLD } else { refusals(scenario) + 1 };
        ensure!(needs <= TOLD, "more than {TOLD} refusals: split the scenario, or let them be counted");
        if self.refusals + needs > TOLD {
            self.restart(|_| Ok(()))?;
        }
        self.refusals += needs;
        self.audited = self.audit()?.0;
        let (published, wills, ended, pings) = {
            let seen = self.broker.seen();
            (seen.published.len(), seen.wills.len() - 1, seen.ended, seen.pings)
        };
        let mut play = Play {
            stand: self,
            name,
            expected: Expected::default(),
            sent: BTreeMap::new(),
            published,
            wills,
            ended,
            pings,
            updater_clock: 0,
            // A device may leave a broker that ignores its receive maximum; the next connection is free of the flood.
            dirty: scenario.counted,
            ends_again: scenario.counted,
        };
        for (number, step) in scenario.steps.iter().enumerate() {
            play.step(step).with_context(|| format!("step {}", number + 1))?;
        }
        play.heal(scenario.counted)?;
        play.expect_said_again(scenario);
        play.ping_twice()?;
        play.check(scenario.counted)?;
        // It may have restarted in between.
        self.refusals = self.refusals.max(needs);
        self.room.lives()
    }
}

/// How many refusals a scenario expects.
fn refusals(scenario: &Scenario) -> usize {
    let count = |step: &Step| match step {
        Step::Command(signed) => signed.times - usize::from(signed.refused.is_none() && !signed.closes),
        Step::Again(again) => again.times,
        Step::Publish(plain) if plain.refused.is_some() => plain.times,
        Step::Bytes(bytes) if bytes.refused.is_some() => bytes.times,
        _ => 0,
    };
    scenario.steps.iter().map(count).sum()
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Command(signed) => self.command(signed),
            Step::Again(again) => self.again(again),
            Step::Publish(plain) => self.publish(plain),
            Step::Bytes(bytes) => self.bytes(bytes),
            Step::Reconnect(next) => self.reconnect(next),
            Step::LateWill => self.late_will(),
            Step::Restart => self.restart(|_| Ok(())),
            Step::LoseIds => self.restart(|stand| {
                // Both files: either of them alone still knows the ids.
                let data = stand.room.device.disk.join("data");
                std::fs::remove_file(data.join("commands.log"))?;
                let file = data.join("commands.json");
                let content = std::fs::read(&file)?;
                Ok(std::fs::write(&file, &content[..content.len() / 2])?)
            }),
            Step::Operators(list) => {
                let list = *list;
                self.restart(|stand| stand.publish_list(list))
            }
            Step::Clock(seconds) => self.set_clock(*seconds),
            Step::UpdaterClock(seconds) => self.set_updater_clock(*seconds),
        }
    }

    fn id(&self, id: &str) -> String {
        format!("{}.{id}", self.name)
    }

    fn expect_refused(&mut self, reason: Reason, id: Option<String>, times: usize) {
        *self.expected.refused.entry((reason.code(), id)).or_default() += times;
    }

    fn expect_said_again(&mut self, scenario: &Scenario) {
        let ids = scenario.steps.iter().filter_map(|step| match step {
            Step::Command(signed) if signed.said_again => Some(self.id(&signed.id)),
            _ => None,
        });
        let ids: Vec<_> = ids.collect();
        self.expected.said_again = ids;
    }

    fn restart(&mut self, meanwhile: impl FnOnce(&mut Stand) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // What it was to say is said before.
        self.settle(false)?;
        self.expected.ends += 1;
        self.stand.restart(meanwhile)
    }

    fn clocks(&self) -> anyhow::Result<&Clocks> {
        self.stand.clocks.as_ref().context("this device's clock cannot be set")
    }

    fn set_clock(&mut self, seconds: i64) -> anyhow::Result<()> {
        self.settle(false)?;
        set(&self.clocks()?.vigild, seconds)
    }

    fn set_updater_clock(&mut self, seconds: i64) -> anyhow::Result<()> {
        set(&self.clocks()?.updaterd, seconds)?;
        // vigild asks for it when it starts, and otherwise once in a while.
        self.restart(|_| Ok(()))?;
        self.stand.room.wait("vigild to hear what vigil-updaterd thinks of its clock", |status| {
            (status["trust"]["clock_behind"] == (seconds < 0)).then_some(())
        })?;
        self.updater_clock = seconds;
        Ok(())
    }

    /// Puts publications on the wire.
    fn deliver(&mut self, payload: &[u8], via: &Via, times: usize) -> anyhow::Result<()> {
        for _ in 0..times {
            let topic = match via.topic.strip_prefix('/') {
                Some(whole) => whole.to_owned(),
                None if via.topic.is_empty() => String::new(),
                None => format!("{PREFIX}/{DEVICE}/{}", via.topic),
            };
            let id = via.id.unwrap_or_else(|| self.stand.next_id());
            let publish = Publish {
                topic,
                payload: payload.to_vec(),
                qos: via.qos,
                dup: via.dup,
                retain: via.retain,
                id,
                properties: via.properties.clone(),
            };
            let bytes = publish.bytes()?;
            for piece in bytes.chunks(via.pieces.unwrap_or(bytes.len())) {
                self.stand.broker.send(piece)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, signed: &Signed) -> anyhow::Result<()> {
        let id = self.id(&signed.id);
        let nonce = match signed.nonce.as_deref() {
            Some("ours") => Some(self.nonce()?),
            other => other.map(str::to_owned),
        };
        let envelope = people::envelope(signed, &id, nonce)?;
        self.sent.insert(signed.id.clone(), envelope.clone());
        if signed.closes {
            return self.until_closed(|play| play.deliver(&envelope, &signed.via, signed.times));
        }
        self.deliver(&envelope, &signed.via, signed.times)?;
        match signed.refused {
            None => {
                self.expected.carried_out.insert(id.clone(), (signed.ends, signed.reason));
                if signed.times > 1 {
                    self.expect_refused(Reason::Replayed, Some(id), signed.times - 1);
                }
            }
            Some(reason) => {
                // What cannot be read claims no id.
                let claimed = !matches!(reason, Reason::Malformed | Reason::Oversize);
                self.expect_refused(reason, claimed.then_some(id), signed.times);
            }
        }
        Ok(())
    }

    fn again(&mut self, again: &Again) -> anyhow::Result<()> {
        let envelope = self.sent.get(&again.id).context("no such command was sent")?.clone();
        self.deliver(&envelope, &again.via, again.times)?;
        let id = self.id(&again.id);
        self.expect_refused(again.refused, Some(id), again.times);
        Ok(())
    }

    fn publish(&mut self, plain: &Plain) -> anyhow::Result<()> {
        let payload = match (&plain.echo, plain.bytes) {
            (Some(rest), _) => self.said(rest)?,
            (None, Some(bytes)) => vec![b'x'; bytes],
            (None, None) => written_out(&self.fill(&plain.payload)?)?.into_bytes(),
        };
        if let Some(reason) = plain.refused {
            self.expect_refused(reason, None, plain.times);
        }
        if plain.closes {
            return self.until_closed(|play| play.deliver(&payload, &plain.via, plain.times));
        }
        if plain.answered.is_some() {
            // What else it has to say comes first.
            self.settle(false)?;
        }
        let before = self.stand.broker.seen().published.len();
        self.deliver(&payload, &plain.via, plain.times)?;
        if let Some(rest) = &plain.answered {
            let topic = format!("{PREFIX}/{DEVICE}/{rest}");
            self.stand.broker.wait(&format!("the device to answer on {rest}"), |seen| {
                seen.published[before..].iter().any(|publish| publish.topic == topic).then_some(())
            })?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &Bytes) -> anyhow::Result<()> {
        let text: String = bytes.hex.chars().filter(|character| !character.is_whitespace()).collect();
        let content = HEXLOWER.decode(text.as_bytes())?;
        if let Some(reason) = bytes.refused {
            self.expect_refused(reason, None, bytes.times);
        }
        let send = |play: &mut Self| {
            for _ in 0..bytes.times {
                play.stand.broker.send(&content)?;
            }
            Ok(())
        };
        if bytes.closes {
            return self.until_closed(send);
        }
        send(self)?;
        if bytes.then_close {
            self.until_closed(|play| {
                play.stand.broker.close();
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The device's newest words on one of its topics.
    fn said(&self, rest: &str) -> anyhow::Result<Vec<u8>> {
        let topic = format!("{PREFIX}/{DEVICE}/{rest}");
        self.stand.broker.wait(&format!("something on {rest}"), |seen| {
            seen.published.iter().rev().find(|publish| publish.topic == topic).map(|p| p.payload.clone())
        })
    }

    /// The nonce of this session: that of a digest after which nothing waits.
    fn nonce(&self) -> anyhow::Result<String> {
        self.stand.room.wait("nothing to wait", |status| {
            (status["broker"]["waiting"] == false && status["broker"]["connected"] == true).then_some(())
        })?;
        let envelope: Value = serde_json::from_slice(&self.said("digest")?)?;
        let payload = BASE64.decode(envelope["payload"].as_str().unwrap_or_default().as_bytes())?;
        let digest: Value = serde_json::from_slice(&payload)?;
        Ok(digest["nonce"].as_str().context("the digest has no nonce")?.to_owned())
    }

    fn fill(&self, text: &str) -> anyhow::Result<String> {
        if !text.contains("session}") {
            return Ok(text.to_owned());
        }
        let presence: Value = serde_json::from_slice(&self.said("presence")?)?;
        let session = presence["session"].as_u64().context("no session")?;
        Ok(text
            .replace("{session}", &session.to_string())
            .replace("{next_session}", &(session + 1).to_string()))
    }

    fn late_will(&mut self) -> anyhow::Result<()> {
        let will = self.stand.broker.seen().wills[self.wills].clone();
        let plain = Plain {
            via: Via { topic: format!("/{}", will.topic), retain: true, ..Via::default() },
            payload: String::from_utf8(will.payload)?,
            echo: None,
            bytes: None,
            times: 1,
            refused: None,
            closes: false,
            answered: Some("presence".to_owned()),
        };
        self.publish(&plain)
    }

    /// Does something after which the connection ends, and waits for that and for the next one.
    fn until_closed(&mut self, act: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (ended, connects) = self.connections();
        // A connection that is closed while it is written to is closed.
        let _ = act(self);
        self.expected.ends += 1;
        self.stand.broker.wait("the connection to end", |seen| (seen.ended > ended).then_some(()))?;
        self.stand.broker.wait("the next one", |seen| (seen.connects > connects).then_some(()))?;
        self.stand.wait_ready()
    }

    fn connections(&self) -> (u32, u32) {
        let seen = self.stand.broker.seen();
        (seen.ended, seen.connects)
    }

    fn reconnect(&mut self, next: &Next) -> anyhow::Result<()> {
        let connack = match &next.connack {
            Some(hex) => HEXLOWER.decode(hex.replace(' ', "").as_bytes())?,
            None => connack(next.session_present, next.reason, &properties(&next.properties)?),
        };
        let acknowledge = match next.acknowledge {
            Acknowledges::Once => Acknowledge::Once,
            Acknowledges::Twice => Acknowledge::Twice,
            Acknowledges::Never => Acknowledge::Never,
            Acknowledges::Another(id) => Acknowledge::Another(id),
            Acknowledges::Reason(reason) => Acknowledge::Reason(reason),
            Acknowledges::AsQosTwo => Acknowledge::AsQosTwo,
        };
        // What the device has not read when the connection ends is lost.
        self.wait_recorded(false)?;
        self.dirty = true;
        self.stand.broker.behave(Manners { connack, suback: next.suback, acknowledge });
        let (ended, connects) = self.connections();
        let served = self.stand.broker.seen().served;
        self.stand.broker.close();
        self.expected.ends += 1;
        self.stand.broker.wait("the next connection", |seen| {
            (seen.ended > ended && seen.connects > connects).then_some(())
        })?;
        if next.closes {
            self.expected.ends += 1;
            self.ends_again = true;
            self.stand
                .broker
                .wait("the device to close it", |seen| (seen.ended > ended + 1).then_some(()))?;
        } else if next.serves {
            self.stand.broker.wait("the device to subscribe", |seen| (seen.served > served).then_some(()))?;
        }
        Ok(())
    }

    /// The attack is over: an honest broker, the usual list, the right time.
    fn heal(&mut self, counted: bool) -> anyhow::Result<()> {
        if self.stand.clocks.is_some() {
            self.set_clock(0)?;
        }
        if self.updater_clock != 0 {
            self.set_updater_clock(0)?;
        }
        if self.dirty {
            self.wait_recorded(counted)?;
            self.stand.broker.behave(Manners::honest(false));
            let served = self.stand.broker.seen().served;
            self.stand.broker.close();
            self.expected.ends += u32::from(!self.ends_again || counted);
            self.stand.broker.wait("an honest connection", |seen| {
                (seen.served > served && seen.connects == seen.ended + 1).then_some(())
            })?;
        }
        if self.stand.list != List::Usual {
            self.restart(|stand| stand.publish_list(List::Usual))?;
        }
        self.stand.wait_ready()
    }

    /// A legitimate command, delivered twice.
    fn ping_twice(&mut self) -> anyhow::Result<()> {
        let last = Signed { id: "last".into(), ..Signed::default() };
        let via = Via { id: Some(60_001), ..Via::default() };
        self.command(&Signed { via: via.clone(), ..last })?;
        self.again(&Again {
            id: "last".into(),
            via: Via { dup: true, ..via },
            times: 1,
            refused: Reason::Replayed,
        })
    }

    /// What the device has published since the scenario began, as JSON, of the answers to one command.
    fn answers(&self, id: &str) -> Vec<Value> {
        let topic = format!("{PREFIX}/{DEVICE}/result/{id}");
        let seen = self.stand.broker.seen();
        let answers = seen.published[self.published..].iter().filter(|publish| publish.topic == topic);
        answers.filter_map(|publish| serde_json::from_slice(&publish.payload).ok()).collect()
    }

    /// Whether everything that must be answered is.
    fn unanswered(&self, counted: bool) -> Option<String> {
        let ended = |id: &str, status: Status, reason: Reason| {
            let wanted = (json!(status), json!(reason));
            self.answers(id)
                .iter()
                .any(|answer| (answer["status"].clone(), answer["reason"].clone()) == wanted)
        };
        for id in &self.expected.said_again {
            let last = self.answers(id).into_iter().filter(|answer| answer["status"] == "succeeded").count();
            if last < 2 {
                return Some(format!("the last answer to {id} is not said again"));
            }
        }
        for (id, (status, reason)) in &self.expected.carried_out {
            if !ended(id, *status, *reason) {
                return Some(format!("{id} is not {status:?}: {:?}", self.answers(id)));
            }
        }
        for (reason, id) in self.expected.refused.keys() {
            let (Some(id), false) = (id, counted) else { continue };
            let rejected = self.answers(id).into_iter();
            if !rejected.into_iter().any(|a| a["status"] == "rejected" && a["reason"] == reason.as_str()) {
                return Some(format!("{id} is not rejected as {reason}: {:?}", self.answers(id)));
            }
        }
        None
    }

    /// Waits until nothing forged was carried out, what is legitimate was exactly once, and every refusal is recorded.
    fn wait_recorded(&self, counted: bool) -> anyhow::Result<()> {
        let mut problem = String::new();
        let waited = wait_for("what the device makes of it", LIMIT, || {
            let held = self.stand.audit().and_then(|(_, entries)| self.held(&entries, counted));
            held.map_err(|error| problem = format!("{error:#}")).ok()
        });
        waited.with_context(|| problem)
    }

    /// And until the broker has the answers.
    fn settle(&self, counted: bool) -> anyhow::Result<()> {
        self.wait_recorded(counted)?;
        let mut missing = None;
        let waited = wait_for("every answer", LIMIT, || {
            missing = self.unanswered(counted);
            missing.is_none().then_some(())
        });
        waited.with_context(|| missing.unwrap_or_default())
    }

    fn check(&self, counted: bool) -> anyhow::Result<()> {
        self.settle(counted)?;
        let (ends, pings) = {
            let seen = self.stand.broker.seen();
            (seen.ended - self.ended, seen.pings - self.pings)
        };
        let wanted = self.expected.ends;
        let is_right = ends == wanted || (self.ends_again && ends > wanted);
        ensure!(is_right, "{ends} connections ended, not {wanted}");
        ensure!(pings <= PINGS, "{pings} pings");
        let (_, entries) = self.stand.audit()?;
        entries.iter().try_for_each(check_shown)?;
        let of_results = format!("{PREFIX}/{DEVICE}/result/");
        let seen = self.stand.broker.seen();
        let results =
            seen.published[self.published..].iter().filter(|publish| publish.topic.starts_with(&of_results));
        for result in results {
            check_shown(&serde_json::from_slice(&result.payload)?)?;
        }
        Ok(())
    }

    /// Holds audit entries against what is expected.
    fn held(&self, entries: &[Value], counted: bool) -> anyhow::Result<()> {
        for event in ["command.accepted", "command.finished"] {
            let mut ids: BTreeMap<String, usize> = BTreeMap::new();
            for entry in entries.iter().filter(|entry| entry["event"] == event) {
                *ids.entry(entry["detail"]["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            let wanted: BTreeMap<_, _> = self.expected.carried_out.keys().map(|id| (id.clone(), 1)).collect();
            ensure!(ids == wanted, "{event}: {ids:?}, not {wanted:?}");
        }
        let mut refused: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
        let mut untold = 0;
        for entry in entries.iter().filter(|entry| entry["event"] == "command.refused") {
            let detail = &entry["detail"];
            untold += detail["others_untold"].as_u64().unwrap_or_default() as usize;
            if let Some(reason) = detail["reason"].as_str() {
                let id = detail["claimed_id"].as_str().map(str::to_owned);
                *refused.entry((reason.to_owned(), id)).or_default() += 1;
            }
        }
        if !counted {
            ensure!(refused == self.expected.refused && untold == 0, "refused: {refused:?}, {untold} untold");
            return Ok(());
        }
        let told: usize = refused.values().sum();
        let all: usize = self.expected.refused.values().sum();
        // What the device has not read when it leaves is lost.
        let (ends, _) = self.connections();
        let has_left = ends - self.ended > self.expected.ends;
        let is_whole = told + untold == all || (has_left && told + untold < all);
        ensure!(is_whole, "{told} refusals told and {untold} counted, not {all}");
        let known = refused.keys().all(|refusal| self.expected.refused.contains_key(refusal));
        ensure!(known && told >= TOLD, "told: {refused:?}");
        Ok(())
    }
}

/// Whether an audit entry, or a result, can be shown to a person and stored, whoever caused it: it holds no character that
/// moves, hides or reorders text, and if it is of a refusal, it is short and its message repeats nothing.
fn check_shown(said: &Value) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    collect_texts(said, &mut texts);
    let strange = texts.iter().flat_map(|text| text.chars()).find(|character| is_strange(*character));
    ensure!(strange.is_none(), "{strange:?} in {}", said.to_string().escape_debug());
    if said["outcome"] == "refused" || said["status"] == "rejected" {
        let size = said.to_string().len();
        ensure!(size <= REFUSAL_BYTES, "{size} bytes of a refusal: {said}");
        let message = said["message"].as_str().or(said["detail"]["message"].as_str()).unwrap_or_default();
        ensure!(!message.contains(MARKER), "the message repeats what was sent: {message}");
    }
    Ok(())
}

/// All strings in it, names of members too.
fn collect_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(members) => {
            for (name, value) in members {
                texts.push(name);
                collect_texts(value, texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Control characters, line and paragraph separators, and what sets the direction of text (UAX 9) or has no width.
fn is_strange(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}
