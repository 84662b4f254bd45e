//! TLS clients: which roots are trusted, and who we are.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::proven::TlsTime;

/// A PEM file's bytes at most.
const PEM_BYTES: u64 = 1024 * 1024;

/// How long the system's roots are used before they are read again.
const ROOTS_AGE: Duration = Duration::from_secs(600);

/// Certificate chain and key, both PEM files.
#[derive(Clone, Debug)]
pub struct ClientIdentity<'a> {
    /// The chain, our own certificate first.
    pub certificate: &'a Path,
    /// The key, PKCS#8.
    pub key: &'a Path,
}

/// A client that trusts the certificates in `ca_file`, or else the system's, and shows `identity` when asked.
/// Certificates are judged by `time`.
pub fn client(
    ca_file: Option<&Path>,
    identity: Option<ClientIdentity<'_>>,
    time: TlsTime,
) -> io::Result<Arc<ClientConfig>> {
    let time = Arc::new(time);
    let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), time)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots(ca_file)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(identity.certificate)?;
            let key = read(identity.key)?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|error| wrong(identity.key, &error.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(identity.certificate, &error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

/// Whom a connection trusts: what is in the file or, without one, the system's own.
pub(crate) fn roots(ca_file: Option<&Path>) -> io::Result<Arc<RootCertStore>> {
    let Some(path) = ca_file else { return Ok(system_roots()) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, &error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// The system's own, which are some hundred files: read once in a while, not for each connection.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let mut kept = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, roots)) = kept.as_ref().filter(|(at, _)| at.elapsed() < ROOTS_AGE) {
        return Arc::clone(roots);
    }
    let mut roots = RootCertStore::empty();
    // What the system cannot read of its own store, others will miss as well.
    let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let roots = Arc::new(roots);
    *kept = Some((Instant::now(), Arc::clone(&roots)));
    roots
}

/// The certificates in a PEM file; without any it is an error, and every error names the file.
pub(crate) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(wrong(path, "no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(path, &error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    vigil_durable::read_bounded(path, PEM_BYTES)
        .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn wrong(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
