//! How many bytes an update costs, beside what others would fetch for the same two images: publishes and installs for real,
//! and counts what goes over the server's sockets.

mod install;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use install::{Case, Installed, Published};
use peers::{Peer, Peers};

const MB: f64 = 1e6;

/// Publishes two images as releases, installs the second on devices that have the first, and prints what that costs
/// beside bita, casync and zstd.
#[derive(Parser)]
#[command(
    after_help = "Without images: a pair of Debian's packages, as ext4, EROFS and squashfs.\n\nExit codes: 0 every limit is held, \
                  1 not or failed."
)]
struct Arguments {
    /// The image that devices have
    #[arg(requires = "new")]
    old: Option<PathBuf>,
    /// The image that they are to have
    new: Option<PathBuf>,
    /// The product that the releases are for
    #[arg(long, default_value = vigil_tests::vendor::PRODUCT)]
    product: String,
    /// zstd's level for our releases
    #[arg(long, default_value_t = 19)]
    level: i32,
    /// Only ours: bita, casync and zstd take longer than we do
    #[arg(long)]
    without_peers: bool,
    /// Of the pair: only these kinds of image
    #[arg(long, value_name = "KIND", value_parser = ["ext4", "erofs", "squashfs"])]
    only: Vec<String>,
    /// Where the pair of Debian's is
    #[arg(long, default_value = "target/pair", value_name = "DIR")]
    pair: PathBuf,
    /// Where slots and repository lie
    #[arg(long, default_value = "target", value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is to be held, as ratios to others in the same run: the ones that were measured when the limits were set.
struct Limits {
    /// Against the blocks that the old image lacks, in one stream.
    unknown_to_blocks: Option<f64>,
    /// Against bita with its best chunks.
    unknown_to_bita: Option<f64>,
    /// Against zstd --patch-from.
    known_to_patch: Option<f64>,
}

impl Limits {
    fn of(kind: &str) -> Self {
        let none = Self { unknown_to_blocks: None, unknown_to_bita: None, known_to_patch: None };
        match kind {
            "ext4" => {
                Self { unknown_to_blocks: Some(122.0 / 118.0), known_to_patch: Some(58.0 / 68.0), ..none }
            }
            "erofs" => {
                Self { unknown_to_blocks: Some(145.0 / 141.0), known_to_patch: Some(97.0 / 99.0), ..none }
            }
            "squashfs" => {
                Self { unknown_to_bita: Some(141.0 / 140.0), known_to_patch: Some(130.0 / 133.0), ..none }
            }
            _ => none,
        }
    }
}

const IDENTICAL_BYTES: u64 = 200_000;
const UPDATERD_KIB: u64 = 32_000_000 / 1024;
const VIGILD_KIB: u64 = 12_000_000 / 1024;
/// What was fetched differs from the plan by so much at most.
const PLAN_OFF: f64 = 0.02;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("update-bytes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let pairs = match (&arguments.old, &arguments.new) {
        (Some(old), Some(new)) => {
            let kind = new.extension().and_then(|kind| kind.to_str()).unwrap_or("image");
            vec![(kind.to_owned(), old.clone(), new.clone())]
        }
        _ => ["ext4", "erofs", "squashfs"]
            .into_iter()
            .filter(|kind| arguments.only.is_empty() || arguments.only.iter().any(|only| only == kind))
            .map(|kind| {
                let image = |which: &str| arguments.pair.join(format!("{which}.{kind}"));
                (kind.to_owned(), image("old"), image("new"))
            })
            .collect(),
    };
    let mut results = Vec::new();
    for (kind, old, new) in pairs {
        for image in [&old, &new] {
            ensure!(image.is_file(), "there is no {}", image.display());
        }
        let result = measure(arguments, &kind, &old, &new).with_context(|| kind.clone())?;
        results.push(result);
    }
    if arguments.json {
        let json: Vec<_> = results.iter().map(Measured::json).collect();
        anstream::println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print_peers(&results);
        print_installs(&results);
    }
    let mut all_held = true;
    for result in &results {
        all_held &= result.judge(arguments.json);
    }
    Ok(all_held)
}

/// What was measured of a pair.
struct Measured {
    kind: String,
    sizes: (u64, u64),
    published: Published,
    installs: Vec<Installed>,
    peers: Peers,
}

fn measure(
    arguments: &Arguments,
    kind: &str,
    old: &std::path::Path,
    new: &std::path::Path,
) -> anyhow::Result<Measured> {
    let directory = tempfile::Builder::new().prefix("update-bytes-").tempdir_in(&arguments.directory)?;
    let bench = install::Bench::new(directory.path(), &arguments.product, arguments.level, old, new)?;
    let published = bench.publish()?;
    let installs = [Case::Identical, Case::Unknown, Case::Known]
        .into_iter()
        .map(|case| {
            let installed = bench.install(case)?;
            // What was measured so far is known even if the rest takes too long.
            eprintln!(
                "{}: {} bytes on the wire, {} planned, {:.0} s",
                case.name(),
                installed.wire_bytes,
                installed.planned(),
                installed.seconds
            );
            Ok(installed)
        })
        .collect::<anyhow::Result<_>>()?;
    let peers =
        if arguments.without_peers { Peers::default() } else { peers::measure(directory.path(), old, new)? };
    let sizes = (old.metadata()?.len(), new.metadata()?.len());
    Ok(Measured { kind: kind.to_owned(), sizes, published, installs, peers })
}

