//! One entry of the audit log: a line of JSON, whose bytes are the leaf.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
