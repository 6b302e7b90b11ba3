//! The node's side, step by step. Each step takes the one before it away, so that none can be done twice; what the TPM
//! has to do between the steps is the caller's.

use keyd_core::Secret;

use crate::binding::qualifying_data;
use crate::credential::Credential;
use crate::message::{Challenge, Payload, Response};
use crate::{PcrSet, PcrValues, Refusal};

/// The payload was sent; the server's challenge comes next.
#[derive(Debug)]
pub struct AwaitChallenge {
    keys: Vec<[u8; 32]>,
}

/// The TPM is activating the credential; its secret comes next.
#[derive(Debug)]
pub struct AwaitSecret {
    keys: Vec<[u8; 32]>,
    nonce: [u8; 32],
    pcrs: PcrSet,
}

/// The TPM is quoting; the quote comes next.
#[derive(Debug)]
pub struct AwaitQuote {
    pcrs: PcrSet,
}

/// What TPM2_Quote is to be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteRequest {
    /// PCRs of the SHA-256 bank, ascending.
    pub pcrs: Vec<u8>,
    /// 32 bytes.
    pub qualifying_data: Vec<u8>,
}

/// Begins an attestation; the bytes go to the server.
pub fn begin(payload: &Payload) -> (AwaitChallenge, Vec<u8>) {
    (AwaitChallenge { keys: payload.keys.clone() }, payload.encode())
}

impl AwaitChallenge {
    /// Takes the server's challenge; the credential is for TPM2_ActivateCredential.
    ///
    /// # Errors
    /// As [`Challenge::decode`].
    pub fn challenge(self, bytes: &[u8]) -> Result<(AwaitSecret, Credential), Refusal> {
        let Challenge { credential, nonce, pcrs } = Challenge::decode(bytes)?;
        Ok((AwaitSecret { keys: self.keys, nonce, pcrs }, credential))
    }
}

impl AwaitSecret {
    /// Takes the secret that TPM2_ActivateCredential gave.
    pub fn secret(self, secret: &Secret) -> (AwaitQuote, QuoteRequest) {
        let qualifying_data = qualifying_data(&self.nonce, secret, &self.keys).to_vec();
        let request = QuoteRequest { pcrs: self.pcrs.iter().collect(), qualifying_data };
        (AwaitQuote { pcrs: self.pcrs }, request)
    }
}

impl AwaitQuote {
    /// Takes TPMS_ATTEST, TPMT_SIGNATURE and the quoted values; the bytes go to the server.
    ///
    /// # Errors
    /// [`Refusal::PcrSelection`] if the values are not of the PCRs that the challenge named.
    pub fn quote(self, attest: Vec<u8>, signature: Vec<u8>, pcrs: PcrValues) -> Result<Vec<u8>, Refusal> {
        if pcrs.set() != self.pcrs {
            return Err(Refusal::PcrSelection { expected: self.pcrs.to_string() });
        }
        Ok(Response { attest, signature, pcrs }.encode())
    }
}
