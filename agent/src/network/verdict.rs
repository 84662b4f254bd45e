//! Whose fault it is: evidence to verdict, and nothing else. No clock, no sockets.

use std::collections::BTreeMap;

use vigil_protocol::diagnosis::{Evidence, FaultDomain, Layer, Outcome, Verdict};

#[cfg(test)]
mod tests;

/// How far a partner was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Works,
    /// Someone at its address answered, but not as the partner should.
    Answers,
    /// Packets went out and nothing came back.
    Silent,
    /// The resolvers gave no address: they are silent, fail or are not there.
    Unresolved,
    /// A resolver says that there is no such name.
    NoSuchName,
}

/// Reads the evidence from the device outwards: the nearest fault explains those behind it.
pub fn verdict(evidence: &[Evidence]) -> Verdict {
    let partners = partners(evidence);
    let with = |wanted: &[Reach]| -> Vec<String> {
        let matching = partners.iter().filter(|(_, reach)| wanted.contains(reach));
        matching.map(|(name, _)| (*name).to_owned()).collect()
    };
    let works = with(&[Reach::Works]);
    let broken = with(&[Reach::Answers, Reach::Silent, Reach::Unresolved, Reach::NoSuchName]);
    let something_answers = !works.is_empty() || !with(&[Reach::Answers]).is_empty();
    let failed = |layer: Layer| evidence.iter().find(|e| e.layer == layer && e.outcome == Outcome::Failed);
    let works_at = |layer: Layer| {
        evidence.iter().any(|e| e.layer == layer && matches!(e.outcome, Outcome::Ok | Outcome::Warning))
    };

    if !something_answers {
        if let Some(fault) = failed(Layer::Interface) {
            return conclude(FaultDomain::Device, &[], &fault.message);
        }
        if let Some(fault) = failed(Layer::Gateway)
            && !works_at(Layer::Gateway)
        {
            return conclude(FaultDomain::Lan, &[], &fault.message);
        }
    }
    if partners.is_empty() && !works_at(Layer::Dns) && failed(Layer::Dns).is_none() {
        return conclude(
            FaultDomain::Inconclusive,
            &[],
            "nothing beyond the first router is configured to be tested",
        );
    }
    // A resolver that answers for one name is no broken resolver; what it says of another is that name's matter.
    let resolver_fault = failed(Layer::Dns).filter(|_| !works_at(Layer::Dns));
    if broken.is_empty() {
        return match resolver_fault {
            Some(fault) => conclude(FaultDomain::Dns, &[], &fault.message),
            None => conclude(FaultDomain::None, &[], &healthy(evidence)),
        };
    }
    let beyond_names = with(&[Reach::Answers, Reach::Silent]);
    if let Some(fault) = resolver_fault
        && beyond_names.is_empty()
    {
        return conclude(FaultDomain::Dns, &broken, &fault.message);
    }
    let first = |partner: &String| {
        evidence
            .iter()
            .rev()
            .find(|e| e.partner.as_ref() == Some(partner) && e.outcome == Outcome::Failed)
            .map_or("it was not reached", |e| e.message.as_str())
    };
    if !works.is_empty() {
        let why =
            format!("{} works, {} does not: {}", works.join(", "), broken.join(", "), first(&broken[0]));
        return conclude(FaultDomain::Partner, &broken, &why);
    }
    match (broken.as_slice(), beyond_names.as_slice()) {
        ([one], [_]) if partners[one.as_str()] == Reach::Answers => {
            conclude(FaultDomain::Partner, &broken, first(one))
        }
        (_, [one, ..]) => conclude(FaultDomain::Internet, &[], &format!("no partner works: {}", first(one))),
        (_, []) => {
            conclude(FaultDomain::Inconclusive, &[], "no partner has an address, though a resolver answers")
        }
    }
}

fn partners(evidence: &[Evidence]) -> BTreeMap<&str, Reach> {
    let mut partners = BTreeMap::new();
    let of_partners = evidence.iter().filter_map(|e| Some((e.partner.as_deref()?, e)));
    for (partner, e) in of_partners {
        let reach = match (e.layer, e.outcome, e.code.as_str()) {
            (Layer::Tcp | Layer::Tls, Outcome::Ok | Outcome::Warning, _) => Reach::Works,
            (Layer::Tcp, Outcome::Failed, "refused") | (Layer::Tls, Outcome::Failed, _) => Reach::Answers,
            (Layer::Tcp, Outcome::Failed, _) => Reach::Silent,
            (Layer::Dns, Outcome::Failed, "name_not_found") => Reach::NoSuchName,
            (Layer::Dns, Outcome::Failed, _) => Reach::Unresolved,
            _ => continue,
        };
        // TLS comes after TCP, TCP after DNS: the later evidence tells more.
        partners.insert(partner, reach);
    }
    partners
}

fn healthy(evidence: &[Evidence]) -> String {
    let warning = evidence.iter().find(|e| e.outcome == Outcome::Warning || e.outcome == Outcome::Failed);
    match warning {
        Some(warning) => format!("everything that is needed works, although {}", warning.message),
        None => "everything that was tested works".to_owned(),
    }
}

fn conclude(domain: FaultDomain, partners: &[String], why: &str) -> Verdict {
    let advice = match domain {
        FaultDomain::None => "Nothing needs to be done for the network.",
        FaultDomain::Device => {
            "Check the network cable or the Wi-Fi at the device, then whether it got an address (DHCP)."
        }
        FaultDomain::Lan => {
            "Check the switch port, its VLAN and the room's router: the device gets no answer from it."
        }
        FaultDomain::Dns => {
            "Check the resolvers that the device was given, and whether the room's network lets DNS (UDP port 53) through."
        }
        FaultDomain::Internet => {
            "Check the site's internet connection, and its firewall or proxy: the router answers, nothing behind it does."
        }
        FaultDomain::Partner => {
            "See the status page of the service named here, and whether the firewall lets this one through."
        }
        FaultDomain::Inconclusive => {
            "Name the services that the room needs under [[network.partners]], and repeat the test."
        }
    };
    let partners = if domain == FaultDomain::Partner { partners.to_vec() } else { Vec::new() };
    Verdict { domain, partners, summary: vigil_text::clean(why, 400), advice: advice.to_owned() }
}
