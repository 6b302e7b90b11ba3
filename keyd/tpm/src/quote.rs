//! Quotes: platform configuration registers (PCRs) of the SHA-256 bank, attested by the AK.

use aws_lc_rs::digest::{SHA256, digest};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Attest, AttestInfo, Data, Signature, SignatureScheme};
use tss_esapi::traits::Marshall;

use crate::connection::Connection;
use crate::error::{Doing, Error};
use crate::pcr::{PcrValue, read_pcrs, selection};

/// How often a quote is made anew because a PCR changed between reading and quoting.
const ATTEMPTS: u32 = 5;

/// PCRs, attested by the AK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST, as it was signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The values that were quoted, in ascending order.
    pub pcrs: Vec<PcrValue>,
}

/// Quotes `pcrs`, which are ascending and from 0 to 23.
pub(crate) fn quote(
    connection: &mut Connection,
    pcrs: &[u8],
    qualifying_data: &Data,
) -> Result<Quote, Error> {
    for _ in 0..ATTEMPTS {
        let values = read_pcrs(connection, pcrs)?;
        let (attest, signature) = sign(connection, pcrs, qualifying_data)?;
        if states(&attest, &values) {
            return Ok(Quote {
                attest: attest.marshall().doing("encode a quote")?,
                signature: signature.marshall().doing("encode a quote's signature")?,
                pcrs: values,
            });
        }
    }
    Err(Error::PcrsMove)
}

fn sign(
    connection: &mut Connection,
    pcrs: &[u8],
    qualifying_data: &Data,
) -> Result<(Attest, Signature), Error> {
    let selection = selection(pcrs)?;
    connection.with_ak(|connection, ak| {
        connection
            .context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.quote(ak, qualifying_data.clone(), SignatureScheme::Null, selection)
            })
            .doing("quote PCRs")
    })
}

/// Whether the quote's digest is over these values (TPM 2.0 Part 3 §18.4).
fn states(attest: &Attest, values: &[PcrValue]) -> bool {
    let all: Vec<u8> = values.iter().flat_map(|pcr| pcr.value).collect();
    match attest.attested() {
        AttestInfo::Quote { info } => info.pcr_digest().value() == digest(&SHA256, &all).as_ref(),
        _ => false,
    }
}
