//! A TPM in software: as much of one as attestation asks, and able to lie where a TPM would not.

use aws_lc_rs::agreement;
use aws_lc_rs::cipher::{self, DecryptionContext};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use der::Decode;
use der::referenced::OwnedToRef;
use keyd_core::{Hash, Secret, crypto};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::wire::put_sized;
use crate::{Credential, EkKey, PcrValues, kdf, node};

pub const AK_ATTRIBUTES: u32 = 0x0005_0072;
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;
const SHA256: u16 = 0x000b;
const SHA384: u16 = 0x000c;

/// Which endorsement key the model has.
#[derive(Clone, Copy, Debug)]
pub enum Ek {
    Rsa2048,
    P256,
    P384,
}

pub struct SoftTpm {
    ek: EkPrivate,
    ak: EcdsaKeyPair,
    ak_curve: u16,
    pub ak_attributes: u32,
    /// What TPM2_Quote writes in front; TPM_GENERATED_VALUE on a real one.
    pub magic: u32,
    pub kind: u16,
    pub bank: u16,
    pub pcrs: Vec<(u8, [u8; 32])>,
}

enum EkPrivate {
    Rsa(PrivateDecryptingKey),
    Ec(Ek, agreement::PrivateKey),
}

impl SoftTpm {
    pub fn new(ek: Ek) -> Self {
        let ec = |algorithm| EkPrivate::Ec(ek, agreement::PrivateKey::generate(algorithm).unwrap());
        let ek = match ek {
            Ek::Rsa2048 => EkPrivate::Rsa(PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap()),
            Ek::P256 => ec(&agreement::ECDH_P256),
            Ek::P384 => ec(&agreement::ECDH_P384),
        };
        Self {
            ek,
            ak: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ak_curve: 3,
            ak_attributes: AK_ATTRIBUTES,
            magic: 0xff54_4347,
            kind: 0x8018,
            bank: SHA256,
            pcrs: (0..24).map(|i| (i, [i; 32])).collect(),
        }
    }

    /// The same, its attestation key on P-384.
    pub fn with_p384_ak(mut self) -> Self {
        self.ak = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        self.ak_curve = 4;
        self
    }

    pub fn ek_public(&self) -> Vec<u8> {
        self.ek_public_with(EK_ATTRIBUTES)
    }

    pub fn ek_public_with(&self, attributes: u32) -> Vec<u8> {
        let (hash, bits) = match self.ek {
            EkPrivate::Ec(Ek::P384, _) => (SHA384, 256u16),
            _ => (SHA256, 128),
        };
        let symmetric = [6u16.to_be_bytes(), bits.to_be_bytes(), 0x43u16.to_be_bytes()].concat();
        match &self.ek {
            EkPrivate::Rsa(key) => {
                let spki = AsDer::as_der(&key.public_key()).unwrap();
                rsa_public(hash, attributes, &symmetric, &modulus(spki.as_ref()))
            }
            EkPrivate::Ec(ek, key) => {
                let point = key.compute_public_key().unwrap();
                let curve = if matches!(ek, Ek::P256) { 3 } else { 4 };
                ecc_public(hash, attributes, &symmetric, &[0, 0x10], curve, point.as_ref())
            }
        }
    }

    pub fn ek_spki(&self) -> SubjectPublicKeyInfoOwned {
        let der = match &self.ek {
            EkPrivate::Rsa(key) => AsDer::as_der(&key.public_key()).unwrap().as_ref().to_vec(),
            EkPrivate::Ec(_, key) => key.compute_public_key().unwrap().as_der().unwrap().as_ref().to_vec(),
        };
        SubjectPublicKeyInfoOwned::from_der(&der).unwrap()
    }

    pub fn ek_sha256(&self) -> [u8; 32] {
        EkKey::from_spki(&self.ek_spki().owned_to_ref()).unwrap().sha256()
    }

    pub fn ak_public(&self) -> Vec<u8> {
        let hash = self.ak_hash_id();
        let scheme = [0x18u16.to_be_bytes(), hash.to_be_bytes()].concat();
        ecc_public(
            SHA256,
            self.ak_attributes,
            &[0, 0x10],
            &scheme,
            self.ak_curve,
            self.ak.public_key().as_ref(),
        )
    }

    pub fn ak_name(&self) -> Vec<u8> {
        crate::wire::Public::parse(&self.ak_public()).unwrap().name()
    }

