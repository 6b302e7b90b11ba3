//! Attestation keys and the quotes they sign.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use keyd_core::{Hash, crypto};

use crate::message::Response;
use crate::wire::{Attest, Attributes, Curve, Key, PcrSelection, Public, Scheme, Signature, hash_id};
use crate::{PcrSet, Refusal};

/// A public key that may be believed about a TPM, once credential activation has shown which TPM holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationKey {
    name: Vec<u8>,
    curve: Curve,
    point: Vec<u8>,
}

impl AttestationKey {
    /// Takes a key only if its TPM would sign nothing with it but what the TPM itself made.
    ///
    /// # Errors
    /// [`Refusal::AkUnfit`] for a key that the host could sign anything with, or that could leave its TPM, and for one
    /// that is not ECDSA over P-256 with SHA-256 or P-384 with SHA-384.
    pub fn from_public(public: &Public) -> Result<Self, Refusal> {
        const UNMOVABLE: Attributes = Attributes::FIXED_TPM.and(Attributes::FIXED_PARENT);
        const MIXED: Attributes =
            Attributes::DECRYPT.and(Attributes::ENCRYPTED_DUPLICATION).and(Attributes::X509_SIGN);
        let demands = [
            (public.attributes.has_all(UNMOVABLE), "it may leave its TPM (fixedTPM, fixedParent)"),
            (
                public.attributes.has_all(Attributes::SENSITIVE_DATA_ORIGIN),
                "it was made outside a TPM (sensitiveDataOrigin)",
            ),
            (public.attributes.has_all(Attributes::SIGN), "it does not sign"),
            (
                public.attributes.has_all(Attributes::RESTRICTED),
                "it is not restricted, so its host can have it sign a made-up quote",
            ),
            (!public.attributes.has_any(MIXED), "it is for more than attestation (decrypt, x509sign)"),
            (public.symmetric_bits.is_none(), "it has a cipher, as a storage key does"),
        ];
        if let Some((_, why)) = demands.into_iter().find(|(met, _)| !met) {
            return Err(Refusal::AkUnfit { why });
        }
        match (&public.key, public.scheme) {
            (Key::Ecc { curve: curve @ Curve::P256, point }, Scheme::Ecdsa(Hash::Sha256))
            | (Key::Ecc { curve: curve @ Curve::P384, point }, Scheme::Ecdsa(Hash::Sha384)) => {
                Ok(Self { name: public.name(), curve: *curve, point: point.clone() })
            }
            _ => Err(Refusal::AkUnfit {
                why: "it is not ECDSA over P-256 with SHA-256, or P-384 with SHA-384",
            }),
        }
    }

    /// Its Name (Part 1 §16).
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Checks that `response` holds a quote that this key's TPM made, over exactly `pcrs` of the SHA-256 bank, with this
    /// qualifying data, and that the PCR values in it are the quoted ones.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn check(
        &self,
        response: &Response,
        qualifying_data: &[u8; 32],
        pcrs: PcrSet,
    ) -> Result<(), Refusal> {
        // Nothing is read from the structure before its signature holds.
        self.verify(&response.attest, &response.signature)?;
        let attest = Attest::parse(&response.attest)?;
        verify_slices_are_equal(attest.extra_data, qualifying_data).map_err(|_| Refusal::NotBound)?;
        let selection = PcrSelection { bank: hash_id(Hash::Sha256), pcrs };
        if attest.selections != [selection] || response.pcrs.set() != pcrs {
            return Err(Refusal::PcrSelection { expected: pcrs.to_string() });
        }
        let values: Vec<&[u8]> = response.pcrs.iter().map(|(_, value)| value.as_slice()).collect();
        match crypto::digest(self.hash(), &values) == attest.pcr_digest {
            true => Ok(()),
            false => Err(Refusal::PcrDigest),
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let signature = Signature::parse(signature)?;
        let algorithm: &EcdsaVerificationAlgorithm = match self.curve {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        };
        let (Some(r), Some(s)) = (self.curve.pad(signature.r), self.curve.pad(signature.s)) else {
            return Err(Refusal::Signature);
        };
        if signature.hash != self.hash() {
            return Err(Refusal::Signature);
        }
        let key = UnparsedPublicKey::new(algorithm, &self.point);
        key.verify(message, &[r, s].concat()).map_err(|_| Refusal::Signature)
    }

    /// The hash of its scheme, which also makes the PCR digest (Part 3 §18.4).
    const fn hash(&self) -> Hash {
        match self.curve {
            Curve::P256 => Hash::Sha256,
            Curve::P384 => Hash::Sha384,
        }
    }
}
