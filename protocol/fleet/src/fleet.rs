//! What the retained state says of a fleet, and of one message: tolerant of fields it does not know, and of garbage.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use vigil_protocol::{limits, topic};

use crate::text::{bytes, clean};

/// Devices at most; what goes beyond is counted, not kept.
const DEVICES: usize = 200_000;
const FIELD: usize = 48;
/// Groups and incidents of one device at most.
const LISTED: usize = 64;

/// One device at a glance. What nobody said is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// `online`, `offline` or `lost`.
    pub status: Option<String>,
    /// The device's connections so far.
    pub session: Option<u64>,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// Its product.
    pub product: Option<String>,
    /// The release that runs.
    pub release: Option<String>,
    /// The slot that runs.
    pub slot: Option<String>,
    /// The update engine's state, with the share done while it writes.
    pub update: Option<String>,
    /// The load average over one minute.
    pub load: Option<f64>,
    /// The ids of its open incidents.
    pub incidents: BTreeSet<String>,
    /// The newest time in its messages, by its own clock.
    pub last_seen: Option<Timestamp>,
}

/// All devices.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    devices: BTreeMap<String, Overview>,
    unreadable: u64,
}

impl Fleet {
    /// Takes in one message. A will is not dated: its time is when the device connected, not when it was lost.
    pub fn take(&mut self, prefix: &str, topic: &str, payload: &[u8]) {
        let Some((device, rest)) = topic::parse(prefix, topic) else { return };
        let incident = rest.strip_prefix("incident/");
        if payload.is_empty() {
            // Closed.
            if let Some((id, overview)) = incident.zip(self.devices.get_mut(device)) {
                overview.incidents.remove(&clean(id, FIELD));
            }
            return;
        }
        if self.devices.len() >= DEVICES && !self.devices.contains_key(device) {
            self.unreadable += 1;
            return;
        }
        let Some(message) = read(payload) else {
            self.unreadable += 1;
            return;
        };
        let overview = self.devices.entry(device.to_owned()).or_default();
        let field = |pointer: &str| text(&message, pointer);
        match rest {
            "presence" => {
                overview.status = field("/status");
                overview.session = message["session"].as_u64();
            }
            "inventory" => {
                overview.product = field("/product");
                overview.groups = groups(&message);
            }
            "health" => overview.load = message.pointer("/load/0").and_then(Value::as_f64),
            "update" => {
                overview.release = field("/running/version");
                overview.slot = field("/running_slot");
                overview.update = update(&message);
            }
            _ => match incident {
                Some(id) if overview.incidents.len() < LISTED => {
                    overview.incidents.insert(clean(id, FIELD));
                }
                _ => return,
            },
        }
        overview.last_seen = overview.last_seen.max(at(&message));
    }

    /// The devices by id.
    pub fn devices(&self) -> &BTreeMap<String, Overview> {
        &self.devices
    }

