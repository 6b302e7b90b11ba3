//! What the fuzz targets of this crate reach beyond its public interface.

use crate::blob::Blob;
use crate::{PolicyKey, SignedPolicy, nv, seal};

/// Reads a sealed blob as unsealing does, and checks that what is read is written the same.
pub fn sealed_blob(bytes: &[u8]) {
    // What libtss2 makes of the areas is its own affair, as long as it returns.
    let _ = seal::read(bytes);
    if let Ok(blob) = Blob::decode(bytes) {
        assert!(blob.encode().is_ok_and(|written| written == bytes), "{blob:?}");
    }
}

/// Reads a file of signed PCR policies.
pub fn signed_policy(text: &[u8]) {
    if let Ok(signed) = SignedPolicy::parse(text) {
        for approval in &signed.approvals {
            assert!(!approval.pcrs.is_empty() && approval.pcrs.is_sorted_by(|a, b| a < b), "{approval:?}");
        }
        assert!(signed.pcrs().iter().all(|pcr| *pcr < 24));
    }
}

/// Reads a public key that signs PCR policies.
pub fn policy_key(pem: &[u8]) {
    let _ = PolicyKey::from_pem(pem);
}

/// Reads an EK certificate as it lies in the TPM's NV memory.
pub fn stored_certificate(content: &[u8]) {
    if let Some(der) = nv::trim(content) {
        assert_eq!(nv::trim(der), Some(der), "what was cut out is whole");
    }
}
