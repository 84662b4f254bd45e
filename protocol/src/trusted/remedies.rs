//! `remedies.json`: what is known to help, by signal.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{DocumentError, check_count, check_name, check_version, read};
use crate::limits;

const WHAT: &str = "a list of remedies";

/// The remedies, version 1. Fields that are not known here are for newer devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedies {
    /// Format version, 1.
    pub v: u32,
    /// Each under an id of its own.
    pub remedies: Vec<Remedy>,
}

/// One remedy: words for people. What a device does by itself is listed in its own configuration, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// Stable, for programs.
    pub id: String,
    /// The signals that it is for.
    pub signals: Vec<String>,
    /// The products that it is for; none named is all.
    #[serde(default)]
    pub products: Vec<String>,
    /// What to do, in a line.
    pub title: String,
    /// What to do, step by step.
    #[serde(default)]
    pub steps: Vec<String>,
    /// The release that has the fix, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_in: Option<String>,
}

impl Remedies {
    /// Reads a list within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let list: Self = read(WHAT, bytes, limits::REMEDIES_BYTES)?;
        check_version(WHAT, list.v)?;
        check_count("remedies", list.remedies.len(), limits::REMEDIES)?;
        let mut ids = BTreeSet::new();
        for remedy in &list.remedies {
            check_name(WHAT, &remedy.id)?;
            if !ids.insert(&remedy.id) {
                return Err(DocumentError::Malformed(WHAT, format!("{:?} is there twice", remedy.id)));
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_are_there_once() {
        let remedy =
            |id: &str| format!(r#"{{"id":"{id}","signals":["camera.missing"],"title":"Plug it in"}}"#);
        let list = |remedies: &[String]| {
            Remedies::parse(format!(r#"{{"v":1,"remedies":[{}]}}"#, remedies.join(",")).as_bytes())
        };
        assert_eq!(list(&[remedy("a"), remedy("b")]).unwrap().remedies.len(), 2);
        assert!(list(&[remedy("a"), remedy("a")]).is_err());
        assert!(list(&[remedy("a/b")]).is_err());
        assert!(Remedies::parse(br#"{"v":2,"remedies":[]}"#).is_err());
    }
}
