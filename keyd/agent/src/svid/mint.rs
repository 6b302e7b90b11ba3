//! Making SVIDs: a key, a request for it, and the certificate that comes back.

use std::time::SystemTime;

use keyd_api::Client;
use keyd_core::{Algorithm, Failure, KeyId, Namespace, PublicKey, SignInput};
use keyd_softkey::SoftKey;
use keyd_tls::Bundles;
use keyd_x509::{Signer, request};

use crate::entry::Entry;
use crate::error::AgentError;
use crate::keyd_key::KeydKey;
use crate::svid::chain::read_chain;
use crate::svid::{Custody, Svid, SvidKey, Want};

/// Random part of the name of a key in keyd, in bytes.
const NAME_LEN: usize = 8;

/// Makes keys of one algorithm, in memory or in a namespace of keyd's.
#[derive(Clone, Debug)]
pub struct Maker {
    /// keyd.
    pub keyd: Client,
    /// Where keys by handle are made.
    pub namespace: Namespace,
    /// Of every key.
    pub algorithm: Algorithm,
}

/// A key that waits for its certificate.
#[derive(Debug)]
pub struct Begun {
    /// What it is for.
    pub want: Want,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    key: NewKey,
}

#[derive(Debug)]
enum NewKey {
    Memory(MemoryKey),
    Keyd(KeydKey),
}

impl Maker {
    /// Makes a key and the request for its certificate.
    ///
    /// # Errors
    /// keyd's, for a key in keyd.
    pub async fn begin(&self, want: Want) -> Result<Begun, AgentError> {
        let (key, csr) = match want.custody {
            Custody::Memory => {
                let key = MemoryKey(SoftKey::from_secret(
                    self.algorithm,
                    &SoftKey::generate_secret(self.algorithm)?,
                )?);
                let csr = request(&key, None).await;
                (NewKey::Memory(key), csr)
            }
            Custody::Keyd => {
                let made = self.keyd.create_key(&self.name(&want.entry)?, self.algorithm, None).await?;
                let key = KeydKey::new(self.keyd.clone(), made.key, made.public_key);
                let csr = request(&key, None).await;
                (NewKey::Keyd(key), csr)
            }
        };
        match csr {
            Ok(csr) => Ok(Begun { want, csr, key }),
            Err(error) => {
                self.destroy(key.in_keyd()).await;
                Err(error.into())
            }
        }
    }

    /// Destroys keys that sign no more. One that stays is destroyed at the next start.
    pub async fn destroy(&self, keys: impl IntoIterator<Item = &KeydKey>) {
        for key in keys {
            if let Err(failure) = self.keyd.delete_key(key.id()).await {
                tracing::warn!(key = %key.id(), %failure, "cannot destroy a key that is no longer used");
            }
        }
    }

    /// Destroys whatever an earlier run left: its handles are known to nobody.
    ///
    /// # Errors
    /// keyd's.
    pub async fn destroy_leftovers(&self) -> Result<(), Failure> {
        for key in self.keyd.list_keys(Some(&self.namespace)).await? {
            self.keyd.delete_key(&key.key).await?;
        }
        Ok(())
    }

    /// A name that was never used, and shows the operator the entry where its id can stand in a name.
    fn name(&self, entry: &str) -> Result<KeyId, Failure> {
        let mut random = [0; NAME_LEN];
        keyd_core::crypto::fill(&mut random)?;
        let random = hex::encode(random);
        let name = format!("{entry}.{random}").parse().or_else(|_| random.parse())?;
        Ok(KeyId { namespace: self.namespace.clone(), name })
    }
}

impl Begun {
    /// The SVID, if what the server issued is what was asked for.
    ///
    /// # Errors
    /// What is wrong with the chain.
    pub fn finish(
        &self,
        entry: &Entry,
        chain: &[Vec<u8>],
        bundles: &Bundles,
        now: SystemTime,
    ) -> Result<Svid, String> {
        let (chain, lifetime) = read_chain(chain, self.key.public_key(), &entry.spiffe_id, bundles, now)?;
        let key = match &self.key {
            NewKey::Keyd(key) => SvidKey::Keyd(key.clone()),
            NewKey::Memory(key) => SvidKey::Memory(key.0.to_pkcs8().map_err(|f| f.message)?),
        };
        Ok(Svid { spiffe_id: entry.spiffe_id.clone(), chain, key, lifetime, revision: entry.revision })
    }

    /// The key in keyd, to be destroyed where there will be no certificate.
    pub fn in_keyd(&self) -> Option<&KeydKey> {
        self.key.in_keyd()
    }
}

impl NewKey {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::Memory(key) => key.public_key(),
            Self::Keyd(key) => key.public_key(),
        }
    }

    fn in_keyd(&self) -> Option<&KeydKey> {
        match self {
            Self::Keyd(key) => Some(key),
            Self::Memory(_) => None,
        }
    }
}

/// A key of this process as a signer of requests.
#[derive(Debug)]
struct MemoryKey(SoftKey);

impl Signer for MemoryKey {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}
