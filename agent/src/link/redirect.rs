//! Where a broker sends a device (MQTT 5, section 4.13), and whether it goes there. The word of a broker is not enough: the
//! configuration must allow the host, the connection must be TLS, and nobody is sent round in circles. Pure.

use std::net::IpAddr;

/// A reference's bytes, and the servers in it that are looked at.
const REFERENCE_BYTES: usize = 1024;
const SERVERS: usize = 8;
/// References that are followed one after the other, until a connection has lasted or there was a long wait.
const IN_A_ROW: u32 = 3;

/// The broker's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// As it came: hosts, some with ports, separated by blanks. None where the broker names no server.
    pub servers: Option<String>,
    /// For good ("server moved"), or for once ("use another server").
    pub is_lasting: bool,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Where the next connection goes.
#[derive(Clone, Debug)]
pub struct Redirects {
    configured: Place,
    is_tls: bool,
    allowed: Vec<String>,
    /// Until the process ends, or it does not answer.
    moved: Option<Place>,
    /// For one connection.
    once: Option<Place>,
    in_a_row: u32,
}

impl Redirects {
    /// `allowed` are hosts, or all below a domain as `*.example.com`.
    pub fn new(configured: Place, is_tls: bool, allowed: &[String]) -> Self {
        Self { configured, is_tls, allowed: allowed.to_vec(), moved: None, once: None, in_a_row: 0 }
    }

    /// Where to go now.
    pub fn target(&self) -> &Place {
        self.once.as_ref().or(self.moved.as_ref()).unwrap_or(&self.configured)
    }

    /// The broker has sent us elsewhere. The error is for people.
    pub fn follow(&mut self, reference: &Reference) -> Result<(), String> {
        let from = self.target().clone();
        let found = self.choose(reference, &from);
        self.once = None;
        let place = found.inspect_err(|_| {
            // What follows is a long wait.
            self.moved = None;
            self.in_a_row = 0;
        })?;
        self.in_a_row += 1;
        if reference.is_lasting {
            self.moved = Some(place);
        } else {
            self.once = Some(place);
        }
        Ok(())
    }

    fn choose(&self, reference: &Reference, from: &Place) -> Result<Place, String> {
        let servers = reference.servers.as_deref().unwrap_or_default();
        if servers.trim().is_empty() {
            return Err("it names no other".to_owned());
        }
        if !self.is_tls {
            return Err("without TLS no other is believed".to_owned());
        }
        if servers.len() > REFERENCE_BYTES {
            return Err("it names more than can be believed".to_owned());
        }
        if self.in_a_row >= IN_A_ROW {
            return Err(format!("{IN_A_ROW} times in a row: it sends us round in circles"));
        }
        let places = servers.split(' ').filter(|server| !server.is_empty()).take(SERVERS);
        let mut places = places.filter_map(|server| place(server, self.configured.port));
        let place = places.find(|place| place != from && self.is_allowed(&place.host));
        place.ok_or_else(|| {
            let shown = vigil_text::clean(servers, 100);
            format!("it names {shown:?}, which broker.redirect_hosts does not allow: add the host there if it is yours")
        })
    }

