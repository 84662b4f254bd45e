//! One entry of the audit log: a line of JSON, whose bytes are the leaf.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vigil_text::clean;

/// The events that strangers can cause as often as they like: whoever sends commands, answers as broker or repository, or
/// connects to a socket. Those of the updater's that are marked so there come as `updater.…`.
const STRANGERS: [&str; 14] = [
    "command.refused",
    "link.connected",
    "link.failed",
    "link.lost",
    "local.refused",
    "refresh.failed",
    "updater.control.refused",
    "updater.fetch.failed",
    "updater.install.refused",
    "updater.metadata.refused",
    "updater.patch.missing",
    "updater.peer.nonsense",
    "updater.peer.refused",
    "updater.trust.problem",
];
/// A string's bytes in an entry, and those of the name of a member.
const TEXT_BYTES: usize = 4096;
const NAME_BYTES: usize = 128;
/// The same for what strangers cause.
const STRANGERS_TEXT_BYTES: usize = 500;
/// Levels of a detail: what is deeper is not shown.
const DEPTH: usize = 24;
/// What is kept of a detail that is longer than a line.
const KEPT_OF_LONG: [&str; 4] = ["id", "kind", "reason", "status"];

/// Whether strangers can cause an entry of this event.
pub fn is_strangers(event: &str) -> bool {
    STRANGERS.contains(&event)
}

/// What of `detail` is recorded: every text in it bounded and free of controls, and no deeper than every reader can go.
pub(super) fn shown(detail: Value, event: &str) -> Value {
    shown_to(detail, if is_strangers(event) { STRANGERS_TEXT_BYTES } else { TEXT_BYTES }, DEPTH)
}

fn shown_to(detail: Value, limit: usize, depth: usize) -> Value {
    match detail {
        Value::String(text) => Value::String(clean(&text, limit)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::from("\u{2026}"),
        Value::Array(values) => values.into_iter().map(|value| shown_to(value, limit, depth - 1)).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (clean(&name, NAME_BYTES), shown_to(value, limit, depth - 1)))
            .collect(),
        other => other,
    }
}

/// What is left of a `detail` whose entry would be longer than a line: what tells whose it was and why.
pub(super) fn shortened(detail: &Value, bytes: usize) -> Value {
    let mut kept: Map<String, Value> = KEPT_OF_LONG
        .iter()
        .filter_map(|name| {
            detail.get(name).filter(|value| value.is_string()).map(|value| ((*name).into(), value.clone()))
        })
        .collect();
    kept.insert("omitted_bytes".into(), bytes.into());
    Value::Object(kept)
}

/// How what is recorded ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It happened.
    Success,
    /// It was tried and did not work.
    Failure,
    /// It was not allowed.
    Refused,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Format version, 1.
    pub v: u32,
    /// Its place in the tree, from 0.
    pub index: u64,
    /// When, by the device's clock, which may be wrong: the index orders.
    pub at: Timestamp,
    /// What happened, e.g. `command.accepted`.
    pub event: String,
    /// Who, e.g. `operator:olga`, `uid:1000`, `device`.
    pub actor: String,
    /// How it ended.
    pub outcome: Outcome,
    /// More, by event.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}
