//! What a change of configuration is: assignments become a JSON merge patch (RFC 7396), and a patch is held against
//! what is in effect.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Sections within sections at most.
const DEPTH: usize = 8;

/// One setting that a patch would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// What is in effect, if anything is.
    pub from: Option<Value>,
    /// What would be; nothing means the image's default.
    pub to: Option<Value>,
}

/// Puts assignments, and settings that go back to the image's default, together into one patch.
pub fn patch(assignments: &[(String, Value)], unset: &[String]) -> Result<Value, Failure> {
    let mut patch = Map::new();
    let nulls = unset.iter().map(|key| (key, &Value::Null));
    for (key, value) in assignments.iter().map(|(key, value)| (key, value)).chain(nulls) {
        let levels: Vec<&str> = key.split('.').collect();
        if levels.len() < 2 || levels.len() > DEPTH || levels.iter().any(|level| level.is_empty()) {
            return Err(Failure::Usage(format!("{key:?}: expected section.key, e.g. health.interval")));
        }
        put(&mut patch, &levels, value)
            .map_err(|()| Failure::Usage(format!("{key:?} is given twice, or together with a part of it")))?;
    }
    Ok(Value::Object(patch))
}

fn put(object: &mut Map<String, Value>, levels: &[&str], value: &Value) -> Result<(), ()> {
    let Some((first, rest)) = levels.split_first() else { return Err(()) };
    if rest.is_empty() {
        return object.insert((*first).to_owned(), value.clone()).map_or(Ok(()), |_| Err(()));
    }
    let below = object.entry(*first).or_insert_with(|| Value::Object(Map::new()));
    put(below.as_object_mut().ok_or(())?, rest, value)
}

/// What a patch would change of what is in effect, in the order of the keys.
pub fn difference(effective: &Value, patch: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, "", Some(effective), patch);
    changes
}

fn compare(changes: &mut Vec<Change>, path: &str, from: Option<&Value>, patch: &Value) {
    if let Value::Object(fields) = patch {
        for (name, value) in fields {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(changes, &key, from.and_then(|from| from.get(name)), value);
        }
        return;
    }
    let to = (!patch.is_null()).then(|| patch.clone());
    if from != to.as_ref() {
        changes.push(Change { key: path.to_owned(), from: from.cloned(), to });
    }
}

/// The settings below `value` as lines `section.key = value`, with a list as one value.
pub fn settings(path: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let below = fields.iter().flat_map(|(name, value)| {
                settings(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value)
            });
            below.collect()
        }
        value => vec![(path.to_owned(), value.to_string())],
    }
}

/// What stands at `section.key`, or in a whole section.
pub fn at<'v>(effective: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(effective, |value, level| value.get(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn assign(assignments: &[(&str, Value)], unset: &[&str]) -> Result<Value, Failure> {
        let assignments: Vec<_> =
            assignments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        patch(&assignments, &unset.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn assignments_become_one_merge_patch() {
        let patch = assign(
            &[
                ("health.interval", json!("30s")),
                ("log.level", json!("debug")),
                ("health.deadbands.cpu", json!(5)),
            ],
            &["log.file"],
        );
        assert_eq!(
            patch.unwrap(),
            json!({"health": {"interval": "30s", "deadbands": {"cpu": 5}}, "log": {"level": "debug", "file": null}})
        );
    }

    #[test]
    fn a_key_without_section_or_given_twice_is_refused() {
        for key in ["interval", "", ".interval", "health.", "a..b", "a.b.c.d.e.f.g.h.i"] {
            assert!(assign(&[(key, json!(1))], &[]).is_err(), "{key:?}");
        }
        assert!(assign(&[("health.interval", json!(1)), ("health.interval", json!(2))], &[]).is_err());
        assert!(assign(&[("health.interval", json!(1))], &["health.interval"]).is_err());
        assert!(assign(&[("health.a", json!(1)), ("health.a.b", json!(2))], &[]).is_err());
    }

    #[test]
    fn only_what_differs_from_what_is_in_effect_is_a_change() {
        let effective = json!({"health": {"interval": "60s", "max_silence": "1h"}, "log": {"level": "info"}});
        let patch = json!({"health": {"interval": "30s", "max_silence": "1h", "new": {"a": 1}}, "log": {"level": null}});
        let changes = difference(&effective, &patch);
        let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["health.interval", "health.new.a", "log.level"]);
        assert_eq!(
            (changes[0].from.clone(), changes[0].to.clone()),
            (Some(json!("60s")), Some(json!("30s")))
        );
        assert_eq!((changes[1].from.clone(), changes[2].to.clone()), (None, None));
    }

    #[test]
    fn settings_read_as_lines_and_are_found_by_their_keys() {
        let effective =
            json!({"network": {"partners": [{"name": "meet"}]}, "log": {"level": "info"}, "audit": {}});
        let lines = settings("", &effective);
        assert!(lines.contains(&("log.level".to_owned(), "\"info\"".to_owned())));
        assert!(lines.contains(&("network.partners".to_owned(), "[{\"name\":\"meet\"}]".to_owned())));
        assert_eq!(at(&effective, "log.level"), Some(&json!("info")));
        assert!(at(&effective, "log").is_some() && at(&effective, "log.no").is_none());
    }
}
