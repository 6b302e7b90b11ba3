//! Signed PCR policies: which PCR values the holder of a key approves, in a file that an image ships.
//!
//! The file is the one that `systemd-measure sign` and `ukify` write (`tpm2-pcr-signature.json`): for each bank a list of
//! the PCRs, the fingerprint of the key, the PolicyPCR digest that is approved and the signature over it. keyd uses the
//! bank `sha256`. A signature is RSASSA-PKCS1-v1_5 with SHA-256, as PolicyAuthorize with an empty policyRef wants it (TPM
//! 2.0 Part 3 §23.16).

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use der::{Document, SecretDocument};
use keyd_core::{Failure, Reason};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::pcr::{PCR_MAX, PcrValue};
use crate::policy::{self, POLICY_LEN, Policy};
use crate::policy_key::PolicyKey;

/// Longest file of signatures, in bytes.
pub const SIGNATURES_LIMIT: usize = 256 * 1024;
/// Most signatures of a bank.
const ENTRIES_LIMIT: usize = 256;
/// The bank that keyd seals to.
const BANK: &str = "sha256";

/// The signatures that a file holds for the SHA-256 bank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedPolicy {
    pub(crate) approvals: Vec<Approval>,
}

/// One approved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Approval {
    /// Ascending, at least one.
    pub(crate) pcrs: Vec<u8>,
    /// The PolicyPCR digest.
    pub(crate) policy: Policy,
    pub(crate) signature: Vec<u8>,
    /// SHA-256 of the signing key's PKCS#1 RSAPublicKey.
    fingerprint: [u8; 32],
}

/// As the file has it.
#[derive(Serialize, Deserialize)]
struct Entry {
    pcrs: Vec<u8>,
    pkfp: String,
    pol: String,
    sig: String,
}

impl SignedPolicy {
    /// Reads a file's text. What other banks hold is not looked at.
    ///
    /// # Errors
    /// What is wrong with it, to follow its name.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > SIGNATURES_LIMIT {
            return Err(format!("it has {} bytes, more than {SIGNATURES_LIMIT}", text.len()));
        }
        let mut banks: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|e| format!("it is no JSON object of PCR banks: {e}"))?;
        let Some(bank) = banks.remove(BANK) else { return Ok(Self::default()) };
        let entries: Vec<Entry> =
            serde_json::from_value(bank).map_err(|e| format!("its bank {BANK} cannot be read: {e}"))?;
        if entries.len() > ENTRIES_LIMIT {
            return Err(format!("it has {} signatures, more than {ENTRIES_LIMIT}", entries.len()));
        }
        let approvals = entries.into_iter().enumerate().map(|(number, entry)| {
            entry.read().map_err(|why| format!("signature {} of its bank {BANK}: {why}", number + 1))
        });
        approvals.collect::<Result<_, _>>().map(|approvals| Self { approvals })
    }

    /// The PCRs that the signatures are about, ascending.
    pub(crate) fn pcrs(&self) -> Vec<u8> {
        let mut pcrs: Vec<u8> = self.approvals.iter().flat_map(|a| a.pcrs.clone()).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        pcrs
    }

    /// The approval of the state that `values` tell, by `key`; `values` has every PCR of [`SignedPolicy::pcrs`].
    pub(crate) fn approval(&self, values: &[PcrValue], key: &PolicyKey) -> Option<&Approval> {
        self.approvals.iter().find(|approval| {
            let covered: Vec<PcrValue> =
                values.iter().filter(|v| approval.pcrs.contains(&v.index)).copied().collect();
            covered.len() == approval.pcrs.len()
                && policy::pcrs(&covered) == approval.policy
                && key.verifies(&approval.policy, &approval.signature)
        })
    }
}

