//! On what condition the TPM gives a secret out: what the configuration asks for, what a sealed secret has, whether it is
//! fulfilled now, and which PCR stands in the way.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList, Nonce, Public, PublicKeyRsa, RsaSignature, Signature};
use tss_esapi::traits::UnMarshall;

use crate::connection::Connection;
use crate::error::{Doing, Error};
use crate::pcr::{PcrValue, read_pcrs, selection};
use crate::policy::{self, Policy};
use crate::policy_key::PolicyKey;
use crate::signed_policy::{Approval, PolicySource, SignedPolicy};

/// What new secrets are sealed to, beyond this TPM.
#[derive(Clone, Debug, Default)]
pub enum SealTo {
    /// Nothing more.
    #[default]
    ThisTpm,
    /// The values that these PCRs of the SHA-256 bank have at sealing: from 0 to 23, ascending, at least one.
    Pcrs(Vec<u8>),
    /// PCR values that the holder of the policy key approves.
    SignedPolicy,
}

/// The condition of one sealed secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// To this TPM, whatever it booted.
    ThisTpm,
    /// While PCRs have the values of one of these states.
    Pcrs(Vec<Vec<PcrValue>>),
    /// While PCRs have values that a key approves.
    Signed {
        /// TPMT_PUBLIC.
        key: Vec<u8>,
        /// What the approved PCRs were at sealing.
        at_sealing: Vec<PcrValue>,
    },
}

/// A PCR that is another one than at sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) sealed: PcrValue,
    pub(crate) now: PcrValue,
}

/// The PCRs that moved, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MovedPcrs(pub(crate) Vec<Moved>);

impl Release {
    /// What `to` means now. `expected` are values that PCRs are to have after a planned change: the secret then opens
    /// before that change and after it.
    pub(crate) fn for_now(
        connection: &mut Connection,
        to: &SealTo,
        source: Option<&PolicySource>,
        expected: &[PcrValue],
    ) -> Result<Self, Error> {
        match to {
            SealTo::ThisTpm => Ok(Self::ThisTpm),
            SealTo::Pcrs(pcrs) => {
                let now = read_pcrs(connection, pcrs)?;
                let mut then = now.clone();
                for pcr in &mut then {
                    if let Some(other) = expected.iter().find(|e| e.index == pcr.index) {
                        *pcr = *other;
                    }
                }
                Ok(Self::Pcrs(if then == now { vec![now] } else { vec![now, then] }))
            }
            SealTo::SignedPolicy => {
                let source = source.ok_or(Error::OtherPolicyKey)?;
                let signed = source.read()?;
                let values = read_pcrs(connection, &signed.pcrs())?;
                // A secret that nothing opens now would be lost at the next start.
                if signed.approval(&values, &source.key).is_none() {
                    return Err(outdated(&signed, source, MovedPcrs::default()));
                }
                Ok(Self::Signed { key: source.key.public().to_vec(), at_sealing: values })
            }
        }
    }

    /// Whether a secret that has this condition needs no other one to have `wanted`. What the PCRs were when a signed
    /// policy was sealed to binds nothing.
    pub(crate) fn is_as(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Signed { key, .. }, Self::Signed { key: other, .. }) => key == other,
            _ => self == wanted,
        }
    }

    /// The digest that the sealed object demands; none where no policy guards it.
    pub(crate) fn policy(&self) -> Option<Policy> {
        match self {
            Self::ThisTpm => None,
            Self::Pcrs(states) => {
                let branches = branches(states);
                match branches.as_slice() {
                    [one] => Some(*one),
                    several => Some(policy::either(several)),
                }
            }
            Self::Signed { key, .. } => Some(policy::signed_by(&policy::name(key))),
        }
    }

    /// Has a policy session fulfil the condition.
    pub(crate) fn satisfy(
        &self,
        connection: &mut Connection,
        session: AuthSession,
        source: Option<&PolicySource>,
    ) -> Result<(), Error> {
        let session = PolicySession::try_from(session).doing("use a policy session")?;
        match self {
            Self::ThisTpm => Ok(()),
            Self::Pcrs(states) => {
                let pcrs: Vec<u8> = states.iter().flatten().map(|pcr| pcr.index).collect();
                policy_pcr(connection, session, pcrs)?;
                let branches = branches(states);
                if let [_, _, ..] = branches.as_slice() {
                    let refused = connection.context.execute_without_session(|c| {
                        let mut list = DigestList::new();
                        for branch in &branches {
                            list.add(Digest::try_from(branch.as_slice())?)?;
                        }
                        c.policy_or(session, list)
                    });
                    refused.map_err(Error::Refused)?;
                }
                Ok(())
            }
            Self::Signed { key, at_sealing } => {
                let source = source_of(key, source)?;
                let signed = source.read()?;
                let now = read_pcrs(connection, &signed.pcrs())?;
                let approval = signed
                    .approval(&now, &source.key)
                    .ok_or_else(|| outdated(&signed, source, moved(at_sealing, &now)))?;
                policy_pcr(connection, session, approval.pcrs.clone())?;
                authorize(connection, session, &source.key, approval)
            }
        }
    }

    /// Why the condition is not fulfilled now, as far as that can be told without opening anything.
    pub(crate) fn obstacle(
        &self,
        connection: &mut Connection,
        source: Option<&PolicySource>,
    ) -> Result<Option<Error>, Error> {
        match self {
            Self::ThisTpm => Ok(None),
            Self::Pcrs(states) => {
                let mut pcrs: Vec<u8> = states.iter().flatten().map(|pcr| pcr.index).collect();
                pcrs.sort_unstable();
                pcrs.dedup();
                let now = read_pcrs(connection, &pcrs)?;
                // Of several states, the one that is nearest to what is.
                let nearest = states.iter().map(|state| moved(state, &now)).min_by_key(|moved| moved.0.len());
                Ok(nearest.filter(|moved| !moved.0.is_empty()).map(Error::PcrsMoved))
            }
            Self::Signed { key, at_sealing } => {
                let read = source_of(key, source).and_then(|source| Ok((source, source.read()?)));
                let (source, signed) = match read {
                    Ok(read) => read,
                    Err(error) => return Ok(Some(error)),
                };
                let now = read_pcrs(connection, &signed.pcrs())?;
                let approved = signed.approval(&now, &source.key).is_some();
                Ok((!approved).then(|| outdated(&signed, source, moved(at_sealing, &now))))
            }
        }
    }
}

