//! How an attestation begins.

use prost::Message;

use super::{KEYS, VERSION, Versioned, bounded, decode};
use crate::ek_certificate::CERTIFICATE_LIMIT;
use crate::wire::Public;
use crate::{EkKey, Refusal};

/// Node to server: who the TPM is, and which keys are to be certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// DER EK certificate, where the TPM holds one.
    pub ek_certificate: Option<Vec<u8>>,
    /// The endorsement key that the node names.
    pub ek: EkKey,
    /// The attestation key.
    pub ak: Public,
    /// SHA-256 of the SubjectPublicKeyInfo of each key to be certified, one or two.
    pub keys: Vec<[u8; 32]>,
    /// The endorsement key as the node sent it.
    ek_public: Vec<u8>,
}

/// The payload as protocol buffers carry it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// Empty where there is none.
    #[prost(bytes = "vec", tag = "2")]
    ek_certificate: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ek_public: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    ak_public: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    spki_sha256: Vec<Vec<u8>>,
}

impl Versioned for Wire {
    const WHAT: &'static str = "payload";

    fn version(&self) -> u32 {
        self.version
    }
}

impl Payload {
    /// Puts a payload together from what the TPM gave.
    ///
    /// # Errors
    /// As [`Payload::decode`].
    pub fn new(
        ek_certificate: Option<Vec<u8>>,
        ek_public: Vec<u8>,
        ak_public: &[u8],
        keys: Vec<[u8; 32]>,
    ) -> Result<Self, Refusal> {
        let what = "EK certificate";
        let ek_certificate = ek_certificate.map(|c| bounded(what, c, CERTIFICATE_LIMIT)).transpose()?;
        let ek = EkKey::from_public(&Public::parse(&ek_public)?)?;
        let ak = Public::parse(ak_public)?;
        if !(1..=KEYS).contains(&keys.len()) {
            return Err(Refusal::Message {
                what: Wire::WHAT,
                why: "it names no key to be certified, or too many",
            });
        }
        Ok(Self { ek_certificate, ek, ak, keys, ek_public })
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// A [`Refusal`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire: Wire = decode(bytes)?;
        let not_a_hash = |_| Refusal::Message { what: Wire::WHAT, why: "a key's hash has not 32 bytes" };
        let keys = wire.spki_sha256.into_iter().map(|k| k.try_into().map_err(not_a_hash));
        let keys = keys.collect::<Result<_, _>>()?;
        let ek_certificate = (!wire.ek_certificate.is_empty()).then_some(wire.ek_certificate);
        Self::new(ek_certificate, wire.ek_public, &wire.ak_public, keys)
    }

    /// The payload as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION,
            ek_certificate: self.ek_certificate.clone().unwrap_or_default(),
            ek_public: self.ek_public.clone(),
            ak_public: self.ak.bytes().to_vec(),
            spki_sha256: self.keys.iter().map(|k| k.to_vec()).collect(),
        };
        wire.encode_to_vec()
    }
}
