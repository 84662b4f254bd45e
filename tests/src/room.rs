//! A room: a device of the vendor's, and, unless it is alone, a broker and an operator.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::broker::Mosquitto;
use crate::device::{Daemon, Device, Options};
use crate::fleet::Operator;
use crate::image::{self, SOUND};
use crate::pki::Pki;
use crate::vendor::Vendor;
use crate::{free_port, wait_for};

/// Longest that anything is waited for.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The device.
pub const DEVICE: &str = "room-1";

/// A room. Its device is not switched on yet.
pub struct Room {
    /// What all is in; gone with the room.
    pub directory: tempfile::TempDir,
    /// Who made the device.
    pub vendor: Vendor,
    /// The device.
    pub device: Device,
    operator: Option<Operator>,
    broker: Option<Mosquitto>,
    pki: Pki,
}

impl Room {
    /// A device that no broker can be reached from. `more` are sections of its vigil.toml.
    pub fn alone(more: &str) -> anyhow::Result<Self> {
        Self::new(more, false, |_| {})
    }

    /// A device at a Mosquitto, with an operator who may do everything.
    pub fn at_a_broker(more: &str) -> anyhow::Result<Self> {
        Self::new(more, true, |_| {})
    }

    /// A device at a Mosquitto, made otherwise than usual.
    pub fn with(adjust: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        Self::new("", true, adjust)
    }

    /// A device at a broker of the test's own, which `adjust` names.
    pub fn elsewhere(adjust: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        Self::new("", false, adjust)
    }

    fn new(more: &str, with_broker: bool, adjust: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let vendor = Vendor::new(&directory.path().join("vendor"))?;
        let pki = Pki::new(&directory.path().join("pki"))?;
        let (broker, operator, port) = if with_broker {
            let broker = Mosquitto::start(&directory.path().join("broker"), &pki, &["olga"])?;
            let operator = Operator::new(&pki, &vendor, broker.port, "olga")?;
            let port = broker.port;
            (Some(broker), Some(operator), port)
        } else {
            (None, None, free_port()?)
        };
        let factory = directory.path().join("1.0.0.img");
        image::build(&factory, "1.0.0", SOUND, 1 << 20)?;
        let mut options = Options::new(DEVICE, port, &pki);
        options.slot_bytes = 16 << 20;
        more.clone_into(&mut options.more);
        adjust(&mut options);
        let device = Device::new(&directory.path().join("device"), options, &vendor, &pki, &factory)?;
        Ok(Self { directory, vendor, device, operator, broker, pki })
    }

    /// The operator.
    pub fn operator(&self) -> anyhow::Result<&Operator> {
        self.operator.as_ref().context("the room has no broker")
    }

    /// The broker.
    pub fn broker(&mut self) -> anyhow::Result<&mut Mosquitto> {
        self.broker.as_mut().context("the room has no broker")
    }

    /// The broker's port.
    pub fn broker_port(&self) -> anyhow::Result<u16> {
        Ok(self.broker.as_ref().context("the room has no broker")?.port)
    }

    /// Who certifies everybody.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What `vigil status` says, as soon as it says anything.
    pub fn status(&self) -> anyhow::Result<Value> {
        self.wait("vigild to answer", |status| Some(status.clone()))
    }

    /// Waits for something in what `vigil status` says.
    pub fn wait<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        wait_for(what, LIMIT, || look(&self.device.vigil(&["status"]).ok()?))
    }

    /// Waits until the device is connected and knows its operators.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        self.wait("the broker and the operators list", |status| {
            (status["broker"]["connected"] == true && !status["operators"].is_null()).then_some(())
        })
    }

    /// The newest entries of the audit log with this event.
    pub fn audited(&self, event: &str) -> Vec<Value> {
        let log = self.device.vigil(&["audit", "show", "--limit", "100"]).unwrap_or_default();
        let entries = log["entries"].as_array().cloned().unwrap_or_default();
        entries.into_iter().filter(|entry| entry["event"] == event).collect()
    }

    /// The reason with which a command ends: `ok`, or why not.
    pub fn send(&self, kind: &str, more: &[&str]) -> anyhow::Result<String> {
        let (_, answer) = self.operator()?.send(DEVICE, kind, more)?;
        Ok(reason(&answer).unwrap_or_default().to_owned())
    }

    /// Fails if a daemon has ended.
    pub fn lives(&mut self) -> anyhow::Result<()> {
        match self.device.ended() {
            None => Ok(()),
            Some(Daemon::Vigild) => anyhow::bail!("vigild has ended"),
            Some(Daemon::Updaterd) => anyhow::bail!("vigil-updaterd has ended"),
        }
    }
}

/// The last reason that an answer names.
fn reason(answer: &Value) -> Option<&str> {
    match answer {
        Value::Object(fields) => {
            fields.get("reason").and_then(Value::as_str).or_else(|| fields.values().rev().find_map(reason))
        }
        Value::Array(items) => items.iter().rev().find_map(reason),
        _ => None,
    }
}
