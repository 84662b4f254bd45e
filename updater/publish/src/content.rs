//! What devices would refuse is not signed: the content of a target, checked by the kind that its name says.

use anyhow::{Context, Result, bail};
use vigil_protocol::operators::Operators;
use vigil_updater::release::{Manifest, target_name};

type Check = fn(&str, &[u8]) -> Result<()>;

/// The beginning of a name, and what a target of such a name must be. A new kind is a line here and a function below.
const CHECKS: [(&str, Check); 2] = [("operators/", operators), ("releases/", release)];

/// Checks a target before it is signed. Targets of other names may be anything.
pub fn check_content(name: &str, bytes: &[u8]) -> Result<()> {
    let mut checks = CHECKS.iter().filter(|(beginning, _)| name.starts_with(beginning));
    checks.try_for_each(|(_, check)| check(name, bytes)).with_context(|| format!("{name} is not signed"))
}

fn operators(name: &str, bytes: &[u8]) -> Result<()> {
    let list = Operators::parse(bytes).context("devices would refuse this list")?;
    check_name(name, &format!("operators/{}.json", list.tenant))
}

fn release(name: &str, bytes: &[u8]) -> Result<()> {
    let manifest = Manifest::parse(bytes).context("devices would refuse this release")?;
    check_name(name, &target_name(&manifest.product, &manifest.version.to_string()))
}

fn check_name(name: &str, expected: &str) -> Result<()> {
    if name != expected {
        bail!("by its content its name is {expected}, and devices look for it there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_signed_under_its_tenants_name_only() {
        let list = br#"{"v":1,"tenant":"acme","expires":"2030-01-01T00:00:00Z","operators":[]}"#;
        assert!(check_content("operators/acme.json", list).is_ok());
        let error = format!("{:#}", check_content("operators/umbrella.json", list).unwrap_err());
        assert!(error.contains("its name is operators/acme.json"), "{error}");
    }

    #[test]
    fn what_is_not_what_its_name_says_is_not_signed() {
        for name in ["operators/acme.json", "releases/bar/1.0.0.json"] {
            assert!(check_content(name, b"{}").is_err(), "{name}");
        }
        assert!(check_content("notes.txt", b"anything").is_ok());
    }
}
