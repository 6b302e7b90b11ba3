//! How a token knows each algorithm: by the standard's numbers or by its vendor's.

use std::ffi::c_ulong;

use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, KeyType, MlDsaParameterSetType, MlKemParameterSetType, ParameterSetType,
};
use keyd_core::{Algorithm, Family};

use crate::error::Error;
use crate::mechanisms::Mechanisms;
use crate::rsa;
use crate::wire::Pss;

/// DER of the object identifiers of the named curves (RFC 5480 §2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// The numbers of one token.
pub(super) struct Dialect {
    mechanisms: Mechanisms,
}

impl Dialect {
    pub fn new(mechanisms: Mechanisms) -> Self {
        Self { mechanisms }
    }

    /// The mechanisms that a token must have for keys of an algorithm: the one that makes them first.
    pub fn needed(&self, algorithm: Algorithm) -> Result<Vec<MechanismType>, Error> {
        let family = algorithm.family();
        if let Some(numbers) = self.mechanisms.vendor(family) {
            return [numbers.key_pair_gen, numbers.operation].into_iter().map(mechanism_type).collect();
        }
        Ok(match family {
            Family::MlDsa => vec![MechanismType::ML_DSA_KEY_PAIR_GEN, MechanismType::ML_DSA],
            Family::Ec => vec![MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA],
            Family::Rsa => vec![
                MechanismType::RSA_PKCS_KEY_PAIR_GEN,
                MechanismType::RSA_PKCS,
                MechanismType::RSA_PKCS_PSS,
            ],
            Family::MlKem => vec![MechanismType::ML_KEM_KEY_PAIR_GEN, MechanismType::ML_KEM],
        })
    }

    /// Whether the token knows an algorithm by its vendor's numbers.
    pub fn is_vendors(&self, algorithm: Algorithm) -> bool {
        self.mechanisms.vendor(algorithm.family()).is_some()
    }

    /// What makes a key pair.
    pub fn key_pair_gen(&self, algorithm: Algorithm) -> Result<Mechanism<'static>, Error> {
        let family = algorithm.family();
        if let Some(numbers) = self.mechanisms.vendor(family) {
            return vendor(numbers.key_pair_gen);
        }
        Ok(match family {
            Family::MlDsa => Mechanism::MlDsaKeyPairGen,
            Family::Ec => Mechanism::EccKeyPairGen,
            Family::Rsa => Mechanism::RsaPkcsKeyPairGen,
            Family::MlKem => Mechanism::MlKemKeyPairGen,
        })
    }

    /// What says which key pair is made; for the public half.
    pub fn parameters(&self, algorithm: Algorithm) -> Vec<Attribute> {
        let curve = |oid: &[u8]| vec![Attribute::EcParams(oid.to_vec())];
        match algorithm {
            Algorithm::MlDsa44 => self.parameter_set(algorithm, MlDsaParameterSetType::ML_DSA_44),
            Algorithm::MlDsa65 => self.parameter_set(algorithm, MlDsaParameterSetType::ML_DSA_65),
            Algorithm::MlDsa87 => self.parameter_set(algorithm, MlDsaParameterSetType::ML_DSA_87),
            Algorithm::MlKem768 => self.parameter_set(algorithm, MlKemParameterSetType::ML_KEM_768),
            Algorithm::MlKem1024 => self.parameter_set(algorithm, MlKemParameterSetType::ML_KEM_1024),
            Algorithm::EcP256 => curve(P256),
            Algorithm::EcP384 => curve(P384),
            Algorithm::Rsa2048 => modulus(2048),
            Algorithm::Rsa3072 => modulus(3072),
            Algorithm::Rsa4096 => modulus(4096),
        }
    }

    /// CKA_KEY_TYPE of a key.
    pub fn key_type(&self, algorithm: Algorithm) -> Result<KeyType, Error> {
        let family = algorithm.family();
        if let Some(number) = self.mechanisms.vendor(family).and_then(|numbers| numbers.key_type) {
            return KeyType::new_vendor_defined(number.into())
                .map_err(Error::token("naming a vendor-defined key type"));
        }
        Ok(match family {
            Family::MlDsa => KeyType::ML_DSA,
            Family::Ec => KeyType::EC,
            Family::Rsa => KeyType::RSA,
            Family::MlKem => KeyType::ML_KEM,
        })
    }

    /// What signs. ML-DSA is pure, with an empty context (FIPS 204 §5.2), hedged where the token can.
    pub fn signing(&self, algorithm: Algorithm, pss: Pss) -> Result<Mechanism<'static>, Error> {
        let family = algorithm.family();
        if let Some(numbers) = self.mechanisms.vendor(family) {
            return vendor(numbers.operation);
        }
        Ok(match (family, pss) {
            (Family::MlDsa, _) => Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None)),
            (Family::Ec, _) => Mechanism::Ecdsa,
            (Family::Rsa, Pss::No) => Mechanism::RsaPkcs,
            (Family::Rsa, Pss::Sha256) => salted(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
            (Family::Rsa, Pss::Sha384) => salted(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
            (Family::Rsa, Pss::Sha512) => salted(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
            (Family::MlKem, _) => return Err(Error::Unsupported { algorithm }),
        })
    }

    /// What decapsulates.
    pub fn decapsulation(&self) -> Result<Mechanism<'static>, Error> {
        match self.mechanisms.ml_kem {
            Some(numbers) => vendor(numbers.operation),
            None => Ok(Mechanism::MlKem),
        }
    }

    fn parameter_set(
        &self,
        algorithm: Algorithm,
        set: impl Into<c_ulong> + Into<ParameterSetType>,
    ) -> Vec<Attribute> {
        let own = self.mechanisms.vendor(algorithm.family()).and_then(|numbers| numbers.parameter_set);
        vec![match own {
            Some(number) => {
                let value: c_ulong = set.into();
                let attribute = AttributeType::VendorDefined(number.into());
                Attribute::VendorDefined((attribute, value.to_ne_bytes().to_vec()))
            }
            None => Attribute::ParameterSet(set.into()),
        }]
    }
}

