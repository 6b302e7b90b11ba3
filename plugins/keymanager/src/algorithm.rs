//! SPIRE's key types and hashes in keyd's terms.

use keyd_core::{Algorithm, Hash};
use plugin_sdk::proto::keymanager::server::{HashAlgorithm, KeyType};
use tonic::Status;

/// How the ids of the server's X.509 CA keys begin.
const X509_CA: &str = "x509-CA-";

/// The algorithm for a key of this id when SPIRE asks for this type.
///
/// # Errors
/// `INVALID_ARGUMENT` for no type, and for RSA.
pub(crate) fn wanted(id: &str, key_type: i32, x509_ca: Option<Algorithm>) -> Result<Algorithm, Status> {
    let asked = KeyType::try_from(key_type).unwrap_or(KeyType::UnspecifiedKeyType);
    match (asked, x509_ca) {
        (KeyType::UnspecifiedKeyType, _) => Err(Status::invalid_argument("key type is required")),
        (_, Some(algorithm)) if id.starts_with(X509_CA) => Ok(algorithm),
        (KeyType::EcP256, _) => Ok(Algorithm::EcP256),
        (KeyType::EcP384, _) => Ok(Algorithm::EcP384),
        (KeyType::Rsa2048 | KeyType::Rsa4096, _) => Err(Status::invalid_argument(format!(
            "key {id:?}: keyd has no RSA keys yet; set ca_key_type and jwt_key_type to ec-p256 or ec-p384 in SPIRE's \
             configuration"
        ))),
    }
}

/// The type that SPIRE is told. It has none for ML-DSA and does not look.
pub(crate) fn key_type(algorithm: Algorithm) -> KeyType {
    match algorithm {
        Algorithm::EcP256 => KeyType::EcP256,
        Algorithm::EcP384 => KeyType::EcP384,
        _ => KeyType::UnspecifiedKeyType,
    }
}

/// The hash that made the data; `None` where SPIRE names none, because the data is the message itself.
///
/// # Errors
/// `INVALID_ARGUMENT` for a hash that keyd does not sign.
pub(crate) fn hash(number: i32) -> Result<Option<Hash>, Status> {
    match HashAlgorithm::try_from(number) {
        Ok(HashAlgorithm::UnspecifiedHashAlgorithm) => Ok(None),
        Ok(HashAlgorithm::Sha256) => Ok(Some(Hash::Sha256)),
        Ok(HashAlgorithm::Sha384) => Ok(Some(Hash::Sha384)),
        Ok(HashAlgorithm::Sha512) => Ok(Some(Hash::Sha512)),
        other => {
            let name = other.map_or_else(|_| number.to_string(), |h| h.as_str_name().to_owned());
            Err(Status::invalid_argument(format!(
                "keyd signs digests of SHA256, SHA384 and SHA512, not of {name}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: i32 = KeyType::EcP256 as i32;

    #[test]
    fn only_the_x509_ca_becomes_ml_dsa() {
        let ml_dsa = Some(Algorithm::MlDsa65);
        assert_eq!(wanted("x509-CA-A", P256, ml_dsa).unwrap(), Algorithm::MlDsa65);
        assert_eq!(wanted("JWT-Signer-A", P256, ml_dsa).unwrap(), Algorithm::EcP256);
        assert_eq!(wanted("WIT-Signer-B", KeyType::EcP384 as i32, ml_dsa).unwrap(), Algorithm::EcP384);
        assert_eq!(wanted("x509-CA-A", P256, None).unwrap(), Algorithm::EcP256);
    }

    #[test]
    fn rsa_and_no_type_are_refused() {
        let rsa = wanted("JWT-Signer-A", KeyType::Rsa2048 as i32, None).unwrap_err();
        assert_eq!(rsa.code(), tonic::Code::InvalidArgument);
        assert!(rsa.message().contains("no RSA keys yet"), "{rsa}");
        for none in [0, -1, 99] {
            assert_eq!(
                wanted("x509-CA-A", none, Some(Algorithm::MlDsa65)).unwrap_err().message(),
                "key type is required"
            );
        }
    }

    #[test]
    fn hashes_are_gos_numbers() {
        assert_eq!(hash(0).unwrap(), None);
        assert_eq!(hash(5).unwrap(), Some(Hash::Sha256));
        assert_eq!(hash(6).unwrap(), Some(Hash::Sha384));
        assert_eq!(hash(7).unwrap(), Some(Hash::Sha512));
        assert!(hash(11).unwrap_err().message().ends_with("not of SHA3_256"));
        assert!(hash(3).unwrap_err().message().ends_with("not of 3"));
    }
}
