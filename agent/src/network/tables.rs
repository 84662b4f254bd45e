//! The kernel's tables of routes and neighbours, and the resolver's configuration: text to values.
//!
//! Whatever does not parse is passed over: a diagnosis must come out of a broken machine as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// More than any of these files has on an endpoint.
const FILE_BYTES: u64 = 256 * 1024;
/// The C library asks no more (`resolv.conf(5)`, MAXNS).
const NAMESERVERS: usize = 3;
/// `RTF_UP`, `RTF_REJECT` of `linux/route.h`.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    /// None on a point-to-point link, where nobody is the next hop.
    pub(super) gateway: Option<IpAddr>,
    metric: u32,
}

/// The best default route of each family.
pub(super) fn default_routes() -> Vec<Route> {
    let best = |routes: Vec<Route>| routes.into_iter().min_by_key(|route| route.metric);
    let v4 = best(routes_v4(&read("/proc/net/route")));
    let v6 = best(routes_v6(&read("/proc/net/ipv6_route")));
    v4.into_iter().chain(v6).collect()
}

/// Whether the IPv4 neighbour's hardware address is known.
pub(super) fn neighbour_is_complete(address: IpAddr) -> bool {
    arp_is_complete(&read("/proc/net/arp"), address)
}

/// A file as text; empty when there is none, or when it is larger than it can honestly be.
pub(super) fn read(path: impl AsRef<Path>) -> String {
    let bytes = vigil_durable::read_bounded(path.as_ref(), FILE_BYTES).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `/proc/net/route`: addresses are the four bytes as one hexadecimal number in the machine's own byte order.
pub(super) fn routes_v4(text: &str) -> Vec<Route> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
        let usable = hex(3)? & (UP | REJECT) == UP;
        let is_default = hex(1)? == 0 && hex(7)? == 0;
        let gateway = Ipv4Addr::from(hex(2)?.to_ne_bytes());
        (usable && is_default).then_some(Route {
            interface: interface_name(fields.first()?)?,
            gateway: (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway)),
            metric: fields.get(6)?.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// `/proc/net/ipv6_route`: addresses are 32 hexadecimal digits in network order.
pub(super) fn routes_v6(text: &str) -> Vec<Route> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
        let address = |index: usize| u128::from_str_radix(fields.get(index)?, 16).ok().map(Ipv6Addr::from);
        let usable = hex(8)? & (UP | REJECT) == UP;
        let is_default = address(0)?.is_unspecified() && hex(1)? == 0;
        let gateway = address(4)?;
        (usable && is_default).then_some(Route {
            interface: interface_name(fields.get(9)?)?,
            gateway: (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway)),
            metric: hex(5)?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// IFNAMSIZ is 16 with the NUL; a name becomes part of a path below.
fn interface_name(name: &str) -> Option<String> {
    let fits = (1..16).contains(&name.len()) && !name.contains('/') && name != "." && name != "..";
    fits.then(|| name.to_owned())
}

/// `/proc/net/arp`: flag 0x2 (`ATF_COM`) means that the address was resolved.
pub(super) fn arp_is_complete(text: &str, address: IpAddr) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let same = fields.next().and_then(|field| field.parse().ok()) == Some(address);
        let flags = fields.nth(1).and_then(|flags| flags.strip_prefix("0x"));
        same && flags
            .and_then(|flags| u32::from_str_radix(flags, 16).ok())
            .is_some_and(|flags| flags & 0x2 != 0)
    })
}

/// The index that a link-local IPv6 address needs.
pub(super) fn interface_index(interface: &str) -> u32 {
    read(format!("/sys/class/net/{interface}/ifindex")).trim().parse().unwrap_or(0)
}

/// The nameservers of `resolv.conf(5)`, as the C library takes them.
pub(super) fn nameservers(text: &str) -> Vec<IpAddr> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        // A scope (`fe80::1%eth0`) is beyond `IpAddr`; such a server is passed over.
        (fields.next()? == "nameserver").then(|| fields.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(parse).take(NAMESERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
    const ROUTE_V6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";
    const ARP: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
192.0.2.1        0x1         0x2         02:fc:00:00:00:05     *        eth0
192.0.2.9        0x1         0x0         00:00:00:00:00:00     *        eth0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_routes_are_found_with_their_gateway_and_metric() {
        let routes = routes_v4(ROUTE);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[1].gateway, Some("192.0.2.1".parse().unwrap()));
        assert_eq!((routes[1].interface.as_str(), routes[1].metric), ("eth0", 100));
    }

    #[test]
    fn a_rejecting_default_route_is_none() {
        let routes = routes_v6(ROUTE_V6);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].gateway, Some("fe80::1".parse().unwrap()));
        assert!(routes_v4("eth0 00000000 010200C0 0203 0 0 0 00000000 0 0 0").is_empty());
        assert!(routes_v4("../../x 00000000 010200C0 0003 0 0 0 00000000 0 0 0").is_empty());
    }

    #[test]
    fn only_a_resolved_neighbour_is_complete() {
        assert!(arp_is_complete(ARP, "192.0.2.1".parse().unwrap()));
        assert!(!arp_is_complete(ARP, "192.0.2.9".parse().unwrap()));
        assert!(!arp_is_complete(ARP, "192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn the_first_three_nameservers_count_and_comments_do_not() {
        let text = "# nameserver 192.0.2.9\n;x\nsearch example.com\nnameserver 192.0.2.1 # home\n nameserver ::1\n\
            nameserver\nnameserver fe80::1%eth0\nnameserver x\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected: Vec<IpAddr> =
            ["192.0.2.1", "::1", "192.0.2.3"].into_iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(nameservers(text), expected);
    }

    #[test]
    fn truncated_tables_are_read_as_far_as_they_go() {
        for text in [ROUTE, ROUTE_V6, ARP] {
            for end in 0..text.len() {
                routes_v4(&text[..end]);
                routes_v6(&text[..end]);
                arp_is_complete(&text[..end], "192.0.2.1".parse().unwrap());
            }
        }
    }

    #[test]
    fn a_file_that_is_huge_is_as_good_as_none_and_a_binary_one_is_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.1\n".repeat(20_000)).unwrap();
        assert_eq!(read(&path), "");
        std::fs::write(&path, b"\xff\x00nameserver\nnameserver 192.0.2.1\n").unwrap();
        assert_eq!(nameservers(&read(&path)).len(), 1);
        assert_eq!(read(directory.path().join("none")), "");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "[0-9a-fx.:\t \nnameserver]{0,300}", any in "\\PC{0,100}") {
            for text in [text, any] {
                routes_v4(&text);
                routes_v6(&text);
                nameservers(&text);
                arp_is_complete(&text, "192.0.2.1".parse().unwrap());
            }
        }
    }
}
