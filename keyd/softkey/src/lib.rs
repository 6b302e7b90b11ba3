//! Signing in software, with a key whose secret was sealed by a TPM, wrapped by a token or, for development, stored.
//!
//! A key is made from its [`Secret`]: the seed of ML-DSA (FIPS 204 §5.1) or ML-KEM (FIPS 203 §7.1), the private scalar of
//! an elliptic curve, or PKCS#8 for RSA. aws-lc-rs does the work where it is built in, and RustCrypto checks it in tests;
//! built without aws-lc-rs, and so without C, RustCrypto does it, and there is no RSA.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(all(test, feature = "aws-lc-rs", feature = "rustcrypto"))]
mod cross_check;
mod private_key;
// Beside aws-lc-rs it is for tests alone.
#[cfg(all(feature = "rustcrypto", any(test, not(feature = "aws-lc-rs"))))]
mod rustcrypto;

#[cfg(feature = "aws-lc-rs")]
use aws_lc as chosen;
#[cfg(all(feature = "rustcrypto", not(feature = "aws-lc-rs")))]
use rustcrypto as chosen;

use keyd_core::{Algorithm, Failure, Family, PublicKey, Reason, Secret, SignInput, crypto};

use private_key::PrivateKey;

/// A private key in this process's memory.
pub struct SoftKey {
    public_key: PublicKey,
    inner: Box<dyn PrivateKey>,
    secret: Secret,
}

impl SoftKey {
    /// Makes the secret of a new key. For RSA this takes up to some seconds.
    ///
    /// # Errors
    /// [`Reason::Internal`] when the random number generator fails. [`Reason::ProtectionUnavailable`] for RSA where
    /// RustCrypto does the work.
    pub fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
        match (algorithm.family(), algorithm.secret_len()) {
            // Any bytes are a seed.
            (Family::MlDsa | Family::MlKem, Some(length)) => {
                let mut seed = vec![0; length];
                crypto::fill(&mut seed)?;
                Ok(Secret::new(seed))
            }
            _ => chosen::generate_secret(algorithm),
        }
    }

    /// Expands a secret of [`Algorithm::secret_len`] bytes, or PKCS#8 DER of an RSA key, into a key.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when the secret has another length or is no key of this algorithm.
    /// [`Reason::ProtectionUnavailable`] for RSA where RustCrypto does the work.
    pub fn from_secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, Failure> {
        if let Some(expected) = algorithm.secret_len().filter(|expected| *expected != secret.len()) {
            return Err(Failure::new(
                Reason::BadRequest,
                format!("an {algorithm} secret has {expected} bytes, not {}", secret.len()),
            ));
        }
        let inner = chosen::open(algorithm, secret)?;
        let public_key = PublicKey::from_raw(algorithm, &inner.raw_public())?;
        Ok(Self { public_key, inner, secret: secret.clone() })
    }

    /// What the key was made from, to seal it anew.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs: raw bytes for ML-DSA (pure, empty context, hedged) and RSA, DER `ECDSA-Sig-Value` for elliptic curves.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for what [`SignInput::check`] refuses.
    pub fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        input.check(self.public_key.algorithm())?;
        self.inner.sign(input)
    }

    /// Recovers the shared secret from an ML-KEM ciphertext (FIPS 203 §7.3).
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for what [`Algorithm::check_ciphertext`] refuses.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        self.public_key.algorithm().check_ciphertext(ciphertext)?;
        self.inner.decapsulate(ciphertext)
    }

    /// PKCS#8 DER, seed-only for ML-DSA (RFC 9881 §6): what the SPIFFE Workload API hands to a workload. Only a key
    /// made in software can be exported; nothing in hardware has this method.
    ///
    /// # Errors
    /// [`Reason::Internal`] when the library cannot encode it.
    pub fn to_pkcs8(&self) -> Result<Secret, Failure> {
        self.inner.to_pkcs8()
    }
}

impl std::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftKey({:?})", self.public_key)
    }
}
