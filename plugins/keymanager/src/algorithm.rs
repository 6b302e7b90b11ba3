//! SPIRE's key types and hashes in keyd's terms.

use keyd_core::{Algorithm, Hash};
use plugin_sdk::proto::keymanager::server::sign_data_request::{PssOptions, SignerOpts};
use plugin_sdk::proto::keymanager::server::{HashAlgorithm, KeyType};
use tonic::Status;

/// How the ids of the server's X.509 CA keys begin.
const X509_CA: &str = "x509-CA-";

/// The algorithm for a key of this id when SPIRE asks for this type.
///
/// # Errors
/// `INVALID_ARGUMENT` for no type.
pub(crate) fn wanted(id: &str, key_type: i32, x509_ca: Option<Algorithm>) -> Result<Algorithm, Status> {
    let asked = KeyType::try_from(key_type).unwrap_or(KeyType::UnspecifiedKeyType);
    match (asked, x509_ca) {
        (KeyType::UnspecifiedKeyType, _) => Err(Status::invalid_argument("key type is required")),
        (_, Some(algorithm)) if id.starts_with(X509_CA) => Ok(algorithm),
        (KeyType::EcP256, _) => Ok(Algorithm::EcP256),
        (KeyType::EcP384, _) => Ok(Algorithm::EcP384),
        (KeyType::Rsa2048, _) => Ok(Algorithm::Rsa2048),
        (KeyType::Rsa4096, _) => Ok(Algorithm::Rsa4096),
    }
}

/// The type that SPIRE is told. It has none for ML-DSA or RSA-3072 and does not look.
pub(crate) fn key_type(algorithm: Algorithm) -> KeyType {
    match algorithm {
        Algorithm::EcP256 => KeyType::EcP256,
        Algorithm::EcP384 => KeyType::EcP384,
        Algorithm::Rsa2048 => KeyType::Rsa2048,
        Algorithm::Rsa4096 => KeyType::Rsa4096,
        _ => KeyType::UnspecifiedKeyType,
    }
}

/// How the data came about and is to be signed, as Go's `crypto.SignerOpts` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opts {
    /// No hash: the data is the message itself.
    Message,
    /// A digest; RSA pads it by PKCS#1 v1.5.
    Digest(Hash),
    /// A digest that RSA pads by PSS.
    Pss(Hash),
}

/// Reads SPIRE's options.
///
/// # Errors
/// `INVALID_ARGUMENT` for none, for a hash that keyd does not sign, and for a salt of another length than the digest.
pub(crate) fn opts(signer_opts: Option<SignerOpts>) -> Result<Opts, Status> {
    match signer_opts {
        Some(SignerOpts::HashAlgorithm(number)) => Ok(hash(number)?.map_or(Opts::Message, Opts::Digest)),
        Some(SignerOpts::PssOptions(PssOptions { salt_length, hash_algorithm })) => {
            let hash = hash(hash_algorithm)?
                .ok_or_else(|| Status::invalid_argument("PSS needs the hash that made the digest"))?;
            let fits = matches!(salt_length, SALT_AUTO | SALT_AS_HASH)
                || usize::try_from(salt_length).is_ok_and(|length| length == hash.digest_len());
            fits.then_some(Opts::Pss(hash)).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "keyd salts PSS with as many bytes as the digest has, {}, and not with {salt_length}",
                    hash.digest_len()
                ))
            })
        }
        None => Err(Status::invalid_argument("signer opts is required")),
    }
}

/// `rsa.PSSSaltLengthAuto`: the signer chooses, the verifier finds out.
const SALT_AUTO: i32 = 0;
/// `rsa.PSSSaltLengthEqualsHash`.
const SALT_AS_HASH: i32 = -1;

/// The hash that made the data; `None` where SPIRE names none, because the data is the message itself.
///
/// # Errors
/// `INVALID_ARGUMENT` for a hash that keyd does not sign.
fn hash(number: i32) -> Result<Option<Hash>, Status> {
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
    fn rsa_is_what_spire_calls_it_and_no_type_is_refused() {
        for (asked, algorithm) in
            [(KeyType::Rsa2048, Algorithm::Rsa2048), (KeyType::Rsa4096, Algorithm::Rsa4096)]
        {
            assert_eq!(wanted("JWT-Signer-A", asked as i32, None).unwrap(), algorithm);
            assert_eq!(key_type(algorithm), asked);
        }
        for none in [0, -1, 99] {
            assert_eq!(
                wanted("x509-CA-A", none, Some(Algorithm::MlDsa65)).unwrap_err().message(),
                "key type is required"
            );
        }
    }

    #[test]
    fn hashes_are_gos_numbers() {
        let read = |number| opts(Some(SignerOpts::HashAlgorithm(number)));
        assert_eq!(read(0).unwrap(), Opts::Message);
        assert_eq!(read(5).unwrap(), Opts::Digest(Hash::Sha256));
        assert_eq!(read(6).unwrap(), Opts::Digest(Hash::Sha384));
        assert_eq!(read(7).unwrap(), Opts::Digest(Hash::Sha512));
        assert!(read(11).unwrap_err().message().ends_with("not of SHA3_256"));
        assert!(read(3).unwrap_err().message().ends_with("not of 3"));
    }

    #[test]
    fn salts_as_long_as_the_digest_are_taken_and_others_refused() {
        let read = |salt_length, hash_algorithm| {
            opts(Some(SignerOpts::PssOptions(PssOptions { salt_length, hash_algorithm })))
        };
        for (salt, number, hash) in [(-1, 5, Hash::Sha256), (0, 6, Hash::Sha384), (64, 7, Hash::Sha512)] {
            assert_eq!(read(salt, number).unwrap(), Opts::Pss(hash));
        }
        for (salt, number) in [(20, 5), (64, 5), (-2, 5), (i32::MAX, 7), (-1, 0), (-1, 11)] {
            assert_eq!(read(salt, number).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
