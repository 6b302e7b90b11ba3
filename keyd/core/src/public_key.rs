//! Public keys: SubjectPublicKeyInfo in, SubjectPublicKeyInfo out, and verification.

use std::fmt;

use const_oid::db::{fips203, fips204, rfc5912};
use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::{Algorithm, Failure, Family, Hash, Reason, Secret, SignInput, crypto};

/// Longest SubjectPublicKeyInfo taken, in bytes; ML-DSA-87 needs 2614.
const SPKI_LIMIT: usize = 4096;

/// A public key of one of keyd's algorithms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    algorithm: Algorithm,
    raw: Vec<u8>,
    spki: Vec<u8>,
}

/// A signature that does not verify. It says no more than that, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 §4.1, RFC 9881 §4, RFC 5480 §2, RFC 3279 §2.3.1, RFC 9935 §4).
    ///
    /// # Errors
    /// [`Reason::UnknownAlgorithm`] for a key of another kind, [`Reason::BadRequest`] for DER that is not one.
    pub fn from_spki(der: &[u8]) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(Reason::BadRequest, format!("not a SubjectPublicKeyInfo: {why}"));
        if der.len() > SPKI_LIMIT {
            return Err(bad("too long"));
        }
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|e| bad(&e.to_string()))?;
        let raw = spki.subject_public_key.as_bytes().ok_or_else(|| bad("unused bits in the key"))?;
        let unknown = |what: &str| {
            Failure::new(Reason::UnknownAlgorithm, format!("public key of {what}, which keyd does not use"))
        };
        let mut fitting = Algorithm::ALL.into_iter().filter(|a| key_identifier(*a) == spki.algorithm);
        let algorithm =
            fitting.next().ok_or_else(|| unknown(&format!("algorithm {}", spki.algorithm.oid)))?;
        if algorithm.family() != Family::Rsa {
            return Self::from_raw(algorithm, raw);
        }
        // The identifier of RSA does not tell the size.
        [algorithm].into_iter().chain(fitting).find_map(|a| Self::from_raw(a, raw).ok()).ok_or_else(|| {
            unknown(
                "RSA with another modulus than of 2048, 3072 or 4096 bits, or another exponent than 65537",
            )
        })
    }

    /// Takes the raw public key: the encoded ML-DSA key (FIPS 204 §7.2) or ML-KEM encapsulation key (FIPS 203 §7.1), the
    /// uncompressed point, or the DER RSAPublicKey (RFC 8017 §A.1.1).
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a wrong length, a compressed point, or RSA with an exponent other than 65537.
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, Failure> {
        let well_formed = match algorithm.family() {
            Family::MlDsa | Family::MlKem => true,
            Family::Ec => raw.first() == Some(&4),
            Family::Rsa => is_rsa_key(raw),
        };
        if raw.len() != algorithm.public_len() || !well_formed {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "not an {algorithm} public key, which has {} bytes; this one has {}",
                    algorithm.public_len(),
                    raw.len()
                ),
            ));
        }
        let spki = encode_spki(algorithm, raw)
            .map_err(|e| Failure::new(Reason::Internal, format!("cannot encode a public key: {e}")))?;
        Ok(Self { algorithm, raw: raw.to_vec(), spki })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw key, as [`PublicKey::from_raw`] takes it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 over the DER SubjectPublicKeyInfo, 32 bytes: the key's fingerprint.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(&Hash::Sha256.digest(&self.spki));
        out
    }

    /// Verifies a signature as [`crate::Vault::sign`] gives it.
    ///
    /// # Errors
    /// [`SignatureError`] whatever is wrong.
    pub fn verify(&self, input: SignInput<'_>, signature: &[u8]) -> Result<(), SignatureError> {
        input.check(self.algorithm).map_err(|_| SignatureError)?;
        crypto::verify(self.algorithm, &self.raw, input, signature)
    }

    /// Agrees upon a secret with whoever holds the private key (ML-KEM, FIPS 203 §7.2): a ciphertext for him, and the
    /// secret of [`crate::SHARED_SECRET_LEN`] bytes.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a key that is not one of ML-KEM, or is one that FIPS 203 refuses.
    pub fn encapsulate(&self) -> Result<(Vec<u8>, Secret), Failure> {
        if !self.algorithm.decapsulates() {
            let why = format!("{} keys encapsulate nothing", self.algorithm);
            return Err(Failure::new(Reason::BadRequest, why));
        }
        crypto::encapsulate(self.algorithm, &self.raw)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, sha256 {})", self.algorithm, hex::encode(self.fingerprint()))
    }
}

