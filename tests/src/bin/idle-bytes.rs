//! What an idle device costs its network in a day: a real vigild at a Mosquitto over TLS, through a relay that reads the
//! records' headers, with the timers compressed. Mosquitto's log tells what is in the records.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::wait_for;

/// The most that is allowed in a day, of TCP's payload.
const LIMIT_BYTES: f64 = 150e3;
const DAY: f64 = 86_400.0;
/// The timers of the day, in seconds: keep-alive, and silence that health breaks. Both are the defaults.
const KEEP_ALIVE: f64 = 60.0;
const MAX_SILENCE: f64 = 3600.0;
/// The same here. 10 s is the shortest keep-alive that the configuration takes.
const SHORT_KEEP_ALIVE: u32 = 10;
const SHORT_SILENCE: u32 = 60;
/// After the device is connected: what the start brings is over.
const SETTLED: Duration = Duration::from_secs(45);
/// Nothing is under way when nothing has been for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Over TLS 1.3's plaintext: header 5, content type 1, tag 16 (RFC 8446, section 5.2).
const RECORD_HEADER: usize = 5;
const RECORD_OVERHEAD: usize = RECORD_HEADER + 1 + 16;
/// IPv4's and TCP's headers without options.
const PACKET_HEADERS: usize = 40;
/// Records closer than this belong to one exchange, which TCP acknowledges with one packet more.
const EXCHANGE: Duration = Duration::from_millis(100);

/// Measures what an idle device sends and receives, and makes a day of it.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 at most 150 KB of TCP payload in a day, 1 more, or not measured.")]
struct Arguments {
    /// How long to watch
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(90..))]
    seconds: u64,
    /// Also print every record and packet
    #[arg(long)]
    verbose: bool,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Device,
    Broker,
}

/// A TLS record on the wire.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Instant,
    speaker: Speaker,
    kind: u8,
    /// With its header.
    bytes: usize,
}

/// What the relay saw.
#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    bytes: usize,
    connections: usize,
}

type Shared = Arc<Mutex<Seen>>;

fn with<T>(shared: &Shared, look: impl FnOnce(&mut Seen) -> T) -> T {
    look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Relays every connection to the broker.
fn relay(listener: TcpListener, port: u16, shared: &Shared) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for device in listener.incoming().flatten() {
            let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let _ = (device.set_nodelay(true), broker.set_nodelay(true));
            let (Ok(back), Ok(forth)) = (broker.try_clone(), device.try_clone()) else { continue };
            with(&shared, |seen| seen.connections += 1);
            for (from, to, speaker) in [(device, broker, Speaker::Device), (back, forth, Speaker::Broker)] {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || carry(from, to, speaker, &shared));
            }
        }
    });
}

fn carry(mut from: TcpStream, mut to: TcpStream, speaker: Speaker, shared: &Shared) {
    let (mut buffer, mut waiting) = (vec![0; 1 << 16], Vec::new());
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        waiting.extend_from_slice(&buffer[..count]);
        with(shared, |seen| {
            seen.bytes += count;
            while let Some(bytes) = whole_record(&waiting) {
                seen.records.push(Record { at: Instant::now(), speaker, kind: waiting[0], bytes });
                waiting.drain(..bytes);
            }
        });
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The length of the record that these bytes begin with, if all of it is there.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let header: [u8; RECORD_HEADER] = bytes.get(..RECORD_HEADER)?.try_into().ok()?;
    let length = RECORD_HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (bytes.len() >= length).then_some(length)
}

/// An MQTT packet that Mosquitto's log tells of.
#[derive(Clone, Debug)]
struct Packet {
    speaker: Speaker,
    cause: String,
    bytes: usize,
}

