//! What devices would refuse is not signed: the content of a target, checked by the kind that its name says.

use anyhow::{Context, Result, anyhow, bail};
use vigil_protocol::trusted::TargetKind;
use vigil_updater::release::{Manifest, target_name};

/// Checks a target before it is signed. Targets of names that no device reads may be anything.
pub fn check_content(name: &str, bytes: &[u8]) -> Result<()> {
    let result = match TargetKind::of(name) {
        TargetKind::Release => release(name, bytes),
        kind => kind.check(bytes).map_err(|error| anyhow!("devices would refuse this: {error}")),
    };
    result.with_context(|| format!("{name} is not signed"))
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
        assert!(error.contains("it is the tenant \"acme\"'s"), "{error}");
    }

    #[test]
    fn what_is_not_what_its_name_says_is_not_signed() {
        let names = [
            "operators/acme.json",
            "releases/bar/1.0.0.json",
            "partners/meet.json",
            "remedies.json",
            "entitlements.json",
        ];
        for name in names {
            assert!(check_content(name, b"{}").is_err(), "{name}");
        }
        assert!(check_content("notes.txt", b"anything").is_ok());
    }
}
