//! Kills the agent and the broker again and again while signed commands go through, and reconciles at the end: what the
//! operator sent, what an outside subscriber heard, what the audit log and the device's own account say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use ed25519_dalek::SigningKey;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;
use vigil_fleet::link::Link;
use vigil_fleet::order::{Order, Request};
use vigil_fleet::settings::Layer;
use vigil_protocol::command::Target;
use vigil_tests::device::Daemon;
use vigil_tests::process::Process;
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::vendor::TENANT;

const PREFIX: &str = "vigil/v1";
/// Commands under way at a time.
const WINDOW: usize = 16;
/// Unanswered for so long, a command is sent again, under the same id.
const AGAIN: Duration = Duration::from_secs(4);
/// How long a command is valid. A device remembers 1,024 ids that are.
const LIFETIME: Duration = Duration::from_secs(15);
/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills agent and broker while commands go through, and reconciles what came out.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 nothing is lost and every message is accounted for, 1 not.")]
struct Arguments {
    /// Commands, of which each makes the device produce an answer, besides its states
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// kill -9 of the agent
    #[arg(long, default_value_t = 200)]
    agent_kills: usize,
    /// kill -9 of the broker
    #[arg(long, default_value_t = 50)]
    broker_kills: usize,
    /// Of the order and the moments of the kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let storm = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(storm(&arguments)));
    match storm {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill-storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A number generator of which the seed is all there is to know (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

/// `mosquitto_sub`, with a session that outlives the broker. It ends with a connection, and is started again.
struct Subscriber {
    arguments: Vec<OsString>,
    file: PathBuf,
    read: u64,
    rest: String,
    process: Process,
}

impl Subscriber {
    fn start(room: &Room) -> anyhow::Result<Self> {
        let (certificate, key) = room.pki().client("olga")?;
        let file = room.directory.path().join("heard.jsonl");
        let words = "-V 5 -c -i recorder -x 86400 -q 1 -F %j -h localhost".split(' ').map(OsString::from);
        let options = ["-t", "-p", "--cafile", "--cert", "--key"].map(OsString::from);
        let values = [
            format!("{PREFIX}/{DEVICE}/result/+").into(),
            room.broker_port()?.to_string().into(),
            room.pki().ca().into(),
            certificate.into(),
            key.into(),
        ];
        let pairs =
            options.into_iter().zip(values).flat_map(|(option, value): (_, OsString)| [option, value]);
        let arguments: Vec<_> = words.chain(pairs).collect();
        let process = Self::run(&arguments, &file)?;
        Ok(Self { arguments, file, read: 0, rest: String::new(), process })
    }

    fn run(arguments: &[OsString], file: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new("mosquitto_sub");
        command.args(arguments);
        Process::start("mosquitto_sub", command, file)
    }

    /// The answers that have come since the last look.
    fn heard(&mut self) -> anyhow::Result<Vec<Value>> {
        if self.process.exited().is_some() {
            self.process = Self::run(&self.arguments, &self.file)?;
        }
        let mut file = std::fs::File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += file.read_to_end(&mut bytes)? as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.rest.rfind('\n') else { return Ok(Vec::new()) };
        let lines: String = self.rest.drain(..=end).collect();
        let payload = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            serde_json::from_str(message["payload"].as_str()?).ok()
        };
        Ok(lines.lines().filter_map(payload).collect())
    }
}

/// What is known of the commands that were sent.
#[derive(Default)]
struct Book {
    sent: usize,
    /// When an unanswered one was sent last.
    waiting: BTreeMap<String, Instant>,
    /// How often which final answer came.
    finals: BTreeMap<String, BTreeMap<String, u32>>,
    sent_again: u64,
}

impl Book {
    fn hear(&mut self, answer: &Value) {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let (id, status) = (text("id"), text("status"));
        if ["succeeded", "failed", "interrupted"].contains(&status.as_str()) {
            self.waiting.remove(&id);
            *self.finals.entry(id).or_default().entry(status).or_default() += 1;
        }
    }
}

async fn storm(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut room = Room::with(|options| {
        options.broker.push_str("max_commands_per_minute = 1000000\n");
        // Ten thousand commands spend a day's writes within seconds. What is done without then, and counted, is not what is
        // sought here.
        options.more.push_str("[outbox]\nmax_flash_bytes_per_day = \"1GiB\"\n");
    })?;
    // What the broker has acknowledged it has on its disk, as far as Mosquitto can.
    room.broker()?.configure("autosave_interval 1\nautosave_on_changes true\n")?;
    room.device.power_on()?;
    room.wait_ready()?;
    let mut subscriber = Subscriber::start(&room)?;
    let (certificate, key) = room.pki().client("olga")?;
    let settings = Layer {
        broker: Some(format!("mqtts://localhost:{}", room.broker_port()?)),
        ca: Some(room.pki().ca()),
        cert: Some(certificate),
        key: Some(key),
        ..Layer::default()
    };
    let operator = vigil_fleet::keys::load(&room.vendor.operator_key())?;

    let mut random = Random(arguments.seed);
    let kills = shuffled(arguments, &mut random);
    // Each is answered once; what the device says of itself with every restart comes on top.
    let commands = arguments.messages as usize;
    let answers_between = (commands / (kills.len() + 1)).max(1) as u64;
    let bar = ProgressBar::new(commands as u64).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:40} {pos}/{len} commands answered, {msg}",
    )?);
    let began = Instant::now();
    let mut book = Book::default();
    let mut link = None;
    let mut killed = 0;
    let mut next_kill = random.below(2 * answers_between) as usize;
    let mut last_progress = Instant::now();
    while book.finals.len() < commands {
        if last_progress.elapsed() > PATIENCE {
            println!(
                "no answer for {} s after {killed} kills to {:?}",
                PATIENCE.as_secs(),
                book.waiting.keys()
            );
            break;
        }
        let answered = book.finals.len();
        for answer in subscriber.heard()? {
            book.hear(&answer);
        }
        if book.finals.len() > answered {
            last_progress = Instant::now();
        }
        bar.set_position(book.finals.len() as u64);
        bar.set_message(format!("{killed} kills"));
        if let Some(victim) = kills.get(killed)
            && (book.finals.len() >= next_kill || last_progress.elapsed() > Duration::from_secs(3))
        {
            kill(&mut room, *victim)?;
            killed += 1;
            next_kill = book.finals.len() + random.below(2 * answers_between) as usize;
            last_progress = Instant::now();
        }
        send(&mut link, &settings, &operator, &mut book, commands).await;
    }
    while let Some(victim) = kills.get(killed) {
        kill(&mut room, *victim)?;
        killed += 1;
    }
    bar.finish_and_clear();
    let sound = reconcile(&room, &mut subscriber, &mut book, arguments)?;
    println!(
        "{} kill -9 of the agent, {} of the broker, seed {}, {:.0} s",
        arguments.agent_kills,
        arguments.broker_kills,
        arguments.seed,
        began.elapsed().as_secs_f64()
    );
    Ok(sound)
}

