//! ECDSA over P-256 and P-384 (FIPS 186-5) by aws-lc-rs.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair,
};
use keyd_core::crypto::aws_lc::digest_algorithm;
use keyd_core::{Algorithm, Failure, Hash, Reason, Secret, SignInput};

use super::library;
use crate::private_key::{PrivateKey, unfit};

pub(crate) struct EcdsaKey {
    pair: EcdsaKeyPair,
    /// The hash that `pair` is made for; as long as the curve's order.
    own: Hash,
}

/// Makes the scalar of a new key.
pub(crate) fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
    let (signing, _) = signing(algorithm)?;
    let pair = EcdsaKeyPair::generate(signing).map_err(|_| library("make an elliptic-curve key"))?;
    let scalar: EcPrivateKeyBin<'_> =
        pair.private_key().as_be_bytes().map_err(|_| library("encode an elliptic-curve key"))?;
    Ok(Secret::new(scalar.as_ref().to_vec()))
}

impl EcdsaKey {
    pub(crate) fn from_scalar(algorithm: Algorithm, scalar: &Secret) -> Result<Self, Failure> {
        let (signing, own) = signing(algorithm)?;
        let der = sec1(scalar);
        let pair = EcdsaKeyPair::from_private_key_der(signing, der.expose())
            .map_err(|_| Failure::new(Reason::BadRequest, format!("not a private scalar of {algorithm}")))?;
        Ok(Self { pair, own })
    }

    fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signature =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| library("sign with ECDSA"))?;
        Ok(signature.as_ref().to_vec())
    }

    fn sign_digest(&self, digest: &[u8]) -> Result<Vec<u8>, Failure> {
        let digest =
            Digest::import_less_safe(&fit(digest, self.own.digest_len()), digest_algorithm(self.own))
                .map_err(|_| library("take a digest"))?;
        let signature = self.pair.sign_digest(&digest).map_err(|_| library("sign with ECDSA"))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl PrivateKey for EcdsaKey {
    fn raw_public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        match input {
            SignInput::Message(message) => self.sign_message(message),
            SignInput::Digest { digest, .. } => self.sign_digest(digest),
            SignInput::RsaDigest { .. } => Err(unfit()),
        }
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        let document = self.pair.to_pkcs8v1().map_err(|_| library("encode an elliptic-curve key"))?;
        Ok(Secret::new(document.as_ref().to_vec()))
    }
}

/// The digest as a number of the order's length: ECDSA takes the leftmost bits of a longer digest and reads a shorter
/// one as the number it is (FIPS 186-5 §6.4.1), while the library only takes digests of one length.
fn fit(digest: &[u8], length: usize) -> Vec<u8> {
    let kept = digest.get(..length).unwrap_or(digest);
    let mut fitted = vec![0; length - kept.len()];
    fitted.extend_from_slice(kept);
    fitted
}

/// ECPrivateKey (RFC 5915 §3) of the scalar alone; the library knows the curve and computes the public key.
fn sec1(scalar: &Secret) -> Secret {
    // SEQUENCE { INTEGER 1, OCTET STRING scalar }; scalars of 32 and 48 bytes need only short lengths.
    let length = scalar.len() as u8;
    let mut der = vec![0x30, length + 5, 0x02, 0x01, 0x01, 0x04, length];
    der.reserve_exact(scalar.len());
    der.extend_from_slice(scalar.expose());
    Secret::new(der)
}

fn signing(algorithm: Algorithm) -> Result<(&'static EcdsaSigningAlgorithm, Hash), Failure> {
    match algorithm {
        Algorithm::EcP256 => Ok((&ECDSA_P256_SHA256_ASN1_SIGNING, Hash::Sha256)),
        Algorithm::EcP384 => Ok((&ECDSA_P384_SHA384_ASN1_SIGNING, Hash::Sha384)),
        other => Err(Failure::new(Reason::Internal, format!("{other} is no elliptic curve"))),
    }
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn a_digest_keeps_its_leftmost_bytes_or_its_value() {
        assert_eq!(fit(&[1, 2, 3], 2), [1, 2]);
        assert_eq!(fit(&[1, 2], 4), [0, 0, 1, 2]);
    }
}
