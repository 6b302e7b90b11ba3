//! TPM2_MakeCredential in software (Part 1 §24): a secret that only the TPM with this endorsement key gives back, and
//! only while it also holds the attestation key.

use aws_lc_rs::cipher::{self, EncryptionContext};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::{agreement, error, rand};
use keyd_core::{Hash, Secret};
use zeroize::Zeroizing;

use crate::ek::{EkKey, Kind};
use crate::wire::{Curve, put_sized};
use crate::{Refusal, kdf};

const IDENTITY: &str = "IDENTITY";
/// The label of Part 1 §24.5 with its terminating zero, as OAEP takes it.
const OAEP_LABEL: &[u8] = b"IDENTITY\0";

/// What TPM2_ActivateCredential takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Contents of the TPM2B_ID_OBJECT.
    pub id_object: Vec<u8>,
    /// Contents of the TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

impl Credential {
    /// Encrypts `secret`, at most as long as the EK's name hash, to `ek` for the object with this Name.
    ///
    /// # Errors
    /// [`Refusal::EkUnfit`] for a point that is not on its curve.
    pub fn make(ek: &EkKey, name: &[u8], secret: &Secret) -> Result<Self, Refusal> {
        let hash = ek.name_hash();
        let hash_bits = 8 * u32::try_from(hash.digest_len()).unwrap_or_default();
        let (seed, encrypted_secret) = match &ek.kind {
            Kind::Rsa { .. } => rsa_seed(ek.spki(), hash)?,
            Kind::Ec { curve, point } => ec_seed(*curve, point, hash, hash_bits)?,
        };
        let storage = kdf::kdfa(hash, &seed, "STORAGE", name, ek.symmetric_bits().into());
        let integrity = kdf::kdfa(hash, &seed, "INTEGRITY", &[], hash_bits);

        let mut identity = Zeroizing::new(Vec::with_capacity(2 + secret.len()));
        put_sized(&mut identity, secret.expose())?;
        aes_cfb(&storage, &mut identity).map_err(|_| Refusal::Crypto { what: "AES-CFB" })?;

        let mut id_object = Vec::new();
        put_sized(&mut id_object, &kdf::hmac(hash, &integrity, &[&identity, name]))?;
        id_object.extend_from_slice(&identity);
        Ok(Self { id_object, encrypted_secret })
    }
}

/// A random seed, encrypted to an RSA key (Part 1 annex B.10.4).
fn rsa_seed(spki: &[u8], hash: Hash) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Refusal> {
    let crypto = |_| Refusal::Crypto { what: "RSA-OAEP" };
    let key = PublicEncryptingKey::from_der(spki)
        .map_err(|_| Refusal::EkUnfit { why: "its RSA key is not valid" })?;
    let key = OaepPublicEncryptingKey::new(key).map_err(crypto)?;
    let algorithm = match hash {
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        _ => &OAEP_SHA384_MGF1SHA384,
    };
    let mut seed = Zeroizing::new(vec![0; hash.digest_len()]);
    rand::fill(&mut seed).map_err(crypto)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let len = key.encrypt(algorithm, &seed, &mut encrypted, Some(OAEP_LABEL)).map_err(crypto)?.len();
    encrypted.truncate(len);
    Ok((seed, encrypted))
}

/// A seed agreed between an ephemeral key and an elliptic-curve key, and the ephemeral point (Part 1 annex C.6.1).
fn ec_seed(
    curve: Curve,
    point: &[u8],
    hash: Hash,
    bits: u32,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Refusal> {
    let crypto = |_| Refusal::Crypto { what: "ECDH" };
    let algorithm = match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
    };
    let ephemeral = agreement::PrivateKey::generate(algorithm).map_err(crypto)?;
    let public = ephemeral.compute_public_key().map_err(crypto)?;
    let (Some((x, y)), Some((ek_x, _))) = (coordinates(curve, public.as_ref()), coordinates(curve, point))
    else {
        return Err(Refusal::Crypto { what: "ECDH" });
    };
    let off_curve = Refusal::EkUnfit { why: "its point is not on the curve" };
    let peer = agreement::UnparsedPublicKey::new(algorithm, point);
    let seed =
        agreement::agree(&ephemeral, peer, off_curve, |z| Ok(kdf::kdfe(hash, z, IDENTITY, x, ek_x, bits)))?;
    let mut encoded = Vec::new();
    put_sized(&mut encoded, x)?;
    put_sized(&mut encoded, y)?;
    Ok((seed, encoded))
}

/// The coordinates of an uncompressed point.
fn coordinates(curve: Curve, point: &[u8]) -> Option<(&[u8], &[u8])> {
    match point.split_first() {
        Some((4, xy)) => xy.split_at_checked(curve.coordinate_len()),
        _ => None,
    }
}

/// AES-CFB with a zero IV (Part 1 §24.4); the key is used once.
fn aes_cfb(key: &[u8], buffer: &mut [u8]) -> Result<(), error::Unspecified> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        _ => &cipher::AES_256,
    };
    let key = cipher::EncryptingKey::cfb128(cipher::UnboundCipherKey::new(algorithm, key)?)?;
    key.less_safe_encrypt(buffer, EncryptionContext::Iv128([0; 16].into())).map(drop)
}
