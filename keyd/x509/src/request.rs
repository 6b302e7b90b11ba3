//! Certificate requests from outside: strict, and the key's possession proved.

use der::{Decode, Encode};
use keyd_core::{PublicKey, SignInput};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq};

use crate::parse::only_uri;
use crate::profile::CERTIFICATE_LIMIT;
use crate::{SpiffeId, X509Error};

/// A PKCS#10 request (RFC 2986) whose signature verifies.
#[derive(Clone, Debug)]
pub struct VerifiedRequest {
    public_key: PublicKey,
    subject: Name,
    id: Option<SpiffeId>,
}

impl VerifiedRequest {
    /// Reads a DER request and verifies its signature with its own key.
    ///
    /// # Errors
    /// [`X509Error::Der`] or [`X509Error::TooLong`] for bytes that are none, [`X509Error::Refused`] for a signature that
    /// does not verify, is of another algorithm than the key, or names that are not one SPIFFE ID.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        const WHAT: &str = "the certificate request";
        if der.len() > CERTIFICATE_LIMIT {
            return Err(X509Error::TooLong { what: WHAT, length: der.len(), limit: CERTIFICATE_LIMIT });
        }
        let request = CertReq::from_der(der).map_err(X509Error::der(WHAT))?;
        let spki = request.info.public_key.to_der().map_err(X509Error::der(WHAT))?;
        let public_key = PublicKey::from_spki(&spki)?;
        let algorithm = public_key.algorithm();
        let expected = algorithm.signature_oid().ok_or_else(|| {
            X509Error::refused(WHAT, format!("its key is {algorithm}; keyd certifies ML-DSA and ECDSA keys"))
        })?;
        if request.algorithm.oid != expected || request.algorithm.parameters.is_some() {
            return Err(X509Error::refused(WHAT, "its signature algorithm is not that of its key"));
        }
        let message = request.info.to_der().map_err(X509Error::der(WHAT))?;
        let signature = request
            .signature
            .as_bytes()
            .ok_or_else(|| X509Error::refused(WHAT, "its signature does not end on a byte"))?;
        public_key
            .verify(SignInput::Message(&message), signature)
            .map_err(|_| X509Error::refused(WHAT, "its signature does not verify"))?;
        let names = requested_names(&request)?;
        let id = names.as_ref().map(|n| only_uri(Some(n), WHAT)).transpose()?;
        Ok(Self { public_key, subject: request.info.subject, id })
    }

    /// The key whose possession it proves.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The subject that it asks for.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The SPIFFE ID that it asks for, where it does.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.id.as_ref()
    }
}

fn requested_names(request: &CertReq) -> Result<Option<SubjectAltName>, X509Error> {
    const WHAT: &str = "the extension request";
    let mut found = None;
    for attribute in request.info.attributes.iter() {
        if attribute.oid != const_oid::db::rfc5912::ID_EXTENSION_REQ {
            continue;
        }
        for value in attribute.values.iter() {
            let der = value.to_der().map_err(X509Error::der(WHAT))?;
            let extensions = ExtensionReq::from_der(&der).map_err(X509Error::der(WHAT))?;
            for extension in extensions.0 {
                if extension.extn_id != const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME {
                    continue;
                }
                let names = SubjectAltName::from_der(extension.extn_value.as_bytes())
                    .map_err(X509Error::der(WHAT))?;
                if found.replace(names).is_some() {
                    return Err(X509Error::refused(WHAT, "it has two subject alternative names"));
                }
            }
        }
    }
    Ok(found)
}
