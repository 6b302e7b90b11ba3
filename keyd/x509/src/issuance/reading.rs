//! Reading what is to be signed, as strictly as it can be read.

use std::time::SystemTime;

use der::{Decode, Encode};
use keyd_core::{Hash, PublicKey};
use sha1::{Digest, Sha1};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::request::{CertReqInfo, ExtensionReq};
use x509_cert::time::Time;
use x509_cert::{TbsCertificate, Version};

use super::distinguished::DistinguishedName;
use super::extensions::Extensions;
use super::{Refused, malformed, refused};
use crate::TrustDomain;
use crate::profile::CERTIFICATE_LIMIT;

/// RFC 5280 §4.1.2.5: dates before this year are UTCTime.
const GENERALIZED_FROM: u16 = 2050;

/// Longest serial number, in bytes (RFC 5280 §4.1.2.2).
const SERIAL_LIMIT: usize = 20;

/// A TBSCertificate (RFC 5280 §4.1) that can be read in one way only.
pub struct Certificate {
    pub serial: Vec<u8>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub issuer: DistinguishedName,
    pub subject: DistinguishedName,
    pub key: PublicKey,
    pub extensions: Extensions,
}

impl Certificate {
    /// Reads what `issuer_key` is asked to sign.
    pub fn read(issuer_key: &PublicKey, message: &[u8]) -> Result<Self, Refused> {
        if message.len() > CERTIFICATE_LIMIT {
            return Err(malformed(format!(
                "it has more than {CERTIFICATE_LIMIT} bytes, so it is no certificate"
            )));
        }
        let tbs = TbsCertificate::from_der(message).map_err(|e| {
            malformed(format!(
                "it is neither a certificate to be signed nor this key's certificate request: {e}"
            ))
        })?;
        if tbs.to_der().map_err(|e| malformed(e.to_string()))? != message {
            return Err(malformed("it is not in DER: it would be written differently again"));
        }
        if tbs.version() != Version::V3 {
            return Err(malformed("it is no version 3 certificate"));
        }
        if tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
            return Err(malformed("it has a unique identifier"));
        }
        own_algorithm(issuer_key, tbs.signature())?;
        let serial = tbs.serial_number().as_bytes().to_vec();
        let negative = serial.first().is_some_and(|first| first & 0x80 != 0);
        if serial.iter().all(|byte| *byte == 0) || negative || serial.len() > SERIAL_LIMIT {
            return Err(malformed("its serial number is not positive, or longer than 20 bytes"));
        }
        let validity = tbs.validity();
        for time in [&validity.not_before, &validity.not_after] {
            if matches!(time, Time::GeneralTime(t) if t.to_date_time().year() < GENERALIZED_FROM) {
                return Err(malformed("it writes a date before 2050 as GeneralizedTime"));
            }
        }
        let key = public_key(tbs.subject_public_key_info())?;
        let issuer = DistinguishedName::read("issuer", tbs.issuer())?;
        if issuer.is_empty() {
            return Err(malformed("its issuer has no name"));
        }
        Ok(Self {
            serial,
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            issuer,
            subject: DistinguishedName::read("subject", tbs.subject())?,
            key,
            extensions: Extensions::read(tbs.extensions().map(Vec::as_slice).unwrap_or_default())?,
        })
    }
}

/// Whether it is a certificate request (PKCS#10, RFC 2986 §4.1) to be signed by `key` for itself.
///
/// # Errors
/// It is one, but for another key, or asks for another name than the trust domain's own.
pub fn is_own_request(key: &PublicKey, message: &[u8], trust_domain: &TrustDomain) -> Result<bool, Refused> {
    if message.len() > CERTIFICATE_LIMIT {
        return Ok(false);
    }
    let Ok(info) = CertReqInfo::from_der(message) else { return Ok(false) };
    if info.to_der().ok().as_deref() != Some(message) {
        return Err(malformed("the request is not in DER: it would be written differently again"));
    }
    DistinguishedName::read("subject", &info.subject)?;
    if public_key(&info.public_key)? != *key {
        return Err(refused("request", "the request is for another key than the one that signs it"));
    }
    for attribute in info.attributes.iter() {
        for value in attribute.values.iter() {
            let der = value.to_der().map_err(|e| malformed(e.to_string()))?;
            let asked = match attribute.oid {
                const_oid::db::rfc5912::ID_EXTENSION_REQ => ExtensionReq::from_der(&der),
                other => return Err(malformed(format!("the request has the attribute {other}"))),
            };
            let asked = asked.map_err(|e| malformed(format!("the request's extensions: {e}")))?;
            let names = Extensions::read(&asked.0)?.names;
            let own = trust_domain.id();
            if names.uris.iter().any(|uri| uri != own.as_str()) || !names.dns.is_empty() {
                return Err(refused(
                    "trust_domain",
                    format!("the request asks for other names than {trust_domain}'s"),
                ));
            }
        }
    }
    Ok(true)
}

/// The algorithm must be the one that `key` signs with, written as RFC 9881 §2 says: without parameters.
fn own_algorithm(key: &PublicKey, algorithm: &AlgorithmIdentifierOwned) -> Result<(), Refused> {
    if Some(algorithm.oid) != key.algorithm().signature_oid() || algorithm.parameters.is_some() {
        return Err(malformed(format!("it names a signature algorithm that is not {}", key.algorithm())));
    }
    Ok(())
}

fn public_key(spki: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, Refused> {
    let der = spki.to_der().map_err(|e| malformed(e.to_string()))?;
    let key = PublicKey::from_spki(&der).map_err(|e| malformed(e.message))?;
    if key.spki() != der { Err(malformed("its public key is not written as it should be")) } else { Ok(key) }
}

/// Whether a key identifier is this key's, by either common way (RFC 5280 §4.2.1.2 (1), RFC 7093 §2 (1)).
pub fn identifies(identifier: &[u8], key: &PublicKey) -> bool {
    let raw = key.raw();
    [&Sha1::digest(raw)[..], &Hash::Sha256.digest(raw)].iter().any(|d| d.get(..20) == Some(identifier))
}
