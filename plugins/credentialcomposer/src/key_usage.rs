//! The key usage of ML-DSA leaves.

use keyd_core::{PublicKey, Reason};
use plugin_sdk::proto::credentialcomposer::{X509Extension, X509svidAttributes};
use tonic::Status;

/// id-ce-keyUsage (RFC 5280 §4.2.1.3).
const KEY_USAGE: &str = "2.5.29.15";
/// BIT STRING with digitalSignature alone.
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];

/// SPIRE gives every leaf keyEncipherment and keyAgreement, which an ML-DSA certificate must not have (RFC 9881 §5).
/// An extra extension takes the place of SPIRE's own with the same identifier.
///
/// # Errors
/// `INVALID_ARGUMENT` for a public key that cannot be read.
pub(crate) fn correct(attributes: &mut X509svidAttributes, public_key: &[u8]) -> Result<(), Status> {
    if !is_ml_dsa(public_key)? {
        return Ok(());
    }
    attributes.extra_extensions.retain(|extension| extension.oid != KEY_USAGE);
    attributes.extra_extensions.push(X509Extension {
        oid: KEY_USAGE.to_owned(),
        value: DIGITAL_SIGNATURE.to_vec(),
        critical: true,
    });
    Ok(())
}

fn is_ml_dsa(public_key: &[u8]) -> Result<bool, Status> {
    match PublicKey::from_spki(public_key) {
        Ok(key) => Ok(key.algorithm().is_ml_dsa()),
        // RSA, for one: a workload's key may be of a kind that keyd does not use.
        Err(failure) if failure.reason == Reason::UnknownAlgorithm => Ok(false),
        Err(failure) => Err(Status::invalid_argument(failure.message)),
    }
}
