//! A TLS handshake with a partner's endpoint, verified as any client would.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use vigil_protocol::diagnosis::{Evidence, Layer};

use super::Look;
use crate::config::Partner;
use crate::network::certificate;

/// Shakes hands over a connection that stands.
pub async fn probe(partner: &Partner, stream: TcpStream, subject: &str, limit: Duration) -> Evidence {
    let look = Look::at(Layer::Tls, subject).of(Some(&partner.name));
    let (verifier, name) = match prepare(partner) {
        Ok(prepared) => prepared,
        // The device's own matter, and no evidence against the partner.
        Err(problem) => return look.skipped("certificate", format!("TLS was not tried: {problem}")),
    };
    let seen = Arc::clone(&verifier.seen);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Err(error) => return look.skipped("handshake", format!("TLS was not tried: {error}")),
    };
    let error = match timeout(limit, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
        Ok(Ok(_)) => return look.ok(format!("{subject} has a valid certificate{}", shown(&seen))),
        Ok(Err(error)) => error,
        Err(_) => return look.failed("timeout", format!("{subject} does not finish the TLS handshake")),
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let message = format!("{subject} shows a certificate that {}{}", why(reason), shown(&seen));
            look.failed("certificate", message)
        }
        _ => look.failed("handshake", format!("the TLS handshake with {subject} fails: {error}")),
    }
}

fn prepare(partner: &Partner) -> Result<(Witness, ServerName<'static>), String> {
    let name = ServerName::try_from(partner.host.clone()).map_err(|error| error.to_string())?;
    let roots = crate::tls::roots(partner.ca_file.as_deref()).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|_| {
        "the device trusts no certificate authority; set ca_file or install ca-certificates".to_owned()
    })?;
    Ok((Witness { inner, seen: Arc::default() }, name))
}

fn why(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired by the device's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet by the device's clock"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name"
        }
        CertificateError::UnknownIssuer => "nobody trusted issued (a proxy that intercepts TLS?)",
        CertificateError::Revoked => "was revoked",
        _ => "is not valid",
    }
}

fn shown(seen: &Mutex<Option<certificate::Names>>) -> String {
    let seen = seen.lock().ok();
    let names = seen.as_ref().and_then(|seen| seen.as_ref());
    names.map(|names| format!(": to {}, issued by {}", names.subject, names.issuer)).unwrap_or_default()
}

/// The usual verifier, which decides; this only remembers what was shown, so that a message can name the issuer.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    seen: Arc<Mutex<Option<certificate::Names>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = certificate::names(end_entity);
        }
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
