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

#[cfg(test)]
mod tests {
    use keyd_core::Algorithm;

    use super::*;

    fn corrected(public_key: &[u8]) -> Vec<X509Extension> {
        let extension = |oid: &str| X509Extension { oid: oid.to_owned(), value: vec![5, 0], critical: false };
        let extra_extensions = vec![extension(KEY_USAGE), extension("1.2.3")];
        let mut attributes = X509svidAttributes { extra_extensions, ..X509svidAttributes::default() };
        correct(&mut attributes, public_key).unwrap();
        attributes.extra_extensions
    }

    fn spki(algorithm: Algorithm) -> Vec<u8> {
        let mut raw = vec![4; algorithm.public_len()];
        raw[1] = 1;
        PublicKey::from_raw(algorithm, &raw).unwrap().spki().to_vec()
    }

    #[test]
    fn an_ml_dsa_leaf_has_one_key_usage_and_keeps_other_extensions() {
        for algorithm in [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87] {
            let extensions = corrected(&spki(algorithm));
            let [other, usage] = extensions.as_slice() else { panic!("{extensions:?}") };
            assert_eq!((other.oid.as_str(), usage.oid.as_str(), usage.critical), ("1.2.3", KEY_USAGE, true));
            assert_eq!(usage.value, DIGITAL_SIGNATURE);
        }
    }

    #[test]
    fn other_keys_are_left_as_they_are() {
        let ed25519 = [hex::decode("302a300506032b6570032100").unwrap(), vec![7; 32]].concat();
        for public_key in [spki(Algorithm::EcP256), ed25519] {
            assert_eq!(corrected(&public_key)[0].value, [5, 0]);
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_refused() {
        let refused = correct(&mut X509svidAttributes::default(), b"junk").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
