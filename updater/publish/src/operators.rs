//! The operators list of a tenant, as a target.

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use vigil_protocol::command::Kind;
use vigil_protocol::operators::{Operator, Operators};

use crate::repository::Repository;

/// An operator from `name=…,key=BASE64,scopes=observe+operate,devices=*,groups=…,expires=…`; without `expires` it
/// expires with its list.
pub fn parse_operator(text: &str, list_expires: Timestamp) -> Result<Operator> {
    let (mut name, mut key, mut expires) = (None, None, None);
    let (mut scopes, mut devices, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for field in text.split(',') {
        let (word, value) = field.split_once('=').with_context(|| format!("{field:?} is not word=value"))?;
        let list = || value.split('+').filter(|item| !item.is_empty()).map(str::to_owned);
        match word {
            "name" => name = Some(value.to_owned()),
            "key" => {
                let public = value.to_owned().try_into();
                key = Some(
                    public
                        .with_context(|| format!("{value:?}: see the output of `vigil-publish key new`"))?,
                );
            }
            "scopes" => {
                for scope in list() {
                    let value = serde_json::Value::String(scope.clone());
                    let known = "the scopes are observe, operate, update and admin";
                    scopes
                        .push(serde_json::from_value(value).with_context(|| format!("{scope:?}: {known}"))?);
                }
            }
            "devices" => devices.extend(list()),
            "groups" => groups.extend(list()),
            "expires" => {
                expires = Some(value.parse().with_context(|| format!("{value:?} is no RFC 3339 time"))?);
            }
            _ => bail!("{word:?} is not one of name, key, scopes, devices, groups, expires"),
        }
    }
    let operator = Operator {
        name: name.context("the operator has no name=")?,
        key: key.context("the operator has no key=")?,
        scopes,
        devices,
        groups,
        expires: expires.unwrap_or(list_expires),
    };
    if operator.scopes.is_empty() {
        bail!("the operator {} has no scopes=, so the key could do nothing", operator.name);
    }
    if operator.devices.is_empty() && operator.groups.is_empty() {
        bail!("the operator {} has neither devices= nor groups= (devices=* is every device)", operator.name);
    }
    Ok(operator)
}

/// A threshold from `KIND=COUNT`.
pub fn parse_threshold(text: &str) -> Result<(String, u32)> {
    let (kind, count) = text.split_once('=').with_context(|| format!("{text:?} is not KIND=COUNT"))?;
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::from_name(kind)
        .with_context(|| format!("{kind:?} is no kind of command; there are {}", known()))?;
    let count = count.parse().ok().filter(|count| *count > 0);
    Ok((kind.to_owned(), count.with_context(|| format!("{text:?}: the count is 1 or more"))?))
}

/// A list that expires after `days`.
pub fn list(
    tenant: &str,
    operators: &[String],
    thresholds: &[String],
    days: u16,
    now: Timestamp,
) -> Result<Operators> {
    let expires =
        now.saturating_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
    let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
    let operators = operators.iter().map(|text| parse_operator(text, expires)).collect::<Result<_>>()?;
    let thresholds = thresholds.iter().map(|text| parse_threshold(text)).collect::<Result<_>>()?;
    Ok(Operators { v: 1, tenant: tenant.to_owned(), expires, operators, thresholds })
}

/// The name of a tenant's list.
pub fn target_name(tenant: &str) -> String {
    format!("operators/{tenant}.json")
}

/// Puts the list in place as a target; the target's name. A reader's checks are made before it is signed.
pub fn put(repository: &mut Repository, tenant: &str, list: &Operators) -> Result<String> {
    if list.tenant != tenant {
        bail!("the list is for the tenant {:?}, not {tenant:?}", list.tenant);
    }
    let bytes = serde_json::to_vec_pretty(list)?;
    let name = target_name(tenant);
    repository.put_target(&name, &bytes, None)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";

    #[test]
    fn an_operator_is_read_from_one_argument() {
        let text = format!("name=alice,key={KEY},scopes=observe+operate,devices=bar-1+bar-2,groups=hq");
        let operator = parse_operator(&text, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((operator.name.as_str(), operator.scopes.len(), operator.devices.len()), ("alice", 2, 2));
        assert_eq!((operator.groups, operator.expires), (vec!["hq".to_owned()], Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn an_operator_who_could_do_nothing_or_is_misspelt_is_refused() {
        for text in [
            format!("key={KEY},scopes=observe,devices=*"),
            format!("name=a,key={KEY},devices=*"),
            format!("name=a,key={KEY},scopes=observe"),
            format!("name=a,key={KEY},scopes=everything,devices=*"),
            format!("name=a,key={KEY},scope=observe,devices=*"),
            "name=a,key=abc,scopes=observe,devices=*".to_owned(),
            String::new(),
        ] {
            assert!(parse_operator(&text, Timestamp::UNIX_EPOCH).is_err(), "{text}");
        }
    }
}
