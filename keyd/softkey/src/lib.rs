//! Signing in software, with a key whose secret was sealed by a TPM, wrapped by a token or, for development, stored.
//!
//! A key is made from its [`Secret`]: the 32-byte seed of ML-DSA (FIPS 204 §5.1) or the private scalar of an elliptic
//! curve. aws-lc-rs signs; RustCrypto's `ml-dsa` checks it in tests.

mod ecdsa;
mod ml_dsa;

use keyd_core::{Algorithm, Failure, Family, PublicKey, Reason, Secret, SignInput};

/// A private key in this process's memory.
pub struct SoftKey {
    public_key: PublicKey,
    inner: Inner,
}

enum Inner {
    MlDsa(ml_dsa::MlDsaKey),
    Ecdsa(ecdsa::EcdsaKey),
}

impl SoftKey {
    /// Makes the secret of a new key.
    ///
    /// # Errors
    /// [`Reason::Internal`] when the random number generator fails.
    pub fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
        match algorithm.family() {
            Family::MlDsa => ml_dsa::generate_secret(),
            Family::Ec => ecdsa::generate_secret(algorithm),
            Family::Rsa | Family::MlKem => Err(not_in_software(algorithm)),
        }
    }

    /// Expands a secret of [`Algorithm::secret_len`] bytes into a key.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when the secret has another length or is no valid scalar.
    pub fn from_secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, Failure> {
        if let Some(expected) = algorithm.secret_len().filter(|expected| *expected != secret.len()) {
            return Err(Failure::new(
                Reason::BadRequest,
                format!("an {algorithm} secret has {expected} bytes, not {}", secret.len()),
            ));
        }
        let (inner, public_key) = match algorithm.family() {
            Family::MlDsa => {
                let key = ml_dsa::MlDsaKey::from_seed(algorithm, secret)?;
                let public_key = PublicKey::from_raw(algorithm, key.raw_public())?;
                (Inner::MlDsa(key), public_key)
            }
            Family::Ec => {
                let key = ecdsa::EcdsaKey::from_scalar(algorithm, secret)?;
                let public_key = PublicKey::from_raw(algorithm, key.raw_public())?;
                (Inner::Ecdsa(key), public_key)
            }
            Family::Rsa | Family::MlKem => return Err(not_in_software(algorithm)),
        };
        Ok(Self { public_key, inner })
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs: raw bytes for ML-DSA (pure, empty context, hedged), DER `ECDSA-Sig-Value` for elliptic curves.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for what [`SignInput::check`] refuses.
    pub fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        input.check(self.public_key.algorithm())?;
        match (&self.inner, input) {
            (Inner::MlDsa(key), SignInput::Message(message)) => key.sign(message),
            (Inner::Ecdsa(key), SignInput::Message(message)) => key.sign_message(message),
            (Inner::Ecdsa(key), SignInput::Digest { digest, .. }) => key.sign_digest(digest),
            _ => Err(Failure::new(Reason::Internal, "an input was let through that the key does not sign")),
        }
    }

    /// Recovers the shared secret from an ML-KEM ciphertext (FIPS 203 §7.3).
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a key of another kind.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        let algorithm = self.public_key.algorithm();
        algorithm.check_ciphertext(ciphertext)?;
        Err(not_in_software(algorithm))
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
        }
    }
}

impl std::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftKey({:?})", self.public_key)
    }
}

fn not_in_software(algorithm: Algorithm) -> Failure {
    Failure::new(
        Reason::ProtectionUnavailable,
        format!("{algorithm} keys are not made in software; use a token that makes them (protection hsm)"),
    )
}

/// A fault of the cryptographic library, which says nothing more.
fn library(what: &str) -> Failure {
    Failure::new(Reason::Internal, format!("aws-lc could not {what}"))
}
