//! Name resolution: each resolver is asked by itself, so that one that is silent, one that fails and one that
//! says no are told apart. The C library would only say that it did not work.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use vigil_protocol::diagnosis::{Evidence, Layer, Outcome};

use super::{Look, code};

/// Far more than an answer without EDNS may have (512, RFC 1035, section 2.3.4).
const ANSWER_BYTES: usize = 4096;
/// A datagram may get lost.
const TRIES: u32 = 2;

/// What the resolvers said of one name.
#[derive(Debug)]
pub struct Lookup {
    /// The addresses that any of them gave, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What was seen of each.
    pub evidence: Vec<Evidence>,
}

/// An answer, of one resolver to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Addresses(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL, REFUSED and their like, by name.
    Failure(String),
}

/// Asks every resolver for the addresses of `name`, side by side.
pub async fn lookup(name: &str, partner: Option<&str>, servers: &[SocketAddr], limit: Duration) -> Lookup {
    if servers.is_empty() {
        let look = Look::at(Layer::Dns, name).of(partner);
        let message = format!("{name} cannot be resolved: the device was given no resolver");
        return Lookup { addresses: Vec::new(), evidence: vec![look.failed("no_resolver", message)] };
    }
    let all = join_all(servers.iter().map(|server| ask_both(name, partner, *server, limit))).await;
    let mut addresses: Vec<IpAddr> = all.iter().flat_map(|(_, addresses)| addresses.clone()).collect();
    addresses.sort();
    addresses.dedup();
    Lookup { addresses, evidence: settle(all.into_iter().map(|(evidence, _)| evidence).collect()) }
}

/// Where one resolver answers, another that does not is no fault but a warning.
fn settle(mut evidence: Vec<Evidence>) -> Vec<Evidence> {
    if evidence.iter().any(|e| e.outcome == Outcome::Ok) {
        for failed in evidence.iter_mut().filter(|e| e.outcome == Outcome::Failed) {
            failed.outcome = Outcome::Warning;
        }
    }
    evidence
}

async fn ask_both(
    name: &str,
    partner: Option<&str>,
    server: SocketAddr,
    limit: Duration,
) -> (Evidence, Vec<IpAddr>) {
    let resolver = server.ip();
    let look = Look::at(Layer::Dns, format!("{name} @ {resolver}")).of(partner);
    let (v4, v6) = tokio::join!(ask(name, TYPE::A, server, limit), ask(name, TYPE::AAAA, server, limit));
    let mut addresses = Vec::new();
    let mut failure = None;
    for result in [v4, v6] {
        match result {
            Ok(Reply::Addresses(found)) => addresses.extend(found),
            other => failure = failure.or(Some(other)),
        }
    }
    if !addresses.is_empty() {
        return (look.ok(format!("the resolver {resolver} knows {name}")), addresses);
    }
    let evidence = match failure {
        None => look.failed("name_not_found", format!("the resolver {resolver} has no address for {name}")),
        Some(Ok(Reply::Failure(how))) => {
            look.failed("server_failure", format!("the resolver {resolver} fails for {name}: it says {how}"))
        }
        Some(Ok(_)) => {
            look.failed("name_not_found", format!("the resolver {resolver} says that there is no {name}"))
        }
        Some(Err(error)) => {
            let code = code(&error);
            let how = if code == "timeout" { "does not answer" } else { "cannot be asked" };
            look.failed(code, format!("the resolver {resolver} {how} ({code})"))
        }
    };
    (evidence, addresses)
}

async fn ask(name: &str, kind: TYPE, server: SocketAddr, limit: Duration) -> io::Result<Reply> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let id = u16::from_be_bytes(id);
    let query = query(id, name, kind).map_err(|_| io::ErrorKind::InvalidInput)?;
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await?;
    // Connected: the kernel drops what comes from elsewhere, and reports ICMP errors.
    socket.connect(server).await?;
    for _ in 0..TRIES {
        socket.send(&query).await?;
        let answer = async {
            let mut buffer = vec![0; ANSWER_BYTES];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(reply) = read_reply(&buffer[..length], id, name, kind) {
                    return Ok(reply);
                }
            }
        };
        if let Ok(result) = timeout(limit / TRIES, answer).await {
            return result;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn query(id: u16, name: &str, kind: TYPE) -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name)?,
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec()
}

