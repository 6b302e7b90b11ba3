//! Reading certificates.

use std::time::SystemTime;

use der::pem::LineEnding;
use der::{Decode, Encode, EncodePem};
use keyd_core::PublicKey;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier};
use x509_cert::name::Name;

use crate::profile::CERTIFICATE_LIMIT;
use crate::{SpiffeId, X509Error};

/// Longest PEM text taken, in bytes.
pub const PEM_LIMIT: usize = 1 << 20; // 1 MiB
/// Most certificates in one PEM text.
const CHAIN_LIMIT: usize = 64;

/// A certificate and its DER. Reading one says nothing of its signature: chains are verified by webpki (`keyd-tls`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    parsed: x509_cert::Certificate,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`X509Error::TooLong`] or [`X509Error::Der`].
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        if der.len() > CERTIFICATE_LIMIT {
            return Err(X509Error::TooLong {
                what: "certificate",
                length: der.len(),
                limit: CERTIFICATE_LIMIT,
            });
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(X509Error::der("certificate"))?;
        Ok(Self { parsed, der: der.to_vec() })
    }

    /// DER, as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject.
    pub fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    /// The subject's public key.
    ///
    /// # Errors
    /// [`X509Error::Signer`] for a key of an algorithm that keyd does not use.
    pub fn public_key(&self) -> Result<PublicKey, X509Error> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        Ok(PublicKey::from_spki(&spki.to_der().map_err(X509Error::der("public key"))?)?)
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.parsed.tbs_certificate().validity().not_before.to_system_time()
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.parsed.tbs_certificate().validity().not_after.to_system_time()
    }

    /// Serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The subject key identifier, where there is one.
    ///
    /// # Errors
    /// [`X509Error::Der`] for an extension that is not well formed or stands twice.
    pub fn subject_key_id(&self) -> Result<Option<Vec<u8>>, X509Error> {
        Ok(self.extension::<SubjectKeyIdentifier>()?.map(|id| id.0.as_bytes().to_vec()))
    }

    /// Whether it is a CA that may sign certificates.
    ///
    /// # Errors
    /// [`X509Error::Der`] for an extension that is not well formed or stands twice.
    pub fn is_ca(&self) -> Result<bool, X509Error> {
        let ca = self.extension::<BasicConstraints>()?.is_some_and(|c| c.ca);
        let signs = self.extension::<KeyUsage>()?.is_some_and(|u| u.0.contains(KeyUsages::KeyCertSign));
        Ok(ca && signs)
    }

    /// The SPIFFE ID of an X.509-SVID leaf (X509-SVID §2, §4): exactly one URI name, no CA, digitalSignature and
    /// neither keyCertSign nor cRLSign.
    ///
    /// # Errors
    /// [`X509Error::Refused`] naming the rule.
    pub fn leaf_spiffe_id(&self) -> Result<SpiffeId, X509Error> {
        let refused = |why: &str| X509Error::refused("the leaf certificate", why);
        if self.extension::<BasicConstraints>()?.is_some_and(|c| c.ca) {
            return Err(refused("it is a CA"));
        }
        let usage = self.extension::<KeyUsage>()?.ok_or_else(|| refused("it has no key usage"))?;
        if !usage.0.contains(KeyUsages::DigitalSignature) {
            return Err(refused("its key usage lacks digitalSignature"));
        }
        if usage.0.contains(KeyUsages::KeyCertSign) || usage.0.contains(KeyUsages::CRLSign) {
            return Err(refused("its key usage has keyCertSign or cRLSign"));
        }
        self.uri_id()
    }

    /// The SPIFFE ID in the only URI name, whatever kind of certificate it is.
    ///
    /// # Errors
    /// [`X509Error::Refused`] where there is none or more than one.
    pub fn uri_id(&self) -> Result<SpiffeId, X509Error> {
        let names = self.extension::<SubjectAltName>()?;
        only_uri(names.as_ref(), "the certificate")
    }

    fn extension<T: for<'a> Decode<'a, Error = der::Error> + const_oid::AssociatedOid>(
        &self,
    ) -> Result<Option<T>, X509Error> {
        let found = self.parsed.tbs_certificate().get_extension::<T>();
        Ok(found.map_err(X509Error::der("certificate extension"))?.map(|(_, value)| value))
    }
}

/// The SPIFFE ID in the only URI of a subject alternative name.
pub(crate) fn only_uri(names: Option<&SubjectAltName>, what: &'static str) -> Result<SpiffeId, X509Error> {
    let mut uris = names.into_iter().flat_map(|n| &n.0).filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse(),
        (None, _) => Err(X509Error::refused(what, "it has no URI name")),
        (Some(_), Some(_)) => Err(X509Error::refused(what, "it has more than one URI name")),
    }
}

/// Reads one or more PEM certificates. `what` names the file in errors.
///
/// # Errors
/// [`X509Error::Pem`] where there is none, too many, or something else.
pub fn parse_pem_chain(what: &str, text: &[u8]) -> Result<Vec<Certificate>, X509Error> {
    let bad = |why: String| X509Error::Pem { what: what.to_owned(), why };
    if text.len() > PEM_LIMIT {
        return Err(bad(format!("longer than {PEM_LIMIT} bytes")));
    }
    let chain = x509_cert::Certificate::load_pem_chain(text)
        .map_err(|e| bad(format!("not PEM certificates ({e})")))?;
    if chain.is_empty() || chain.len() > CHAIN_LIMIT {
        return Err(bad(format!("{} certificates; 1 to {CHAIN_LIMIT} are expected", chain.len())));
    }
    chain
        .into_iter()
        .map(|parsed| {
            let der = parsed.to_der().map_err(X509Error::der("certificate"))?;
            Certificate::from_der(&der)
        })
        .collect()
}

/// Certificates as PEM, in the order given.
///
/// # Errors
/// [`X509Error::Der`] for one that does not encode.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> Result<String, X509Error> {
    certificates
        .into_iter()
        .map(|c| c.parsed.to_pem(LineEnding::LF).map_err(X509Error::der("certificate")))
        .collect()
}
