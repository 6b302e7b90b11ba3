//! The operator's key pair, in the PEM that other tools read (RFC 9935).

use der::pem::{self, LineEnding};
use keyd_core::{Algorithm, PublicKey, Secret};
use keyd_softkey::SoftKey;
use zeroize::Zeroizing;

use crate::{Error, EscrowFile};

/// Longest PEM of a key, in bytes; the public key has 2200, or some more where text stands before it.
pub const PEM_LIMIT: usize = 16 * 1024;

/// What stands before the 64 bytes of the seed in a PKCS#8 private key of ML-KEM-1024 that holds the seed alone: version 0,
/// id-alg-ml-kem-1024, and the CHOICE `seed` (RFC 9935 §6). DER leaves no other way to write it.
const PRIVATE_PREFIX: [u8; 22] = [
    0x30, 0x54, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x04,
    0x03, 0x04, 0x42, 0x80, 0x40,
];
const SEED_LEN: usize = 64;
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// Whom an escrow is encrypted to: an ML-KEM-1024 public key of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(PublicKey);

/// The operator's private key. Who has it opens every escrow that was made for it.
pub struct OperatorKey(SoftKey);

impl Recipient {
    /// Reads a SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// [`Error::Recipient`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let refused = |why: String| Error::Recipient { why };
        if pem.len() > PEM_LIMIT {
            return Err(refused(format!("more than {PEM_LIMIT} bytes")));
        }
        let (label, der) = pem::decode_vec(pem).map_err(|e| refused(e.to_string()))?;
        if label != PUBLIC_LABEL {
            return Err(refused(format!("it holds a {label}")));
        }
        let key = PublicKey::from_spki(&der).map_err(|e| refused(e.message))?;
        if key.algorithm() != Algorithm::MlKem1024 {
            return Err(refused(format!("it is {}", key.algorithm())));
        }
        // What FIPS 203 §7.2 refuses is found now and not when the keys are lost.
        key.encapsulate().map_err(|e| refused(e.message))?;
        Ok(Self(key))
    }

    /// SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn to_pem(&self) -> Result<String, Error> {
        pem::encode_string(PUBLIC_LABEL, LineEnding::LF, self.0.spki())
            .map_err(|_| Error::Library { what: "write PEM" })
    }

    /// SHA-256 of the SubjectPublicKeyInfo, 32 bytes.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint()
    }

    pub(crate) fn encapsulate(&self) -> Result<(Vec<u8>, Secret), Error> {
        Ok(self.0.encapsulate()?)
    }
}

// === impl OperatorKey ===

impl OperatorKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// The random number generator's.
    pub fn generate() -> Result<Self, Error> {
        Self::from_seed(&SoftKey::generate_secret(Algorithm::MlKem1024)?)
    }

    fn from_seed(seed: &Secret) -> Result<Self, Error> {
        Ok(Self(SoftKey::from_secret(Algorithm::MlKem1024, seed)?))
    }

    /// Reads a PKCS#8 private key in PEM that holds the seed alone.
    ///
    /// # Errors
    /// [`Error::OperatorKey`].
    pub fn from_pem(pem: &Secret) -> Result<Self, Error> {
        let refused = |why| Error::OperatorKey { why };
        if pem.len() > PEM_LIMIT {
            return Err(refused("it is too long"));
        }
        let (label, der) = pem::decode_vec(pem.expose()).map_err(|_| refused("it is not PEM"))?;
        let der = Zeroizing::new(der);
        if label != PRIVATE_LABEL {
            return Err(refused("it holds something else, or an encrypted key"));
        }
        let seed = der.strip_prefix(&PRIVATE_PREFIX).filter(|seed| seed.len() == SEED_LEN);
        let seed = seed.ok_or_else(|| refused("it is another kind of key, or in another form"))?;
        Self::from_seed(&Secret::new(seed.to_vec()))
    }

    /// The PKCS#8 private key in PEM, with the seed alone.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn to_pem(&self) -> Result<Secret, Error> {
        let mut der = Zeroizing::new(Vec::with_capacity(PRIVATE_PREFIX.len() + SEED_LEN));
        der.extend_from_slice(&PRIVATE_PREFIX);
        der.extend_from_slice(self.0.secret().expose());
        pem::encode_string(PRIVATE_LABEL, LineEnding::LF, &der)
            .map(|pem| Secret::new(pem.into_bytes()))
            .map_err(|_| Error::Library { what: "write PEM" })
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.public_key().clone())
    }

    /// The secret that opens this one file, 32 bytes, and no other.
    ///
    /// # Errors
    /// [`Error::OtherRecipient`] for a file that was not made for this key.
    pub fn unlock(&self, file: &EscrowFile<'_>) -> Result<Secret, Error> {
        let (made_for, given) = (&file.header().recipient, self.recipient().fingerprint());
        if *made_for != given {
            let (made_for, given) = (hex::encode(made_for), hex::encode(given));
            return Err(Error::OtherRecipient { made_for, given });
        }
        Ok(self.0.decapsulate(file.encapsulated())?)
    }
}
