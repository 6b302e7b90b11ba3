//! Where each protection keeps a key: made there, opened there, destroyed there.

use std::sync::Arc;

use keyd_core::{
    Algorithm, BoxFuture, Failure, Family, Hash, Health, HealthState, HeldKey, KeyId, Protection, PublicKey,
    Reason, RsaPadding, Sealer, Secret, SignInput, Vault,
};
use keyd_softkey::SoftKey;
use keyd_unix::off_worker;

use crate::store::KeyRecord;

/// What a key just made signs, for nobody; as long as a SHA-256 digest.
const PROOF: &[u8; 32] = b"keyd tries each key that it made";

/// The devices of this node. A protection without its device is not available.
#[derive(Clone, Default)]
pub struct Places {
    /// The token, for `hsm`.
    pub vault: Option<Arc<dyn Vault>>,
    /// The token's wrapping key, for `hsm-wrapped`.
    pub wrapper: Option<Arc<dyn Sealer>>,
    /// The TPM, for `tpm-sealed`.
    pub tpm: Option<Arc<dyn Sealer>>,
}

/// A key just made, not yet recorded.
pub struct Made {
    /// The protection that it really has.
    pub protection: Protection,
    /// Its public key.
    pub public_key: PublicKey,
    /// What goes into the record.
    pub material: Secret,
    /// The key itself, where software uses it.
    pub soft: Option<SoftKey>,
}

impl Places {
    /// Makes a key of version `version` under one protection.
    ///
    /// # Errors
    /// [`Reason::ProtectionUnavailable`] when the device is not configured or cannot hold such a key; the device's own
    /// failures.
    pub async fn make(
        &self,
        id: &KeyId,
        version: u32,
        algorithm: Algorithm,
        protection: Protection,
    ) -> Result<Made, Failure> {
        match protection {
            Protection::Hsm => self.make_in_vault(id, algorithm).await,
            // A token that wraps seeds makes elliptic-curve and RSA keys itself, which is stronger; they are recorded as what
            // they are.
            Protection::HsmWrapped if matches!(algorithm.family(), Family::Ec | Family::Rsa) => {
                self.make_in_vault(id, algorithm).await
            }
            Protection::HsmWrapped | Protection::TpmSealed | Protection::Software => {
                self.make_sealed(id, version, algorithm, protection).await
            }
        }
    }

    async fn make_in_vault(&self, id: &KeyId, algorithm: Algorithm) -> Result<Made, Failure> {
        let vault = self.vault()?;
        if !vault.supports(algorithm).await? {
            let way_out = match algorithm.family() {
                Family::MlDsa | Family::MlKem => {
                    "accept hsm-wrapped in the namespace, use another token, or, if this one knows them by its vendor's \
                     numbers, give those in [token.mechanisms]"
                }
                Family::Ec | Family::Rsa => "use another token",
            };
            return Err(unavailable(format!("the token cannot make {algorithm} keys; {way_out}")));
        }
        let made = vault.create(id, algorithm).await?;
        // A token that gives the public key wrong is found out before anybody relies on it.
        let proof = match algorithm.family() {
            Family::MlDsa | Family::Ec => Some(SignInput::Message(PROOF)),
            Family::Rsa => Some(SignInput::RsaDigest {
                padding: RsaPadding::Pkcs1v15,
                hash: Hash::Sha256,
                digest: PROOF,
            }),
            // The token tries an ML-KEM pair itself, with a ciphertext of its own.
            Family::MlKem => None,
        };
        if let Some(input) = proof
            && let Err(failure) = sign_and_verify(vault, id, &made.handle, &made.public_key, input).await
        {
            if let Err(left) = vault.delete(&made.handle).await {
                tracing::warn!(key = %id, failure = %left, "a key that was not taken stays in the token");
            }
            return Err(failure);
        }
        Ok(Made {
            protection: Protection::Hsm,
            public_key: made.public_key,
            material: Secret::new(made.handle),
            soft: None,
        })
    }

    async fn make_sealed(
        &self,
        id: &KeyId,
        version: u32,
        algorithm: Algorithm,
        protection: Protection,
    ) -> Result<Made, Failure> {
        let sealer = self.sealer_for(algorithm, protection)?;
        // An RSA key takes up to some seconds to make.
        let (secret, soft) = off_worker(move || {
            let secret = SoftKey::generate_secret(algorithm)?;
            let soft = SoftKey::from_secret(algorithm, &secret)?;
            Ok::<_, Failure>((secret, soft))
        })
        .await?;
        let context = context(id, version, algorithm);
        let material = Secret::new(sealer.seal(&secret, &context).await?);
        Ok(Made { protection, public_key: soft.public_key().clone(), material, soft: Some(soft) })
    }

    /// Opens a sealed key for use in software.
    ///
    /// # Errors
    /// The device's failures; [`Reason::Integrity`] when what opens is not the key of the record.
    pub async fn open(&self, record: &KeyRecord) -> Result<SoftKey, Failure> {
        let sealer = self.sealer(record.protection)?;
        let context = context(&record.id, record.version, record.algorithm);
        let secret = sealer.unseal(record.material.expose(), &context).await?;
        let soft = SoftKey::from_secret(record.algorithm, &secret)?;
        if *soft.public_key() != record.public_key {
            return Err(Failure::new(
                Reason::Integrity,
                format!(
                    "what was sealed for {} is not its key: the store was tampered with or mixed up",
                    record.id
                ),
            ));
        }
        Ok(soft)
    }

