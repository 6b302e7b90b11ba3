//! ML-DSA and ML-KEM through every protection that takes a seed: the Wycheproof vectors, with RustCrypto's `ml-dsa` and
//! `ml-kem` as second implementations.

mod ml_dsa;
mod ml_kem;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{Algorithm, Sealer, Secret};
use keyd_pkcs11::{Mechanisms, Token, TokenConfig, TokenName, WorkerCommand};
use keyd_softkey::SoftKey;
use keyd_tpm::{Tpm, TpmConfig};
use peers::swtpm::Swtpm;

/// A seed, and what it must give.
struct Vector {
    algorithm: Algorithm,
    seed: Vec<u8>,
    public: Option<Vec<u8>>,
    /// Messages with signatures of them, or ciphertexts with their shared secrets.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The algorithms of one standard.
struct Family {
    /// Reads the vectors; a seed may come several times.
    read: fn() -> Vec<Vector>,
    /// How many seeds there are, and how many pairs.
    counts: (usize, usize),
    /// Holds the key of a vector's seed against its pairs, and against the second implementation.
    check: fn(&Vector, &SoftKey),
}

const FAMILIES: [Family; 2] = [ml_dsa::FAMILY, ml_kem::FAMILY];

impl Family {
    /// The vectors, one for each seed.
    fn vectors(&self) -> Vec<Vector> {
        let mut vectors = (self.read)();
        vectors.sort_by(|a, b| (a.algorithm, &a.seed).cmp(&(b.algorithm, &b.seed)));
        vectors.dedup_by(|next, first| {
            let same = (next.algorithm, &next.seed) == (first.algorithm, &first.seed);
            if same {
                first.public = first.public.take().or(next.public.take());
                first.pairs.append(&mut next.pairs);
            }
            same
        });
        vectors
    }

    /// Holds the key of `secret` against a vector; how many pairs that were.
    fn holds(&self, vector: &Vector, secret: &Secret) -> usize {
        let key = SoftKey::from_secret(vector.algorithm, secret).unwrap();
        if let Some(expected) = &vector.public {
            assert_eq!(key.public_key().raw(), expected);
        }
        (self.check)(vector, &key);
        vector.pairs.len()
    }
}

/// How long a device may take for one call on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn software_gives_what_the_vectors_say() {
    for family in FAMILIES {
        let vectors = family.vectors();
        let made: usize = vectors.iter().map(|v| family.holds(v, &Secret::new(v.seed.clone()))).sum();
        assert_eq!((vectors.len(), made), family.counts);
    }
}

#[tokio::test]
async fn seeds_wrapped_by_a_token_without_ml_dsa_give_what_the_vectors_say() {
    let dir = tempfile::tempdir().unwrap();
    check_through(&softhsm(dir.path())).await;
}

#[tokio::test]
async fn seeds_sealed_by_a_tpm_give_what_the_vectors_say() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path()).unwrap();
    let config = TpmConfig { call_deadline: PATIENCE, ..TpmConfig::new(swtpm.tcti().parse().unwrap()) };
    check_through(&Tpm::open(config).unwrap()).await;
}

/// Seals each seed, and takes what is unsealed in its place.
async fn check_through(sealer: &dyn Sealer) {
    for family in FAMILIES {
        let (mut seeds, mut made) = (0, 0);
        for vector in family.vectors() {
            let context = format!("vectors/{seeds} {}", vector.algorithm);
            let seed = &vector.seed;
            let blob = sealer.seal(&Secret::new(seed.clone()), context.as_bytes()).await.unwrap();
            assert!(!blob.windows(seed.len()).any(|bytes| bytes == seed), "it lies there in clear");
            let unsealed = sealer.unseal(&blob, context.as_bytes()).await.unwrap();
            made += family.holds(&vector, &unsealed);
            seeds += 1;
        }
        assert_eq!((seeds, made), family.counts);
    }
}

fn softhsm(dir: &Path) -> Token {
    let peer = peers::token::Token::softhsm(dir).unwrap();
    let config = TokenConfig {
        module: peer.module,
        token: TokenName::Label(peer.label.to_owned()),
        pin: Arc::new(Secret::new(peer.user_pin.as_bytes().to_vec())),
        environment: peer.environment,
        sessions: 1,
        call_deadline: PATIENCE,
        mechanisms: Mechanisms::default(),
    };
    let program = system::binary("keyd").unwrap();
    Token::new(config, WorkerCommand { program, args: vec!["pkcs11-worker".to_owned()] }).unwrap()
}
