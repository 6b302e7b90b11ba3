//! ML-DSA (FIPS 204) by RustCrypto.

use getrandom::SysRng;
use keyd_core::{Failure, Secret, SignInput};
use ml_dsa::pkcs8::spki::AssociatedAlgorithmIdentifier;
use ml_dsa::pkcs8::{EncodePrivateKey, der::AnyRef};
use ml_dsa::{ExpandedSigningKey, MlDsaParams, Seed, SigningKey};
use zeroize::Zeroizing;

use super::library;
use crate::private_key::{PrivateKey, unfit};

/// A key of one of the three parameter sets.
pub(crate) struct MlDsaKey<P: MlDsaParams> {
    seed: Zeroizing<Seed>,
    expanded: ExpandedSigningKey<P>,
}

impl<P: MlDsaParams> MlDsaKey<P> {
    pub(crate) fn from_seed(seed: &Secret) -> Result<Self, Failure> {
        let seed = Seed::try_from(seed.expose()).map_err(|_| library("take an ML-DSA seed"))?;
        Ok(Self { expanded: ExpandedSigningKey::from_seed(&seed), seed: Zeroizing::new(seed) })
    }
}

impl<P> PrivateKey for MlDsaKey<P>
where
    P: MlDsaParams + AssociatedAlgorithmIdentifier<Params = AnyRef<'static>>,
    ExpandedSigningKey<P>: Send + Sync,
{
    fn raw_public(&self) -> Vec<u8> {
        self.expanded.verifying_key().encode().to_vec()
    }

    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        let SignInput::Message(message) = input else { return Err(unfit()) };
        let signature = self
            .expanded
            .sign_randomized(message, &[], &mut SysRng)
            .map_err(|_| library("sign with ML-DSA"))?;
        Ok(signature.encode().to_vec())
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        let document = SigningKey::<P>::from_seed(&self.seed)
            .to_pkcs8_der()
            .map_err(|_| library("encode an ML-DSA key"))?;
        Ok(Secret::new(document.as_bytes().to_vec()))
    }
}
