//! The algorithms of keys: their names, sizes, and what each can do.

use std::fmt;
use std::str::FromStr;

use const_oid::ObjectIdentifier;
use const_oid::db::{fips204, rfc5912};
use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::failure::{Failure, Reason, quoted};
use crate::suggest::nearest;

/// Length in bytes of what ML-KEM agrees upon (FIPS 203 §8).
pub const SHARED_SECRET_LEN: usize = 32;

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
    /// RSA signatures (RFC 8017), modulus of 2048 bits, public exponent 65537.
    Rsa2048,
    /// RSA signatures (RFC 8017), modulus of 3072 bits, public exponent 65537.
    Rsa3072,
    /// RSA signatures (RFC 8017), modulus of 4096 bits, public exponent 65537.
    Rsa4096,
    /// ML-KEM-768 (FIPS 203), security category 3.
    MlKem768,
    /// ML-KEM-1024 (FIPS 203), security category 5; the one CNSA 2.0 allows.
    MlKem1024,
}

/// What algorithms of one kind have in common: how their keys are made and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Signs whole messages, pure, with an empty context (FIPS 204 §5.2).
    MlDsa,
    /// Signs messages, and digests that the caller computed.
    Ec,
    /// Signs digests, with the padding that the caller asks for.
    Rsa,
    /// Decapsulates shared secrets; signs nothing.
    MlKem,
}

impl Algorithm {
    /// Every algorithm, in the order help texts list them.
    pub const ALL: [Self; 10] = [
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
        Self::EcP256,
        Self::EcP384,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    /// The name that configurations, commands and the API use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::MlKem768 => "ml-kem-768",
            Self::MlKem1024 => "ml-kem-1024",
        }
    }

    /// The kind of algorithm that this is.
    pub const fn family(self) -> Family {
        match self {
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => Family::MlDsa,
            Self::EcP256 | Self::EcP384 => Family::Ec,
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => Family::Rsa,
            Self::MlKem768 | Self::MlKem1024 => Family::MlKem,
        }
    }

    /// Whether this is one of the three parameter sets of ML-DSA, which sign whole messages and never a digest.
    pub const fn is_ml_dsa(self) -> bool {
        matches!(self.family(), Family::MlDsa)
    }

    /// Whether its keys sign.
    pub const fn signs(self) -> bool {
        !self.decapsulates()
    }

    /// Whether its keys sign whole messages, as certificates, CSRs and TLS handshakes want it.
    pub const fn signs_messages(self) -> bool {
        matches!(self.family(), Family::MlDsa | Family::Ec)
    }

    /// Whether its keys decapsulate.
    pub const fn decapsulates(self) -> bool {
        matches!(self.family(), Family::MlKem)
    }

    /// Length in bytes of the secret from which the whole key follows: the seed of ML-DSA (FIPS 204 §5.1), the seed
    /// `d || z` of ML-KEM (FIPS 203 §7.1), or the big-endian private scalar of an elliptic curve. `None` for RSA, whose
    /// private key follows from nothing short.
    pub const fn secret_len(self) -> Option<usize> {
        match self {
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 | Self::EcP256 => Some(32),
            Self::EcP384 => Some(48),
            Self::MlKem768 | Self::MlKem1024 => Some(64),
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => None,
        }
    }

    /// Length in bytes of the raw public key inside the SubjectPublicKeyInfo: the encoded ML-DSA key (FIPS 204 table 2)
    /// or ML-KEM encapsulation key (FIPS 203 table 3), the uncompressed point `04 || x || y`, or the DER RSAPublicKey
    /// (RFC 8017 §A.1.1).
    pub const fn public_len(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
            Self::EcP256 => 65,
            Self::EcP384 => 97,
            Self::Rsa2048 => 270,
            Self::Rsa3072 => 398,
            Self::Rsa4096 => 526,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Length in bytes of an ML-KEM ciphertext (FIPS 203 table 3); `None` where there are none.
    pub const fn ciphertext_len(self) -> Option<usize> {
        match self {
            Self::MlKem768 => Some(1088),
            Self::MlKem1024 => Some(1568),
            _ => None,
        }
    }

    /// Length in bits of an RSA modulus; `None` for another algorithm.
    pub const fn modulus_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            _ => None,
        }
    }

    /// The hash that goes with an elliptic curve where a message is hashed before it is signed; `None` for all others.
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::EcP256 => Some(Hash::Sha256),
            Self::EcP384 => Some(Hash::Sha384),
            _ => None,
        }
    }

    /// Object identifier of a signature over a whole message, as certificates and CSRs have it: RFC 9881 for ML-DSA,
    /// RFC 5758 for ECDSA. `None` for RSA, which signs digests here, and for ML-KEM, which does not sign.
    pub const fn signature_oid(self) -> Option<ObjectIdentifier> {
        match self {
            Self::MlDsa44 => Some(fips204::ID_ML_DSA_44),
            Self::MlDsa65 => Some(fips204::ID_ML_DSA_65),
            Self::MlDsa87 => Some(fips204::ID_ML_DSA_87),
            Self::EcP256 => Some(rfc5912::ECDSA_WITH_SHA_256),
            Self::EcP384 => Some(rfc5912::ECDSA_WITH_SHA_384),
            _ => None,
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
