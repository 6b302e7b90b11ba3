//! RSA signatures over digests (RFC 8017 §8).

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use keyd_core::crypto::aws_lc::digest_algorithm;
use keyd_core::{Algorithm, Failure, Hash, Reason, RsaPadding, Secret, SignInput};

use super::library;
use crate::private_key::{PrivateKey, unfit};

/// Longest PKCS#8 taken, in bytes; RSA-4096 needs 2376.
const PKCS8_LIMIT: usize = 4096;

pub(crate) struct RsaKey {
    pair: RsaKeyPair,
}

/// Makes a new key: its PKCS#8 DER. This takes up to some seconds.
pub(crate) fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
    let size = match algorithm {
        Algorithm::Rsa2048 => KeySize::Rsa2048,
        Algorithm::Rsa3072 => KeySize::Rsa3072,
        Algorithm::Rsa4096 => KeySize::Rsa4096,
        other => return Err(Failure::new(Reason::Internal, format!("{other} is not RSA"))),
    };
    let pair = RsaKeyPair::generate(size).map_err(|_| library("make an RSA key"))?;
    RsaKey { pair }.to_pkcs8()
}

impl RsaKey {
    pub(crate) fn from_pkcs8(algorithm: Algorithm, pkcs8: &Secret) -> Result<Self, Failure> {
        let refused = || Failure::new(Reason::BadRequest, format!("not a PKCS#8 private key of {algorithm}"));
        if pkcs8.len() > PKCS8_LIMIT {
            return Err(refused());
        }
        RsaKeyPair::from_pkcs8(pkcs8.expose()).map(|pair| Self { pair }).map_err(|_| refused())
    }
}

impl PrivateKey for RsaKey {
    fn raw_public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        let SignInput::RsaDigest { padding, hash, digest } = input else { return Err(unfit()) };
        let digest =
            Digest::import_less_safe(digest, digest_algorithm(hash)).map_err(|_| library("take a digest"))?;
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign_digest(encoding(padding, hash), &digest, &mut signature)
            .map_err(|_| library("sign with RSA"))?;
        Ok(signature)
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| library("encode an RSA key"))?;
        Ok(Secret::new(der.as_ref().to_vec()))
    }
}

/// The salt of PSS is as long as the digest.
fn encoding(padding: RsaPadding, hash: Hash) -> &'static dyn RsaEncoding {
    match (padding, hash) {
        (RsaPadding::Pkcs1v15, Hash::Sha256) => &RSA_PKCS1_SHA256,
        (RsaPadding::Pkcs1v15, Hash::Sha384) => &RSA_PKCS1_SHA384,
        (RsaPadding::Pkcs1v15, Hash::Sha512) => &RSA_PKCS1_SHA512,
        (RsaPadding::Pss, Hash::Sha256) => &RSA_PSS_SHA256,
        (RsaPadding::Pss, Hash::Sha384) => &RSA_PSS_SHA384,
        (RsaPadding::Pss, Hash::Sha512) => &RSA_PSS_SHA512,
    }
}
