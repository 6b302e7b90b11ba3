//! Building roots, intermediates and requests, each signed by a [`Signer`].

use std::future::Future;

use der::asn1::{BitString, ObjectIdentifier};
use der::{Decode, Document, Encode};
use keyd_core::{Failure, PublicKey, SignInput};
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
};
use x509_cert::builder::{Builder, CertificateBuilder, RequestBuilder};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

use crate::profile::{CaProfile, uri_name};
use crate::{Certificate, SpiffeId, TrustDomain, Validity, VerifiedRequest, X509Error};

/// Length of a serial number in bytes; RFC 5280 §4.1.2.2 allows 20.
const SERIAL_LEN: usize = 16;

/// Whoever holds the private key: keyd over its socket, or a key in this process.
pub trait Signer: Send + Sync {
    /// The public key that belongs to it.
    fn public_key(&self) -> &PublicKey;

    /// Signs a whole message; raw bytes for ML-DSA, DER `ECDSA-Sig-Value` for elliptic curves.
    fn sign(&self, message: &[u8]) -> impl Future<Output = Result<Vec<u8>, Failure>> + Send;
}

/// A self-signed root certificate of a trust domain.
///
/// # Errors
/// The signer's, or [`X509Error::Der`] for values that do not encode.
pub async fn self_signed_root(
    signer: &impl Signer,
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<Certificate, X509Error> {
    let subject = ca_name(trust_domain, "root")?;
    let (issuer, id) = (subject.clone(), trust_domain.id());
    let profile = CaProfile { issuer, subject, id, path_length: None, issuer_key_id: None };
    certificate(signer, profile, signer.public_key(), validity).await
}

/// A CA certificate under `issuer` for the key of a verified request. It ends no later than its issuer. `path_length` is how
/// many CAs may stand below it, one under the other; any number without it (RFC 5280 §4.2.1.9).
///
/// # Errors
/// The signer's; [`X509Error::Refused`] when `signer` does not hold the issuer's key.
pub async fn issue_ca(
    signer: &impl Signer,
    issuer: &Certificate,
    request: &VerifiedRequest,
    trust_domain: &TrustDomain,
    validity: Validity,
    path_length: Option<u8>,
) -> Result<Certificate, X509Error> {
    if issuer.public_key()? != *signer.public_key() {
        return Err(X509Error::refused("the issuer", "its certificate is for another key"));
    }
    let profile = CaProfile {
        issuer: issuer.subject().clone(),
        subject: request.subject().clone(),
        id: trust_domain.id(),
        path_length,
        issuer_key_id: issuer.subject_key_id()?,
    };
    certificate(signer, profile, request.public_key(), validity.ending_by(issuer.not_after())).await
}

/// A certificate request (PKCS#10, RFC 2986) for the signer's key with an empty subject, DER. With `id`, it asks for
/// that SPIFFE ID.
///
/// # Errors
/// The signer's, or [`X509Error::Der`] for values that do not encode.
pub async fn request(signer: &impl Signer, id: Option<&SpiffeId>) -> Result<Vec<u8>, X509Error> {
    let mut builder = RequestBuilder::new(Name::default()).map_err(build("request"))?;
    if let Some(id) = id {
        builder
            .add_extension(&uri_name(id).map_err(X509Error::der("request"))?)
            .map_err(X509Error::der("request"))?;
    }
    let signed = sign_with(builder, signer, "request").await?;
    signed.to_der().map_err(X509Error::der("request"))
}

async fn certificate(
    signer: &impl Signer,
    profile: CaProfile,
    subject_key: &PublicKey,
    validity: Validity,
) -> Result<Certificate, X509Error> {
    let key =
        SubjectPublicKeyInfoOwned::from_der(subject_key.spki()).map_err(X509Error::der("public key"))?;
    let builder =
        CertificateBuilder::new(profile, serial()?, validity.to_der()?, key).map_err(build("certificate"))?;
    let signed = sign_with(builder, signer, "certificate").await?;
    Certificate::from_der(&signed.to_der().map_err(X509Error::der("certificate"))?)
}

/// `finalize` gives the bytes to sign, `assemble` puts the signature in; in between anyone may sign.
async fn sign_with<B: Builder>(
    mut builder: B,
    signer: &impl Signer,
    what: &'static str,
) -> Result<B::Output, X509Error> {
    let identity = SignerIdentity::of(signer.public_key(), what)?;
    let message = builder.finalize(&identity).map_err(build(what))?;
    let signature = signer.sign(&message).await?;
    signer
        .public_key()
        .verify(SignInput::Message(&message), &signature)
        .map_err(|_| X509Error::refused(what, "its own signature does not verify"))?;
    let signature = BitString::from_bytes(&signature).map_err(X509Error::der(what))?;
    builder.assemble(signature, &identity).map_err(build(what))
}

fn serial() -> Result<SerialNumber, X509Error> {
    let mut bytes = [0; SERIAL_LEN];
    keyd_core::crypto::fill(&mut bytes).map_err(|e| X509Error::refused("the serial number", e.message))?;
    // Positive, and never shortened by leading zeros.
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::new(&bytes).map_err(X509Error::der("serial number"))
}

fn ca_name(trust_domain: &TrustDomain, role: &str) -> Result<Name, X509Error> {
    use std::str::FromStr;
    // A trust domain holds none of the characters that RFC 4514 escapes.
    Name::from_str(&format!("CN={trust_domain} {role},O=SPIFFE")).map_err(X509Error::der("subject"))
}

fn build(what: &'static str) -> impl Fn(x509_cert::builder::Error) -> X509Error {
    move |error| X509Error::refused(what, error.to_string())
}

/// The signer as x509-cert's builder wants to see it: a public key and an algorithm.
#[derive(Clone)]
struct SignerIdentity {
    key: PublicKey,
    signature: ObjectIdentifier,
}

impl SignerIdentity {
    fn of(key: &PublicKey, what: &'static str) -> Result<Self, X509Error> {
        let algorithm = key.algorithm();
        let signature = algorithm.signature_oid().ok_or_else(|| {
            X509Error::refused(
                what,
                format!("its signer's key is {algorithm}; keyd issues with ML-DSA and ECDSA"),
            )
        })?;
        Ok(Self { key: key.clone(), signature })
    }
}

#[derive(Clone, Debug)]
struct VerifyingKey(PublicKey);

impl EncodePublicKey for VerifyingKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.spki())?)
    }
}

impl signature::Keypair for SignerIdentity {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.key.clone())
    }
}

impl DynSignatureAlgorithmIdentifier for SignerIdentity {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        // RFC 9881 §2 and RFC 5758 §3.2: no parameters.
        Ok(AlgorithmIdentifierOwned { oid: self.signature, parameters: None })
    }
}
