//! Brokers: one embedded in this process, for the demo, and a real Mosquitto with TLS and ACLs, for the tests.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::pki::Pki;
use crate::process::Process;
use crate::{free_port, wait_for};

/// Starts rumqttd in threads of this process, with TLS and client certificates. Gives back its port.
pub fn embedded(pki: &Pki) -> anyhow::Result<u16> {
    let port = free_port()?;
    let (certificate, key) = pki.server()?;
    let config: rumqttd::Config = serde_json::from_value(json!({
        "id": 0,
        "router": { "id": 0, "max_connections": 100, "max_outgoing_packet_count": 200,
                    "max_segment_size": 10_485_760, "max_segment_count": 10 },
        "v5": { "tls": {
            "name": "tls", "listen": format!("127.0.0.1:{port}"), "next_connection_delay_ms": 1,
            "tls": { "capath": pki.ca(), "certpath": certificate, "keypath": key },
            "connections": { "connection_timeout_ms": 10_000, "max_payload_size": 262_144,
                             "max_inflight_count": 100, "dynamic_filters": true }
        } }
    }))?;
    let mut broker = rumqttd::Broker::new(config);
    std::thread::spawn(move || drop(broker.start()));
    listening(port)?;
    Ok(port)
}

/// Serves rumqttd without TLS, over MQTT 5 or 3.1.1, until the process ends.
pub fn serve_rumqttd(port: u16, v4: bool) -> anyhow::Result<()> {
    let config: rumqttd::Config = serde_json::from_value(json!({
        "id": 0,
        "router": { "id": 0, "max_connections": 100, "max_outgoing_packet_count": 200,
                    "max_segment_size": 10_485_760, "max_segment_count": 10 },
        (if v4 { "v4" } else { "v5" }): { "tcp": {
            "name": "tcp", "listen": format!("127.0.0.1:{port}"), "next_connection_delay_ms": 1,
            "connections": { "connection_timeout_ms": 10_000, "max_payload_size": 262_144,
                             "max_inflight_count": 100, "dynamic_filters": true }
        } }
    }))?;
    Ok(rumqttd::Broker::new(config).start()?)
}

fn listening(port: u16) -> anyhow::Result<()> {
    wait_for("the broker to listen", Duration::from_secs(10), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
    })
}

/// A Mosquitto of this test's own.
pub struct Mosquitto {
    /// Its TLS port.
    pub port: u16,
    directory: std::path::PathBuf,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts it: client certificates required, the common name is the user, and the ACL that ships in `packaging/`,
    /// with the operators' names that `operators` gives.
    pub fn start(directory: &Path, pki: &Pki, operators: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let port = free_port()?;
        let (certificate, key) = pki.server()?;
        let shipped = include_str!("../../packaging/mosquitto/vigil.acl");
        let (devices, operator) = shipped.split_once("user olga\n").context("vigil.acl names no operator")?;
        let mut acl = devices.to_owned();
        for name in operators {
            acl.push_str(&format!("user {name}\n{operator}\n"));
        }
        std::fs::write(directory.join("acl"), acl)?;
        let config = format!(
            "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             use_identity_as_username true\nacl_file {}\nallow_anonymous false\nuser root\n\
             set_tcp_nodelay true\npersistence true\npersistence_location {}/\nlog_dest file {}\nlog_type all\n",
            pki.ca().display(),
            certificate.display(),
            key.display(),
            directory.join("acl").display(),
            directory.display(),
            directory.join("broker.log").display(),
        );
        std::fs::write(directory.join("mosquitto.conf"), config)?;
        let mut mosquitto = Self { port, directory: directory.to_owned(), process: None };
        mosquitto.resume()?;
        Ok(mosquitto)
    }

    /// Adds lines to its configuration, and starts it anew.
    pub fn configure(&mut self, lines: &str) -> anyhow::Result<()> {
        self.kill();
        let path = self.directory.join("mosquitto.conf");
        std::fs::write(&path, std::fs::read_to_string(&path)? + lines)?;
        self.resume()
    }

    /// Starts it (again).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let mut command =
            Command::new(program.context("mosquitto is not installed; run tests/run, which installs it")?);
        command.arg("-c").arg(self.directory.join("mosquitto.conf"));
        self.process = Some(Process::start("mosquitto", command, &self.directory.join("mosquitto.out"))?);
        listening(self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}
