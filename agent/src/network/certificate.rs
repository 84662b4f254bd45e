//! Who issued a certificate and to whom: just enough DER (ITU-T X.690) to name a TLS-intercepting proxy.
//!
//! For messages only. Nothing is decided on what is read here; rustls verifies.

use vigil_text::clean;

/// `id-at-commonName` and `id-at-organizationName` (RFC 5280, appendix A.1).
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const VERSION: u8 = 0xa0;

/// The names in a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) subject: String,
    pub(super) issuer: String,
}

/// Reads `Certificate.tbsCertificate` up to the subject (RFC 5280, section 4.1).
pub(super) fn names(der: &[u8]) -> Option<Names> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = any(rest)?.2;
    }
    let (_, _, rest) = any(rest)?; // serialNumber
    let (_, _, rest) = any(rest)?; // signature
    let (issuer, rest) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(rest)?; // validity
    let (subject, _) = element(rest, SEQUENCE)?;
    Some(Names { subject: name(subject), issuer: name(issuer) })
}

/// The organization and the common name of a distinguished name, whichever there are.
fn name(mut der: &[u8]) -> String {
    let (mut common, mut organization) = (None, None);
    while let Some((set, rest)) = element(der, SET) {
        der = rest;
        let Some((attribute, _)) = element(set, SEQUENCE) else { continue };
        let Some((kind, value)) = element(attribute, OBJECT_ID) else { continue };
        let Some((_, text, _)) = any(value) else { continue };
        let text = clean(&String::from_utf8_lossy(text), 64);
        if kind == COMMON_NAME {
            common = Some(text);
        } else if kind == ORGANIZATION {
            organization = Some(text);
        }
    }
    match (common, organization) {
        (Some(common), Some(organization)) => format!("{common:?} of {organization:?}"),
        (Some(one), None) | (None, Some(one)) => format!("{one:?}"),
        (None, None) => "nobody named".to_owned(),
    }
}

fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// The first element: its tag, its content, and what follows it.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        // The long form; a certificate of 16 MiB and more is none.
        let count = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(count).filter(|_| (1..=3).contains(&count))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate() -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "inspection.corp");
        parameters.distinguished_name.push(DnType::OrganizationName, "Corp\u{1b}[31m");
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_issuer_is_named_without_control_characters() {
        let names = names(&certificate()).unwrap();
        assert_eq!(names.issuer, "\"inspection.corp\" of \"Corp\u{fffd}[31m\"");
        assert_eq!(names.subject, names.issuer);
    }

    #[test]
    fn a_truncated_certificate_has_no_names() {
        let der = certificate();
        for end in 0..der.len() {
            assert_eq!(names(&der[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            names(&bytes);
        }
    }
}