/// Reads the log's lines about the device; what has no place in a steady connection has no size and is left out.
fn packets(log: &str) -> Vec<Packet> {
    let mut packets = Vec::new();
    // What was published by whom waits for its acknowledgement.
    let mut waiting: BTreeMap<(bool, String), String> = BTreeMap::new();
    for line in log.lines() {
        let Some((_, line)) = line.split_once(": ") else { continue };
        let (speaker, rest) = match (line.strip_prefix("Received "), line.strip_prefix("Sending ")) {
            (Some(rest), _) => (Speaker::Device, rest),
            (_, Some(rest)) => (Speaker::Broker, rest),
            _ => continue,
        };
        let mut words = rest.split_whitespace();
        let (kind, client) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        if client != DEVICE {
            continue;
        }
        let from_device = speaker == Speaker::Device;
        let (cause, bytes) = match kind {
            "PINGREQ" | "PINGRESP" => ("keep-alive".to_owned(), 2),
            "PUBLISH" => {
                let Some((topic, payload, id)) = publish(rest) else { continue };
                let cause = topic.split_once(&format!("/{DEVICE}/")).map_or(topic, |(_, level)| level);
                let cause = cause.split('/').next().unwrap_or(cause).to_owned();
                waiting.insert((from_device, id.to_owned()), cause.clone());
                (cause, publish_bytes(topic, payload))
            }
            "PUBACK" => {
                let id = digits_after(rest, if from_device { "Mid: " } else { "(m" });
                let cause = waiting.remove(&(!from_device, id)).unwrap_or_else(|| "other".to_owned());
                (cause, puback_bytes(rest))
            }
            _ => continue,
        };
        packets.push(Packet { speaker, cause, bytes });
    }
    packets
}

fn digits_after(text: &str, mark: &str) -> String {
    let rest = text.split_once(mark).map_or("", |(_, rest)| rest);
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// Topic, payload's bytes and packet id of `PUBLISH from room-1 (d0, q1, r1, m5, 'topic', ... (123 bytes))`.
fn publish(rest: &str) -> Option<(&str, usize, &str)> {
    let (head, tail) = rest.split_once(", '")?;
    let (topic, tail) = tail.split_once('\'')?;
    let bytes = tail.rsplit_once('(')?.1.split_once(' ')?.0.parse().ok()?;
    Some((topic, bytes, head.rsplit_once(", m")?.1))
}

/// What the agent's PUBLISH takes with QoS 1 and a content type of `application/json` (MQTT 5, section 3.3).
fn publish_bytes(topic: &str, payload: usize) -> usize {
    let properties = 1 + 3 + "application/json".len();
    let remaining = 2 + topic.len() + 2 + properties + payload;
    1 + length_bytes(remaining) + remaining
}

/// MQTT's variable byte integer.
fn length_bytes(mut value: usize) -> usize {
    let mut bytes = 1;
    while value >= 128 {
        value /= 128;
        bytes += 1;
    }
    bytes
}

/// A reason other than success takes a byte more.
fn puback_bytes(rest: &str) -> usize {
    if rest.to_lowercase().replace("rc:", "rc").contains("rc0") { 4 } else { 5 }
}

/// A cause's part of what was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Of the device's messages.
    events: usize,
    bytes: usize,
    tls: usize,
}

/// Gives every record's bytes to what is in it.
fn split(records: &[Record], packets: &[Packet]) -> anyhow::Result<BTreeMap<String, Share>> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for speaker in [Speaker::Device, Speaker::Broker] {
        let mut logged = packets.iter().filter(|packet| packet.speaker == speaker);
        for record in records.iter().filter(|record| record.speaker == speaker) {
            ensure!(record.kind == 23, "a record of type {} in a steady connection", record.kind);
            let mut rest = record.bytes.saturating_sub(RECORD_OVERHEAD);
            let mut overhead = RECORD_OVERHEAD;
            while rest > 0 {
                let packet = logged.next().context("a record holds what Mosquitto did not log")?;
                let fits = packet.bytes <= rest;
                ensure!(fits, "{rest} bytes left in a record, and Mosquitto logged {packet:?}");
                rest -= packet.bytes;
                let share = shares.entry(packet.cause.clone()).or_default();
                share.events += usize::from(speaker == Speaker::Device);
                // The first in the record bears its overhead.
                share.bytes += packet.bytes + overhead;
                share.tls += overhead;
                overhead = 0;
            }
        }
        ensure!(logged.next().is_none(), "Mosquitto logged what no record holds");
    }
    Ok(shares)
}