    /// TPM2_ActivateCredential; `None` where a TPM would answer with an error.
    pub fn activate(&self, credential: &Credential) -> Option<Secret> {
        let (hash, bits, seed) = match &self.ek {
            EkPrivate::Rsa(key) => {
                let key = OaepPrivateDecryptingKey::new(key.clone()).unwrap();
                let mut seed = vec![0; key.min_output_size()];
                let label = Some(b"IDENTITY\0".as_slice());
                let seed =
                    key.decrypt(&OAEP_SHA256_MGF1SHA256, &credential.encrypted_secret, &mut seed, label);
                (Hash::Sha256, 128, seed.ok()?.to_vec())
            }
            EkPrivate::Ec(ek, key) => {
                let (len, hash, bits) = match ek {
                    Ek::P384 => (48, Hash::Sha384, 256),
                    _ => (32, Hash::Sha256, 128),
                };
                let encoded = &credential.encrypted_secret;
                assert_eq!(encoded.len(), 2 * (2 + len), "two TPM2B coordinates");
                let (x, y) = (&encoded[2..2 + len], &encoded[4 + len..]);
                let point = [&[4], x, y].concat();
                let own = key.compute_public_key().unwrap();
                let peer = agreement::UnparsedPublicKey::new(key.algorithm(), point);
                let seed_bits = u32::try_from(8 * hash.digest_len()).unwrap();
                let derive = |z: &[u8]| {
                    Ok(kdf::kdfe(hash, z, "IDENTITY", x, &own.as_ref()[1..1 + len], seed_bits).to_vec())
                };
                (hash, bits, agreement::agree(key, peer, (), derive).ok()?)
            }
        };
        let name = self.ak_name();
        let (mac, encrypted) = credential.id_object[2..].split_at(hash.digest_len());
        let hash_bits = u32::try_from(8 * hash.digest_len()).unwrap();
        let integrity = kdf::kdfa(hash, &seed, "INTEGRITY", &[], hash_bits);
        if kdf::hmac(hash, &integrity, &[encrypted, &name]) != mac {
            return None;
        }
        let storage = kdf::kdfa(hash, &seed, "STORAGE", &name, bits);
        let algorithm = if bits == 128 { &cipher::AES_128 } else { &cipher::AES_256 };
        let key = cipher::UnboundCipherKey::new(algorithm, &storage).unwrap();
        let key = cipher::DecryptingKey::cfb128(key).unwrap();
        let mut plain = encrypted.to_vec();
        key.decrypt(&mut plain, DecryptionContext::Iv128([0; 16].into())).unwrap();
        Some(Secret::new(plain[2..].to_vec()))
    }

    /// TPM2_Quote: TPMS_ATTEST, TPMT_SIGNATURE and the values.
    pub fn quote(&self, request: &node::QuoteRequest) -> (Vec<u8>, Vec<u8>, PcrValues) {
        let values = PcrValues::new(request.pcrs.iter().map(|i| self.pcrs[usize::from(*i)])).unwrap();
        let concatenated: Vec<u8> = values.iter().flat_map(|(_, v)| *v).collect();
        let digest = crypto::digest(self.ak_hash(), &[&concatenated]);

        let mut attest = [&self.magic.to_be_bytes()[..], &self.kind.to_be_bytes()].concat();
        put_sized(&mut attest, &[0; 34]).unwrap();
        put_sized(&mut attest, &request.qualifying_data).unwrap();
        attest.extend([0; 17 + 8]);
        attest.extend([0, 0, 0, 1]);
        attest.extend(self.bank.to_be_bytes());
        let bitmap: u32 = request.pcrs.iter().map(|i| 1 << i).sum();
        attest.push(3);
        attest.extend(&bitmap.to_le_bytes()[..3]);
        put_sized(&mut attest, &digest).unwrap();
        let signature = self.sign(&attest);
        (attest, signature, values)
    }

    /// TPMT_SIGNATURE over whatever it is given, which a restricted key of a real TPM refuses.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.ak.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
        let mut out = [0x18u16.to_be_bytes(), self.ak_hash_id().to_be_bytes()].concat();
        put_sized(&mut out, r).unwrap();
        put_sized(&mut out, s).unwrap();
        out
    }

    fn ak_hash(&self) -> Hash {
        if self.ak_curve == 3 { Hash::Sha256 } else { Hash::Sha384 }
    }

    fn ak_hash_id(&self) -> u16 {
        crate::wire::hash_id(self.ak_hash())
    }
}

pub fn ecc_public(
    name_hash: u16,
    attributes: u32,
    symmetric: &[u8],
    scheme: &[u8],
    curve: u16,
    point: &[u8],
) -> Vec<u8> {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let mut out = [&0x23u16.to_be_bytes()[..], &name_hash.to_be_bytes(), &attributes.to_be_bytes()].concat();
    out.extend([0, 0]);
    out.extend(symmetric);
    out.extend(scheme);
    out.extend(curve.to_be_bytes());
    out.extend([0, 0x10]);
    put_sized(&mut out, x).unwrap();
    put_sized(&mut out, y).unwrap();
    out
}

fn rsa_public(name_hash: u16, attributes: u32, symmetric: &[u8], modulus: &[u8]) -> Vec<u8> {
    let mut out = [&1u16.to_be_bytes()[..], &name_hash.to_be_bytes(), &attributes.to_be_bytes()].concat();
    out.extend([0, 0]);
    out.extend(symmetric);
    out.extend([0, 0x10]);
    out.extend(u16::try_from(8 * modulus.len()).unwrap().to_be_bytes());
    out.extend([0; 4]);
    put_sized(&mut out, modulus).unwrap();
    out
}

fn modulus(spki: &[u8]) -> Vec<u8> {
    let spki = SubjectPublicKeyInfoOwned::from_der(spki).unwrap();
    let key = spki.subject_public_key.as_bytes().unwrap();
    let (modulus, _) = crate::ek::rsa_public_key(key).unwrap();
    modulus.as_bytes().to_vec()
}