fn print_peers(results: &[Measured]) {
    println!("\nMB on the wire, and seconds to make and to fetch");
    for result in results {
        let (old, new) = result.sizes;
        println!("\n{} of {:.0} MB, from one of {:.0} MB", result.kind, new as f64 / MB, old as f64 / MB);
        println!("  {:<46} {:>8} {:>7} {:>7}", "", "MB", "make", "install");
        let row = |name: &str, bytes: u64, made: f64, installed: Option<f64>| {
            let installed = installed.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0}"));
            println!("  {name:<46} {:>8.1} {made:>7.0} {installed:>7}", bytes as f64 / MB);
        };
        for Peer { name, bytes, made, fetched } in &result.peers.all {
            row(name, *bytes, *made, *fetched);
        }
        for installed in &result.installs {
            let name = format!("vigil, {}", installed.case.name());
            row(
                &name,
                installed.wire_bytes,
                result.published.seconds(installed.case),
                Some(installed.seconds),
            );
        }
    }
}

fn print_installs(results: &[Measured]) {
    println!("\nvigil's installs");
    println!(
        "  {:<9} {:<10} {:>8} {:>8} {:>6} {:>8} {:>9} {:>9} {:>7} {:>9} {:>7}",
        "image",
        "old image",
        "wire MB",
        "plan MB",
        "off %",
        "requests",
        "running",
        "frames",
        "patches",
        "updaterd",
        "vigild"
    );
    for result in results {
        for installed in &result.installs {
            println!(
                "  {:<9} {:<10} {:>8.2} {:>8.2} {:>6.2} {:>8} {:>9.1} {:>9.1} {:>7.1} {:>9} {:>7}",
                result.kind,
                installed.case.name(),
                installed.wire_bytes as f64 / MB,
                installed.planned() as f64 / MB,
                100.0 * installed.off(),
                installed.requests,
                installed.plan.running_bytes as f64 / MB,
                installed.plan.frame_bytes as f64 / MB,
                installed.plan.patch_bytes as f64 / MB,
                installed.updaterd_kib,
                installed.vigild_kib,
            );
        }
    }
    println!("  running, frames and patches: MB of the image that come from there; memory is VmHWM in KiB");
}

impl Measured {
    fn of(&self, case: Case) -> Option<&Installed> {
        self.installs.iter().find(|installed| installed.case == case)
    }

    /// Tells which limits are held. Whether all are.
    fn judge(&self, quiet: bool) -> bool {
        let mut held = true;
        let mut tell = |what: &str, figure: f64, limit: f64| {
            held &= figure <= limit;
            if !quiet {
                let word = if figure <= limit { "held" } else { "NOT HELD" };
                println!("{:<9} {what:<58} {figure:>9.3}  at most {limit:>9.3}  {word}", self.kind);
            }
        };
        let limits = Limits::of(&self.kind);
        let ratio = |case, bytes: Option<u64>| Some(self.of(case)?.wire_bytes as f64 / bytes? as f64);
        if !quiet {
            println!();
        }
        for (what, case, peer, limit) in [
            (
                "unknown old image, to the blocks it lacks in one stream",
                Case::Unknown,
                self.peers.blocks,
                limits.unknown_to_blocks,
            ),
            (
                "unknown old image, to the best of bita",
                Case::Unknown,
                self.peers.bita,
                limits.unknown_to_bita,
            ),
            ("known old image, to zstd --patch-from", Case::Known, self.peers.patch, limits.known_to_patch),
        ] {
            if let Some((figure, limit)) = ratio(case, peer).zip(limit) {
                tell(what, figure, limit);
            }
        }
        if let Some(identical) = self.of(Case::Identical) {
            tell("the same image, KB", identical.wire_bytes as f64 / 1e3, IDENTICAL_BYTES as f64 / 1e3);
        }
        for installed in &self.installs {
            let name = installed.case.name();
            tell(&format!("{name}: vigil-updaterd, KiB"), installed.updaterd_kib as f64, UPDATERD_KIB as f64);
            tell(&format!("{name}: vigild, KiB"), installed.vigild_kib as f64, VIGILD_KIB as f64);
            tell(&format!("{name}: off the plan"), installed.off().abs(), PLAN_OFF);
        }
        held
    }

    fn json(&self) -> serde_json::Value {
        let installs: Vec<_> = self
            .installs
            .iter()
            .map(|installed| {
                serde_json::json!({
                    "old_image": installed.case.name(),
                    "wire_bytes": installed.wire_bytes,
                    "refresh_bytes": installed.refresh_bytes,
                    "requests": installed.requests,
                    "plan": installed.plan,
                    "seconds": installed.seconds,
                    "mapping_seconds": installed.mapping_seconds,
                    "publishing_seconds": self.published.seconds(installed.case),
                    "updaterd_kib": installed.updaterd_kib,
                    "vigild_kib": installed.vigild_kib,
                })
            })
            .collect();
        let peers: Vec<_> = self
            .peers
            .all
            .iter()
            .map(|peer| {
                serde_json::json!({
                    "name": peer.name, "bytes": peer.bytes, "seconds_to_make": peer.made, "seconds_to_fetch": peer.fetched,
                })
            })
            .collect();
        serde_json::json!({
            "image": self.kind, "old_bytes": self.sizes.0, "new_bytes": self.sizes.1, "vigil": installs, "peers": peers,
        })
    }
}