    /// Seals the secret of a recorded key under `protection`, and opens the new seal once. Gives the record with the new seal
    /// in it.
    ///
    /// # Errors
    /// [`Reason::ProtectionUnavailable`] for `hsm`, and where the device is not configured; the device's own failures;
    /// [`Reason::Integrity`] when the new seal opens as another key.
    pub async fn seal_again(
        &self,
        record: &KeyRecord,
        protection: Protection,
        secret: &Secret,
    ) -> Result<(KeyRecord, SoftKey), Failure> {
        let context = context(&record.id, record.version, record.algorithm);
        let sealer = self.sealer_for(record.algorithm, protection)?;
        let material = Secret::new(sealer.seal(secret, &context).await?);
        let sealed = KeyRecord { protection, material, ..record.clone() };
        let soft = self.open(&sealed).await?;
        Ok((sealed, soft))
    }

    /// Signs with a key that lives in the token, and verifies before the signature leaves.
    ///
    /// # Errors
    /// The token's failures; [`Reason::Integrity`] when the signature does not verify.
    pub async fn sign_in_vault(&self, record: &KeyRecord, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        sign_and_verify(self.vault()?, &record.id, record.material.expose(), &record.public_key, input).await
    }

    /// Decapsulates with a key that lives in the token. Nothing in the answer can be checked: it was when the key was made.
    ///
    /// # Errors
    /// The token's failures.
    pub async fn decapsulate_in_vault(
        &self,
        record: &KeyRecord,
        ciphertext: &[u8],
    ) -> Result<Secret, Failure> {
        self.vault()?.decapsulate(record.material.expose(), record.algorithm, ciphertext).await
    }

    /// Destroys the private part where it lies outside the record.
    ///
    /// # Errors
    /// The token's failures.
    pub async fn destroy(&self, protection: Protection, material: &[u8]) -> Result<(), Failure> {
        match protection {
            Protection::Hsm => self.vault()?.delete(material).await,
            Protection::HsmWrapped | Protection::TpmSealed | Protection::Software => Ok(()),
        }
    }

    /// The private keys of keyd's that the token holds.
    ///
    /// # Errors
    /// The token's failures.
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, Failure> {
        self.vault()?.private_keys().await
    }

    fn vault(&self) -> Result<&Arc<dyn Vault>, Failure> {
        self.vault.as_ref().ok_or_else(|| unavailable("no [token] is configured".to_owned()))
    }

    /// What seals keys of an algorithm. The private key of RSA follows from nothing short, and devices seal no more than a
    /// seed.
    fn sealer_for(&self, algorithm: Algorithm, protection: Protection) -> Result<&dyn Sealer, Failure> {
        if algorithm.secret_len().is_none() && protection != Protection::Software {
            return Err(unavailable(format!(
                "{algorithm} keys are too long to be {protection}: make a new one in a token (hsm), or take ec-p256 or \
                 ml-dsa-65, which {protection} holds"
            )));
        }
        self.sealer(protection)
    }

    fn sealer(&self, protection: Protection) -> Result<&dyn Sealer, Failure> {
        match protection {
            Protection::HsmWrapped => self.wrapper.as_deref().ok_or("no [token] is configured"),
            Protection::TpmSealed => self.tpm.as_deref().ok_or("no [tpm] is configured"),
            Protection::Software => Ok(&InClear as &dyn Sealer),
            Protection::Hsm => Err("a key in the token is never sealed"),
        }
        .map_err(|why| unavailable(why.to_owned()))
    }
}

/// Faulty tokens return signatures that give the key away, or sign with another key.
async fn sign_and_verify(
    vault: &Arc<dyn Vault>,
    id: &KeyId,
    handle: &[u8],
    public_key: &PublicKey,
    input: SignInput<'_>,
) -> Result<Vec<u8>, Failure> {
    let signature = vault.sign(handle, public_key.algorithm(), input).await?;
    public_key.verify(input, &signature).map_err(|_| {
        Failure::new(
            Reason::Integrity,
            format!(
                "the token's signature by {id} does not verify; the token is faulty or holds another key"
            ),
        )
    })?;
    Ok(signature)
}

fn unavailable(why: String) -> Failure {
    Failure::new(Reason::ProtectionUnavailable, why)
}

/// What a sealed secret is bound to, so that no record's secret opens as another's.
pub(crate) fn context(id: &KeyId, version: u32, algorithm: Algorithm) -> Vec<u8> {
    format!("keyd v1 {id} {version} {algorithm}").into_bytes()
}

/// The protection `software`: the secret lies in the record as it is. For development alone.
struct InClear;

impl Sealer for InClear {
    fn seal<'a>(&'a self, secret: &'a Secret, _context: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async { Ok(secret.expose().to_vec()) })
    }

    fn unseal<'a>(&'a self, blob: &'a [u8], _context: &'a [u8]) -> BoxFuture<'a, Result<Secret, Failure>> {
        Box::pin(async { Ok(Secret::new(blob.to_vec())) })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            Health {
                device: "software".to_owned(),
                state: HealthState::Ok,
                detail: "keys lie on disk in clear; for development alone".to_owned(),
            }
        })
    }
}
