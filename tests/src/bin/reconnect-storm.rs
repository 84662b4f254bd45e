//! What a broker sees when it comes back and its whole fleet does as well: devices in virtual time, with the agent's own
//! back-off, beside what is usual instead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use vigil_agent::link::{Backoff, spread};

const SECOND: Duration = Duration::from_secs(1);
/// Nobody waits for a fleet any longer; whoever is not back by then never is.
const GIVEN_UP: Duration = Duration::from_secs(24 * 3600);
/// The agent's defaults.
const BACKOFF_MIN: Duration = SECOND;
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Nor is anybody else's way of waiting followed for more attempts a device: memory ends before they do.
const ATTEMPTS: usize = 64;
const ROWS: usize = 24;
const BAR: usize = 60;

/// Simulates a fleet that loses its broker all at once, and counts how it comes back.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 no second saw more attempts than the rate and all are back, 1 not so, 2 wrong usage."
)]
struct Arguments {
    /// The fleet
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    devices: u32,
    /// Attempts in any second at most: max_connects_per_second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds for which the broker is away; attempts count as well
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    down: u32,
    /// Connections that the broker takes in a second, the others fail; as many as --rate unless given
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    accept: Option<u32>,
    /// Of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw all of them into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// How long a device waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Vigil,
    FullJitter,
    EqualJitter,
    NoJitter,
}

impl Strategy {
    const ALL: [Self; 4] = [Self::Vigil, Self::FullJitter, Self::EqualJitter, Self::NoJitter];

    const fn name(self) -> &'static str {
        match self {
            Self::Vigil => "vigil",
            Self::FullJitter => "full jitter, 1 s doubling to 5 min",
            Self::EqualJitter => "equal jitter, 1 s doubling to 5 min",
            Self::NoJitter => "no jitter, 1 s doubling to 5 min",
        }
    }
}

/// A device that is not connected.
struct Device {
    strategy: Strategy,
    backoff: Backoff,
    attempts: u32,
}

impl Device {
    fn new(strategy: Strategy, arguments: &Arguments) -> Self {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        if strategy == Strategy::Vigil {
            backoff = backoff.for_fleet(arguments.devices, arguments.rate);
            backoff.lost();
        }
        Self { strategy, backoff, attempts: 0 }
    }

