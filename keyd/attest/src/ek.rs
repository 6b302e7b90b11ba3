//! Endorsement keys: the identity of a TPM.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::PublicKeyComponents;
use der::asn1::{ObjectIdentifier, UintRef};
use der::{Reader, SliceReader};
use keyd_core::{Algorithm, Hash, PublicKey};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::wire::{Attributes, Curve, Key, Public, Scheme};
use crate::{Refusal, kdf};

/// rsaEncryption (RFC 8017 annex A.1) and id-RSAES-OAEP (RFC 4055 §4), which some manufacturers write.
const RSA: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7"),
];
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The public half of an endorsement key: RSA-2048, RSA-3072, RSA-4096, P-256 or P-384.
///
/// The type of the key alone says which of the TCG's templates it was made from (EK Credential Profile 2.5, annex B),
/// so nothing that a node claims decides how a secret is encrypted to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkKey {
    spki: Vec<u8>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa { bits: usize },
    Ec { curve: Curve, point: Vec<u8> },
}

impl EkKey {
    /// The key of a TPMT_PUBLIC that a node sent, which must be made from the template for its type.
    ///
    /// # Errors
    /// [`Refusal::EkUnfit`].
    pub fn from_public(public: &Public) -> Result<Self, Refusal> {
        const MUST: Attributes = Attributes::FIXED_TPM
            .and(Attributes::FIXED_PARENT)
            .and(Attributes::SENSITIVE_DATA_ORIGIN)
            .and(Attributes::RESTRICTED)
            .and(Attributes::DECRYPT);
        const MUST_NOT: Attributes = Attributes::SIGN.and(Attributes::ENCRYPTED_DUPLICATION);

        let key = match &public.key {
            Key::Rsa { modulus } => Self::rsa(modulus, &RSA_EXPONENT)?,
            Key::Ecc { curve, point } => Self::ec(*curve, point)?,
        };
        if !public.attributes.has_all(MUST) || public.attributes.has_any(MUST_NOT) {
            return Err(Refusal::EkUnfit { why: "it is not a restricted decryption key fixed to its TPM" });
        }
        let template = (key.name_hash(), Some(key.symmetric_bits()), Scheme::Null);
        if (public.name_hash, public.symmetric_bits, public.scheme) != template {
            return Err(Refusal::EkUnfit {
                why: "its hash, cipher or scheme is not that of the TCG's template",
            });
        }
        Ok(key)
    }

    /// The key of a certificate.
    ///
    /// # Errors
    /// [`Refusal::EkUnfit`] for a type or size that keyd does not take.
    pub fn from_spki(spki: &SubjectPublicKeyInfoRef<'_>) -> Result<Self, Refusal> {
        let bits = spki.subject_public_key.as_bytes().unwrap_or_default();
        if RSA.contains(&spki.algorithm.oid) {
            let (modulus, exponent) =
                rsa_public_key(bits).map_err(|_| Refusal::EkUnfit { why: "its RSA key cannot be read" })?;
            return Self::rsa(modulus.as_bytes(), exponent.as_bytes());
        }
        let curve = spki.algorithm.parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        let ec = [Curve::P256, Curve::P384].into_iter().find(|c| curve == Some(c.oid()));
        match ec {
            Some(curve) if spki.algorithm.oid == EC_PUBLIC_KEY => Self::ec(curve, bits),
            _ => Err(Refusal::EkUnfit { why: "it is neither RSA nor on P-256 or P-384" }),
        }
    }

    /// DER SubjectPublicKeyInfo, written the same way wherever the key came from.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo, 32 bytes: what the TPM is known by.
    pub fn sha256(&self) -> [u8; 32] {
        kdf::sha256(&[&self.spki])
    }

    /// The hash of the key's template.
    pub(crate) const fn name_hash(&self) -> Hash {
        match self.kind {
            Kind::Rsa { bits: 2048 } | Kind::Ec { curve: Curve::P256, .. } => Hash::Sha256,
            Kind::Rsa { .. } | Kind::Ec { curve: Curve::P384, .. } => Hash::Sha384,
        }
    }

    /// Bits of the AES key of the key's template.
    pub(crate) const fn symmetric_bits(&self) -> u16 {
        match self.name_hash() {
            Hash::Sha256 => 128,
            Hash::Sha384 | Hash::Sha512 => 256,
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, Refusal> {
        let bits = 8 * modulus.len();
        if !matches!(bits, 2048 | 3072 | 4096) || exponent != RSA_EXPONENT {
            return Err(Refusal::EkUnfit {
                why: "its RSA key has not 2048, 3072 or 4096 bits and exponent 65537",
            });
        }
        let invalid = |_| Refusal::EkUnfit { why: "its RSA key is not valid" };
        let spki = PublicKeyComponents { n: modulus, e: exponent }.as_der().map_err(invalid)?;
        Ok(Self { spki: spki.as_ref().to_vec(), kind: Kind::Rsa { bits } })
    }

    fn ec(curve: Curve, point: &[u8]) -> Result<Self, Refusal> {
        let algorithm = match curve {
            Curve::P256 => Algorithm::EcP256,
            Curve::P384 => Algorithm::EcP384,
        };
        let key = PublicKey::from_raw(algorithm, point)
            .map_err(|_| Refusal::EkUnfit { why: "its point is not in uncompressed form" })?;
        Ok(Self { spki: key.spki().to_vec(), kind: Kind::Ec { curve, point: point.to_vec() } })
    }
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

impl Curve {
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
            Self::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
        }
    }
}

/// RSAPublicKey (RFC 8017 annex A.1.1): modulus and exponent.
pub(crate) fn rsa_public_key(der: &[u8]) -> der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let key = reader.sequence(|r| Ok::<_, der::Error>((r.decode()?, r.decode()?)))?;
    reader.finish()?;
    Ok(key)
}
