//! EK certificates: a manufacturer's word that a key lives in one of its TPMs (TCG EK Credential Profile 2.5).

use der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use der::referenced::OwnedToRef;
use der::{Decode, Encode};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::attr::AttributeValue;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

use crate::{EkKey, Refusal};

/// Longest certificate, in bytes; RSA-4096 with every extension stays under 3 KiB.
pub(crate) const CERTIFICATE_LIMIT: usize = 8 << 10; // 8 KiB
/// Most roots; all of the known manufacturers' are about a hundred.
const ROOTS: usize = 1024;

/// tcg-kp-EKCertificate.
const EK_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// tcg-at-tpmManufacturer.
const MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");

/// The authorities that an EK certificate may chain to. Each one given is trusted as it stands, intermediates too.
#[derive(Clone, Debug)]
pub struct EkRoots(Vec<TrustAnchor<'static>>);

/// What an EK certificate vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The endorsement key.
    pub key: EkKey,
    /// Who made the TPM, as `IBM`, or `id:00001014` where the vendor id is no text; `None` where the certificate does
    /// not say.
    pub manufacturer: Option<String>,
}

impl EkRoots {
    /// Reads PEM certificates, one after another.
    ///
    /// # Errors
    /// [`Refusal::Roots`] for none at all, and for one that cannot be read or is no CA.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Refusal> {
        let mut anchors = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem).take(ROOTS) {
            let number = anchors.len() + 1;
            let refusal = |why: String| Refusal::Roots { why: format!("certificate {number}: {why}") };
            let der = der.map_err(|e| refusal(e.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|e| refusal(e.to_string()))?;
            if !is_ca(&der).map_err(|e| refusal(e.to_string()))? {
                return Err(refusal("not a certificate of an authority (CA)".to_owned()));
            }
            anchors.push(anchor.to_owned());
        }
        match anchors.is_empty() {
            true => Err(Refusal::Roots { why: "no PEM certificate in there".to_owned() }),
            false => Ok(Self(anchors)),
        }
    }

    /// Checks that a DER EK certificate chains to one of these at `now`, and is one.
    ///
    /// # Errors
    /// [`Refusal::EkCertificateMalformed`], [`Refusal::EkCertificateUntrusted`], [`Refusal::EkCertificateUsage`] or
    /// [`Refusal::EkUnfit`].
    pub fn verify(&self, der: &[u8], now: UnixTime) -> Result<Vouched, Refusal> {
        let certificate = parse(der)?;
        if !has_ek_usage(&certificate)? {
            return Err(Refusal::EkCertificateUsage);
        }
        let untrusted = |source| Refusal::EkCertificateUntrusted { source };
        let der = CertificateDer::from(der);
        let leaf = EndEntityCert::try_from(&der).map_err(untrusted)?;
        // Manufacturers' CAs carry no extended key usage; webpki would demand it of the whole path.
        let usage = KeyUsage::required_if_present(EK_USAGE.as_bytes());
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &self.0, &[], now, usage, None, None)
            .map_err(untrusted)?;
        Ok(Vouched { key: key(&certificate)?, manufacturer: manufacturer(&certificate)? })
    }
}

/// The key of a DER EK certificate, whoever issued it.
///
/// # Errors
/// [`Refusal::EkCertificateMalformed`] or [`Refusal::EkUnfit`].
pub fn certified_key(der: &[u8]) -> Result<EkKey, Refusal> {
    key(&parse(der)?)
}

fn parse(der: &[u8]) -> Result<Certificate, Refusal> {
    if der.len() > CERTIFICATE_LIMIT {
        return Err(Refusal::TooLong { what: "EK certificate", limit: CERTIFICATE_LIMIT });
    }
    Certificate::from_der(der).map_err(malformed)
}

fn key(certificate: &Certificate) -> Result<EkKey, Refusal> {
    EkKey::from_spki(&certificate.tbs_certificate().subject_public_key_info().owned_to_ref())
}

fn malformed(error: der::Error) -> Refusal {
    Refusal::EkCertificateMalformed { why: error.to_string() }
}

fn is_ca(der: &[u8]) -> der::Result<bool> {
    let constraints = Certificate::from_der(der)?.tbs_certificate().get_extension::<BasicConstraints>()?;
    Ok(constraints.is_some_and(|(_, c)| c.ca))
}

fn has_ek_usage(certificate: &Certificate) -> Result<bool, Refusal> {
    let usage = certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>().map_err(malformed)?;
    Ok(usage.is_some_and(|(_, u)| u.0.contains(&EK_USAGE)))
}

/// The manufacturer in the subject alternative name (EK Credential Profile §3.2.9): a directory name with the
/// attribute tcg-at-tpmManufacturer.
fn manufacturer(certificate: &Certificate) -> Result<Option<String>, Refusal> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().map_err(malformed)?;
    let Some((_, SubjectAltName(names))) = names else { return Ok(None) };
    let attribute = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name),
            _ => None,
        })
        .flat_map(|name| name.iter())
        .find(|attribute| attribute.oid == MANUFACTURER);
    attribute.map(|a| vendor(&a.value)).transpose()
}

/// `id:` and the four bytes of the vendor id in hexadecimal (TCG Vendor ID Registry), as the text that they are.
fn vendor(value: &AttributeValue) -> Result<String, Refusal> {
    let unreadable =
        || Refusal::EkCertificateMalformed { why: "the TPM manufacturer is not id:XXXXXXXX".to_owned() };
    let der = value.to_der().map_err(malformed)?;
    let text = Utf8StringRef::from_der(&der)
        .map(|s| s.as_str().to_owned())
        .or_else(|_| PrintableStringRef::from_der(&der).map(|s| s.as_str().to_owned()))
        .map_err(|_| unreadable())?;
    let mut id = [0; 4];
    let hexadecimal = text.strip_prefix("id:").ok_or_else(unreadable)?;
    hex::decode_to_slice(hexadecimal, &mut id).map_err(|_| unreadable())?;
    let mut name = id.as_slice();
    while let [rest @ .., 0 | b' '] = name {
        name = rest;
    }
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) => Ok(name.to_owned()),
        // Some ids are numbers, not text; swtpm writes IBM's number, id:00001014.
        _ => Ok(format!("id:{}", hex::encode_upper(id))),
    }
}
