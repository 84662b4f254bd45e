//! One partner: its name, a connection, a handshake; what follows a failure is skipped and says so.

use std::net::SocketAddr;
use std::time::Duration;

use vigil_protocol::diagnosis::{Evidence, Layer};

use super::probe::{Look, tcp, tls};
use super::resolve;
use crate::config::Partner;

/// Runs the partner's part of the test.
pub(super) async fn probe(partner: &Partner, servers: &[SocketAddr], limit: Duration) -> Vec<Evidence> {
    let subject = if partner.host.contains(':') {
        format!("[{}]:{}", partner.host, partner.port)
    } else {
        format!("{}:{}", partner.host, partner.port)
    };
    let lookup = resolve(&partner.host, &partner.name, servers, limit).await;
    let mut evidence = lookup.evidence;
    let (connected, stream) =
        tcp::probe(&lookup.addresses, partner.port, &partner.name, &subject, limit).await;
    evidence.push(connected);
    if partner.tls {
        evidence.push(match stream {
            Some(stream) => tls::probe(partner, stream, &subject, limit).await,
            None => Look::at(Layer::Tls, subject)
                .of(Some(&partner.name))
                .skipped("skipped", "not tried: there is no connection"),
        });
    }
    evidence
}
