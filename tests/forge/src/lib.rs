//! Certificates to be signed, byte by byte: right ones, and ones that no builder would make.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use keyd_core::PublicKey;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_cert::time::Time;

/// The public key in SPIRE's pkg/server/ca/validation.go.
const SELF_TEST_SPKI: [u8; 91] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04, 0xcc, 0xb6, 0x35, 0xfd, 0x24, 0x65, 0xb0,
    0xc2, 0x44, 0xc5, 0x39, 0xee, 0xbf, 0x30, 0x4e, 0xdb, 0xdd, 0x91, 0x8c, 0x68, 0xd4, 0xdc, 0xbf, 0x23,
    0x15, 0x1b, 0x66, 0x42, 0x5d, 0x02, 0x8c, 0x17, 0x87, 0x77, 0x15, 0x25, 0x18, 0xad, 0x4e, 0x90, 0xd2,
    0xc3, 0x62, 0x1d, 0x1b, 0xe8, 0x05, 0xb8, 0xb2, 0x25, 0xad, 0xfb, 0x2f, 0x83, 0x71, 0xb5, 0x00, 0x58,
    0xd6, 0xf5, 0xe1, 0xee, 0x73, 0x5a,
];

/// A certificate to be signed. Every part can be changed before it is written.
#[derive(Clone)]
pub struct Forge {
    /// Contents of the INTEGER.
    pub serial: Vec<u8>,
    /// The algorithm that the certificate says it is signed with.
    pub algorithm: ObjectIdentifier,
    /// As RFC 4514 writes it.
    pub issuer: String,
    /// As RFC 4514 writes it.
    pub subject: String,
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// In order.
    pub extensions: Vec<Extension>,
}

impl Forge {
    /// A leaf as spire-server makes it, valid for an hour from `now`.
    pub fn leaf(issuer: &PublicKey, key: &PublicKey, uri: &str, now: SystemTime) -> Self {
        let usage = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
        Self {
            serial: vec![0x42; 16],
            algorithm: issuer.algorithm().signature_oid().unwrap_or(ObjectIdentifier::new_unwrap("1.2.3")),
            issuer: "CN=CA,O=SPIFFE".to_owned(),
            subject: "O=SPIRE,C=US".to_owned(),
            not_before: now - Duration::from_secs(10),
            not_after: now + Duration::from_secs(3600),
            spki: key.spki().to_vec(),
            extensions: vec![
                extension(&KeyUsage(usage), true),
                extension(&ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH]), false),
                extension(&BasicConstraints { ca: false, path_len_constraint: None }, true),
                extension(&subject_id(key), false),
                extension(&authority_id(issuer), false),
                extension(&uris(&[uri]), false),
            ],
        }
    }

    /// A CA below another, valid for an hour from `now`.
    pub fn ca(
        issuer: &PublicKey,
        key: &PublicKey,
        uri: &str,
        path_length: Option<u8>,
        now: SystemTime,
    ) -> Self {
        Self {
            subject: "O=SPIFFE,CN=below".to_owned(),
            extensions: vec![
                extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), true),
                extension(&BasicConstraints { ca: true, path_len_constraint: path_length }, true),
                extension(&subject_id(key), false),
                extension(&authority_id(issuer), false),
                extension(&uris(&[uri]), false),
            ],
            ..Self::leaf(issuer, key, uri, now)
        }
    }

    /// The leaf by which spire-server tries its CA, valid for an hour from `now`.
    pub fn self_test(issuer: &PublicKey, trust_domain: &str, now: SystemTime) -> Self {
        let uri = format!("{trust_domain}/spire/throwaway");
        Self {
            serial: vec![1],
            subject: String::new(),
            spki: SELF_TEST_SPKI.to_vec(),
            extensions: vec![extension(&authority_id(issuer), false), extension(&uris(&[&uri]), true)],
            ..Self::leaf(issuer, issuer, &uri, now)
        }
    }

    /// The same for another key.
    pub fn of(self, key: &PublicKey) -> Self {
        Self { spki: key.spki().to_vec(), ..self.with(extension(&subject_id(key), false)) }
    }

    /// With an extension put in the place of the one of its kind, or after the others.
    pub fn with(mut self, new: Extension) -> Self {
        match self.extensions.iter_mut().find(|old| old.extn_id == new.extn_id) {
            Some(old) => *old = new,
            None => self.extensions.push(new),
        }
        self
    }

    /// DER TBSCertificate.
    pub fn tbs(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self.extensions.iter().flat_map(encoded).collect();
        self.parts(&tlv(0xa3, &tlv(0x30, &extensions)))
    }

    /// DER Certificate with the signature of its TBSCertificate.
    pub fn signed(&self, signature: &[u8]) -> Vec<u8> {
        let signature = tlv(3, &[&[0], signature].concat());
        tlv(0x30, &[self.tbs(), tlv(0x30, &encoded(&self.algorithm)), signature].concat())
    }

    /// The same as [`Forge::tbs`] with these bytes after the public key.
    pub fn parts(&self, end: &[u8]) -> Vec<u8> {
        let name = |text: &str| encoded(&Name::from_str(text).unwrap_or_default());
        let time = |t: SystemTime| Time::try_from(t).map(|t| encoded(&t)).unwrap_or_default();
        let validity = [time(self.not_before), time(self.not_after)].concat();
        let parts = [
            vec![0xa0, 3, 2, 1, 2],
            tlv(2, &self.serial),
            tlv(0x30, &encoded(&self.algorithm)),
            name(&self.issuer),
            tlv(0x30, &validity),
            name(&self.subject),
            self.spki.clone(),
            end.to_vec(),
        ];
        tlv(0x30, &parts.concat())
    }
}

