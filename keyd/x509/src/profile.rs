//! The extensions that each kind of certificate carries (X509-SVID §3, §4, §5; RFC 5280 §4.2; RFC 9881 §5).

use std::time::{Duration, SystemTime};

use der::asn1::Ia5String;
use spki::SubjectPublicKeyInfoRef;
use x509_cert::TbsCertificate;
use x509_cert::builder::Result as BuilderResult;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::time::{Time, Validity as DerValidity};

use crate::{SpiffeId, X509Error};

/// Longest certificate or request taken, in bytes; one with an ML-DSA-87 key and signature has about 7,500.
pub const CERTIFICATE_LIMIT: usize = 16 * 1024;

/// How far in the past a certificate begins, against clocks that disagree.
const BACKDATE: Duration = Duration::from_secs(10);

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From ten seconds ago until `lifetime` from `now`.
    pub fn starting(now: SystemTime, lifetime: Duration) -> Self {
        Self { not_before: now - BACKDATE, not_after: now + lifetime }
    }

    /// The same, ending no later than `end`.
    #[must_use]
    pub fn ending_by(self, end: SystemTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }

    pub(crate) fn to_der(self) -> Result<DerValidity, X509Error> {
        let time = |t| Time::try_from(t).map_err(X509Error::der("validity"));
        Ok(DerValidity::new(time(self.not_before)?, time(self.not_after)?))
    }
}

/// A CA of a trust domain: root or intermediate. No name constraints, because verifiers built on webpki refuse every URI name constraint.
pub(crate) struct CaProfile {
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    pub(crate) id: SpiffeId,
    /// How many CAs may stand below it, one under the other; any number without it.
    pub(crate) path_length: Option<u8>,
    /// Copied from the issuer where it is another certificate: RFC 5280 §4.2.1.1 wants exactly that value.
    pub(crate) issuer_key_id: Option<Vec<u8>>,
}

impl BuilderProfile for CaProfile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> BuilderResult<Vec<Extension>> {
        let subject = tbs.subject();
        let authority = match &self.issuer_key_id {
            Some(id) => AuthorityKeyIdentifier {
                key_identifier: Some(der::asn1::OctetString::new(id.as_slice())?),
                ..Default::default()
            },
            None => AuthorityKeyIdentifier::try_from(issuer_spk)?,
        };
        let mut extensions = Vec::new();
        let constraints = BasicConstraints { ca: true, path_len_constraint: self.path_length };
        extensions.push(constraints.to_extension(subject, &extensions)?);
        let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        extensions.push(usage.to_extension(subject, &extensions)?);
        extensions.push(SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &extensions)?);
        extensions.push(authority.to_extension(subject, &extensions)?);
        extensions.push(uri_name(&self.id)?.to_extension(subject, &extensions)?);
        Ok(extensions)
    }
}

/// The subject alternative name that carries a SPIFFE ID: exactly one URI.
pub(crate) fn uri_name(id: &SpiffeId) -> der::Result<SubjectAltName> {
    Ok(SubjectAltName(vec![GeneralName::UniformResourceIdentifier(Ia5String::new(id.as_str())?)]))
}
