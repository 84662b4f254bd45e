//! The operators list of one tenant, a TUF target `operators/{tenant}.json`: who may ask what of which devices.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Scope;
use crate::keys::PublicKey;
use crate::limits;
use crate::topic::is_name;

/// Why a list could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorsError {
    /// Too many bytes or entries.
    #[error("the operators list is too large: {0}")]
    TooLarge(String),
    /// Not a list.
    #[error("not an operators list: {0}")]
    Malformed(String),
    /// A format this version does not know.
    #[error("operators list of format {0}; this version reads format 1")]
    Version(u32),
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// For people and audit entries.
    pub name: String,
    /// Ed25519, base64.
    pub key: PublicKey,
    /// What the key may be used for; a scope does not imply another.
    pub scopes: Vec<Scope>,
    /// Devices it is granted for, by id; `"*"` is every device of the tenant.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Groups it is granted for.
    #[serde(default)]
    pub groups: Vec<String>,
    /// After this the key means nothing.
    pub expires: Timestamp,
}

impl Operator {
    /// Whether the key is granted for a device that is in `groups`.
    pub fn covers(&self, device: &str, groups: &[String]) -> bool {
        self.devices.iter().any(|granted| granted == "*" || granted == device)
            || self.groups.iter().any(|granted| groups.contains(granted))
    }
}

/// The list, version 1. TUF says that it is authentic and current; here only its shape is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operators {
    /// Format version, 1.
    pub v: u32,
    /// The tenant it is for.
    pub tenant: String,
    /// After this, everything but `observe` is refused.
    pub expires: Timestamp,
    /// The operators.
    pub operators: Vec<Operator>,
    /// How many operators must sign a command, by the name of its kind; one where nothing is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, u32>,
}

impl Operators {
    /// Reads a list within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, OperatorsError> {
        if bytes.len() > limits::OPERATORS_BYTES {
            return Err(OperatorsError::TooLarge(format!("{} bytes", bytes.len())));
        }
        let list: Self = serde_json::from_slice(bytes)
            .map_err(|error| OperatorsError::Malformed(vigil_text::json_fault(&error)))?;
        if list.v != 1 {
            return Err(OperatorsError::Version(list.v));
        }
        if list.operators.len() > limits::OPERATORS {
            return Err(OperatorsError::TooLarge(format!("{} operators", list.operators.len())));
        }
        if list.thresholds.len() > limits::OPERATORS {
            return Err(OperatorsError::TooLarge(format!("{} thresholds", list.thresholds.len())));
        }
        if !is_name(&list.tenant) {
            return Err(OperatorsError::Malformed("the tenant is no name".to_owned()));
        }
        Ok(list)
    }
}
