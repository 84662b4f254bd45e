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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The public key of RFC 8032, section 7.1, test 1.
    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn operator() -> Value {
        json!({"name": "o", "key": KEY, "scopes": ["observe"], "expires": "2026-06-20T00:00:00Z"})
    }

    fn list(operators: usize, thresholds: usize) -> Value {
        let thresholds: BTreeMap<_, _> = (0..thresholds).map(|kind| (format!("kind-{kind}"), 2)).collect();
        json!({
            "v": 1, "tenant": "acme", "expires": "2026-07-01T00:00:00Z",
            "operators": vec![operator(); operators], "thresholds": thresholds,
        })
    }

    fn parse(list: &Value) -> Result<Operators, OperatorsError> {
        Operators::parse(list.to_string().as_bytes())
    }

    #[test]
    fn a_list_is_read_and_what_it_does_not_say_is_nothing_and_no_threshold() {
        let mut list = list(1, 0);
        list.as_object_mut().unwrap().remove("thresholds");
        let read = parse(&list).unwrap();
        assert_eq!((read.v, read.tenant.as_str()), (1, "acme"));
        assert_eq!(read.expires, "2026-07-01T00:00:00Z".parse().unwrap());
        assert!(read.thresholds.is_empty());
        let [operator] = &read.operators[..] else { panic!("{read:?}") };
        assert_eq!((operator.name.as_str(), &operator.scopes[..]), ("o", &[Scope::Observe][..]));
        assert_eq!(operator.key.to_string(), KEY);
        assert!(operator.devices.is_empty() && operator.groups.is_empty());
    }

    #[test]
    fn a_list_of_262144_bytes_is_read_and_one_byte_more_is_too_large() {
        let mut bytes = list(1, 1).to_string().into_bytes();
        bytes.resize(262_144, b' ');
        assert!(Operators::parse(&bytes).is_ok());
        bytes.push(b' ');
        assert_eq!(Operators::parse(&bytes), Err(OperatorsError::TooLarge("262145 bytes".into())));
        bytes.push(b' ');
        assert_eq!(Operators::parse(&bytes), Err(OperatorsError::TooLarge("262146 bytes".into())));
    }

    #[test]
    fn a_list_has_at_most_1000_operators_and_as_many_thresholds() {
        let full = parse(&list(1_000, 1_000)).unwrap();
        assert_eq!((full.operators.len(), full.thresholds.len()), (1_000, 1_000));
        for (operators, thresholds, what) in [
            (1_001, 0, "1001 operators"),
            (1_002, 0, "1002 operators"),
            (0, 1_001, "1001 thresholds"),
            (0, 1_002, "1002 thresholds"),
        ] {
            assert_eq!(
                parse(&list(operators, thresholds)),
                Err(OperatorsError::TooLarge(what.to_owned())),
                "{what}"
            );
        }
    }

    #[test]
    fn a_list_of_another_format_or_for_no_tenant_or_with_unknown_fields_is_refused() {
        for version in [0, 2] {
            let mut list = list(1, 0);
            list["v"] = version.into();
            assert_eq!(parse(&list), Err(OperatorsError::Version(version)));
        }
        for tenant in ["", "..", "a/b", "a b"] {
            let mut list = list(1, 0);
            list["tenant"] = tenant.into();
            let refused = Err(OperatorsError::Malformed("the tenant is no name".into()));
            assert_eq!(parse(&list), refused, "{tenant:?}");
        }
        let mut unknown = list(1, 0);
        unknown["operators"][0]["role"] = "owner".into();
        assert!(matches!(parse(&unknown), Err(OperatorsError::Malformed(_))));
        let mut unknown = list(1, 0);
        unknown["signature"] = "none".into();
        assert!(matches!(parse(&unknown), Err(OperatorsError::Malformed(_))));
    }

    #[test]
    fn a_key_covers_the_devices_and_groups_it_names_and_a_star_covers_all() {
        let covers = |devices: &[&str], groups: &[&str]| {
            let mut operator: Operator = serde_json::from_value(operator()).unwrap();
            operator.devices = devices.iter().map(|&device| device.to_owned()).collect();
            operator.groups = groups.iter().map(|&group| group.to_owned()).collect();
            operator.covers("bar-1", &["floor-3".to_owned(), "bars".to_owned()])
        };
        assert!(covers(&["*"], &[]));
        assert!(covers(&["bar-1"], &[]));
        assert!(covers(&["bar-2", "bar-1"], &["floor-4"]));
        assert!(covers(&[], &["floor-3"]));
        assert!(covers(&["bar-2"], &["floor-4", "bars"]));
        assert!(!covers(&[], &[]));
        assert!(!covers(&["bar-2", "bar-", "bar-10"], &["floor-4", "bar-1"]));
        // A device's id is no group's name, and a star among the groups is a name like any other.
        assert!(!covers(&["floor-3"], &["*"]));
    }
}