/// None unless it answers exactly this question: anyone may send a datagram.
fn read_reply(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> Option<Reply> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let name = name.trim_end_matches('.');
    let ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && question.qtype == QTYPE::TYPE(kind)
        && question.qname.to_string().eq_ignore_ascii_case(name);
    if !ours {
        return None;
    }
    Some(match packet.rcode() {
        RCODE::NoError => Reply::Addresses(
            packet
                .answers
                .iter()
                .filter_map(|record| match &record.rdata {
                    RData::A(a) if kind == TYPE::A => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
                    RData::AAAA(aaaa) if kind == TYPE::AAAA => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
                    _ => None,
                })
                .collect(),
        ),
        RCODE::NameError => Reply::NoSuchName,
        RCODE::ServerFailure => Reply::Failure("SERVFAIL".to_owned()),
        RCODE::Refused => Reply::Failure("REFUSED".to_owned()),
        other => Reply::Failure(format!("{other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    const NAME: &str = "meet.example.com";

    fn reply(id: u16, name: &str, rcode: RCODE, addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = rcode;
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(
            name.clone(),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        for address in addresses {
            let address = RData::A(A { address: u32::from_be_bytes(*address) });
            packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, address));
        }
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn an_answer_to_our_question_is_read() {
        let bytes = reply(7, "MEET.example.com", RCODE::NoError, &[[192, 0, 2, 1]]);
        let expected = Reply::Addresses(vec!["192.0.2.1".parse().unwrap()]);
        assert_eq!(read_reply(&bytes, 7, NAME, TYPE::A), Some(expected));
        let no = reply(7, NAME, RCODE::NameError, &[]);
        assert_eq!(read_reply(&no, 7, NAME, TYPE::A), Some(Reply::NoSuchName));
        let broken = reply(7, NAME, RCODE::ServerFailure, &[]);
        assert_eq!(read_reply(&broken, 7, NAME, TYPE::A), Some(Reply::Failure("SERVFAIL".to_owned())));
    }

    #[test]
    fn an_answer_to_another_question_is_passed_over() {
        let bytes = reply(7, NAME, RCODE::NoError, &[[192, 0, 2, 1]]);
        assert_eq!(read_reply(&bytes, 8, NAME, TYPE::A), None);
        assert_eq!(read_reply(&bytes, 7, "other.example.com", TYPE::A), None);
        assert_eq!(read_reply(&bytes, 7, NAME, TYPE::AAAA), None);
        assert_eq!(read_reply(&query(7, NAME, TYPE::A).unwrap(), 7, NAME, TYPE::A), None);
        for end in 0..bytes.len() {
            read_reply(&bytes[..end], 7, NAME, TYPE::A);
        }
    }

    #[tokio::test]
    async fn one_resolver_that_answers_makes_the_silence_of_another_a_warning() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [silent.local_addr().unwrap(), server.local_addr().unwrap()];
        let serve = async {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                let id = Packet::parse(&buffer[..length]).unwrap().id();
                let forged = reply(id.wrapping_add(1), NAME, RCODE::NameError, &[]);
                server.send_to(&forged, from).await.unwrap();
                let answer = reply(id, NAME, RCODE::NoError, &[[192, 0, 2, 1]]);
                server.send_to(&answer, from).await.unwrap();
            }
        };
        let lookup = tokio::select! {
            () = serve => unreachable!(),
            lookup = lookup(NAME, None, &servers, Duration::from_millis(600)) => lookup,
        };
        assert_eq!(lookup.addresses.len(), 1);
        let outcomes: Vec<Outcome> = lookup.evidence.iter().map(|e| e.outcome).collect();
        assert_eq!(outcomes, [Outcome::Warning, Outcome::Ok]);
        assert_eq!(lookup.evidence[0].code, "timeout");
    }

    #[tokio::test]
    async fn without_a_resolver_nothing_is_asked() {
        let lookup = lookup(NAME, Some("meetings"), &[], Duration::from_secs(1)).await;
        assert_eq!(lookup.evidence[0].code, "no_resolver");
        assert_eq!(lookup.evidence[0].partner.as_deref(), Some("meetings"));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read_reply(&bytes, 7, NAME, TYPE::A);
        }

        #[test]
        fn a_damaged_answer_is_read_or_passed_over(at in 0usize..60, with: u8) {
            let mut bytes = reply(7, NAME, RCODE::NoError, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
            let index = at % bytes.len();
            bytes[index] = with;
            read_reply(&bytes, 7, NAME, TYPE::A);
        }
    }
}
