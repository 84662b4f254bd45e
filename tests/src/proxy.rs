//! A real HTTP proxy: tinyproxy, which lets nobody through but to one port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::process::Process;
use crate::wait_for;

/// A running one.
pub struct Tinyproxy {
    /// Where it listens on loopback.
    pub port: u16,
    log: PathBuf,
    _process: Process,
}

impl Tinyproxy {
    /// Starts it. With credentials, it lets only those through who have them.
    pub fn start(
        directory: &Path,
        port: u16,
        target_port: u16,
        credentials: Option<(&str, &str)>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let credentials =
            credentials.map(|(name, password)| format!("BasicAuth {name} {password}\n")).unwrap_or_default();
        let log = directory.join("proxy.log");
        let config = directory.join("tinyproxy.conf");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nConnectPort {target_port}\nLogLevel Connect\nTimeout 600\nMaxClients 20\n{credentials}"
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        let process = Process::start("tinyproxy", command, &log)
            .context("tinyproxy is needed; run tests/run, which installs it")?;
        wait_for("the proxy to listen", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        })?;
        Ok(Self { port, log, _process: process })
    }

    /// What it was asked for, line by line.
    pub fn asked_for(&self, what: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().any(|line| line.contains(what))
    }
}