/// Signs what the PCRs of the SHA-256 bank will be, and gives the file's text: what was in `existing` with one signature
/// more, or as it was where that signature is there already. `key` is a PEM PKCS#8 RSA private key. It needs no TPM.
///
/// # Errors
/// [`Reason::BadRequest`]: no PCR, a key or an existing file that is not as it should be.
pub fn sign_policy(key: &[u8], values: &[PcrValue], existing: Option<&[u8]>) -> Result<String, Failure> {
    let bad = |why: String| Failure::new(Reason::BadRequest, why);
    if values.is_empty() {
        return Err(bad("name at least one PCR with its value".to_owned()));
    }
    let text = std::str::from_utf8(key).map_err(|_| bad("the private key is not PEM".to_owned()))?;
    let (label, key) =
        SecretDocument::from_pem(text).map_err(|e| bad(format!("the private key is not PEM: {e}")))?;
    if label != "PRIVATE KEY" {
        return Err(bad(format!(
            "the private key is a {label}; convert it with `openssl pkcs8 -topk8 -nocrypt`"
        )));
    }
    let pair = RsaKeyPair::from_pkcs8(key.as_bytes())
        .map_err(|e| bad(format!("the private key is no RSA key of 2048 to 4096 bits: {e}")))?;
    let public =
        PolicyKey::from_rsa(aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref()).map_err(bad)?;
    let policy = policy::pcrs(values);
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &policy, &mut signature)
        .map_err(|_| Failure::new(Reason::Internal, "aws-lc could not sign the policy"))?;
    let entry = Entry {
        pcrs: values.iter().map(|v| v.index).collect(),
        pkfp: hex::encode(public.fingerprint()),
        pol: hex::encode(policy),
        sig: BASE64.encode(signature),
    };
    append(existing.unwrap_or(b"{}"), entry).map_err(bad)
}

/// Adds an entry to a file's text.
fn append(text: &[u8], entry: Entry) -> Result<String, String> {
    SignedPolicy::parse(text)?;
    let mut banks: BTreeMap<String, Vec<serde_json::Value>> =
        serde_json::from_slice(text).map_err(|e| format!("it is no JSON object of PCR banks: {e}"))?;
    let bank = banks.entry(BANK.to_owned()).or_default();
    let entry = serde_json::to_value(entry).map_err(|e| e.to_string())?;
    if !bank.contains(&entry) {
        bank.push(entry);
    }
    serde_json::to_string(&banks).map(|text| text + "\n").map_err(|e| e.to_string())
}

impl Entry {
    fn read(self) -> Result<Approval, String> {
        let ascending = self.pcrs.is_sorted_by(|a, b| a < b);
        if self.pcrs.is_empty() || !ascending || self.pcrs.last().is_some_and(|last| *last > PCR_MAX) {
            return Err(format!("its PCRs are not an ascending list from 0 to {PCR_MAX}"));
        }
        let digest = |name: &str, text: &str| -> Result<[u8; POLICY_LEN], String> {
            let mut bytes = [0; POLICY_LEN];
            hex::decode_to_slice(text, &mut bytes)
                .map_err(|e| format!("its {name} is no hexadecimal SHA-256: {e}"))?;
            Ok(bytes)
        };
        Ok(Approval {
            policy: digest("pol", &self.pol)?,
            fingerprint: digest("pkfp", &self.pkfp)?,
            signature: BASE64.decode(&self.sig).map_err(|e| format!("its sig is no base64: {e}"))?,
            pcrs: self.pcrs,
        })
    }
}

/// Whose signatures count, and where they are.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// The key.
    pub key: PolicyKey,
    /// The file. It is read at each use, so that an image can bring a new one.
    pub file: PathBuf,
}

impl PolicySource {
    /// Reads the file; it has at least one signature.
    pub(crate) fn read(&self) -> Result<SignedPolicy, Error> {
        use std::io::Read;
        let read = || {
            let mut text = Vec::new();
            std::fs::File::open(&self.file)
                .and_then(|file| file.take(SIGNATURES_LIMIT as u64 + 1).read_to_end(&mut text))
                .map_err(|e| format!("it cannot be read: {e}"))?;
            let signed = SignedPolicy::parse(&text)?;
            if !signed.approvals.iter().any(|a| a.fingerprint == *self.key.fingerprint()) {
                return Err(format!("its bank {BANK} has no signature by the key that policy_key names"));
            }
            Ok(signed)
        };
        read().map_err(|why| Error::Signatures { file: self.file.clone(), why })
    }
}

/// The DER of a PEM public key.
pub(crate) fn public_key_der(pem: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not PEM".to_owned())?;
    let (label, document) = Document::from_pem(text).map_err(|e| format!("it is not PEM: {e}"))?;
    if label != "PUBLIC KEY" {
        return Err(format!("it is a {label}, not a PUBLIC KEY"));
    }
    Ok(document)
}
