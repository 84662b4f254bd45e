//! Sums up the turns of the daemons' loops (see the crate vigil-turns) and holds them against their limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};

/// A turn takes so long at most, in microseconds, and moves so many bytes from and to devices.
const TURN_MICROS: u64 = 100_000;
/// On a machine whose processors others have as well (a hypervisor's guests, what compiles beside the tests) a turn that computes may
/// take longer, and nothing tells: one in so many of a kind may, up to the limit of timers.
const SHARED: u64 = 1_000;
const TURN_BYTES: u64 = 1 << 20;
/// A timer goes off so late at most.
const LATE_MICROS: u64 = 250_000;
/// How the meter calls it.
const LATE: &str = "timer, late by";

#[derive(Default)]
struct Row {
    micros: Vec<u64>,
    worst_micros: u64,
    bytes: Vec<u64>,
    /// Read and written in the turn that moved most.
    most: [u64; 2],
}

impl Row {
    fn is_within(&self, kind: &str) -> bool {
        let is_in_time = if kind == LATE {
            self.worst_micros <= LATE_MICROS
        } else {
            let all: u64 = self.micros.iter().sum();
            let over: u64 = self.micros.iter().skip(7).sum();
            over == 0 || over <= all / SHARED && self.worst_micros <= LATE_MICROS
        };
        is_in_time && self.most.iter().sum::<u64>() <= TURN_BYTES
    }
}

fn add(sum: &mut Vec<u64>, counts: &str) -> anyhow::Result<()> {
    for (at, count) in counts.split(',').enumerate() {
        if sum.len() <= at {
            sum.push(0);
        }
        sum[at] += count.parse::<u64>()?;
    }
    Ok(())
}

fn read(directory: &Path) -> anyhow::Result<BTreeMap<(String, String), Row>> {
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        for line in std::fs::read_to_string(&path)?.lines() {
            let fields: Vec<_> = line.split('\t').collect();
            let [program, kind, micros, worst_micros, bytes, read, written] = fields[..] else {
                anyhow::bail!("{}: not a line of turns: {line}", path.display());
            };
            let row = rows.entry((program.to_owned(), kind.to_owned())).or_default();
            add(&mut row.micros, micros)?;
            add(&mut row.bytes, bytes)?;
            row.worst_micros = row.worst_micros.max(worst_micros.parse()?);
            let moved: [u64; 2] = [read.parse()?, written.parse()?];
            if moved.iter().sum::<u64>() > row.most.iter().sum() {
                row.most = moved;
            }
        }
    }
    Ok(rows)
}

fn run(directory: &Path) -> anyhow::Result<bool> {
    let rows = read(directory)?;
    ensure!(!rows.is_empty(), "{}: no daemon has left anything there", directory.display());
    println!(
        "{:<14} {:<22} {:>9}  {:>8} {:>8} {:>8} {:>8} {:>8}  {:>9} {:>8} {:>8}",
        "turns of",
        "about",
        "all",
        "<= 1 ms",
        "10 ms",
        "50 ms",
        "100 ms",
        "250 ms",
        "worst ms",
        "KiB read",
        "written"
    );
    for ((program, kind), row) in &rows {
        // The meter's classes: 0.1, 1, 5, 10, 25, 50, 100, 250 ms and above.
        let upto = |count: usize| row.micros.iter().take(count).sum::<u64>();
        println!(
            "{program:<14} {kind:<22} {:>9}  {:>8} {:>8} {:>8} {:>8} {:>8}  {:>9.1} {:>8} {:>8}{}",
            upto(9),
            upto(2),
            upto(4),
            upto(6),
            upto(7),
            upto(8),
            row.worst_micros as f64 / 1000.0,
            row.most[0] >> 10,
            row.most[1] >> 10,
            if row.is_within(kind) { "" } else { "  OVER" }
        );
    }
    println!(
        "limits: {} ms (one in {SHARED} of a kind {} ms, on shared processors) and {} KiB a turn, timers late by {} ms; without waits \
         for a processor and for fsync",
        TURN_MICROS / 1000,
        LATE_MICROS / 1000,
        TURN_BYTES >> 10,
        LATE_MICROS / 1000
    );
    Ok(rows.iter().all(|((_, kind), row)| row.is_within(kind)))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory] = &arguments[..] else {
        eprintln!(
            "Usage: turns DIRECTORY     (that VIGIL_TURNS named while debug builds of the daemons ran)"
        );
        return ExitCode::from(2);
    };
    match run(Path::new(directory)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("turns: {error:#}");
            ExitCode::FAILURE
        }
    }
}