/// The algorithm identifier of a key: RFC 9881 §2, RFC 5480 §2.1.1, RFC 3279 §2.3.1, RFC 9935 §3.
fn key_identifier(algorithm: Algorithm) -> AlgorithmIdentifierRef<'static> {
    let (oid, parameters) = match algorithm {
        Algorithm::MlDsa44 => (fips204::ID_ML_DSA_44, None),
        Algorithm::MlDsa65 => (fips204::ID_ML_DSA_65, None),
        Algorithm::MlDsa87 => (fips204::ID_ML_DSA_87, None),
        Algorithm::EcP256 => (rfc5912::ID_EC_PUBLIC_KEY, Some(AnyRef::from(&rfc5912::SECP_256_R_1))),
        Algorithm::EcP384 => (rfc5912::ID_EC_PUBLIC_KEY, Some(AnyRef::from(&rfc5912::SECP_384_R_1))),
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            (rfc5912::RSA_ENCRYPTION, Some(AnyRef::NULL))
        }
        Algorithm::MlKem768 => (fips203::ID_ALG_ML_KEM_768, None),
        Algorithm::MlKem1024 => (fips203::ID_ALG_ML_KEM_1024, None),
    };
    AlgorithmIdentifierRef { oid, parameters }
}

fn encode_spki(algorithm: Algorithm, raw: &[u8]) -> der::Result<Vec<u8>> {
    SubjectPublicKeyInfoRef {
        algorithm: key_identifier(algorithm),
        subject_public_key: BitStringRef::from_bytes(raw)?,
    }
    .to_der()
}

/// Whether this is a DER RSAPublicKey with an odd modulus and the exponent 65537.
fn is_rsa_key(der: &[u8]) -> bool {
    let Ok(numbers) = Vec::<UintRef<'_>>::from_der(der) else { return false };
    matches!(numbers.as_slice(), [n, e]
        if n.as_bytes().last().is_some_and(|b| b % 2 == 1) && e.as_bytes() == [1, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for algorithm in Algorithm::ALL.into_iter().filter(|a| a.family() != Family::Rsa) {
            let mut raw = vec![7; algorithm.public_len()];
            raw[0] = 4;
            let public = PublicKey::from_raw(algorithm, &raw).unwrap();
            assert_eq!(PublicKey::from_spki(public.spki()).unwrap(), public);
            assert_eq!((public.algorithm(), public.raw()), (algorithm, raw.as_slice()));
        }
    }

    #[test]
    fn damaged_and_foreign_keys_are_refused() {
        let public = PublicKey::from_raw(Algorithm::MlDsa65, &[7; 1952]).unwrap();
        let cut = public.spki().split_last().unwrap().1;
        assert_eq!(PublicKey::from_spki(cut).unwrap_err().reason, Reason::BadRequest);
        assert!(PublicKey::from_spki(&[]).is_err());
        assert!(PublicKey::from_raw(Algorithm::MlDsa44, public.raw()).is_err());
        assert!(PublicKey::from_raw(Algorithm::EcP256, &[2; 65]).is_err(), "no compressed form");
        let ed25519 = hex::decode("302a300506032b6570032100").unwrap();
        let ed25519 = [ed25519, vec![7; 32]].concat();
        assert_eq!(PublicKey::from_spki(&ed25519).unwrap_err().reason, Reason::UnknownAlgorithm);
    }

    #[test]
    fn rsa_of_other_sizes_and_exponents_is_unknown() {
        let rsa = |modulus_len: u16, exponent: &[u8]| {
            let mut modulus = vec![0xc1; modulus_len.into()];
            modulus.insert(0, 0);
            let integer = |bytes: &[u8]| {
                [&[2, 0x82][..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
            };
            let short = [&[2, u8::try_from(exponent.len()).unwrap()][..], exponent].concat();
            let both = [integer(&modulus), short].concat();
            [&[0x30, 0x82][..], &u16::try_from(both.len()).unwrap().to_be_bytes(), &both].concat()
        };
        let read = |raw: &[u8]| PublicKey::from_spki(&encode_spki(Algorithm::Rsa2048, raw).unwrap());
        for (len, algorithm) in
            [(256, Algorithm::Rsa2048), (384, Algorithm::Rsa3072), (512, Algorithm::Rsa4096)]
        {
            assert_eq!(read(&rsa(len, &[1, 0, 1])).unwrap().algorithm(), algorithm);
        }
        for raw in [rsa(255, &[1, 0, 1]), rsa(257, &[1, 0, 1]), rsa(256, &[3]), rsa(256, &[1, 0, 3]), vec![]]
        {
            assert_eq!(read(&raw).unwrap_err().reason, Reason::UnknownAlgorithm);
        }
    }
}
