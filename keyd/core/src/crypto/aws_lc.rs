//! Everything by aws-lc-rs.

use aws_lc_rs::digest::{self, Context, Digest};
use aws_lc_rs::kem::{self, EncapsulationKey};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::{no_random_bytes, unusable};
use crate::{Algorithm, Failure, Hash, RsaPadding, Secret, SignInput, SignatureError};

/// Fills `bytes` at random.
///
/// # Errors
/// [`crate::Reason::Internal`] when the system gives none.
pub fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| no_random_bytes())
}

/// The digest of the parts, one after another: [`Hash::digest_len`] bytes.
pub fn digest(hash: Hash, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(digest_algorithm(hash));
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
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
    let key = UnparsedPublicKey::new(verification(algorithm, input).ok_or(SignatureError)?, raw);
    match input {
        SignInput::Message(message) => key.verify(message, signature),
        SignInput::Digest { hash, digest } | SignInput::RsaDigest { hash, digest, .. } => {
            let digest = Digest::import_less_safe(digest, digest_algorithm(hash));
            digest.and_then(|digest| key.verify_digest(&digest, signature))
        }
    }
    .map_err(|_| SignatureError)
}

/// A ciphertext for the holder of an ML-KEM key, and the shared secret (FIPS 203 §7.2).
///
/// # Errors
/// [`crate::Reason::BadRequest`] for a key that FIPS 203 refuses, or that is not one of ML-KEM.
pub fn encapsulate(algorithm: Algorithm, raw: &[u8]) -> Result<(Vec<u8>, Secret), Failure> {
    let kem = match algorithm {
        Algorithm::MlKem768 => &kem::ML_KEM_768,
        Algorithm::MlKem1024 => &kem::ML_KEM_1024,
        other => return Err(unusable(other)),
    };
    let key = EncapsulationKey::new(kem, raw).map_err(|_| unusable(algorithm))?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| unusable(algorithm))?;
    Ok((ciphertext.as_ref().to_vec(), Secret::new(secret.as_ref().to_vec())))
}

/// The hash in aws-lc-rs's terms.
pub fn digest_algorithm(hash: Hash) -> &'static digest::Algorithm {
    match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    }
}

/// aws-lc's name for how a signature over `input` is verified.
fn verification(algorithm: Algorithm, input: SignInput<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    use RsaPadding::{Pkcs1v15, Pss};
    let (hash, padding) = match input {
        SignInput::Message(_) => (algorithm.hash(), None),
        SignInput::Digest { hash, .. } => (Some(hash), None),
        SignInput::RsaDigest { padding, hash, .. } => (Some(hash), Some(padding)),
    };
    Some(match (algorithm, hash, padding) {
        (Algorithm::MlDsa44, None, None) => &signature::ML_DSA_44,
        (Algorithm::MlDsa65, None, None) => &signature::ML_DSA_65,
        (Algorithm::MlDsa87, None, None) => &signature::ML_DSA_87,
        (Algorithm::EcP256, Some(Hash::Sha256), None) => &signature::ECDSA_P256_SHA256_ASN1,
        (Algorithm::EcP256, Some(Hash::Sha384), None) => &signature::ECDSA_P256_SHA384_ASN1,
        (Algorithm::EcP256, Some(Hash::Sha512), None) => &signature::ECDSA_P256_SHA512_ASN1,
        (Algorithm::EcP384, Some(Hash::Sha256), None) => &signature::ECDSA_P384_SHA256_ASN1,
        (Algorithm::EcP384, Some(Hash::Sha384), None) => &signature::ECDSA_P384_SHA384_ASN1,
        (Algorithm::EcP384, Some(Hash::Sha512), None) => &signature::ECDSA_P384_SHA512_ASN1,
        (_, Some(Hash::Sha256), Some(Pkcs1v15)) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (_, Some(Hash::Sha384), Some(Pkcs1v15)) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (_, Some(Hash::Sha512), Some(Pkcs1v15)) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (_, Some(Hash::Sha256), Some(Pss)) => &signature::RSA_PSS_2048_8192_SHA256,
        (_, Some(Hash::Sha384), Some(Pss)) => &signature::RSA_PSS_2048_8192_SHA384,
        (_, Some(Hash::Sha512), Some(Pss)) => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