    fn wait(&mut self, random: u64) -> Duration {
        let ceiling = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(self.attempts)).min(BACKOFF_MAX);
        self.attempts = (self.attempts + 1).min(30);
        match self.strategy {
            Strategy::Vigil | Strategy::FullJitter => self.backoff.next(false, random),
            Strategy::EqualJitter => ceiling.mul_f64(0.5 + random as f64 / u64::MAX as f64 / 2.0),
            Strategy::NoJitter => ceiling,
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What came of it. Times are since the broker went.
struct Storm {
    /// Of all attempts, in order.
    attempts: Vec<Duration>,
    /// When each device was back, in order.
    back: Vec<Duration>,
}

impl Storm {
    fn play(strategy: Strategy, arguments: &Arguments) -> Self {
        let mut random = Random(arguments.seed);
        let mut devices: Vec<_> = (0..arguments.devices).map(|_| Device::new(strategy, arguments)).collect();
        let mut next: BinaryHeap<_> = devices
            .iter_mut()
            .enumerate()
            .map(|(number, device)| Reverse((device.wait(random.next()), number)))
            .collect();
        let down = Duration::from_secs(arguments.down.into());
        let accept = arguments.accept.unwrap_or(arguments.rate);
        let mut storm = Self { attempts: Vec::new(), back: Vec::new() };
        let mut taken = (0, 0);
        while let Some(Reverse((now, number))) = next.pop() {
            let is_hopeless = storm.attempts.len() / devices.len() >= ATTEMPTS;
            if now >= GIVEN_UP || (is_hopeless && strategy != Strategy::Vigil) {
                break;
            }
            storm.attempts.push(now);
            if taken.0 != now.as_secs() {
                taken = (now.as_secs(), 0);
            }
            if now >= down && taken.1 < accept {
                taken.1 += 1;
                storm.back.push(now);
            } else {
                next.push(Reverse((now + devices[number].wait(random.next()), number)));
            }
        }
        storm
    }

    /// The most attempts in any second, wherever it begins.
    fn peak(&self) -> usize {
        let mut first = 0;
        let counts = self.attempts.iter().enumerate().map(|(last, at)| {
            while self.attempts[first] + SECOND <= *at {
                first += 1;
            }
            last + 1 - first
        });
        counts.max().unwrap_or(0)
    }

    /// When so much of the fleet was back.
    fn until(&self, devices: u32, percent: usize) -> Option<Duration> {
        self.back.get((devices as usize * percent).div_ceil(100).max(1) - 1).copied()
    }

    /// The most attempts in a second, for each of `count` parts of the time up to `end`.
    fn bars(&self, end: Duration, count: usize) -> Vec<usize> {
        let seconds = end.as_secs() as usize + 1;
        let mut per_second = vec![0; seconds];
        for at in self.attempts.iter().take_while(|at| **at <= end) {
            per_second[at.as_secs() as usize] += 1;
        }
        per_second
            .chunks(seconds.div_ceil(count))
            .map(|part| part.iter().copied().max().unwrap_or(0))
            .collect()
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("reconnect-storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let storms: Vec<_> =
        Strategy::ALL.into_iter().map(|strategy| (strategy, Storm::play(strategy, arguments))).collect();
    println!(
        "{} devices lose a broker that is away for {} s and then takes {} connections in a second; \
         wanted: at most {} attempts in any second",
        arguments.devices,
        arguments.down,
        arguments.accept.unwrap_or(arguments.rate),
        arguments.rate
    );
    println!(
        "the window: {:.1} s (fleet_size = {}, max_connects_per_second = {})",
        spread(arguments.devices, arguments.rate).as_secs_f64(),
        arguments.devices,
        arguments.rate
    );
    println!("\n{:<36} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "peak/s", "attempts", "50 % s", "99 % s", "all s");
    for (strategy, storm) in &storms {
        let until = |percent| {
            let time = storm.until(arguments.devices, percent);
            time.map_or_else(|| "never".to_owned(), |time| format!("{:.0}", time.as_secs_f64()))
        };
        println!(
            "{:<36} {:>9} {:>9} {:>9} {:>9} {:>9}",
            strategy.name(),
            storm.peak(),
            storm.attempts.len(),
            until(50),
            until(99),
            until(100)
        );
    }
    let (_, own) = storms.first().context("nothing was played")?;
    draw(own, arguments.rate as usize);
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg(&storms, arguments)).with_context(|| path.display().to_string())?;
    }
    ensure!(own.back.len() == arguments.devices as usize, "not all are back after a day");
    Ok(own.peak() <= arguments.rate as usize)
}

/// Attempts over time, in text.
fn draw(storm: &Storm, rate: usize) {
    let Some(end) = storm.attempts.last() else { return };
    let bars = storm.bars(*end, ROWS);
    let step = (end.as_secs() as usize + 1).div_ceil(ROWS);
    let full = bars.iter().copied().max().unwrap_or(0).max(rate);
    println!("\nvigil, the most attempts in a second of each {step} s; | is the rate");
    for (row, count) in bars.iter().enumerate() {
        let mut line: Vec<char> = " ".repeat(BAR + 1).chars().collect();
        line[..count * BAR / full].fill('#');
        line[rate * BAR / full] = '|';
        println!("{:>6} s {} {count}", row * step, line.into_iter().collect::<String>());
    }
}

/// Attempts over time, one chart each. The height is each chart's own, and said.
fn svg(storms: &[(Strategy, Storm)], arguments: &Arguments) -> String {
    const WIDTH: usize = 720;
    const HEIGHT: usize = 120;
    const PITCH: usize = HEIGHT + 50;
    let end = storms.first().and_then(|(_, own)| own.until(arguments.devices, 100)).unwrap_or(GIVEN_UP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + 40,
        PITCH * storms.len() + 20
    );
    for (row, (strategy, storm)) in storms.iter().enumerate() {
        let bars = storm.bars(end, WIDTH / 2);
        let full = bars.iter().copied().max().unwrap_or(0).max(arguments.rate as usize);
        let base = row * PITCH + 30 + HEIGHT;
        let _ = writeln!(
            text,
            "<text x=\"20\" y=\"{}\">{}: at most {} in a second; {} s across</text>",
            base - HEIGHT - 8,
            strategy.name(),
            storm.peak(),
            end.as_secs()
        );
        let width = WIDTH as f64 / bars.len() as f64;
        for (place, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = *count as f64 / full as f64 * HEIGHT as f64;
            let _ = writeln!(
                text,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#3b6ea5\"/>",
                (place as f64).mul_add(width, 20.0),
                base as f64 - height
            );
        }
        let rate = base as f64 - f64::from(arguments.rate) / full as f64 * HEIGHT as f64;
        let _ = writeln!(
            text,
            "<path d=\"M20 {base}h{WIDTH}\" stroke=\"black\"/>\
             <path d=\"M20 {rate:.1}h{WIDTH}\" stroke=\"#c0392b\" stroke-dasharray=\"6 4\"/>"
        );
    }
    text.push_str("</svg>\n");
    text
}
