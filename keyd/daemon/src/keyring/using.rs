//! Keys at work: signing and decapsulating.

use std::sync::Arc;

use keyd_audit::{Draft, Event, Origin};
use keyd_core::{Algorithm, Failure, KeyId, Operation, Protection, Reason, Secret, SignInput};
use keyd_softkey::SoftKey;

use super::{Key, Keyring, outcome};
use crate::metrics::Limit;

impl Keyring {
    /// Signs: raw bytes for ML-DSA and RSA, DER `ECDSA-Sig-Value` for elliptic curves. Gives the version that signed.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`]; the devices' own; [`Reason::BadRequest`] for an input that this key does not sign.
    pub async fn sign(
        &self,
        origin: Origin,
        id: &KeyId,
        input: SignInput<'_>,
    ) -> Result<(Arc<Key>, Vec<u8>), Failure> {
        let call = self.metrics().call(Operation::Sign, &id.namespace);
        let signed = self.sign_current(origin, id, input).await;
        call.end(outcome(&signed, |(key, _)| key));
        signed
    }

    /// Recovers the shared secret from an ML-KEM ciphertext. Gives the version that did.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`]; the devices' own; [`Reason::BadRequest`] for a key of another kind, or a ciphertext of
    /// another length.
    pub async fn decapsulate(
        &self,
        origin: Origin,
        id: &KeyId,
        ciphertext: &[u8],
    ) -> Result<(Arc<Key>, Secret), Failure> {
        let call = self.metrics().call(Operation::Decapsulate, &id.namespace);
        let opened = self.decapsulate_current(origin, id, ciphertext).await;
        call.end(outcome(&opened, |(key, _)| key));
        opened
    }

    async fn sign_current(
        &self,
        origin: Origin,
        id: &KeyId,
        input: SignInput<'_>,
    ) -> Result<(Arc<Key>, Vec<u8>), Failure> {
        loop {
            let key = self.find(id)?;
            let signed = match self.profile(id) {
                None => self.sign_with(&key, input).await,
                Some(profile) => self.sign_guarded(origin, &key, &profile, input).await,
            };
            if let Some(settled) = self.settle(origin, key, signed).await {
                return settled;
            }
        }
    }

    async fn decapsulate_current(
        &self,
        origin: Origin,
        id: &KeyId,
        ciphertext: &[u8],
    ) -> Result<(Arc<Key>, Secret), Failure> {
        loop {
            let key = self.find(id)?;
            let opened = self.decapsulate_with(&key, ciphertext).await;
            if let Some(settled) = self.settle(origin, key, opened).await {
                return settled;
            }
        }
    }

    /// What came of using a key; none where a rotation took the private key away from under the use, and the new one has
    /// to be used.
    async fn settle<T>(
        &self,
        origin: Origin,
        key: Arc<Key>,
        result: Result<T, Failure>,
    ) -> Option<Result<(Arc<Key>, T), Failure>> {
        match result {
            Ok(done) => Some(Ok((key, done))),
            Err(failure) if self.is_current(&key) => {
                self.record_unseal_failure(origin, &key, &failure).await;
                Some(Err(failure))
            }
            Err(_) => None,
        }
    }

    async fn record_unseal_failure(&self, origin: Origin, key: &Key, failure: &Failure) {
        let sealed = matches!(key.record.protection, Protection::HsmWrapped | Protection::TpmSealed);
        if sealed && !key.soft.initialized() && failure.reason != Reason::BadRequest {
            let event = Event::UnsealFailed { key: key.record.id.clone(), count: 1 };
            self.shared.journal.repeated(Draft::failed(origin, event, failure.reason)).await;
        }
    }

    /// Signs with this version of a key.
    ///
    /// # Errors
    /// As [`Keyring::sign`].
    pub async fn sign_with(&self, key: &Key, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        self.check_profile(&key.record.id, key.record.algorithm)?;
        self.check_input(key.record.algorithm, input)?;
        self.check_records().await?;
        match key.record.protection {
            Protection::Hsm => self.shared.places.sign_in_vault(&key.record, input).await,
            _ => self.opened(key).await?.sign(input),
        }
    }

    async fn decapsulate_with(&self, key: &Key, ciphertext: &[u8]) -> Result<Secret, Failure> {
        self.check_profile(&key.record.id, key.record.algorithm)?;
        key.record.algorithm.check_ciphertext(ciphertext)?;
        self.check_records().await?;
        match key.record.protection {
            Protection::Hsm => self.shared.places.decapsulate_in_vault(&key.record, ciphertext).await,
            _ => self.opened(key).await?.decapsulate(ciphertext),
        }
    }

    /// The key in memory, opened at its first use.
    pub(super) async fn opened<'a>(&self, key: &'a Key) -> Result<&'a SoftKey, Failure> {
        key.soft.get_or_try_init(|| self.shared.places.open(&key.record)).await
    }

    fn is_current(&self, key: &Arc<Key>) -> bool {
        self.find(&key.record.id).is_ok_and(|now| Arc::ptr_eq(&now, key))
    }

    fn check_input(&self, algorithm: Algorithm, input: SignInput<'_>) -> Result<(), Failure> {
        input.check(algorithm)?;
        let most = self.shared.rules.now().config.limits.message_bytes;
        match input {
            SignInput::Message(message) if message.len() > most => {
                self.metrics().limited(Limit::MessageBytes).inc();
                let given = message.len();
                let why = format!(
                    "a message has at most {most} bytes (limits.message_bytes of keyd.toml), this one {given}"
                );
                Err(Failure::new(Reason::BadRequest, why))
            }
            _ => Ok(()),
        }
    }
}
