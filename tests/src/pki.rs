//! A certificate authority for one test: the broker's certificate, operators' certificates, and devices' signing
//! requests signed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// The authority, its files in a directory.
pub struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// A new authority.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name.push(DnType::CommonName, "Vigil test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(directory.join("ca.crt"), certificate.pem())?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A server's certificate and key for `localhost` and 127.0.0.1.
    pub fn server(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.issue("server", names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate and key.
    pub fn client(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        self.issue(name, vec![], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "vigil");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let paths = (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem())?;
        std::fs::write(&paths.1, key.serialize_pem())?;
        Ok(paths)
    }

    /// Signs a device's request, as the vendor's enrolment does.
    pub fn sign_request(&self, request: &Path, certificate: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(request).with_context(|| request.display().to_string())?;
        let mut request = CertificateSigningRequestParams::from_pem(&text)?;
        request.params.distinguished_name.push(DnType::OrganizationName, "vigil");
        let signed = request.signed_by(&self.issuer)?;
        std::fs::write(certificate, signed.pem())?;
        Ok(())
    }
}
