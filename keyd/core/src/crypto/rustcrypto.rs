//! Everything by RustCrypto, which needs no C.

use getrandom::SysRng;
use getrandom::rand_core::TryRng;
use ml_dsa::{EncodedVerifyingKey, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature, VerifyingKey};
use ml_kem::{EncapsulationKey768, EncapsulationKey1024};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::pkcs1::DecodeRsaPublicKey;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{no_random_bytes, unusable};
use crate::{Algorithm, Failure, Hash, RsaPadding, Secret, SignInput, SignatureError};

/// Fills `bytes` at random.
///
/// # Errors
/// [`crate::Reason::Internal`] when the system gives none.
pub fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    SysRng.try_fill_bytes(bytes).map_err(|_| no_random_bytes())
}

/// The digest of the parts, one after another: [`Hash::digest_len`] bytes.
pub fn digest(hash: Hash, parts: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => digest_by::<Sha256>(parts),
        Hash::Sha384 => digest_by::<Sha384>(parts),
        Hash::Sha512 => digest_by::<Sha512>(parts),
    }
}

fn digest_by<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().fold(D::new(), D::chain_update).finalize().to_vec()
}

/// Verifies a signature with a key as [`crate::PublicKey::raw`] gives it.
///
/// # Errors
/// [`SignatureError`] whatever is wrong.
pub fn verify(
    algorithm: Algorithm,
    raw: &[u8],
    input: SignInput<'_>,
    signature: &[u8],
) -> Result<(), SignatureError> {
    let verified = match (algorithm, input) {
        (Algorithm::MlDsa44, SignInput::Message(message)) => ml_dsa::<MlDsa44>(raw, message, signature),
        (Algorithm::MlDsa65, SignInput::Message(message)) => ml_dsa::<MlDsa65>(raw, message, signature),
        (Algorithm::MlDsa87, SignInput::Message(message)) => ml_dsa::<MlDsa87>(raw, message, signature),
        (Algorithm::EcP256 | Algorithm::EcP384, SignInput::Message(message)) => {
            algorithm.hash().and_then(|hash| ecdsa(algorithm, raw, &digest(hash, &[message]), signature))
        }
        (Algorithm::EcP256 | Algorithm::EcP384, SignInput::Digest { digest, .. }) => {
            ecdsa(algorithm, raw, digest, signature)
        }
        (
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096,
            SignInput::RsaDigest { padding, hash, digest },
        ) => rsa(raw, padding, hash, digest, signature),
        _ => None,
    };
    verified.ok_or(SignatureError)
}

/// A ciphertext for the holder of an ML-KEM key, and the shared secret (FIPS 203 §7.2).
///
/// # Errors
/// [`crate::Reason::BadRequest`] for a key that FIPS 203 refuses, or that is not one of ML-KEM.
pub fn encapsulate(algorithm: Algorithm, raw: &[u8]) -> Result<(Vec<u8>, Secret), Failure> {
    // The library's own way to random bytes panics when there are none.
    let mut message = zeroize::Zeroizing::new(ml_kem::B32::default());
    fill(&mut message)?;
    let both = match algorithm {
        Algorithm::MlKem768 => raw.try_into().ok().and_then(|raw| {
            let key = EncapsulationKey768::new(raw).ok()?;
            let (ciphertext, secret) = key.encapsulate_deterministic(&message);
            Some((ciphertext.to_vec(), Secret::new(secret.to_vec())))
        }),
        Algorithm::MlKem1024 => raw.try_into().ok().and_then(|raw| {
            let key = EncapsulationKey1024::new(raw).ok()?;
            let (ciphertext, secret) = key.encapsulate_deterministic(&message);
            Some((ciphertext.to_vec(), Secret::new(secret.to_vec())))
        }),
        _ => None,
    };
    both.ok_or_else(|| unusable(algorithm))
}

fn ml_dsa<P: MlDsaParams>(raw: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    let key = VerifyingKey::<P>::decode(&EncodedVerifyingKey::<P>::try_from(raw).ok()?);
    let signature = Signature::<P>::try_from(signature).ok()?;
    key.verify_with_context(message, &[], &signature).then_some(())
}

fn ecdsa(algorithm: Algorithm, raw: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    match algorithm {
        Algorithm::EcP256 => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(raw).ok()?;
            key.verify_prehash(digest, &p256::ecdsa::Signature::from_der(signature).ok()?).ok()
        }
        Algorithm::EcP384 => {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(raw).ok()?;
            key.verify_prehash(digest, &p384::ecdsa::Signature::from_der(signature).ok()?).ok()
        }
        _ => None,
    }
}

fn rsa(raw: &[u8], padding: RsaPadding, hash: Hash, digest: &[u8], signature: &[u8]) -> Option<()> {
    use RsaPadding::{Pkcs1v15, Pss};
    let key = rsa::PublicKey::from_pkcs1_der(raw).ok()?;
    match (padding, hash) {
        (Pkcs1v15, Hash::Sha256) => key.pkcs1v15_verify_prehash::<Sha256>(digest, signature),
        (Pkcs1v15, Hash::Sha384) => key.pkcs1v15_verify_prehash::<Sha384>(digest, signature),
        (Pkcs1v15, Hash::Sha512) => key.pkcs1v15_verify_prehash::<Sha512>(digest, signature),
        (Pss, Hash::Sha256) => key.pss_verify_prehash::<Sha256>(digest, signature),
        (Pss, Hash::Sha384) => key.pss_verify_prehash::<Sha384>(digest, signature),
        (Pss, Hash::Sha512) => key.pss_verify_prehash::<Sha512>(digest, signature),
    }
    .ok()
}
