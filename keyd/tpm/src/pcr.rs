//! Platform configuration registers (PCRs) of the SHA-256 bank.

use tss_esapi::Context;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{PcrSelectionList, PcrSelectionListBuilder, PcrSlot};

use crate::connection::Connection;
use crate::error::{Doing, Error};

/// Highest PCR.
pub(crate) const PCR_MAX: u8 = 23;
/// Most PCRs read by one command (TPM 2.0 Part 2 §10.9.7, TPML_DIGEST).
const READ_LIMIT: usize = 8;

/// One PCR of the SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrValue {
    /// 0 to 23.
    pub index: u8,
    /// SHA-256.
    pub value: [u8; 32],
}

/// Reads `pcrs`, which are ascending and from 0 to 23.
pub(crate) fn read_pcrs(connection: &mut Connection, pcrs: &[u8]) -> Result<Vec<PcrValue>, Error> {
    let mut values = Vec::with_capacity(pcrs.len());
    for some in pcrs.chunks(READ_LIMIT) {
        let mut wanted = some;
        // A TPM may give fewer than it was asked for, in ascending order.
        while let Some(first) = wanted.first() {
            let given = read_some(&mut connection.context, wanted)?;
            if given.is_empty() {
                return Err(Error::NoPcr { index: *first });
            }
            wanted = wanted.get(given.len()..).ok_or(Error::BadAnswer("more PCRs than were asked for"))?;
            values.extend(given);
        }
    }
    Ok(values)
}

fn read_some(context: &mut Context, pcrs: &[u8]) -> Result<Vec<PcrValue>, Error> {
    let wanted = selection(pcrs)?;
    let (_, given, digests) = context.execute_without_session(|c| c.pcr_read(wanted)).doing("read PCRs")?;
    let bank =
        given.get_selections().iter().find(|bank| bank.hashing_algorithm() == HashingAlgorithm::Sha256);
    let slots = bank.map(|bank| bank.selected()).unwrap_or_default();
    let indices: Vec<u8> =
        pcrs.iter().copied().filter(|i| slot(*i).is_ok_and(|s| slots.contains(&s))).collect();
    if indices.len() != digests.len() || !pcrs.starts_with(&indices) {
        return Err(Error::BadAnswer("other PCRs than it was asked for"));
    }
    let value = |(index, digest): (u8, &tss_esapi::structures::Digest)| {
        let value =
            digest.value().try_into().map_err(|_| Error::BadAnswer("a PCR that is no SHA-256 digest"))?;
        Ok(PcrValue { index, value })
    };
    indices.into_iter().zip(digests.value()).map(value).collect()
}

/// The selection of these PCRs of the SHA-256 bank.
pub(crate) fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, Error> {
    let slots: Result<Vec<PcrSlot>, _> = pcrs.iter().copied().map(slot).collect();
    slots
        .and_then(|slots| {
            PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, &slots).build()
        })
        .doing("select PCRs")
}

fn slot(index: u8) -> Result<PcrSlot, tss_esapi::Error> {
    PcrSlot::try_from(1_u32.checked_shl(index.into()).unwrap_or_default())
}