fn mechanism_type(number: u32) -> Result<MechanismType, Error> {
    MechanismType::new_vendor_defined(number.into())
        .map_err(Error::token("naming a vendor-defined mechanism"))
}

fn vendor(number: u32) -> Result<Mechanism<'static>, Error> {
    Ok(Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(mechanism_type(number)?, None)))
}

fn modulus(bits: c_ulong) -> Vec<Attribute> {
    vec![Attribute::ModulusBits(bits.into()), Attribute::PublicExponent(rsa::EXPONENT.to_vec())]
}

fn salted(hash_alg: MechanismType, mgf: PkcsMgfType, salt_len: c_ulong) -> Mechanism<'static> {
    Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len: salt_len.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mechanisms::VendorNumbers;

    fn vendors() -> Dialect {
        let numbers = |base| VendorNumbers {
            key_pair_gen: base,
            operation: base + 1,
            key_type: Some(base + 2),
            parameter_set: Some(base + 3),
        };
        Dialect::new(Mechanisms { ml_dsa: Some(numbers(0x8000_1000)), ml_kem: Some(numbers(0x8000_2000)) })
    }

    #[test]
    fn a_vendors_numbers_take_the_place_of_the_standards() {
        let dialect = vendors();
        for (algorithm, base, set) in [
            (Algorithm::MlDsa44, 0x8000_1000, 1),
            (Algorithm::MlDsa65, 0x8000_1000, 2),
            (Algorithm::MlDsa87, 0x8000_1000, 3),
            (Algorithm::MlKem768, 0x8000_2000, 2),
            (Algorithm::MlKem1024, 0x8000_2000, 3),
        ] {
            let number = |n| MechanismType::new_vendor_defined(n).unwrap();
            assert_eq!(dialect.needed(algorithm).unwrap(), [number(base), number(base + 1)]);
            assert_eq!(dialect.key_pair_gen(algorithm).unwrap().mechanism_type(), number(base));
            assert_eq!(dialect.key_type(algorithm).unwrap(), KeyType::new_vendor_defined(base + 2).unwrap());
            let value = c_ulong::to_ne_bytes(set).to_vec();
            let expected = Attribute::VendorDefined((AttributeType::VendorDefined(base + 3), value));
            assert_eq!(dialect.parameters(algorithm), [expected]);
        }
        let signing = dialect.signing(Algorithm::MlDsa65, Pss::No).unwrap();
        assert_eq!(signing.mechanism_type(), MechanismType::new_vendor_defined(0x8000_1001).unwrap());
        let opening = dialect.decapsulation().unwrap();
        assert_eq!(opening.mechanism_type(), MechanismType::new_vendor_defined(0x8000_2001).unwrap());
    }

    #[test]
    fn what_the_table_leaves_out_is_the_standards() {
        let numbers = VendorNumbers {
            key_pair_gen: 0x8000_0001,
            operation: 0x8000_0002,
            key_type: None,
            parameter_set: None,
        };
        let dialect = Dialect::new(Mechanisms { ml_dsa: Some(numbers), ml_kem: None });
        assert_eq!(dialect.key_type(Algorithm::MlDsa65).unwrap(), KeyType::ML_DSA);
        let set = MlDsaParameterSetType::ML_DSA_65;
        assert_eq!(dialect.parameters(Algorithm::MlDsa65), [Attribute::ParameterSet(set.into())]);
        let standard = [MechanismType::ML_KEM_KEY_PAIR_GEN, MechanismType::ML_KEM];
        assert_eq!(dialect.needed(Algorithm::MlKem768).unwrap(), standard);
    }
}
