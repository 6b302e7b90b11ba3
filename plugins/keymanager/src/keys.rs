//! SPIRE's keys in one namespace of keyd.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use keyd_api::status::from_failure;
use keyd_api::{Client, KeyInfo, Signed};
use keyd_core::{Algorithm, Failure, Family, KeyId, KeyName, Namespace, Reason, RsaPadding, SignInput};
use plugin_sdk::Deadline;
use tonic::Status;

use crate::algorithm::{self, Opts};

/// The keys of one namespace.
pub(crate) struct Keys {
    keyd: Client,
    namespace: Namespace,
    x509_ca_algorithm: Option<Algorithm>,
    /// What keyd last said of each key, so that a signature takes one call and not two. Where an operator has replaced
    /// a key since, SPIRE sees it by the fingerprint.
    algorithms: RwLock<HashMap<KeyName, Algorithm>>,
}

impl Keys {
    pub(crate) fn new(keyd: Client, namespace: Namespace, x509_ca_algorithm: Option<Algorithm>) -> Self {
        Self { keyd, namespace, x509_ca_algorithm, algorithms: RwLock::default() }
    }

    /// Makes a key, or replaces the one of this id.
    pub(crate) async fn generate(
        &self,
        id: &str,
        key_type: i32,
        deadline: Deadline,
    ) -> Result<KeyInfo, Status> {
        let key = &self.key(id)?;
        let algorithm = algorithm::wanted(id, key_type, self.x509_ca_algorithm)?;
        let made = deadline.call(&self.keyd, |keyd| async move {
            match keyd.create_key(key, algorithm, None).await {
                Err(f) if f.reason == Reason::KeyExists => keyd.rotate_key(key, Some(algorithm), None).await,
                made => made,
            }
        });
        let made = self.remembered(made.await.map_err(|f| status(id, &f))?);
        tracing::info!(key = %made.key, %algorithm, protection = %made.protection, "Generated a key");
        Ok(made)
    }

    /// One key.
    pub(crate) async fn show(&self, id: &str, deadline: Deadline) -> Result<KeyInfo, Status> {
        let key = &self.key(id)?;
        let shown = deadline.call(&self.keyd, |keyd| async move { keyd.show_key(key).await });
        Ok(self.remembered(shown.await.map_err(|f| status(id, &f))?))
    }

    /// Every key of the namespace.
    pub(crate) async fn list(&self, deadline: Deadline) -> Result<Vec<KeyInfo>, Status> {
        let namespace = &self.namespace;
        let listed =
            deadline.call(&self.keyd, |keyd| async move { keyd.list_keys(Some(namespace)).await }).await;
        let mut keys = listed.map_err(|f| from_failure(&f))?;
        keys.retain(|key| key.key.namespace == self.namespace);
        Ok(keys.into_iter().map(|key| self.remembered(key)).collect())
    }

    /// Signs a digest, or with an ML-DSA key the whole message, for which SPIRE names no hash.
    pub(crate) async fn sign(
        &self,
        id: &str,
        data: &[u8],
        opts: Opts,
        deadline: Deadline,
    ) -> Result<Signed, Status> {
        let key = &self.key(id)?;
        let algorithm = match self.known(&key.name) {
            Some(algorithm) => algorithm,
            None => self.show(id, deadline).await?.algorithm,
        };
        let input = match (opts, algorithm.family()) {
            (Opts::Digest(hash), Family::Rsa) => {
                SignInput::RsaDigest { padding: RsaPadding::Pkcs1v15, hash, digest: data }
            }
            (Opts::Digest(hash), _) => SignInput::Digest { hash, digest: data },
            (Opts::Pss(hash), _) => SignInput::RsaDigest { padding: RsaPadding::Pss, hash, digest: data },
            (Opts::Message, Family::MlDsa) => SignInput::Message(data),
            (Opts::Message, _) => return Err(Status::invalid_argument("hash algorithm is required")),
        };
        let signed = deadline.call(&self.keyd, |keyd| async move { keyd.sign(key, input).await });
        signed.await.map_err(|f| status(id, &f))
    }

    fn key(&self, id: &str) -> Result<KeyId, Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("key id is required"));
        }
        let name = id.parse().map_err(|f: Failure| from_failure(&f))?;
        Ok(KeyId { namespace: self.namespace.clone(), name })
    }

    fn known(&self, name: &KeyName) -> Option<Algorithm> {
        self.algorithms.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn remembered(&self, key: KeyInfo) -> KeyInfo {
        let mut known = self.algorithms.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key.key.name.clone(), key.algorithm);
        key
    }
}

/// SPIRE takes `NOT_FOUND` for an empty slot and wants it in these words.
fn status(id: &str, failure: &Failure) -> Status {
    match failure.reason {
        Reason::KeyNotFound => Status::not_found(format!("key {id:?} not found")),
        _ => from_failure(failure),
    }
}
