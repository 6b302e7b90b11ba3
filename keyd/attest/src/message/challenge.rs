//! What the server asks of the TPM.

use prost::Message;

use super::{VERSION, Versioned, bounded, decode, index};
use crate::credential::Credential;
use crate::{PcrSet, Refusal};

/// Longest contents of a TPM2B_ID_OBJECT, in bytes; with SHA-384 it has 84.
const ID_OBJECT_LIMIT: usize = 256;
/// Longest contents of a TPM2B_ENCRYPTED_SECRET, in bytes: RSA-4096.
const ENCRYPTED_SECRET_LIMIT: usize = 512;

/// Server to node: a secret that only the right TPM can open, a nonce, and the PCRs to quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What TPM2_ActivateCredential takes.
    pub credential: Credential,
    /// Fresh for each attestation.
    pub nonce: [u8; 32],
    /// PCRs of the SHA-256 bank, at least one.
    pub pcrs: PcrSet,
}

/// The challenge as protocol buffers carry it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    id_object: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    encrypted_secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    nonce: Vec<u8>,
    /// Ascending.
    #[prost(uint32, repeated, tag = "5")]
    pcrs: Vec<u32>,
}

impl Versioned for Wire {
    const WHAT: &'static str = "challenge";

    fn version(&self) -> u32 {
        self.version
    }
}

impl Challenge {
    /// Reads a challenge.
    ///
    /// # Errors
    /// A [`Refusal`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire: Wire = decode(bytes)?;
        let refusal = |why| Refusal::Message { what: Wire::WHAT, why };
        let nonce = wire.nonce.try_into().map_err(|_| refusal("its nonce has not 32 bytes"))?;
        let pcrs = PcrSet::new(wire.pcrs.iter().map(|i| index(*i)).collect::<Result<Vec<_>, _>>()?)?;
        if pcrs.is_empty() || !pcrs.iter().map(u32::from).eq(wire.pcrs.iter().copied()) {
            return Err(refusal("its PCRs are not at least one, ascending"));
        }
        let credential = Credential {
            id_object: bounded("TPM2B_ID_OBJECT", wire.id_object, ID_OBJECT_LIMIT)?,
            encrypted_secret: bounded(
                "TPM2B_ENCRYPTED_SECRET",
                wire.encrypted_secret,
                ENCRYPTED_SECRET_LIMIT,
            )?,
        };
        Ok(Self { credential, nonce, pcrs })
    }

    /// The challenge as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION,
            id_object: self.credential.id_object.clone(),
            encrypted_secret: self.credential.encrypted_secret.clone(),
            nonce: self.nonce.to_vec(),
            pcrs: self.pcrs.iter().map(u32::from).collect(),
        };
        wire.encode_to_vec()
    }
}
