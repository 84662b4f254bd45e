//! `cargo demo`: says what is coming and how long it takes, builds the programs and the demo in sight, and runs it.

use std::io::{Error, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// What is built, as `tests/run` builds it: another selection would have other features, and build all anew.
const BUILDS: [(&str, &[&str]); 2] = [
    ("the programs", &["build", "--locked", "--workspace", "--exclude", "vigil-tests", "--bins"]),
    ("the demo", &["build", "--locked", "-p", "vigil-tests", "--bin", "demo"]),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let is_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !is_help {
        say(
            "Vigil's demo. The first time it is built: 5 to 8 minutes on 2 cores; then it plays for one to two minutes.",
        );
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Wherever it was called from: relative paths among the arguments are the caller's.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let run = |arguments: &[&str], more: &[std::ffi::OsString]| {
        let mut command = Command::new(&cargo);
        command
            .arg(arguments[0])
            .arg("--manifest-path")
            .arg(&manifest)
            .args(&arguments[1..])
            .args(more)
            .status()
    };
    for (number, (what, arguments)) in (1..).zip(BUILDS) {
        let began = Instant::now();
        if !is_help {
            say(&format!("{number} of {}: building {what}", BUILDS.len()));
        }
        match run(arguments, &[]) {
            Ok(status) if status.success() => {}
            Ok(status) => return failed(&format!("building {what} failed ({status}); cargo says why above")),
            Err(error) => return cannot_run(&error),
        }
        if !is_help {
            say(&format!("   built in {} s", began.elapsed().as_secs()));
        }
    }
    match run(&["run", "--quiet", "--locked", "-p", "vigil-tests", "--bin", "demo", "--"], &arguments) {
        // What the demo ends with is documented in its help.
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => cannot_run(&error),
    }
}

fn say(line: &str) {
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn cannot_run(error: &Error) -> ExitCode {
    failed(&format!("cargo could not be run: {error}"))
}

fn failed(why: &str) -> ExitCode {
    eprintln!("cargo demo: {why}");
    ExitCode::FAILURE
}