fn branches(states: &[Vec<PcrValue>]) -> Vec<Policy> {
    states.iter().map(|state| policy::pcrs(state)).collect()
}

fn moved(sealed: &[PcrValue], now: &[PcrValue]) -> MovedPcrs {
    let differs = |sealed: &PcrValue| {
        let now = now.iter().find(|n| n.index == sealed.index && n.value != sealed.value)?;
        Some(Moved { sealed: *sealed, now: *now })
    };
    MovedPcrs(sealed.iter().filter_map(differs).collect())
}

/// The source of signatures by the key of a sealed secret; the configuration must name it.
fn source_of<'a>(key: &[u8], source: Option<&'a PolicySource>) -> Result<&'a PolicySource, Error> {
    source.filter(|source| source.key.public() == key).ok_or(Error::OtherPolicyKey)
}

fn outdated(signed: &SignedPolicy, source: &PolicySource, moved: MovedPcrs) -> Error {
    Error::PolicyOutdated { file: source.file.clone(), pcrs: signed.pcrs(), moved }
}

fn policy_pcr(connection: &mut Connection, session: PolicySession, mut pcrs: Vec<u8>) -> Result<(), Error> {
    pcrs.sort_unstable();
    pcrs.dedup();
    let selection = selection(&pcrs)?;
    // With no digest given, the session takes the present values (Part 3 §23.7).
    let taken =
        connection.context.execute_without_session(|c| c.policy_pcr(session, Digest::default(), selection));
    taken.doing("put PCRs into a policy")
}

/// Replaces what the session has fulfilled, `approved`, by that this key approves it.
fn authorize(
    connection: &mut Connection,
    session: PolicySession,
    key: &PolicyKey,
    approval: &Approval,
) -> Result<(), Error> {
    let public = Public::unmarshall(key.public()).doing("read a policy key")?;
    let hash = Digest::try_from(digest(&SHA256, &approval.policy).as_ref()).doing("state what was signed")?;
    let signature = PublicKeyRsa::try_from(approval.signature.clone())
        .and_then(|bytes| RsaSignature::create(HashingAlgorithm::Sha256, bytes))
        .doing("state a policy's signature")?;
    // A ticket of the null hierarchy would not do for PolicyAuthorize.
    let loaded = connection
        .context
        .execute_without_session(|c| c.load_external_public(public, Hierarchy::Owner))
        .doing("load a policy key")?;
    let verified = connection.context.execute_without_session(|c| {
        let name = c.tr_get_name(loaded.into())?;
        let ticket = c.verify_signature(loaded, hash, Signature::RsaSsa(signature))?;
        c.policy_authorize(
            session,
            Digest::try_from(approval.policy.as_slice())?,
            Nonce::default(),
            &name,
            ticket,
        )
    });
    let authorized = verified.map_err(Error::Refused);
    connection.flush(loaded.into(), authorized)
}

// === impl MovedPcrs ===

impl fmt::Display for MovedPcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Most PCRs told; a sentence has to fit into a header.
        const SHOWN: usize = 4;
        /// Bytes of a value told: enough to find it in a log of measurements.
        const BYTES: usize = 8;
        let short = |value: &[u8; 32]| hex::encode(value.get(..BYTES).unwrap_or_default());
        for (number, moved) in self.0.iter().take(SHOWN).enumerate() {
            let and = if number == 0 { "" } else { ", " };
            let (was, is) = (short(&moved.sealed.value), short(&moved.now.value));
            write!(f, "{and}PCR {} was {was}… at sealing and is {is}… now", moved.sealed.index)?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, ", and {more} more"),
            _ => Ok(()),
        }
    }
}
