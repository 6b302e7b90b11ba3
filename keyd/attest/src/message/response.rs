//! How the node answers.

use prost::Message;

use super::{VERSION, Versioned, bounded, decode, index};
use crate::{PcrValues, Refusal};

/// Longest TPMS_ATTEST or TPMT_SIGNATURE, in bytes.
const STRUCTURE_LIMIT: usize = 1024;

/// Node to server: the quote, and the PCR values that it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
    /// Values of the SHA-256 bank.
    pub pcrs: PcrValues,
}

/// The response as protocol buffers carry it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    attest: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    signature: Vec<u8>,
    /// Ascending.
    #[prost(message, repeated, tag = "4")]
    pcrs: Vec<PcrValue>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PcrValue {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Versioned for Wire {
    const WHAT: &'static str = "response";

    fn version(&self) -> u32 {
        self.version
    }
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// A [`Refusal`] that names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire: Wire = decode(bytes)?;
        if !wire.pcrs.is_sorted_by_key(|p| p.index) {
            return Err(Refusal::Message { what: Wire::WHAT, why: "its PCRs are not ascending" });
        }
        let pcrs = wire.pcrs.into_iter().map(|p| Ok((index(p.index)?, p.value)));
        let pcrs = PcrValues::new(pcrs.collect::<Result<Vec<_>, Refusal>>()?)?;
        Ok(Self {
            attest: bounded("TPMS_ATTEST", wire.attest, STRUCTURE_LIMIT)?,
            signature: bounded("TPMT_SIGNATURE", wire.signature, STRUCTURE_LIMIT)?,
            pcrs,
        })
    }

    /// The response as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let pcr = |(index, value): (u8, &[u8; 32])| PcrValue { index: index.into(), value: value.to_vec() };
        let wire = Wire {
            version: VERSION,
            attest: self.attest.clone(),
            signature: self.signature.clone(),
            pcrs: self.pcrs.iter().map(pcr).collect(),
        };
        wire.encode_to_vec()
    }
}
