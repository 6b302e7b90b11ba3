//! Policy digests, computed without a TPM (TPM 2.0 Part 3 §23): what a sealed object demands of the session that opens
//! it, and what an operator's signature is over. All are SHA-256.

use aws_lc_rs::digest::{Context, SHA256, digest};

use crate::pcr::PcrValue;

/// Bytes of a policy digest.
pub(crate) const POLICY_LEN: usize = 32;
/// A policy digest.
pub(crate) type Policy = [u8; POLICY_LEN];

/// Command codes (TPM 2.0 Part 2 §6.5.2).
const CC_POLICY_AUTHORIZE: u32 = 0x016a;
const CC_POLICY_OR: u32 = 0x0171;
const CC_POLICY_PCR: u32 = 0x017f;
/// TPM_ALG_SHA256.
const ALG_SHA256: u16 = 0x000b;
/// Bytes of a PCR selection: a bit for each of 24 PCRs.
const SELECT_LEN: usize = 3;
/// Where every policy starts.
const START: Policy = [0; POLICY_LEN];

/// PolicyPCR with these values, which are ascending (Part 3 §23.7).
pub(crate) fn pcrs(values: &[PcrValue]) -> Policy {
    let mut bits = 0_u32;
    for value in values {
        bits |= 1_u32.checked_shl(value.index.into()).unwrap_or_default();
    }
    let [low, middle, high, _] = bits.to_le_bytes();
    let all: Vec<u8> = values.iter().flat_map(|pcr| pcr.value).collect();
    hash(&[
        &START,
        &CC_POLICY_PCR.to_be_bytes(),
        &1_u32.to_be_bytes(),
        &ALG_SHA256.to_be_bytes(),
        &u8::try_from(SELECT_LEN).unwrap_or_default().to_be_bytes(),
        &[low, middle, high],
        digest(&SHA256, &all).as_ref(),
    ])
}

/// PolicyOR of these policies (Part 3 §23.6).
pub(crate) fn either(branches: &[Policy]) -> Policy {
    hash(&[&START, &CC_POLICY_OR.to_be_bytes(), branches.concat().as_slice()])
}

/// PolicyAuthorize by the key of this Name, with an empty policyRef (Part 3 §23.16).
pub(crate) fn signed_by(key_name: &[u8]) -> Policy {
    let policy = hash(&[&START, &CC_POLICY_AUTHORIZE.to_be_bytes(), key_name]);
    hash(&[&policy, &[]])
}

/// The Name of an object whose nameAlg is SHA-256, from its TPMT_PUBLIC (Part 1 §16).
pub(crate) fn name(public: &[u8]) -> Vec<u8> {
    [&ALG_SHA256.to_be_bytes(), digest(&SHA256, public).as_ref()].concat()
}

fn hash(parts: &[&[u8]]) -> Policy {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut policy = [0; POLICY_LEN];
    policy.copy_from_slice(context.finish().as_ref());
    policy
}
