//! The public key whose holder approves PCR values: RSA, as `systemd-measure` has it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use der::asn1::UintRef;
use der::{Decode, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Public, PublicBuilder, PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent, RsaScheme,
};
use tss_esapi::traits::Marshall;

use crate::signed_policy::public_key_der;

/// rsaEncryption (RFC 8017 appendix A.1).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Sizes of a modulus that TPMs know, in bytes; most know the first alone.
const MODULUS_LENGTHS: [usize; 3] = [256, 384, 512];
/// The exponent that TPMs know.
const EXPONENT: &[u8] = &[1, 0, 1];

/// A key that signs PCR policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyKey {
    /// TPMT_PUBLIC, as the TPM loads it.
    public: Vec<u8>,
    /// PKCS#1 RSAPublicKey.
    rsa: Vec<u8>,
    fingerprint: [u8; 32],
}

impl PolicyKey {
    /// Reads a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// What is wrong with it, to follow its name.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let document = public_key_der(pem)?;
        let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes())
            .map_err(|e| format!("it is no public key: {e}"))?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return Err("it is no RSA key".to_owned());
        }
        let rsa = info.subject_public_key.as_bytes().ok_or("it is no public key")?;
        Self::from_rsa(rsa)
    }

    /// Takes a PKCS#1 RSAPublicKey.
    pub(crate) fn from_rsa(rsa: &[u8]) -> Result<Self, String> {
        let modulus = modulus(rsa).map_err(|e| format!("it is no RSA key: {e}"))?;
        let modulus = modulus.ok_or("a TPM takes RSA keys of 2048, 3072 or 4096 bits with exponent 65537")?;
        let public = template(modulus)
            .and_then(|public| public.marshall())
            .map_err(|e| format!("the TPM's library does not take it: {e}"))?;
        Ok(Self { public, rsa: rsa.to_vec(), fingerprint: fingerprint(rsa) })
    }

    /// TPMT_PUBLIC.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// SHA-256 of the PKCS#1 RSAPublicKey, as `systemd-measure` names the key.
    pub(crate) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether the signature over `message` is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.rsa).verify(message, signature).is_ok()
    }
}

fn modulus(rsa: &[u8]) -> der::Result<Option<&[u8]>> {
    let mut reader = SliceReader::new(rsa)?;
    let (modulus, exponent) =
        reader.sequence(|r| Ok::<_, der::Error>((UintRef::decode(r)?, UintRef::decode(r)?)))?;
    reader.finish()?;
    let modulus = modulus.as_bytes();
    let fits = MODULUS_LENGTHS.contains(&modulus.len())
        && modulus.first().is_some_and(|b| *b >= 0x80)
        && exponent.as_bytes() == EXPONENT;
    Ok(fits.then_some(modulus))
}

fn fingerprint(rsa: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, rsa).as_ref());
    bytes
}

/// The public area that the key's Name, and so every policy by it, is made of: it must stay as it is.
fn template(modulus: &[u8]) -> Result<Public, tss_esapi::Error> {
    let bits = u16::try_from(modulus.len() * 8).unwrap_or_default();
    let attributes =
        ObjectAttributesBuilder::new().with_sign_encrypt(true).with_user_with_auth(true).build()?;
    let parameters = PublicRsaParametersBuilder::new_unrestricted_signing_key(
        RsaScheme::Null,
        RsaKeyBits::try_from(bits)?,
        RsaExponent::default(),
    )
    .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_rsa_parameters(parameters)
        .with_rsa_unique_identifier(PublicKeyRsa::try_from(modulus.to_vec())?)
        .build()
}
