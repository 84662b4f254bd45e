//! A room in which all waits at once: a sensor that never answers, a server that drips, and a broker's client that has a
//! device verify envelope after envelope against a thousand operators. Its loops go on all the same; how long each of their
//! turns took is in what `tests/run` sums up.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use vigil_protocol::envelope::{Envelope, EnvelopeSignature};
use vigil_protocol::keys::PublicKey;
use vigil_tests::courier;
use vigil_tests::files::Fault;
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::{binaries, wait_for};

/// As many as a list may have.
const OPERATORS: u32 = 1000;
/// As many as an envelope may have.
const SIGNATURES: usize = 16;
/// What one connection drips, and how slowly.
const DRIP: Duration = Duration::from_secs(2);
/// A technician's question is answered within this, whatever else there is.
const PATIENCE: Duration = Duration::from_secs(2);

/// A web server that answers nobody, and, once `drips` says so, promises a file and sends a byte of it now and then. Gives back
/// its address and how many bytes have dripped.
fn dripping_server(drips: Arc<AtomicBool>) -> anyhow::Result<(String, Arc<AtomicUsize>)> {
    let dripped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dripped);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if !drips.load(Ordering::Relaxed) {
                continue;
            }
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n");
                while stream.write_all(b"{").is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(DRIP);
                }
            });
        }
    });
    Ok((format!("http://{address}/"), dripped))
}

/// The programs, of which `vigild` finds a FIFO that nobody writes to in the place of `/proc/meminfo`.
fn programs(directory: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir(directory)?;
    for program in ["vigil", "vigil-updaterd"] {
        std::os::unix::fs::symlink(binaries()?.join(program), directory.join(program))?;
    }
    let fifo = directory.join("fifo");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "mkfifo");
    let script = format!(
        "#!/bin/sh\n[ \"$3\" = --make-identity ] || exec unshare --mount sh -c 'mount --bind \"$0\" /proc/meminfo && exec \"$@\"' \
         {fifo:?} {vigild:?} \"$@\"\nexec {vigild:?} \"$@\"\n",
        vigild = binaries()?.join("vigild"),
    );
    let path = directory.join("vigild");
    std::fs::write(&path, script)?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
}

/// A command with as many signatures as there may be, each by the name of another key of the list, none of them right.
fn envelope(keys: &[SigningKey]) -> anyhow::Result<String> {
    let command = courier::command(DEVICE, "01JZZZZZZZZZZZZZZZZZZZZZZZ", "2.0.0");
    let mut envelope: Envelope =
        serde_json::from_str(&courier::sign(&command, &SigningKey::from_bytes(&[9; 32]))?)?;
    let wrong = envelope.signatures.pop().context("it is signed")?;
    let keyid = |key: &SigningKey| PublicKey::from(key.verifying_key()).id();
    envelope.signatures = keys
        .iter()
        .take(SIGNATURES)
        .map(|key| EnvelopeSignature { keyid: keyid(key), ..wrong.clone() })
        .collect();
    Ok(envelope.to_json())
}

#[test]
fn a_dead_sensor_a_dripping_server_and_a_thousand_keys_hold_up_nobody() -> anyhow::Result<()> {
    let drips = Arc::new(AtomicBool::new(false));
    let (drip, dripped) = dripping_server(Arc::clone(&drips))?;
    let programs_at = tempfile::tempdir()?;
    let directory = programs_at.path().join("programs");
    programs(&directory)?;
    let mut room = Room::with(|options| {
        options.programs.push(("1.0.0".to_owned(), directory));
        options.mirrors = vec![drip];
    })?;
    let keys: Vec<_> = (0..OPERATORS)
        .map(|number| {
            let mut seed = [1; 32];
            seed[..4].copy_from_slice(&number.to_le_bytes());
            SigningKey::from_bytes(&seed)
        })
        .collect();
    let operators: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| {
            format!("name=op{number},key={},scopes=observe,devices=*", PublicKey::from(key.verifying_key()))
        })
        .collect();
    room.vendor.set_operators(&operators)?;
    room.device.power_on()?;
    room.wait_ready()?;
    ensure!(room.status()?["operators"]["count"] == OPERATORS, "not all operators");
    // From now on the vendor's own server has nothing, and the other one drips.
    room.vendor.files.misbehave("", Fault::Unavailable);
    drips.store(true, Ordering::Relaxed);

    let (certificate, key) = room.pki().client("olga")?;
    let file = programs_at.path().join("envelope");
    std::fs::write(&file, envelope(&keys)?)?;
    let mut flood = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &room.broker_port()?.to_string(), "--cafile"])
        .arg(room.pki().ca())
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key)
        .args([
            "-q",
            "1",
            "-t",
            &format!("vigil/v1/{DEVICE}/command"),
            "--repeat",
            "400",
            "--repeat-delay",
            "0.02",
            "-f",
        ])
        .arg(&file)
        .spawn()?;
    let mut slowest = Duration::ZERO;
    while flood.try_wait()?.is_none() {
        let began = Instant::now();
        room.status()?;
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest vigil status meanwhile took {slowest:?}");
    ensure!(slowest < PATIENCE, "vigil status took {slowest:?}");
    ensure!(!room.audited("command.refused").is_empty(), "no envelope arrived");
    // The sensor was waited for, by two threads in turn, and is then said to be missing.
    wait_for("the dead sensor to be named", Duration::from_secs(90), || {
        let health = room.device.vigil(&["health"]).ok()?;
        health["missing"].as_array().is_some_and(|missing| !missing.is_empty()).then_some(())
    })?;
    ensure!(dripped.load(Ordering::Relaxed) > 0, "the device never asked the server that drips");
    Ok(())
}
