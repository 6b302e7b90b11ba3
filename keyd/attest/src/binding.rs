//! What ties a quote to one attestation.

use keyd_core::Secret;

use crate::kdf;

/// Tells this hash from any other use of SHA-256 over such values.
const LABEL: &[u8] = b"keyd_tpm v1";

/// The qualifying data of the quote: SHA-256 over label, nonce, activated secret, number of keys and their hashes.
///
/// All but the number of keys has a fixed length and the number comes first, so no two inputs are framed alike. The
/// secret proves that the TPM with the endorsement key holds the attestation key; it is never sent back.
pub(crate) fn qualifying_data(nonce: &[u8; 32], secret: &Secret, keys: &[[u8; 32]]) -> [u8; 32] {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX).to_be_bytes();
    kdf::sha256(&[LABEL, nonce, secret.expose(), &count, keys.as_flattened()])
}