fn shuffled(arguments: &Arguments, random: &mut Random) -> Vec<bool> {
    let mut kills: Vec<bool> = std::iter::repeat_n(true, arguments.agent_kills)
        .chain(std::iter::repeat_n(false, arguments.broker_kills))
        .collect();
    for place in (1..kills.len()).rev() {
        kills.swap(place, random.below(place as u64 + 1) as usize);
    }
    kills
}

/// Kills the agent, or else the broker, and starts it again.
fn kill(room: &mut Room, agent: bool) -> anyhow::Result<()> {
    if agent {
        room.device.daemon(Daemon::Vigild)?.kill();
        room.device.start_vigild()
    } else {
        room.broker()?.kill();
        room.broker()?.resume()
    }
}

/// Fills the window, and sends again what has waited long.
async fn send(
    link: &mut Option<Link>,
    settings: &Layer,
    operator: &SigningKey,
    book: &mut Book,
    commands: usize,
) {
    if link.is_none() {
        *link = Link::open(settings).await.ok();
    }
    let Some(open) = link else { return };
    let again = book.waiting.iter().find(|(_, at)| at.elapsed() > AGAIN).map(|(id, _)| id.clone());
    let id = match again {
        Some(id) => {
            book.sent_again += 1;
            id
        }
        None if book.waiting.len() < WINDOW && book.sent < commands => {
            book.sent += 1;
            format!("k-{}", book.sent)
        }
        // Nothing to send: a moment for the answers.
        None => return tokio::time::sleep(Duration::from_millis(2)).await,
    };
    let request = Request {
        id: Some(&id),
        kind: "ping",
        args: [].into(),
        tenant: TENANT,
        target: Target::Device(DEVICE.to_owned()),
        lifetime: LIFETIME,
        nonce: None,
    };
    let Ok(order) = Order::sign(request, operator, Timestamp::now()) else { return };
    book.waiting.insert(id, Instant::now());
    if open.publish(&format!("{PREFIX}/{DEVICE}/command"), order.envelope, LIFETIME).await.is_err() {
        *link = None;
    }
}