    fn is_allowed(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| match allowed.strip_prefix("*.") {
            None => allowed.eq_ignore_ascii_case(host),
            Some(domain) => {
                let at = host.len().checked_sub(domain.len() + 1);
                at.is_some_and(|at| {
                    at > 0 && host.as_bytes()[at] == b'.' && host[at + 1..].eq_ignore_ascii_case(domain)
                })
            }
        })
    }

    /// The attempt has come to nothing: back to where the configuration says.
    pub fn failed(&mut self) {
        self.once = None;
        self.moved = None;
    }

    /// A connection that was up has ended; whether it had lasted.
    pub fn ended(&mut self, has_lasted: bool) {
        self.once = None;
        if has_lasted {
            self.in_a_row = 0;
        }
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`, and nothing with a scheme.
fn place(text: &str, usual_port: u16) -> Option<Place> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let is_address = address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
            (is_address.then_some(address)?, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port? {
        "" => usual_port,
        digits => digits.parse().ok().filter(|port| *port > 0)?,
    };
    // Only ASCII gets through, so that parts of a name can be compared by their bytes.
    crate::config::is_host(host).then(|| Place { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Place {
        Place { host: host.to_owned(), port }
    }

    fn redirects() -> Redirects {
        let allowed = ["eu.example.com", "*.fleet.example.com", "2001:db8::1"].map(str::to_owned);
        Redirects::new(at("mqtt.example.com", 8883), true, &allowed)
    }

    fn reference(servers: &str, is_lasting: bool) -> Reference {
        Reference { servers: Some(servers.to_owned()), is_lasting }
    }

    #[test]
    fn another_server_is_for_one_connection_and_a_moved_one_until_it_fails() {
        let mut redirects = redirects();
        redirects.follow(&reference("eu.example.com", false)).unwrap();
        assert_eq!(*redirects.target(), at("eu.example.com", 8883));
        redirects.ended(true);
        assert_eq!(*redirects.target(), at("mqtt.example.com", 8883));
        redirects.follow(&reference("a.fleet.example.com:443", true)).unwrap();
        redirects.ended(true);
        assert_eq!(*redirects.target(), at("a.fleet.example.com", 443));
        redirects.failed();
        assert_eq!(*redirects.target(), at("mqtt.example.com", 8883));
    }

    #[test]
    fn only_hosts_that_the_configuration_allows_are_followed() {
        for servers in [
            "evil.example.com",
            "fleet.example.com",
            "evilfleet.example.com",
            ".fleet.example.com",
            "eu.example.com.evil.com",
            "mqtt://eu.example.com:1883",
            "eu.example.com/path",
            "eu.example.com:0",
            "eu.example.com:99999",
            "user@eu.example.com",
            "[eu.example.com]",
            "2001:db8::1",
            "a b c d e f g h eu.example.com",
            "",
        ] {
            let mut redirects = redirects();
            redirects.follow(&reference(servers, true)).expect_err(servers);
            assert_eq!(*redirects.target(), at("mqtt.example.com", 8883), "{servers}");
        }
        let error = redirects().follow(&reference("evil.example.com", true)).unwrap_err();
        assert!(
            error.contains("\"evil.example.com\", which broker.redirect_hosts does not allow"),
            "{error}"
        );
    }

    #[test]
    fn the_first_of_several_that_is_allowed_is_taken_and_addresses_have_brackets() {
        let mut redirects = redirects();
        redirects.follow(&reference("evil.example.com [2001:db8::1]:8884 eu.example.com", false)).unwrap();
        assert_eq!(*redirects.target(), at("2001:db8::1", 8884));
    }

    #[test]
    fn nobody_is_sent_round_in_circles() {
        let mut redirects = redirects();
        for server in ["eu.example.com", "a.fleet.example.com", "eu.example.com"] {
            redirects.follow(&reference(server, false)).unwrap();
        }
        let error = redirects.follow(&reference("a.fleet.example.com", false)).unwrap_err();
        assert!(error.contains("in circles"), "{error}");
        assert_eq!(*redirects.target(), at("mqtt.example.com", 8883));
        redirects.follow(&reference("eu.example.com", false)).expect("after the wait that follows a refusal");
    }

    #[test]
    fn only_a_connection_that_lasts_ends_a_row() {
        for (has_lasted, is_followed) in [(false, false), (true, true)] {
            let mut redirects = redirects();
            for server in ["eu.example.com", "a.fleet.example.com", "eu.example.com"] {
                redirects.follow(&reference(server, false)).unwrap();
            }
            redirects.ended(has_lasted);
            let followed = redirects.follow(&reference("eu.example.com", false));
            assert_eq!(followed.is_ok(), is_followed);
        }
    }

    #[test]
    fn a_server_that_names_itself_is_not_followed() {
        let mut redirects = redirects();
        redirects.follow(&reference("eu.example.com", true)).unwrap();
        redirects.follow(&reference("eu.example.com", true)).unwrap_err();
        assert_eq!(*redirects.target(), at("mqtt.example.com", 8883));
    }

    #[test]
    fn without_tls_nothing_is_followed() {
        let allowed = ["eu.example.com".to_owned()];
        let mut redirects = Redirects::new(at("mqtt.example.com", 1883), false, &allowed);
        let error = redirects.follow(&reference("eu.example.com", false)).unwrap_err();
        assert!(error.contains("without TLS"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_broker_names_no_other_host_is_dialled(servers in "\\PC{0,60}|[a-z.:\\[\\] 0-9]{0,60}") {
            let mut redirects = redirects();
            let _ = redirects.follow(&reference(&servers, true));
            let host = &redirects.target().host;
            proptest::prop_assert!(
                ["mqtt.example.com", "eu.example.com", "2001:db8::1"].contains(&host.as_str())
                    || host.ends_with(".fleet.example.com")
            );
        }
    }
}
