//! Signing in software, with a key whose secret was sealed by a TPM, wrapped by a token or, for development, stored.
//!
//! A key is made from its [`Secret`]: the seed of ML-DSA (FIPS 204 §5.1) or ML-KEM (FIPS 203 §7.1), the private scalar of
//! an elliptic curve, or PKCS#8 for RSA. aws-lc-rs does the work, and RustCrypto checks it in tests.

mod aws_lc;

use aws_lc::{EcdsaKey, MlDsaKey, MlKemKey, RsaKey, random};

use keyd_core::{Algorithm, Failure, Family, PublicKey, Reason, Secret, SignInput};

/// A private key in this process's memory.
pub struct SoftKey {
    public_key: PublicKey,
    inner: Inner,
    secret: Secret,
}

enum Inner {
    MlDsa(MlDsaKey),
    Ecdsa(EcdsaKey),
    Rsa(RsaKey),
    MlKem(MlKemKey),
}

impl SoftKey {
    /// Makes the secret of a new key. For RSA this takes up to some seconds.
    ///
    /// # Errors
    /// [`Reason::Internal`] when the random number generator fails.
    pub fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
        match (algorithm.family(), algorithm.secret_len()) {
            (Family::Ec, _) => EcdsaKey::generate_secret(algorithm),
            // Any bytes are a seed.
            (Family::MlDsa | Family::MlKem, Some(length)) => random(length),
            _ => RsaKey::generate_secret(algorithm),
        }
    }

    /// Expands a secret of [`Algorithm::secret_len`] bytes, or PKCS#8 DER of an RSA key, into a key.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when the secret has another length or is no key of this algorithm.
    pub fn from_secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, Failure> {
        if let Some(expected) = algorithm.secret_len().filter(|expected| *expected != secret.len()) {
            return Err(Failure::new(
                Reason::BadRequest,
                format!("an {algorithm} secret has {expected} bytes, not {}", secret.len()),
            ));
        }
        let (inner, raw) = match algorithm.family() {
            Family::MlDsa => {
                let key = MlDsaKey::from_seed(algorithm, secret)?;
                let raw = key.raw_public();
                (Inner::MlDsa(key), raw)
            }
            Family::Ec => {
                let key = EcdsaKey::from_scalar(algorithm, secret)?;
                let raw = key.raw_public();
                (Inner::Ecdsa(key), raw)
            }
            Family::Rsa => {
                let key = RsaKey::from_pkcs8(algorithm, secret)?;
                let raw = key.raw_public();
                (Inner::Rsa(key), raw)
            }
            Family::MlKem => {
                let key = MlKemKey::from_seed(algorithm, secret)?;
                let raw = key.raw_public();
                (Inner::MlKem(key), raw)
            }
        };
        Ok(Self { public_key: PublicKey::from_raw(algorithm, &raw)?, inner, secret: secret.clone() })
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
        match (&self.inner, input) {
            (Inner::MlDsa(key), SignInput::Message(message)) => key.sign(message),
            (Inner::Ecdsa(key), SignInput::Message(message)) => key.sign_message(message),
            (Inner::Ecdsa(key), SignInput::Digest { digest, .. }) => key.sign_digest(digest),
            (Inner::Rsa(key), SignInput::RsaDigest { padding, hash, digest }) => {
                key.sign_digest(padding, hash, digest)
            }
            _ => Err(Failure::new(Reason::Internal, "an input was let through that the key does not sign")),
        }
    }

    /// Recovers the shared secret from an ML-KEM ciphertext (FIPS 203 §7.3).
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for what [`Algorithm::check_ciphertext`] refuses.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        let algorithm = self.public_key.algorithm();
        algorithm.check_ciphertext(ciphertext)?;
        match &self.inner {
            Inner::MlKem(key) => key.decapsulate(ciphertext),
            _ => Err(Failure::new(Reason::Internal, "a ciphertext was let through to a key that signs")),
        }
    }

    /// PKCS#8 DER, seed-only for ML-DSA (RFC 9881 §6): what the SPIFFE Workload API hands to a workload. Only a key
    /// made in software can be exported; nothing in hardware has this method.
    ///
    /// # Errors
    /// [`Reason::Internal`] when the library cannot encode it.
    pub fn to_pkcs8(&self) -> Result<Secret, Failure> {
        match &self.inner {
            Inner::MlDsa(key) => key.to_pkcs8(),
            Inner::Ecdsa(key) => key.to_pkcs8(),
            Inner::Rsa(key) => key.to_pkcs8(),
            Inner::MlKem(_) => Err(Failure::new(
                Reason::BadRequest,
                "keys that decapsulate are not exported: no workload gets one",
            )),
        }
    }
}

impl std::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftKey({:?})", self.public_key)
    }
}
