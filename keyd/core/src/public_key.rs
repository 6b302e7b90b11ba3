//! Public keys: SubjectPublicKeyInfo in, SubjectPublicKeyInfo out, and verification.

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use const_oid::db::rfc5912;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::{Algorithm, Failure, Hash, Reason, SignInput};

/// Longest SubjectPublicKeyInfo taken, in bytes; ML-DSA-87 needs 2614.
const SPKI_LIMIT: usize = 4096;

/// A public key of one of keyd's algorithms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    algorithm: Algorithm,
    raw: Vec<u8>,
    spki: Vec<u8>,
}

/// A signature that does not verify. It says no more than that, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 §4.1, RFC 9881 §4, RFC 5480 §2).
    ///
    /// # Errors
    /// [`Reason::UnknownAlgorithm`] for a key of another kind, [`Reason::BadRequest`] for DER that is not one.
    pub fn from_spki(der: &[u8]) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(Reason::BadRequest, format!("not a SubjectPublicKeyInfo: {why}"));
        if der.len() > SPKI_LIMIT {
            return Err(bad("too long"));
        }
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|e| bad(&e.to_string()))?;
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|a| {
                let (oid, curve) = key_identifier(*a);
                let parameters = spki.algorithm.parameters.map(|p| p.decode_as::<ObjectIdentifier>());
                spki.algorithm.oid == oid
                    && match (curve, parameters) {
                        (None, None) => true,
                        (Some(c), Some(Ok(p))) => c == p,
                        _ => false,
                    }
            })
            .ok_or_else(|| {
                Failure::new(
                    Reason::UnknownAlgorithm,
                    format!("public key of algorithm {}, which keyd does not use", spki.algorithm.oid),
                )
            })?;
        let raw = spki.subject_public_key.as_bytes().ok_or_else(|| bad("unused bits in the key"))?;
        Self::from_raw(algorithm, raw)
    }

    /// Takes the raw public key: the encoded ML-DSA key (FIPS 204 §7.2) or the uncompressed point.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a wrong length or a compressed point.
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, Failure> {
        let uncompressed = algorithm.is_ml_dsa() || raw.first() == Some(&4);
        if raw.len() != algorithm.public_len() || !uncompressed {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "an {algorithm} public key has {} bytes, not compressed; this one has {}",
                    algorithm.public_len(),
                    raw.len()
                ),
            ));
        }
        let spki = encode_spki(algorithm, raw)
            .map_err(|e| Failure::new(Reason::Internal, format!("cannot encode a public key: {e}")))?;
        Ok(Self { algorithm, raw: raw.to_vec(), spki })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw key, as [`PublicKey::from_raw`] takes it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 over the DER SubjectPublicKeyInfo, 32 bytes: the key's fingerprint.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.spki).as_ref());
        out
    }

    /// Verifies a signature as [`crate::Vault::sign`] gives it.
    ///
    /// # Errors
    /// [`SignatureError`] whatever is wrong.
    pub fn verify(&self, input: SignInput<'_>, signature: &[u8]) -> Result<(), SignatureError> {
        match input {
            SignInput::Message(message) => {
                let key = UnparsedPublicKey::new(self.verification(self.algorithm.hash())?, &self.raw);
                key.verify(message, signature).map_err(|_| SignatureError)
            }
            SignInput::Digest { hash, digest } => {
                let key = UnparsedPublicKey::new(self.verification(Some(hash))?, &self.raw);
                let digest =
                    Digest::import_less_safe(digest, hash.digest_algorithm()).map_err(|_| SignatureError)?;
                key.verify_digest(&digest, signature).map_err(|_| SignatureError)
            }
        }
    }

    fn verification(&self, hash: Option<Hash>) -> Result<&'static dyn VerificationAlgorithm, SignatureError> {
        Ok(match (self.algorithm, hash) {
            (Algorithm::MlDsa44, None) => &signature::ML_DSA_44,
            (Algorithm::MlDsa65, None) => &signature::ML_DSA_65,
            (Algorithm::MlDsa87, None) => &signature::ML_DSA_87,
            (Algorithm::EcP256, Some(Hash::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (Algorithm::EcP256, Some(Hash::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
            (Algorithm::EcP256, Some(Hash::Sha512)) => &signature::ECDSA_P256_SHA512_ASN1,
            (Algorithm::EcP384, Some(Hash::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
            (Algorithm::EcP384, Some(Hash::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (Algorithm::EcP384, Some(Hash::Sha512)) => &signature::ECDSA_P384_SHA512_ASN1,
            _ => return Err(SignatureError),
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, sha256 {})", self.algorithm, hex::encode(self.fingerprint()))
    }
}

/// The algorithm identifier of a key, and the named curve where it has one.
fn key_identifier(algorithm: Algorithm) -> (ObjectIdentifier, Option<ObjectIdentifier>) {
    match algorithm {
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => (algorithm.signature_oid(), None),
        Algorithm::EcP256 => (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_256_R_1)),
        Algorithm::EcP384 => (rfc5912::ID_EC_PUBLIC_KEY, Some(rfc5912::SECP_384_R_1)),
    }
}

fn encode_spki(algorithm: Algorithm, raw: &[u8]) -> der::Result<Vec<u8>> {
    let (oid, curve) = key_identifier(algorithm);
    let parameters = curve.as_ref().map(AnyRef::from);
    SubjectPublicKeyInfoRef {
        algorithm: AlgorithmIdentifierRef { oid, parameters },
        subject_public_key: BitStringRef::from_bytes(raw)?,
    }
    .to_der()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};

    use super::*;

    fn key() -> (PqdsaKeyPair, PublicKey) {
        let pair = PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).unwrap();
        let spki = pair.public_key().as_der().unwrap();
        let public = PublicKey::from_spki(spki.as_ref()).unwrap();
        assert_eq!(public.spki(), spki.as_ref(), "what was read is written the same");
        (pair, public)
    }

    #[test]
    fn a_signature_verifies_and_a_changed_one_does_not() {
        let (pair, public) = key();
        let mut sig = vec![0; pair.algorithm().signature_len()];
        pair.sign(b"m", &mut sig).unwrap();
        assert_eq!(public.verify(SignInput::Message(b"m"), &sig), Ok(()));
        assert_eq!(public.verify(SignInput::Message(b"n"), &sig), Err(SignatureError));
        let digest = SignInput::Digest { hash: Hash::Sha256, digest: &[0; 32] };
        assert_eq!(public.verify(digest, &sig), Err(SignatureError), "ML-DSA has no digests");
    }

    #[test]
    fn damaged_and_foreign_keys_are_refused() {
        let (_, public) = key();
        let cut = public.spki().split_last().unwrap().1;
        assert_eq!(PublicKey::from_spki(cut).unwrap_err().reason, Reason::BadRequest);
        assert!(PublicKey::from_spki(&[]).is_err());
        assert!(PublicKey::from_raw(Algorithm::MlDsa44, public.raw()).is_err());
        assert!(PublicKey::from_raw(Algorithm::EcP256, &[2; 65]).is_err(), "no compressed form");
        let ed25519 = hex::decode("302a300506032b6570032100").unwrap();
        let ed25519 = [ed25519, vec![7; 32]].concat();
        assert_eq!(PublicKey::from_spki(&ed25519).unwrap_err().reason, Reason::UnknownAlgorithm);
    }
}
