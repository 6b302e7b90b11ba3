//! A key in this process, as SPIRE's or a workload's would be.

use keyd_core::{Algorithm, Failure, PublicKey, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::Signer;

pub struct Software(SoftKey);

impl Software {
    pub fn generate(algorithm: Algorithm) -> Self {
        let secret = SoftKey::generate_secret(algorithm).unwrap();
        Self(SoftKey::from_secret(algorithm, &secret).unwrap())
    }
}

impl Signer for Software {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}
