//! The network test: probes from the device outwards, and the verdict over what they saw.

mod certificate;
mod partner;
pub mod probe;
mod tables;
pub mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::future::join_all;
use jiff::Timestamp;
use vigil_protocol::diagnosis::{Diagnosis, Evidence, Layer, Outcome};

use crate::config::Config;
use probe::dns::Lookup;
use probe::{Look, dns, gateway, interface};

pub use verdict::verdict;

/// What a test reads from the machine, so that a test of the test can put its own there.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Names the resolvers; `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where the resolvers listen; 53.
    pub dns_port: u16,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { resolv_conf: PathBuf::from("/etc/resolv.conf"), dns_port: 53 }
    }
}

/// Runs the whole test. It takes a handful of `probe_timeout`s at most (the probes of one layer run side by
/// side), and ten seconds more where only ARP can tell whether the router lives.
pub async fn diagnose(config: &Config, id: &str, now: Timestamp) -> Diagnosis {
    diagnose_in(&Surroundings::default(), config, id, now).await
}

/// [`diagnose`], in surroundings of the caller's choice.
pub async fn diagnose_in(
    surroundings: &Surroundings,
    config: &Config,
    id: &str,
    now: Timestamp,
) -> Diagnosis {
    let began = Instant::now();
    let settings = &config.network;
    let (mut evidence, link_is_up) = interface::probe();
    let routes = tables::default_routes();
    evidence.push(interface::route_evidence(&routes));
    let probe_gateway = settings.probe_gateway && link_is_up;

    let servers = servers(&surroundings.resolv_conf, surroundings.dns_port);
    let (gateways, beyond) = tokio::join!(
        async {
            if probe_gateway { gateway::probe(&routes, settings.probe_timeout).await } else { Vec::new() }
        },
        async {
            let name = async {
                let Some(name) = &settings.dns_name else { return Vec::new() };
                dns::lookup(name, None, &servers, settings.probe_timeout).await.evidence
            };
            let partners =
                settings.partners.iter().map(|p| partner::probe(p, &servers, settings.probe_timeout));
            tokio::join!(name, join_all(partners))
        }
    );
    let (name, partners) = beyond;
    let beyond: Vec<Evidence> = name.into_iter().chain(partners.into_iter().flatten()).collect();
    if probe_gateway {
        let passes = beyond.iter().any(|e| e.layer == Layer::Tcp && e.outcome == Outcome::Ok);
        evidence.extend(gateway::settle(gateways, passes).await);
    } else {
        let why = if link_is_up { "switched off in the configuration" } else { "no interface is up" };
        evidence.push(Look::at(Layer::Gateway, "gateway").skipped("skipped", format!("not probed: {why}")));
    }
    evidence.extend(beyond);
    // Layers outwards; within one, as they were tried.
    evidence.sort_by_key(|e| e.layer);
    Diagnosis {
        v: 1,
        device: config.device.id.clone(),
        id: id.to_owned(),
        at: now,
        millis: millis(began),
        verdict: verdict(&evidence),
        evidence,
    }
}

fn servers(resolv_conf: &Path, port: u16) -> Vec<SocketAddr> {
    let addresses: Vec<IpAddr> = tables::nameservers(&tables::read(resolv_conf));
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Addresses of one host that are tried: more would only take longer.
const ADDRESSES: usize = 4;

/// The addresses of a host: its own if it is one, loopback for `localhost` (RFC 6761, section 6.3), else what the
/// resolvers say.
async fn resolve(host: &str, partner: &str, servers: &[SocketAddr], timeout: std::time::Duration) -> Lookup {
    let literal = match host.parse::<IpAddr>() {
        Ok(address) => Some(vec![address]),
        Err(_) if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") => {
            Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)])
        }
        Err(_) => None,
    };
    let mut lookup = match literal {
        Some(addresses) => Lookup { addresses, evidence: Vec::new() },
        None => dns::lookup(host, Some(partner), servers, timeout).await,
    };
    lookup.addresses.truncate(ADDRESSES);
    lookup
}

#[cfg(test)]
mod tests;
