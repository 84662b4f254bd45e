//! `vigil-publish`: the release engineer's command line.

use std::process::ExitCode;

use clap::Parser;
use jiff::Timestamp;
use rustix::fs::Mode;
use rustix::process::umask;
use serde_json::json;

mod cli;
mod commands;
mod show;

fn main() -> ExitCode {
    // What is published must be readable by the web server, whatever the umask of the person or job.
    umask(Mode::WGRP | Mode::WOTH);
    let cli = cli::Cli::parse();
    match commands::run(cli.command, cli.json, Timestamp::now()) {
        Ok((text, value)) => {
            let out = if cli.json { value.to_string() } else { text };
            anstream::println!("{}", out.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            if cli.json {
                anstream::println!("{}", json!({"error": format!("{error:#}")}));
            } else {
                anstream::eprintln!("vigil-publish: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
