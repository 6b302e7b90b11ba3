//! Tokens behind workers, against real modules: kryoptic, which has ML-DSA, and SoftHSM2, which has not.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

mod faults;
mod keys;
mod loss;
mod pin;
mod provision;
mod trouble;
mod vendor;
mod wrap;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{Algorithm, Secret, SignInput, Vault, VaultKey};
use keyd_pkcs11::{Mechanisms, Token, TokenConfig, TokenName, WorkerCommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::sleep;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: the worker process of the others, which start this binary anew for it.
#[test]
#[ignore = "the worker process of the other tests"]
fn worker_process() {
    let _ = keyd_pkcs11::worker::run();
}

fn worker() -> WorkerCommand {
    WorkerCommand {
        program: std::env::current_exe().unwrap(),
        args: ["--exact", "worker_process", "--ignored", "--nocapture"].map(str::to_owned).to_vec(),
    }
}

fn config(peer: &peers::token::Token) -> TokenConfig {
    TokenConfig {
        module: peer.module.clone(),
        token: TokenName::Label(peer.label.to_owned()),
        pin: Arc::new(secret(peer.user_pin)),
        environment: peer.environment.clone(),
        sessions: 4,
        call_deadline: PATIENCE,
        mechanisms: Mechanisms::default(),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A fresh kryoptic token. The directory lives as long as its token.
fn kryoptic() -> (TempDir, TokenConfig) {
    fresh(peers::token::Token::kryoptic)
}

fn softhsm() -> (TempDir, TokenConfig) {
    fresh(peers::token::Token::softhsm)
}

/// A fresh NSS softoken, where this machine has it.
fn nss() -> Option<(TempDir, TokenConfig)> {
    let dir = tempfile::tempdir().unwrap();
    let peer = peers::token::Token::nss(dir.path()).unwrap()?;
    Some((dir, config(&peer)))
}

/// One of each kind that has ML-DSA.
fn with_ml_dsa() -> impl Iterator<Item = (TempDir, TokenConfig)> {
    std::iter::once(kryoptic()).chain(nss())
}

fn fresh(make: fn(&Path) -> std::io::Result<peers::token::Token>) -> (TempDir, TokenConfig) {
    let dir = tempfile::tempdir().unwrap();
    let peer = make(dir.path()).unwrap();
    (dir, config(&peer))
}

fn token(config: &TokenConfig) -> Token {
    Token::new(config.clone(), worker()).unwrap()
}

async fn create(token: &Token, algorithm: Algorithm) -> VaultKey {
    token.create(&"spire-server/x509-CA-A".parse().unwrap(), algorithm).await.unwrap()
}

/// Kills the worker, and waits until that is known.
async fn end_worker(token: &Token) {
    let pid = token.worker_pid().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    while token.worker_pid() == Some(pid) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Signs and verifies.
async fn sign(token: &Token, key: &VaultKey, message: &[u8]) {
    let input = SignInput::Message(message);
    let signature = token.sign(&key.handle, key.public_key.algorithm(), input).await.unwrap();
    key.public_key.verify(input, &signature).unwrap();
}
