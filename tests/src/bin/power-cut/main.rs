//! The power-cut bench: records every write and flush below the file systems while releases are installed, tried,
//! confirmed and rolled back, makes what a power cut may leave at any time, and starts a device from each.

mod check;
mod device;
mod image;
mod record;
mod states;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use record::Sabotage;
use states::Plan;
use vigil_tests::machine::{Backend, World};

/// Cuts the power at every write of an update, tears and loses what was not flushed, and starts a device from what is
/// left: a verified slot must boot, nothing that was promised may be lost, and the next release must be installed.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 no failure (with --sabotage or --prove: as expected, red), 1 otherwise."
)]
struct Arguments {
    /// Where boot variables are kept; repeatable [default: all]
    #[arg(long = "boot", value_enum, value_name = "KIND")]
    boot: Vec<BootKind>,
    /// Seeded subsets of what was not flushed, for each write
    #[arg(long, default_value_t = 6, value_name = "N")]
    subsets: u32,
    /// Instead cut the power of a whole emulated device N times, at random moments
    #[arg(long, value_name = "N", conflicts_with_all = ["boot", "subsets", "prove"])]
    device: Option<u32>,
    /// Of the subsets; of a device's moments and what they lose
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Leave something out, and expect to see it
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// All sabotages, one after the other: the bench must see each
    #[arg(long, conflicts_with = "sabotage")]
    prove: bool,
    /// Keep what a failure left in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum BootKind {
    File,
    Uboot,
    UbootSingle,
    Grub,
}

impl From<BootKind> for Backend {
    fn from(kind: BootKind) -> Self {
        match kind {
            BootKind::File => Self::File,
            BootKind::Uboot => Self::Uboot,
            BootKind::UbootSingle => Self::UbootSingle,
            BootKind::Grub => Self::Grub,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("power-cut: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(rustix::process::geteuid().is_root(), "be root: file systems are mounted");
    if let Some(cuts) = arguments.device {
        let no_flush = arguments.sabotage == Some(Sabotage::Flush);
        ensure!(no_flush || arguments.sabotage.is_none(), "with --device the only sabotage is flush");
        return device::bench(cuts, arguments.seed, arguments.keep.as_deref(), no_flush);
    }
    let world = World::new()?;
    if arguments.prove || arguments.sabotage.is_some() {
        let all = Sabotage::value_variants();
        let sabotages = arguments.sabotage.as_ref().map_or(all, std::slice::from_ref);
        let mut all_seen = true;
        for sabotage in sabotages {
            let report = bench(&world, Backend::Uboot, arguments, Some(*sabotage))?;
            let seen = !report.failures.is_empty();
            let verdict = if seen { "red, as it must be" } else { "NOT SEEN" };
            println!("without {:<12} {verdict}: {}", sabotage.what(), report.line());
            if let Some(failure) = report.failures.first() {
                println!("  {failure}");
            }
            all_seen &= seen;
        }
        return Ok(all_seen);
    }
    let backends: Vec<Backend> = if arguments.boot.is_empty() {
        Backend::ALL.to_vec()
    } else {
        arguments.boot.iter().map(|kind| (*kind).into()).collect()
    };
    let (mut cuts, mut distinct, mut failures) = (0, 0, 0);
    for backend in backends {
        let report = bench(&world, backend, arguments, None)?;
        println!("{:<13} {}", backend.name(), report.line());
        for failure in report.failures.iter().take(5) {
            println!("  {failure}");
        }
        cuts += report.cuts;
        distinct += report.distinct;
        failures += report.failures.len();
    }
    println!("power cuts    {cuts} tried, {distinct} distinct states of the disks, {failures} failures");
    Ok(failures == 0)
}

fn bench(
    world: &World,
    backend: Backend,
    arguments: &Arguments,
    sabotage: Option<Sabotage>,
) -> anyhow::Result<check::Report> {
    let begun = Instant::now();
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let recording = record::record(world, backend, directory.path(), sabotage)
        .with_context(|| format!("the recording with boot kind {}", backend.name()))?;
    let torn_sectors =
        matches!(backend, Backend::Uboot | Backend::UbootSingle).then_some(record::ENVIRONMENT);
    let plan = Plan { subsets: arguments.subsets, seed: arguments.seed, torn_sectors };
    check::check(
        world,
        backend,
        &recording,
        plan,
        directory.path(),
        sabotage.is_some(),
        begun,
        arguments.keep.as_deref(),
    )
}
