//! ML-DSA (FIPS 204) by aws-lc-rs.

use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm,
};
use keyd_core::{Algorithm, Failure, Reason, Secret, SignInput};

use super::library;
use crate::private_key::{PrivateKey, unfit};

pub(crate) struct MlDsaKey {
    pair: PqdsaKeyPair,
}

impl MlDsaKey {
    pub(crate) fn from_seed(algorithm: Algorithm, seed: &Secret) -> Result<Self, Failure> {
        let pair = PqdsaKeyPair::from_seed(signing(algorithm)?, seed.expose())
            .map_err(|_| library("expand an ML-DSA seed"))?;
        Ok(Self { pair })
    }
}

impl PrivateKey for MlDsaKey {
    fn raw_public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        let SignInput::Message(message) = input else { return Err(unfit()) };
        let mut signature = vec![0; self.pair.algorithm().signature_len()];
        let length = self.pair.sign(message, &mut signature).map_err(|_| library("sign with ML-DSA"))?;
        signature.truncate(length);
        Ok(signature)
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        let document = self.pair.to_pkcs8v1().map_err(|_| library("encode an ML-DSA key"))?;
        Ok(Secret::new(document.as_ref().to_vec()))
    }
}

fn signing(algorithm: Algorithm) -> Result<&'static PqdsaSigningAlgorithm, Failure> {
    match algorithm {
        Algorithm::MlDsa44 => Ok(&ML_DSA_44_SIGNING),
        Algorithm::MlDsa65 => Ok(&ML_DSA_65_SIGNING),
        Algorithm::MlDsa87 => Ok(&ML_DSA_87_SIGNING),
        other => Err(Failure::new(Reason::Internal, format!("{other} is not ML-DSA"))),
    }
}
