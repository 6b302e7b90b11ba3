//! An authority that issues EK certificates, good ones and others.

use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::asn1::BitString;
use der::pem::LineEnding;
use der::{Decode, Document, Encode, EncodePem};
use signature::Keypair;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, Result};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate};

pub const EK_USAGE: &str = "2.23.133.8.1";
/// Certificates are valid from the epoch to this many seconds after it.
pub const NOT_AFTER: u64 = 2_000_000_000;

pub struct Authority {
    key: EcdsaKeyPair,
    name: Name,
    pub certificate: Certificate,
}

/// What an EK certificate says.
#[derive(Clone)]
pub struct Issue {
    pub usage: Option<&'static str>,
    pub manufacturer: Option<&'static str>,
    pub ca: bool,
}

impl Default for Issue {
    fn default() -> Self {
        Self { usage: Some(EK_USAGE), manufacturer: Some("id:49424D00"), ca: false }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let name: Name = format!("CN={name}").parse().unwrap();
        let mut builder = builder(Names { issuer: name.clone(), subject: name.clone() }, spki(&key));
        builder.add_extension(&BasicConstraints { ca: true, path_len_constraint: None }).unwrap();
        let certificate = sign(&key, builder);
        Self { key, name, certificate }
    }

    pub fn pem(&self) -> String {
        self.certificate.to_pem(LineEnding::LF).unwrap()
    }

    pub fn issue(&self, key: SubjectPublicKeyInfoOwned, issue: Issue) -> Vec<u8> {
        let mut builder = builder(Names { issuer: self.name.clone(), subject: Name::default() }, key);
        builder.add_extension(&BasicConstraints { ca: issue.ca, path_len_constraint: None }).unwrap();
        if let Some(usage) = issue.usage {
            builder.add_extension(&ExtendedKeyUsage(vec![ObjectIdentifier::new_unwrap(usage)])).unwrap();
        }
        if let Some(id) = issue.manufacturer {
            // tcg-at-tpmManufacturer, a UTF8String.
            let name: Name = format!("2.23.133.2.1=#0c{:02x}{}", id.len(), hex::encode(id)).parse().unwrap();
            builder.add_extension(&SubjectAltName(vec![GeneralName::DirectoryName(name)])).unwrap();
        }
        sign(&self.key, builder).to_der().unwrap()
    }
}

fn spki(key: &EcdsaKeyPair) -> SubjectPublicKeyInfoOwned {
    SubjectPublicKeyInfoOwned::from_der(key.public_key().as_der().unwrap().as_ref()).unwrap()
}

fn builder(names: Names, subject: SubjectPublicKeyInfoOwned) -> CertificateBuilder<Names> {
    let at = |seconds| Time::try_from(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    let validity = Validity::new(at(0), at(NOT_AFTER));
    CertificateBuilder::new(names, SerialNumber::from(1u32), validity, subject).unwrap()
}

fn sign(key: &EcdsaKeyPair, mut builder: CertificateBuilder<Names>) -> Certificate {
    let issuer = Issuer(spki(key));
    let tbs = builder.finalize(&issuer).unwrap();
    let signature = key.sign(&SystemRandom::new(), &tbs).unwrap();
    builder.assemble(BitString::from_bytes(signature.as_ref()).unwrap(), &issuer).unwrap()
}

struct Names {
    issuer: Name,
    subject: Name,
}

impl BuilderProfile for Names {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> Result<Vec<Extension>> {
        Ok(Vec::new())
    }
}

/// What x509-cert's builder wants to know of the issuer's key.
struct Issuer(SubjectPublicKeyInfoOwned);

#[derive(Clone)]
struct IssuerKey(SubjectPublicKeyInfoOwned);

impl Keypair for Issuer {
    type VerifyingKey = IssuerKey;

    fn verifying_key(&self) -> IssuerKey {
        IssuerKey(self.0.clone())
    }
}

impl DynSignatureAlgorithmIdentifier for Issuer {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_256, parameters: None })
    }
}

impl EncodePublicKey for IssuerKey {
    fn to_public_key_der(&self) -> x509_cert::spki::Result<Document> {
        Ok(Document::encode_msg(&self.0)?)
    }
}