    /// Messages that could not be read, or not be kept.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// Reads a payload, unless it is larger than a device may send.
pub fn read(payload: &[u8]) -> Option<Value> {
    if payload.len() > limits::PAYLOAD_BYTES {
        return None;
    }
    serde_json::from_slice(payload).ok().filter(Value::is_object)
}

/// When a message says it was made.
pub fn at(message: &Value) -> Option<Timestamp> {
    message["at"].as_str()?.parse().ok()
}

fn text(message: &Value, pointer: &str) -> Option<String> {
    let text = message.pointer(pointer)?.as_str()?;
    (!text.is_empty()).then(|| clean(text, FIELD))
}

/// The groups that an inventory names.
pub fn groups(inventory: &Value) -> Vec<String> {
    let groups = inventory["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    groups.filter(|group| topic::is_name(group)).take(LISTED).map(str::to_owned).collect()
}

/// The update engine's state, with the share done while it writes.
pub fn update(message: &Value) -> Option<String> {
    if message["available"].as_bool() == Some(false) {
        return Some("unavailable".to_owned());
    }
    let state = text(message, "/state")?;
    let bytes = |pointer: &str| message.pointer(pointer).and_then(Value::as_u64);
    match bytes("/progress/done_bytes").zip(bytes("/progress/total_bytes")) {
        Some((done, total)) if total > 0 => {
            Some(format!("{state} {}%", u128::from(done.min(total)) * 100 / u128::from(total)))
        }
        _ => Some(state),
    }
}

/// One line that says what a message says.
pub fn summary(rest: &str, payload: &[u8]) -> String {
    if payload.is_empty() {
        return "(cleared)".to_owned();
    }
    let Some(message) = read(payload) else { return format!("(unreadable, {} bytes)", payload.len()) };
    let field = |pointer: &str| text(&message, pointer).unwrap_or_default();
    let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_u64);
    let line = match rest.split('/').next().unwrap_or_default() {
        "presence" => format!("{}, session {}", field("/status"), number("/session").unwrap_or(0)),
        "inventory" => format!("{} {}, {}", field("/product"), field("/hardware_revision"), field("/os")),
        "health" => {
            let cpu = number("/cpu_permille").map(|cpu| format!("cpu {}%", cpu / 10));
            let load =
                message.pointer("/load/0").and_then(Value::as_f64).map(|load| format!("load {load:.2}"));
            let memory = number("/memory_available_bytes").map(|free| format!("{} free", bytes(free)));
            [cpu, load, memory].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        "update" => {
            let running = format!("slot {} runs {}", field("/running_slot"), field("/running/version"));
            format!("{}, {}", update(&message).unwrap_or_default(), running.trim_end())
        }
        "incident" => format!("{}: {}", field("/severity"), field("/title")),
        "config" => format!("overlay {}", number("/overlay_version").unwrap_or(0)),
        "result" => {
            format!("{} {} {} {}", field("/kind"), field("/status"), field("/reason"), field("/message"))
        }
        "diagnosis" => format!("{}: {}", field("/verdict/domain"), field("/verdict/summary")),
        "digest" | "command" => format!("envelope, {} bytes", payload.len()),
        _ => format!("{} bytes", payload.len()),
    };
    clean(line.trim(), 120)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PREFIX: &str = "vigil/v1";

    #[test]
    fn the_messages_of_a_device_become_one_overview() {
        let mut fleet = Fleet::default();
        let mut take = |level: &str, body: Value| {
            fleet.take(PREFIX, &format!("vigil/v1/bar-1/{level}"), body.to_string().as_bytes());
        };
        take("presence", json!({"status": "online", "session": 3, "at": "2026-06-01T12:00:00Z"}));
        take("inventory", json!({"product": "videobar", "groups": ["floor-3", "a/b", 7]}));
        take("health", json!({"load": [0.5, 0.4, 0.3], "at": "2026-06-01T12:05:00Z"}));
        take(
            "update",
            json!({"available": true, "state": "writing", "running_slot": "A",
            "running": {"version": "1.2.0", "sequence": 3}, "progress": {"done_bytes": 50, "total_bytes": 200}}),
        );
        let overview = &fleet.devices()["bar-1"];
        assert_eq!(overview.status.as_deref(), Some("online"));
        assert_eq!(overview.update.as_deref(), Some("writing 25%"));
        assert_eq!(overview.groups, ["floor-3"]);
        assert_eq!((overview.release.as_deref(), overview.load), (Some("1.2.0"), Some(0.5)));
        assert_eq!(overview.last_seen, Some("2026-06-01T12:05:00Z".parse().unwrap()));
    }

    #[test]
    fn an_incident_is_open_until_its_topic_is_empty() {
        let mut fleet = Fleet::default();
        let mut incident = |body: &str| {
            fleet.take(PREFIX, "vigil/v1/bar-1/incident/repository-frozen", body.as_bytes());
            fleet.devices().get("bar-1").map(|overview| overview.incidents.len())
        };
        assert_eq!(incident(""), None);
        assert_eq!(incident(r#"{"severity": "major", "title": "Frozen"}"#), Some(1));
        assert_eq!(incident(r#"{"severity": "major", "title": "Frozen still"}"#), Some(1));
        assert_eq!(incident(""), Some(0));
    }

    #[test]
    fn garbage_is_counted_and_makes_no_device() {
        let mut fleet = Fleet::default();
        for payload in [&b"\xff\xff"[..], b"[]", &vec![b' '; limits::PAYLOAD_BYTES + 1]] {
            fleet.take(PREFIX, "vigil/v1/bar-1/health", payload);
        }
        fleet.take(PREFIX, "vigil/v1/group/x/command", b"{}");
        assert!(fleet.devices().is_empty());
        assert_eq!(fleet.unreadable(), 3);
    }

    #[test]
    fn every_topic_has_a_summary_and_none_carries_control_characters() {
        let hostile = json!({"status": "\u{1b}[2J", "message": "x\ny"}).to_string();
        for rest in [
            "presence",
            "inventory",
            "health",
            "update",
            "config",
            "digest",
            "incident/1",
            "result/1",
            "diagnosis/1",
            "x",
        ] {
            let line = summary(rest, hostile.as_bytes());
            assert!(!line.chars().any(char::is_control), "{rest}: {line:?}");
            assert!(summary(rest, b"\x00").starts_with("(unreadable"));
        }
        assert_eq!(summary("incident/7", b""), "(cleared)");
    }

    #[test]
    fn progress_beyond_its_total_or_of_nothing_is_no_panic() {
        let state = |done: u64, total: u64| {
            update(&json!({"state": "writing", "progress": {"done_bytes": done, "total_bytes": total}}))
                .unwrap()
        };
        assert_eq!((state(u64::MAX, 1), state(5, 0)), ("writing 100%".into(), "writing".into()));
    }
}
