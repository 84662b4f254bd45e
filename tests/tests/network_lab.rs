//! The network lab: a device, its router and two partners in network namespaces; each scenario breaks one thing,
//! and the device must say whose fault it is.
//!
//! Scenarios are data, `scenarios/network/*.toml`: see `Scenario` for what one may say. Needs root, and `ip`,
//! `dnsmasq`, `openssl`, `nft` and `sysctl`. All traffic stays in the namespaces.

// A lab that does not stand up fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "network_lab/lab.rs"]
mod lab;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use vigil_protocol::diagnosis::{Diagnosis, Evidence, FaultDomain, Layer, Outcome};

use lab::{Lab, Server};

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What is broken, in a sentence.
    about: String,
    /// Whether the router runs a resolver.
    #[serde(default = "yes")]
    dns: bool,
    /// The resolver's own arguments, unless it is to know both partners.
    dnsmasq: Option<Vec<String>>,
    /// The device's `resolv.conf`, unless it is to name the router.
    resolv_conf: Option<String>,
    /// The partners `meet.test` and `files.test`.
    #[serde(default)]
    meet: Server,
    #[serde(default)]
    files: Server,
    /// Keys and partners of the device's `[network]`, unless both partners by name.
    network: Option<String>,
    /// Commands once everything is up, each begins with `device`, `router` or `partner`.
    #[serde(default)]
    run: Vec<Vec<String>>,
    /// What must be seen before the test begins.
    wait: Option<Wait>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    command: Vec<String>,
    contains: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    domain: FaultDomain,
    #[serde(default)]
    partners: Vec<String>,
    /// Each must be among what was seen.
    #[serde(default)]
    evidence: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    layer: Layer,
    outcome: Outcome,
    code: String,
}

fn yes() -> bool {
    true
}

#[test]
fn every_scenario_has_its_verdict() {
    let program = build_program();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/network");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the scenarios are not in {}", directory.display());
    let mut wrong = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file).unwrap();
        let scenario: Scenario =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let diagnosis = play(&scenario, number, &program);
        eprintln!("{name}: {:?} in {} ms: {}", diagnosis.verdict.domain, diagnosis.millis, scenario.about);
        if let Err(problem) = check(&scenario.expect, &diagnosis) {
            let seen = serde_json::to_string_pretty(&diagnosis).unwrap();
            wrong.push(format!("{name} ({}): {problem}\n{seen}", scenario.about));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn play(scenario: &Scenario, number: usize, program: &Path) -> Diagnosis {
    let mut lab = Lab::new(number);
    if scenario.dns {
        lab.start_dns(scenario.dnsmasq.as_deref());
    }
    lab.start_partner("meet.test", lab::MEET, scenario.meet);
    lab.start_partner("files.test", lab::FILES, scenario.files);
    lab.give_resolvers(scenario.resolv_conf.as_deref());
    for command in &scenario.run {
        lab.run(command);
    }
    if let Some(wait) = &scenario.wait {
        lab.wait(&wait.command, &wait.contains);
    }
    let config = lab.write_config(scenario.network.as_deref());
    let output = lab.run(&["device", "timeout", "60", program.to_str().unwrap(), config.to_str().unwrap()]);
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("no diagnosis ({error}): {output}"))
}

fn check(expect: &Expect, diagnosis: &Diagnosis) -> Result<(), String> {
    let verdict = &diagnosis.verdict;
    if verdict.domain != expect.domain || verdict.partners != expect.partners {
        return Err(format!("expected {:?} {:?}", expect.domain, expect.partners));
    }
    let matches =
        |seen: &Seen, e: &Evidence| (seen.layer, seen.outcome, &seen.code) == (e.layer, e.outcome, &e.code);
    match expect.evidence.iter().find(|seen| !diagnosis.evidence.iter().any(|e| matches(seen, e))) {
        Some(missing) => Err(format!("expected to see {missing:?}")),
        None => Ok(()),
    }
}

/// The program under test, beside this one.
fn build_program() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        // As the binaries are built: another selection of packages would have other features, and build all anew.
        .args(["build", "--quiet", "--workspace", "--exclude", "vigil-tests", "--example", "diagnose"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success(), "the example `diagnose` of vigil-agent does not build");
    let deps = std::env::current_exe().unwrap();
    let program = deps.ancestors().nth(2).unwrap().join("examples/diagnose");
    assert!(program.exists(), "{} was not built", program.display());
    program
}