/// An alternative name of these URIs.
pub fn uris(uris: &[&str]) -> SubjectAltName {
    let uri = |uri: &&str| Ia5String::new(*uri).ok().map(GeneralName::UniformResourceIdentifier);
    SubjectAltName(uris.iter().filter_map(uri).collect())
}

/// An alternative name of this URI and these DNS names.
pub fn names(uri: &str, dns: &[&str]) -> SubjectAltName {
    let dns = dns.iter().filter_map(|name| Ia5String::new(*name).ok().map(GeneralName::DnsName));
    SubjectAltName(uris(&[uri]).0.into_iter().chain(dns).collect())
}

/// The identifier of a certified key.
pub fn subject_id(key: &PublicKey) -> SubjectKeyIdentifier {
    let spki = SubjectPublicKeyInfoRef::from_der(key.spki());
    spki.and_then(SubjectKeyIdentifier::try_from).unwrap_or_else(|_| SubjectKeyIdentifier(empty()))
}

/// The identifier of the key that signs.
pub fn authority_id(issuer: &PublicKey) -> AuthorityKeyIdentifier {
    AuthorityKeyIdentifier { key_identifier: Some(subject_id(issuer).0), ..Default::default() }
}

/// A name as RFC 4514 writes it, with the types of its texts.
pub fn written(name: &Name) -> String {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let part = |a: &AttributeTypeAndValue| format!("{}=#{}", a.oid, hex(encoded(&a.value)));
    let parts: Vec<_> =
        name.iter_rdn().map(|rdn| rdn.iter().map(part).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// An extension of this value.
pub fn extension<T: Encode + const_oid::AssociatedOid>(value: &T, critical: bool) -> Extension {
    raw(T::OID, &encoded(value), critical)
}

/// An extension of these bytes.
pub fn raw(oid: ObjectIdentifier, value: &[u8], critical: bool) -> Extension {
    let extn_value = OctetString::new(value).unwrap_or_else(|_| empty());
    Extension { extn_id: oid, critical, extn_value }
}

/// Tag, length and contents.
pub fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(contents);
    out
}

fn encoded(value: &impl Encode) -> Vec<u8> {
    value.to_der().unwrap_or_default()
}

fn empty() -> OctetString {
    OctetString::from_der(&[4, 0]).unwrap_or_else(|_| unreachable!("an empty string is one"))
}
