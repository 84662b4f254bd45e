//! The device's own interfaces: is there one that is up, with an address and a way out.

use std::net::IpAddr;

use sysinfo::{InterfaceOperationalState, Networks};
use vigil_protocol::diagnosis::{Evidence, Layer};

use super::Look;
use crate::network::tables::Route;
use vigil_text::clean;

/// More interfaces than an endpoint has; the rest is left out.
const INTERFACES: usize = 16;

/// One interface, as far as a verdict needs it.
#[derive(Clone, Debug)]
struct Link {
    name: String,
    up: bool,
    addresses: Vec<IpAddr>,
}

/// Evidence for each interface, and whether one of them can be used.
pub fn probe() -> (Vec<Evidence>, bool) {
    judge(&links())
}

/// Whether there is a way out.
pub(in crate::network) fn route_evidence(routes: &[Route]) -> Evidence {
    let look = Look::at(Layer::Interface, "default route");
    let shown = |route: &Route| match route.gateway {
        Some(gateway) => format!("{gateway} on {}", route.interface),
        None => route.interface.clone(),
    };
    if routes.is_empty() {
        look.failed("no_route", "the device has no default route: it knows no way out of the room's network")
    } else {
        look.ok(format!("default route by {}", routes.iter().map(shown).collect::<Vec<_>>().join(" and ")))
    }
}

fn links() -> Vec<Link> {
    let Ok(networks) = Networks::new_with_refreshed_list() else { return Vec::new() };
    let mut links: Vec<Link> = networks
        .iter()
        .filter(|(name, _)| *name != "lo")
        .map(|(name, data)| Link {
            name: clean(&name.to_string_lossy(), 16),
            // Drivers that do not report a state stay `unknown` and may well work (RFC 2863, section 3.1.14).
            up: matches!(
                data.operational_state(),
                InterfaceOperationalState::Up | InterfaceOperationalState::Unknown
            ),
            addresses: data.ip_networks().iter().map(|network| network.addr).collect(),
        })
        .collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links.truncate(INTERFACES);
    links
}

/// An interface that is not used is a fault only when no other is.
fn judge(links: &[Link]) -> (Vec<Evidence>, bool) {
    if links.is_empty() {
        let none = Look::at(Layer::Interface, "interfaces");
        return (vec![none.failed("no_carrier", "the device has no network interface")], false);
    }
    let usable = |link: &Link| link.up && link.addresses.iter().any(is_global);
    let any_usable = links.iter().any(usable);
    let evidence = |link: &Link| {
        let look = Look::at(Layer::Interface, &link.name);
        let (code, message) = if usable(link) {
            return look.ok(format!("{} is up and has an address", link.name));
        } else if link.up {
            ("no_address", format!("{} is up but has no address", link.name))
        } else {
            ("no_carrier", format!("{} is down: no carrier, or switched off", link.name))
        };
        if any_usable { look.skipped(code, message) } else { look.failed(code, message) }
    };
    let mut all: Vec<Evidence> = links.iter().map(evidence).collect();
    // What has a carrier is nearest to working: it leads, and names the verdict.
    all.sort_by_key(|e| e.code == "no_carrier");
    (all, any_usable)
}

/// A link-local address is what a device gives itself when nobody gave it one (RFC 3927, RFC 4291).
fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_link_local() && !address.is_loopback() && !address.is_unspecified()
        }
        IpAddr::V6(address) => {
            !address.is_unicast_link_local() && !address.is_loopback() && !address.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigil_protocol::diagnosis::Outcome;

    fn link(name: &str, up: bool, addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Link { name: name.to_owned(), up, addresses }
    }

    #[test]
    fn an_unplugged_interface_beside_a_working_one_is_no_fault() {
        let (evidence, usable) = judge(&[link("eth0", false, &[]), link("wlan0", true, &["192.0.2.5"])]);
        assert!(usable);
        assert!(evidence.iter().all(|e| e.outcome != Outcome::Failed));
    }

    #[test]
    fn addresses_that_a_device_gives_itself_do_not_count() {
        let (evidence, usable) = judge(&[link("eth0", true, &["169.254.1.2", "fe80::1"])]);
        assert!(!usable);
        assert_eq!((evidence[0].outcome, evidence[0].code.as_str()), (Outcome::Failed, "no_address"));
    }

    #[test]
    fn the_interface_that_is_nearest_to_working_leads() {
        let (evidence, _) = judge(&[link("eth0", false, &[]), link("wlan0", true, &[])]);
        assert_eq!(evidence[0].subject, "wlan0");
    }

    #[test]
    fn a_device_without_interfaces_is_at_fault() {
        assert_eq!(judge(&[]).0[0].outcome, Outcome::Failed);
        assert_eq!(route_evidence(&[]).code, "no_route");
    }
}
