//! ML-DSA and ML-KEM through every protection that takes a seed: the Wycheproof vectors, with RustCrypto's `ml-dsa` and
//! `ml-kem` as second implementations.

mod ml_dsa;
mod ml_kem;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{Algorithm, Sealer, Secret};
use keyd_pkcs11::{Mechanisms, Token, TokenConfig, TokenName, WorkerCommand};
use keyd_tpm::{Tpm, TpmConfig};
use peers::swtpm::Swtpm;

/// A seed, and what it must give.
trait Vector {
    fn algorithm(&self) -> Algorithm;

    fn seed(&self) -> &[u8];

    /// Holds the key of `secret` against the vector and against the second implementation; how many signatures or shared
    /// secrets it made.
    fn holds_for(&self, secret: &Secret) -> usize;
}

/// What loads the vectors of a family, and how many seeds they have, and signatures or shared secrets.
type Family = (fn() -> Vec<Box<dyn Vector>>, (usize, usize));

const FAMILIES: [Family; 2] = [(ml_dsa::vectors, ml_dsa::COUNTS), (ml_kem::vectors, ml_kem::COUNTS)];

/// How long a device may take for one call on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn software_gives_what_the_vectors_say() {
    for (vectors, counts) in FAMILIES {
        let vectors = vectors();
        let made: usize = vectors.iter().map(|v| v.holds_for(&Secret::new(v.seed().to_vec()))).sum();
        assert_eq!((vectors.len(), made), counts);
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
    for (vectors, counts) in FAMILIES {
        let (mut seeds, mut made) = (0, 0);
        for vector in vectors() {
            let context = format!("vectors/{seeds} {}", vector.algorithm());
            let seed = vector.seed();
            let blob = sealer.seal(&Secret::new(seed.to_vec()), context.as_bytes()).await.unwrap();
            assert!(!blob.windows(seed.len()).any(|bytes| bytes == seed), "it lies there in clear");
            let unsealed = sealer.unseal(&blob, context.as_bytes()).await.unwrap();
            made += vector.holds_for(&unsealed);
            seeds += 1;
        }
        assert_eq!((seeds, made), counts);
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