fn reconcile(
    room: &Room,
    subscriber: &mut Subscriber,
    book: &mut Book,
    arguments: &Arguments,
) -> anyhow::Result<bool> {
    let outbox = room.wait("nothing to wait in the outbox", |status| {
        let broker = &status["broker"];
        (broker["connected"] == true && broker["waiting"] == false).then(|| broker["outbox"].clone())
    })?;
    for answer in subscriber.heard()? {
        book.hear(&answer);
    }
    let lost = book.sent - book.finals.len();
    let contradicted = book.finals.values().filter(|answers| answers.len() > 1).count();
    let repeated: u32 = book.finals.values().flat_map(BTreeMap::values).map(|count| count - 1).sum();
    let accepted = accepted(&room.device.disk.join("data/audit"))?;
    let twice = accepted.values().filter(|count| **count > 1).count();
    for id in accepted.keys().filter(|id| !book.finals.contains_key(*id)) {
        println!("{id} was accepted, and no answer was heard");
    }
    let unheard = accepted.keys().filter(|id| !book.finals.contains_key(*id)).count();

    println!("commands         {} sent, {} sent again", book.sent, book.sent_again);
    println!(
        "answers          {} heard, {lost} lost, {contradicted} contradicted, {repeated} repeated",
        book.finals.len()
    );
    println!("audit log        {} accepted, {twice} twice, {unheard} without an answer", accepted.len());
    let (mut balanced, mut produced) = (true, 0);
    for class in ["messages", "states"] {
        let count = |name: &str| outbox[class][name].as_u64().unwrap_or_default();
        let dropped = count("dropped_full") + count("dropped_too_large") + count("dropped_unsaved");
        let gone = count("acknowledged") + count("compacted") + dropped;
        let waiting = count("produced").cast_signed() - gone.cast_signed();
        println!(
            "{class:<16} {} produced = {} acknowledged + {} compacted + {dropped} dropped + {waiting} waiting; {} repeated",
            count("produced"),
            count("acknowledged"),
            count("compacted"),
            count("repeated")
        );
        balanced &= waiting == 0 && dropped == 0;
        produced += count("produced");
    }
    if produced < arguments.messages {
        println!("only {produced} messages were produced, fewer than {}", arguments.messages);
    }
    if let Some(directory) = std::env::var_os("VIGIL_KEEP") {
        std::fs::rename(room.directory.path(), directory)?;
    }
    let sound = lost == 0 && contradicted == 0 && twice == 0 && unheard == 0 && accepted.len() == book.sent;
    Ok(sound && balanced && produced >= arguments.messages)
}

/// How often each command was accepted, by the files of the audit log.
fn accepted(directory: &Path) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut accepted = BTreeMap::new();
    for path in std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for entry in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if entry["event"] == "command.accepted"
                && let Some(id) = entry["detail"]["id"].as_str()
            {
                *accepted.entry(id.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(accepted)
}
