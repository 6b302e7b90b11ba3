//! Signature algorithms and the hashes that go with digests.

use std::fmt;
use std::str::FromStr;

use const_oid::ObjectIdentifier;
use const_oid::db::{fips204, rfc5912};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason, quoted};
use crate::suggest::nearest;

/// A key's algorithm, written `ml-dsa-65`, `ec-p256` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Algorithm {
    /// ML-DSA-44 (FIPS 204), security category 2.
    MlDsa44,
    /// ML-DSA-65 (FIPS 204), security category 3; the default.
    MlDsa65,
    /// ML-DSA-87 (FIPS 204), security category 5; the one CNSA 2.0 allows.
    MlDsa87,
    /// ECDSA over NIST P-256 (FIPS 186-5).
    EcP256,
    /// ECDSA over NIST P-384 (FIPS 186-5).
    EcP384,
}

impl Algorithm {
    /// Every algorithm, in the order help texts list them.
    pub const ALL: [Self; 5] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87, Self::EcP256, Self::EcP384];

    /// The name that configurations, commands and the API use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
        }
    }

    /// Whether this is one of the three parameter sets of ML-DSA, which sign whole messages and never a digest.
    pub const fn is_ml_dsa(self) -> bool {
        matches!(self, Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87)
    }

    /// Length in bytes of the secret from which the whole key follows: the 32-byte seed of ML-DSA
    /// (FIPS 204 §5.1), or the big-endian private scalar of an elliptic curve.
    pub const fn secret_len(self) -> usize {
        match self {
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 | Self::EcP256 => 32,
            Self::EcP384 => 48,
        }
    }

    /// Length in bytes of the raw public key inside the SubjectPublicKeyInfo: the encoded ML-DSA key
    /// (FIPS 204 table 2), or the uncompressed point `04 || x || y`.
    pub const fn public_len(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
            Self::EcP256 => 65,
            Self::EcP384 => 97,
        }
    }

    /// The hash that goes with the algorithm where a message is hashed before it is signed; `None` for ML-DSA.
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::EcP256 => Some(Hash::Sha256),
            Self::EcP384 => Some(Hash::Sha384),
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => None,
        }
    }

    /// Object identifier of a signature in a certificate or CSR: RFC 9881 for ML-DSA, RFC 5758 for ECDSA.
    pub const fn signature_oid(self) -> ObjectIdentifier {
        match self {
            Self::MlDsa44 => fips204::ID_ML_DSA_44,
            Self::MlDsa65 => fips204::ID_ML_DSA_65,
            Self::MlDsa87 => fips204::ID_ML_DSA_87,
            Self::EcP256 => rfc5912::ECDSA_WITH_SHA_256,
            Self::EcP384 => rfc5912::ECDSA_WITH_SHA_384,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = Failure;

    /// # Errors
    /// [`Reason::UnknownAlgorithm`], with the nearest name and the whole list.
    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::ALL.into_iter().find(|a| a.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let hint = nearest(text, names).map(|n| format!(" Did you mean {n}?")).unwrap_or_default();
            Failure::new(
                Reason::UnknownAlgorithm,
                format!("unknown algorithm {}.{hint} Known are {}.", quoted(text), names.join(", ")),
            )
        })
    }
}

impl TryFrom<String> for Algorithm {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<Algorithm> for String {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.name().to_owned()
    }
}

// === Hash ===

/// A hash whose digest an elliptic-curve key can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Hash {
    /// Length of the digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The hash in aws-lc-rs's terms.
    pub fn digest_algorithm(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }

    /// The digest of `message`.
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(self.digest_algorithm(), message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for a in Algorithm::ALL {
            assert_eq!(a.name().parse::<Algorithm>().unwrap(), a);
        }
    }

    #[test]
    fn unknown_name_is_refused_with_the_nearest() {
        let e = "ml-dsa65".parse::<Algorithm>().unwrap_err();
        assert_eq!(e.reason, Reason::UnknownAlgorithm);
        assert!(e.message.contains("Did you mean ml-dsa-65?"), "{e}");
    }

    #[test]
    fn a_huge_name_is_refused_in_few_words() {
        let e = "x".repeat(1 << 20).parse::<Algorithm>().unwrap_err();
        assert!(e.message.len() < 400, "{}", e.message.len());
    }
}
