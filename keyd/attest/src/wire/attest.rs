//! TPMS_ATTEST of a quote (Part 2 §10.12.12).

use super::Reader;
use crate::{PcrSet, Refusal};

const WHAT: &str = "TPMS_ATTEST";
/// Longest TPMS_ATTEST, in bytes; a quote over one bank has about 150.
const LIMIT: usize = 1024;
/// Most PCR banks in one selection; TPMs have two or three.
const BANKS: u32 = 8;
/// TPM_GENERATED_VALUE: a restricted key signs nothing with this prefix that its TPM did not make.
const TPM_GENERATED: u32 = 0xff54_4347;
const TPM_ST_ATTEST_QUOTE: u16 = 0x8018;

/// What a quote says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest<'a> {
    /// The qualifying data that the caller of TPM2_Quote gave.
    pub extra_data: &'a [u8],
    /// The PCRs that were quoted, bank by bank.
    pub selections: Vec<PcrSelection>,
    /// Digest of their values, under the hash of the signing scheme.
    pub pcr_digest: &'a [u8],
}

/// TPMS_PCR_SELECTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrSelection {
    /// TPM_ALG_ID of the bank.
    pub bank: u16,
    /// The PCRs of that bank.
    pub pcrs: PcrSet,
}

impl<'a> Attest<'a> {
    /// Reads the TPMS_ATTEST of a quote.
    ///
    /// # Errors
    /// [`Refusal::NotGenerated`] without the magic, [`Refusal::NotQuote`] for another kind of attestation, and as
    /// [`super::Public::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(WHAT, bytes, LIMIT)?;
        if r.u32()? != TPM_GENERATED {
            return Err(Refusal::NotGenerated);
        }
        match r.u16()? {
            TPM_ST_ATTEST_QUOTE => {}
            kind => return Err(Refusal::NotQuote { kind }),
        }
        let _qualified_signer = r.sized()?;
        let extra_data = r.sized()?;
        clock_info(&mut r)?;
        let _firmware_version = r.u64()?;
        let selections = selections(&mut r)?;
        let pcr_digest = r.sized()?;
        r.end()?;
        Ok(Self { extra_data, selections, pcr_digest })
    }
}

/// TPMS_CLOCK_INFO; nothing is decided by it.
fn clock_info(r: &mut Reader<'_>) -> Result<(), Refusal> {
    let _clock = r.u64()?;
    let _reset_count = r.u32()?;
    let _restart_count = r.u32()?;
    match r.u8()? {
        0 | 1 => Ok(()),
        other => Err(r.unsupported("safe flag", other.into())),
    }
}

fn selections(r: &mut Reader<'_>) -> Result<Vec<PcrSelection>, Refusal> {
    let count = r.u32()?;
    if count > BANKS {
        return Err(r.unsupported("number of PCR banks", count));
    }
    (0..count).map(|_| selection(r)).collect()
}

fn selection(r: &mut Reader<'_>) -> Result<PcrSelection, Refusal> {
    let bank = r.u16()?;
    let len = r.u8()?;
    // Byte n holds PCRs 8n to 8n+7, the lowest in the lowest bit (Part 2 §10.6.1): a little-endian bitmap.
    let mut bitmap = [0; 4];
    let (used, _) = bitmap
        .split_at_mut_checked(len.into())
        .ok_or_else(|| r.unsupported("size of a PCR selection", len.into()))?;
    used.copy_from_slice(r.take(len.into())?);
    let bitmap = u32::from_le_bytes(bitmap);
    let pcrs = PcrSet::from_bitmap(bitmap).ok_or_else(|| r.unsupported("PCR selection", bitmap))?;
    Ok(PcrSelection { bank, pcrs })
}
