//! What is to be signed or decapsulated, and which algorithm does it.

use crate::{Algorithm, Failure, Family, Hash, Reason};

/// What is to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInput<'a> {
    /// A whole message. ML-DSA signs it pure with an empty context (FIPS 204 §5.2); an elliptic curve signs its
    /// digest under the algorithm's own hash.
    Message(&'a [u8]),
    /// A digest that the caller computed; elliptic curves alone.
    Digest {
        /// The hash that made it.
        hash: Hash,
        /// The digest, as long as the hash gives.
        digest: &'a [u8],
    },
    /// A digest that the caller computed, and how it is padded; RSA alone.
    RsaDigest {
        /// How it is padded.
        padding: RsaPadding,
        /// The hash that made it.
        hash: Hash,
        /// The digest, as long as the hash gives.
        digest: &'a [u8],
    },
}

/// How RSA pads a digest. Nothing in a key says which one its verifiers expect, so the caller must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaPadding {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2).
    Pkcs1v15,
    /// RSASSA-PSS (RFC 8017 §8.1): MGF1 with the digest's hash, a salt as long as the digest.
    Pss,
}

impl SignInput<'_> {
    /// Refuses what a key of this algorithm does not sign.
    ///
    /// # Errors
    /// [`Reason::BadRequest`], saying what it signs instead.
    pub fn check(&self, algorithm: Algorithm) -> Result<(), Failure> {
        match (self, algorithm.family()) {
            (_, Family::MlKem) => Err(bad(format!("{algorithm} keys decapsulate and do not sign"))),
            (Self::Message(_), Family::MlDsa | Family::Ec) => Ok(()),
            (Self::Digest { hash, digest }, Family::Ec)
            | (Self::RsaDigest { hash, digest, .. }, Family::Rsa) => check_length(*hash, digest),
            (_, Family::MlDsa) => Err(bad(format!("{algorithm} signs whole messages, not digests"))),
            (_, Family::Rsa) => {
                Err(bad(format!("{algorithm} signs a digest with a padding: give both, PKCS#1 v1.5 or PSS")))
            }
            (Self::RsaDigest { .. }, Family::Ec) => {
                Err(bad(format!("{algorithm} signatures have no padding")))
            }
        }
    }
}

impl Algorithm {
    /// Refuses what a key of this algorithm does not decapsulate. A ciphertext of the right length always opens to
    /// something (FIPS 203 §6.3), so nothing more can be told of it.
    ///
    /// # Errors
    /// [`Reason::BadRequest`], with both lengths, or for a key that does not decapsulate.
    pub fn check_ciphertext(self, ciphertext: &[u8]) -> Result<(), Failure> {
        match self.ciphertext_len() {
            Some(expected) if expected == ciphertext.len() => Ok(()),
            Some(expected) => {
                Err(bad(format!("an {self} ciphertext has {expected} bytes, this one {}", ciphertext.len())))
            }
            None => Err(bad(format!("{self} keys sign and do not decapsulate"))),
        }
    }
}

fn check_length(hash: Hash, digest: &[u8]) -> Result<(), Failure> {
    if digest.len() == hash.digest_len() {
        return Ok(());
    }
    Err(bad(format!("the digest has {} bytes where its hash gives {}", digest.len(), hash.digest_len())))
}

fn bad(why: String) -> Failure {
    Failure::new(Reason::BadRequest, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_signs_its_own_kind_of_input_and_no_other() {
        let digest = &[7; 32][..];
        let hash = Hash::Sha256;
        let inputs = [
            SignInput::Message(b"m"),
            SignInput::Digest { hash, digest },
            SignInput::RsaDigest { padding: RsaPadding::Pkcs1v15, hash, digest },
            SignInput::RsaDigest { padding: RsaPadding::Pss, hash, digest },
        ];
        for algorithm in Algorithm::ALL {
            let taken = inputs.map(|input| input.check(algorithm).is_ok());
            let expected = match algorithm.family() {
                Family::MlDsa => [true, false, false, false],
                Family::Ec => [true, true, false, false],
                Family::Rsa => [false, false, true, true],
                Family::MlKem => [false; 4],
            };
            assert_eq!(taken, expected, "{algorithm}");
        }
    }

    #[test]
    fn a_ciphertext_of_another_length_or_for_another_kind_of_key_is_refused() {
        for algorithm in Algorithm::ALL {
            for len in [0, 1087, 1088, 1089, 1568] {
                let fits = algorithm.ciphertext_len() == Some(len);
                assert_eq!(algorithm.check_ciphertext(&vec![0; len]).is_ok(), fits, "{algorithm} {len}");
            }
        }
    }

    #[test]
    fn a_digest_of_another_length_is_refused_with_both_lengths() {
        let input = SignInput::Digest { hash: Hash::Sha384, digest: &[0; 32] };
        let refused = input.check(Algorithm::EcP256).unwrap_err();
        assert!(refused.message.contains("32 bytes where its hash gives 48"), "{refused}");
    }
}
