//! A key that keyd holds.

use keyd_api::Client;
use keyd_core::{BoxFuture, Failure, KeyId, PublicKey, Reason, SignInput};
use keyd_tls::RemoteSigner;
use keyd_x509::Signer;

/// A key of keyd's and the public key that it had when it was asked for.
#[derive(Clone, Debug)]
pub struct KeydKey {
    keyd: Client,
    id: KeyId,
    public_key: PublicKey,
}

impl KeydKey {
    /// The key `id`, whose public key is known.
    pub fn new(keyd: Client, id: KeyId, public_key: PublicKey) -> Self {
        Self { keyd, id, public_key }
    }

    /// Its id in keyd.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Its public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs a whole message.
    ///
    /// # Errors
    /// keyd's, and [`Reason::Integrity`] when the key was replaced meanwhile.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signed = self.keyd.sign(&self.id, SignInput::Message(message)).await?;
        if signed.fingerprint != self.public_key.fingerprint() {
            return Err(Failure::new(
                Reason::Integrity,
                format!("{} is another key than before; does something else use its namespace?", self.id),
            ));
        }
        Ok(signed.signature)
    }
}

impl Signer for KeydKey {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.sign(message).await
    }
}

impl RemoteSigner for KeydKey {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(self.sign(message))
    }
}
