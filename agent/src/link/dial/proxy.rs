//! Through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6). The name of the broker is the proxy's to resolve; the
//! TLS handshake that follows is with the broker.

use std::io;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Empty;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::wire::Stream;
use super::{DialError, http, place};

/// A proxy for HTTP.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it is shown; never printed.
    authorization: Option<HeaderValue>,
    /// Where it is named, for people.
    named_in: &'static str,
}

impl Proxy {
    /// The one that the configuration names.
    pub fn configured(host: &str, port: u16, credentials: Option<(String, String)>) -> Self {
        let authorization = credentials.and_then(|(username, password)| {
            let basic = BASE64.encode(format!("{username}:{password}").as_bytes());
            let mut value = HeaderValue::from_str(&format!("Basic {basic}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { host: host.to_owned(), port, authorization, named_in: "broker.proxy" }
    }

    /// The one that the environment names for this host, if any (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, as curl reads them).
    pub fn of_environment(host: &str, port: u16, tls: bool) -> io::Result<Option<Self>> {
        Self::found(&Matcher::from_env(), host, port, tls)
    }

    fn found(matcher: &Matcher, host: &str, port: u16, tls: bool) -> io::Result<Option<Self>> {
        let scheme = if tls { "https" } else { "http" };
        let to: Uri = format!("{scheme}://{}/", place(host, port)).parse().map_err(io::Error::other)?;
        let Some(found) = matcher.intercept(&to) else { return Ok(None) };
        let uri = found.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if uri.scheme_str() != Some("http") || host.is_empty() {
            return Err(io::Error::other(
                "the environment (HTTPS_PROXY or ALL_PROXY) names a proxy that is no http:// one; set broker.proxy, or \
                 broker.proxy = \"none\"",
            ));
        }
        Ok(Some(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: found.basic_auth().cloned(),
            named_in: "the environment's HTTPS_PROXY",
        }))
    }

    pub(super) fn place(&self) -> String {
        place(&self.host, self.port)
    }
}

/// Asks the proxy for a connection to `target`.
pub(super) async fn connect(
    proxy: &Proxy,
    target: &str,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, DialError> {
    let failed = |why: String, is_lasting: bool| DialError::Proxy { place: proxy.place(), why, is_lasting };
    let mut request = Request::builder().method(Method::CONNECT).uri(target).header(HOST, target);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string(), true))?;
    let answer = http::ask(stream, request).await.map_err(|error| {
        failed(format!("gave no answer to CONNECT ({error}); is it an HTTP proxy?"), false)
    })?;
    match answer.turned {
        Some((stream, early)) if early.is_empty() => Ok(stream),
        // Whoever is at the other end waits for our first word.
        Some(_) => Err(failed("says more than it was asked: it is no HTTP proxy".to_owned(), true)),
        None => Err(failed(refusal(answer.status, proxy, target), is_lasting(answer.status))),
    }
}

fn is_lasting(status: StatusCode) -> bool {
    status.is_client_error()
}

/// What a refusal asks for.
fn refusal(status: StatusCode, proxy: &Proxy, target: &str) -> String {
    let named_in = proxy.named_in;
    match status {
        // tinyproxy answers wrong ones with 401.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED
            if proxy.authorization.is_some() =>
        {
            format!(
                "does not take the credentials ({}): correct broker.proxy_username and broker.proxy_password_file, or those \
                 in {named_in}",
                status.as_u16()
            )
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => "wants credentials (407): set broker.proxy, \
             broker.proxy_username and broker.proxy_password_file"
            .to_owned(),
        StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => format!(
            "does not allow a connection to {target} ({}): its rules must allow CONNECT to this host and port",
            status.as_u16()
        ),
        status if status.is_server_error() => {
            format!("could not connect to {target} ({}): does it reach the broker?", status.as_u16())
        }
        status => format!("answered CONNECT with {}: is {named_in} an HTTP proxy?", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(matcher: &Matcher, host: &str) -> Option<String> {
        Proxy::found(matcher, host, 8883, true).unwrap().map(|proxy| proxy.place())
    }

    #[test]
    fn the_environment_names_a_proxy_but_not_for_the_hosts_that_it_excepts() {
        let matcher = Matcher::builder()
            .all("http://proxy.example.com:3128")
            .no("intern.example.com,.local,192.0.2.0/24,2001:db8::/32")
            .build();
        let proxy = Some("proxy.example.com:3128".to_owned());
        assert_eq!(found(&matcher, "mqtt.example.com"), proxy);
        assert_eq!(found(&matcher, "198.51.100.1"), proxy);
        assert_eq!(found(&matcher, "2001:db9::1"), proxy);
        for direct in
            ["intern.example.com", "a.intern.example.com", "broker.local", "192.0.2.7", "2001:db8::1"]
        {
            assert_eq!(found(&matcher, direct), None, "{direct}");
        }
    }

    #[test]
    fn a_proxy_may_be_an_ipv6_address_and_have_credentials() {
        let matcher = Matcher::builder().https("http://olga:hunter2@[2001:db8::1]:3128").build();
        let proxy = Proxy::found(&matcher, "mqtt.example.com", 8883, true).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("2001:db8::1", 3128));
        assert_eq!(proxy.place(), "[2001:db8::1]:3128");
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic b2xnYTpodW50ZXIy");
        assert!(!format!("{proxy:?}").contains("b2xnYTpodW50ZXIy"), "a password in a log");
    }

    #[test]
    fn a_proxy_that_is_none_for_http_is_told_and_not_passed_by() {
        let matcher = Matcher::builder().all("socks5://proxy.example.com:1080").build();
        let error = Proxy::found(&matcher, "mqtt.example.com", 8883, true).unwrap_err().to_string();
        assert!(error.contains("set broker.proxy"), "{error}");
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let open = Proxy::configured("proxy", 3128, None);
        let known = Proxy::configured("proxy", 3128, Some(("a".to_owned(), "b".to_owned())));
        for (status, proxy, what) in [
            (407, &open, "set broker.proxy, broker.proxy_username and broker.proxy_password_file"),
            (407, &known, "correct broker.proxy_username"),
            (401, &known, "correct broker.proxy_username"),
            (403, &open, "must allow CONNECT to this host and port"),
            (503, &open, "does it reach the broker?"),
            (404, &open, "is broker.proxy an HTTP proxy?"),
        ] {
            let text = refusal(StatusCode::from_u16(status).unwrap(), proxy, "mqtt:8883");
            assert!(text.contains(what), "{text}");
        }
    }
}
