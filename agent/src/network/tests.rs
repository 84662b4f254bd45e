use super::*;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};
use vigil_protocol::diagnosis::FaultDomain;

use crate::config::Partner;

const LIMIT: Duration = Duration::from_secs(10);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(parameters, key), pem }
}

fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Probes a partner at `localhost` that shows a certificate for `name`, while the device trusts `trusted`.
async fn handshake(trusted: &Authority, server: TlsAcceptor) -> Vec<Evidence> {
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.crt");
    std::fs::write(&ca_file, &trusted.pem).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let partner = Partner {
        name: "a".to_owned(),
        host: "localhost".to_owned(),
        port,
        tls: true,
        ca_file: Some(ca_file),
    };
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = server.accept(stream).await;
        }
    };
    tokio::select! {
        () = serve => unreachable!(),
        evidence = partner::probe(&partner, &[], LIMIT) => evidence,
    }
}

fn ends(evidence: &[Evidence]) -> (Outcome, &str) {
    let last = evidence.last().unwrap();
    (last.outcome, last.code.as_str())
}

#[tokio::test]
async fn a_partner_with_a_certificate_of_the_trusted_authority_works() {
    let authority = authority();
    let evidence = handshake(&authority, acceptor(&authority, "localhost")).await;
    assert_eq!(ends(&evidence), (Outcome::Ok, "ok"), "{evidence:?}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_is_told_from_a_failed_handshake() {
    let (trusted, other) = (authority(), authority());
    let evidence = handshake(&trusted, acceptor(&other, "localhost")).await;
    assert_eq!(ends(&evidence), (Outcome::Failed, "certificate"));
    assert!(evidence.last().unwrap().message.contains("issued by"), "{evidence:?}");
    let evidence = handshake(&trusted, acceptor(&trusted, "other.example")).await;
    assert!(evidence.last().unwrap().message.contains("is for another name"), "{evidence:?}");
}

#[tokio::test]
async fn a_partner_that_speaks_no_tls_fails_the_handshake() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.crt");
    std::fs::write(&ca_file, authority().pem).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let partner = Partner { name: "a".to_owned(), host, port, tls: true, ca_file: Some(ca_file) };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    };
    let evidence = tokio::select! {
        () = serve => unreachable!(),
        evidence = partner::probe(&partner, &[], LIMIT) => evidence,
    };
    assert_eq!(ends(&evidence), (Outcome::Failed, "handshake"), "{evidence:?}");
}

#[tokio::test]
async fn a_missing_ca_file_is_no_evidence_against_the_partner() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ca_file = Some(PathBuf::from("/nowhere/ca.crt"));
    let partner = Partner { name: "a".to_owned(), host: "localhost".to_owned(), port, tls: true, ca_file };
    let evidence = partner::probe(&partner, &[], LIMIT).await;
    assert_eq!(ends(&evidence), (Outcome::Skipped, "certificate"));
    assert_eq!(verdict(&evidence).domain, FaultDomain::None);
}

#[tokio::test]
async fn a_test_without_anything_to_test_ends_and_is_inconclusive_or_local() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vigil.toml");
    let text = format!("{}[network]\nprobe_gateway = false\n", include_str!("tests/minimal.toml"));
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file, None).unwrap();
    let surroundings = Surroundings { resolv_conf: directory.path().join("none"), ..Default::default() };
    let diagnosis = diagnose_in(&surroundings, &config, "t-1", Timestamp::UNIX_EPOCH).await;
    assert_eq!((diagnosis.v, diagnosis.id.as_str()), (1, "t-1"));
    assert!(matches!(diagnosis.verdict.domain, FaultDomain::Inconclusive | FaultDomain::Device));
    assert!(diagnosis.evidence.is_sorted_by_key(|e| e.layer));
}
