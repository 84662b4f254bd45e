//! The operator, through `vigil-fleet`.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use serde_json::Value;

use crate::pki::Pki;
use crate::vendor::{TENANT, Vendor};

/// An operator with a client certificate at the broker and a key that the operators list names.
pub struct Operator {
    arguments: Vec<String>,
    key: PathBuf,
}

impl Operator {
    /// The vendor's one operator.
    pub fn new(pki: &Pki, vendor: &Vendor, broker_port: u16, name: &str) -> anyhow::Result<Self> {
        let (certificate, key) = pki.client(name)?;
        let arguments = [
            "--broker".to_owned(),
            format!("mqtts://localhost:{broker_port}"),
            "--ca".to_owned(),
            pki.ca().display().to_string(),
            "--cert".to_owned(),
            certificate.display().to_string(),
            "--key".to_owned(),
            key.display().to_string(),
            "--tenant".to_owned(),
            TENANT.to_owned(),
        ];
        Ok(Self { arguments: arguments.into(), key: vendor.operator_key() })
    }

    /// Signs with another key.
    pub fn with_key(mut self, key: PathBuf) -> Self {
        self.key = key;
        self
    }

    /// `vigil-fleet` with these arguments, ready to run.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(crate::binaries()?.join("vigil-fleet"));
        command
            .args(arguments)
            .args(&self.arguments)
            .arg("--operator-key")
            .arg(&self.key)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(arguments)?.arg("--json").output()?)
    }

    /// Sends a command and gives back the exit code and the last answer.
    pub fn send(&self, device: &str, kind: &str, more: &[&str]) -> anyhow::Result<(i32, Value)> {
        let mut arguments = vec!["send", device, kind];
        arguments.extend(more);
        let output = self.run(&arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = last_json(&text).with_context(|| {
            format!("vigil-fleet {}: {text}{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))
        })?;
        Ok((output.status.code().unwrap_or(-1), last))
    }
}

/// The last JSON value of an output, whether values stand on lines of their own or not.
pub fn last_json(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter::<Value>().map_while(Result::ok).last()
}