/// Packets as they would be: one a record, and one acknowledgement an exchange. An estimate.
fn estimated_packets(records: &[Record]) -> usize {
    let exchanges = records.windows(2).filter(|pair| pair[1].at - pair[0].at > EXCHANGE).count() + 1;
    records.len() + exchanges
}

/// Waits until nothing is under way: how many records there are, and the bytes of Mosquitto's log.
fn quiet(shared: &Shared, room: &Room) -> anyhow::Result<(usize, usize)> {
    let log = room.directory.path().join("broker/broker.log");
    wait_for("a quiet moment", Duration::from_secs(60), || {
        let before = with(shared, |seen| (seen.records.len(), seen.records.last().map(|last| last.at)));
        if before.1.is_none_or(|at| at.elapsed() < QUIET) {
            return None;
        }
        let logged = log.metadata().ok()?.len() as usize;
        // Nothing came while we looked.
        with(shared, |seen| seen.records.len() == before.0).then_some((before.0, logged))
    })
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("idle-bytes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let relay_port = listener.local_addr()?.port();
    let mut room = Room::with(|options| {
        let (url, rest) = options.broker.split_once('\n').unwrap_or_default();
        let host = url.rsplit_once(':').map_or(url, |(host, _)| host);
        options.broker = format!("{host}:{relay_port}\"\n{rest}");
        // The machine that this runs on is not idle: its load, memory, disks and temperatures are left out.
        options.health = format!(
            "interval = \"1s\"\nmax_silence = \"{SHORT_SILENCE}s\"\n[health.deadbands]\ncpu_permille = 1000\n\
             load = 1000.0\nmemory_permille = 1000\ndisk_permille = 1000\ntemperature_celsius = 1000.0\n"
        );
        "60s".clone_into(&mut options.refresh_interval);
    })?;
    let shared = Shared::default();
    relay(listener, room.broker_port()?, &shared);
    room.device.power_on()?;
    room.wait_ready()?;
    eprintln!("connected; watching for {} s", SETTLED.as_secs() + arguments.seconds);
    let (from, log_from) = watch(&shared, &mut room, SETTLED)?;
    let began = Instant::now();
    let (to, log_to) = watch(&shared, &mut room, Duration::from_secs(arguments.seconds))?;
    let seconds = began.elapsed().as_secs_f64();

    let log = std::fs::read_to_string(room.directory.path().join("broker/broker.log"))?;
    let (records, bytes, connections) =
        with(&shared, |seen| (seen.records.clone(), seen.bytes, seen.connections));
    ensure!(connections == 1, "{connections} connections instead of one");
    let (start, steady) = (&records[..from], &records[from..to]);
    let (logged_start, logged) = (packets(&log[..log_from]), packets(&log[log_from..log_to]));
    if arguments.verbose {
        for record in &records {
            println!("{:?}", (record.at - records[0].at, record.speaker, record.kind, record.bytes));
        }
        for packet in &logged {
            println!("{packet:?}");
        }
    }
    ensure!(
        records.iter().map(|record| record.bytes).sum::<usize>() == bytes,
        "bytes that are no TLS record"
    );
    report(&split(steady, &logged)?, steady, seconds, start, &logged_start)
}

/// Waits, while the daemons live.
fn watch(shared: &Shared, room: &mut Room, time: Duration) -> anyhow::Result<(usize, usize)> {
    let end = Instant::now() + time;
    wait_for("the end of the time", time + Duration::from_secs(60), || {
        (Instant::now() >= end).then_some(())
    })?;
    room.lives()?;
    quiet(shared, room)
}

fn report(
    shares: &BTreeMap<String, Share>,
    steady: &[Record],
    seconds: f64,
    start: &[Record],
    logged_start: &[Packet],
) -> anyhow::Result<bool> {
    println!(
        "{seconds:.0} s of an idle device, with a keep-alive of {SHORT_KEEP_ALIVE} s and health every {SHORT_SILENCE} s; \
         a day has {KEEP_ALIVE:.0} s and {MAX_SILENCE:.0} s"
    );
    println!("\n{:<26} {:>7} {:>12} {:>8} {:>9}", "cause", "seen", "bytes each", "a day", "KB a day");
    let mut day = 0.0;
    for (cause, share) in shares {
        // A digest vouches for the health before it: they come as often.
        let timer = match cause.as_str() {
            "keep-alive" => Some((SHORT_KEEP_ALIVE, KEEP_ALIVE)),
            "health" | "digest" => Some((SHORT_SILENCE, MAX_SILENCE)),
            _ => None,
        };
        // What a timer brings comes in a day as often as the day's timer says; what came beyond it was not compressed.
        let expected = timer.map_or(0, |(short, _)| (seconds / f64::from(short)) as usize + 1);
        let beyond = share.events.saturating_sub(expected) as f64 / seconds * DAY;
        let events = timer.map_or(0.0, |(_, long)| DAY / long) + beyond;
        let each = share.bytes as f64 / share.events.max(1) as f64;
        day += events * each;
        println!("{cause:<26} {:>7} {each:>12.1} {events:>8.0} {:>9.1}", share.events, events * each / 1e3);
    }
    let tls: usize = shares.values().map(|share| share.tls).sum();
    let all: usize = shares.values().map(|share| share.bytes).sum();
    let session: usize = start.iter().map(|record| record.bytes).sum();
    let said: usize = logged_start.iter().map(|packet| packet.bytes).sum();
    day += session as f64;
    println!(
        "{:<26} {:>7} {session:>12} {:>8} {:>9.1}",
        "a start of the session",
        1,
        1,
        session as f64 / 1e3
    );
    println!("{:<26} {:>48.1} KB (at most {:.0})", "all, TCP's payload", day / 1e3, LIMIT_BYTES / 1e3);
    let mut messages: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for packet in logged_start {
        let (count, bytes) = messages.entry(&packet.cause).or_default();
        *count += usize::from(packet.speaker == Speaker::Device);
        *bytes += packet.bytes;
    }
    println!("\nthe start, {} s of it, without TLS's records:", SETTLED.as_secs());
    for (cause, (count, bytes)) in &messages {
        println!("{cause:<26} {count:>7} {bytes:>12}");
    }
    println!("{:<26} {:>7} {:>12}", "handshake, CONNECT, TLS", 1, session - said);
    println!("\notherwise {:.0} % is TLS's records", tls as f64 / all as f64 * 100.0);
    let ping = shares.get("keep-alive").context("no keep-alive was seen")?;
    let ping_packets = DAY / KEEP_ALIVE * 3.0;
    let other_packets = (estimated_packets(steady) as f64 - ping.events as f64 * 3.0).max(0.0) / seconds
        * DAY
        * f64::from(SHORT_SILENCE)
        / MAX_SILENCE;
    let headers = (ping_packets + other_packets + estimated_packets(start) as f64) * PACKET_HEADERS as f64;
    println!(
        "not counted in the {:.0} KB: IP's and TCP's headers, about {:.0} KB at {PACKET_HEADERS} bytes a packet (an estimate: a packet for each \
         record, and one acknowledgement an exchange); {:.0} KB of it are the headers of {:.0} pings, which no agent with \
         this keep-alive can save",
        LIMIT_BYTES / 1e3,
        headers / 1e3,
        ping_packets * PACKET_HEADERS as f64 / 1e3,
        DAY / KEEP_ALIVE
    );
    let once = ["health", "digest"].iter().filter_map(|cause| shares.get(*cause));
    let once: f64 = once.map(|share| share.bytes as f64 / share.events.max(1) as f64).sum();
    println!(
        "a message of health beyond these, with its digest, costs {once:.0} bytes: {:.0} more a day fit",
        ((LIMIT_BYTES - day) / once).floor()
    );
    Ok(day <= LIMIT_BYTES)
}
