//! A refused PIN is not presented again.

use keyd_core::{Algorithm, Health, HealthState, Reason, SignInput, Vault};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{create, kryoptic, secret, sign, token};

/// kryoptic locks a token at the tenth wrong PIN; twelve calls over four sessions and a second worker must cost one.
#[tokio::test]
async fn a_wrong_pin_is_presented_once_whatever_is_called() {
    let (_dir, config) = kryoptic();
    let key = create(&token(&config), Algorithm::MlDsa44).await;
    let mut wrong = config.clone();
    wrong.pin = secret("not the pin");
    let locked_out = token(&wrong);
    let call = || locked_out.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m"));
    let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
    for result in [a, b, c, d] {
        assert_eq!(result.unwrap_err().reason, Reason::TokenLockedOut);
    }
    kill(Pid::from_raw(locked_out.worker_pid().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    for _ in 0..8 {
        let refusal = call().await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenLockedOut);
        assert!(refusal.message.contains("restart keyd"), "{refusal}");
    }
    let Health { state, .. } = Vault::health(&locked_out).await;
    assert_eq!(state, HealthState::LockedOut);
    sign(&token(&config), &key, b"the token is not locked").await;
}

/// Twelve restarts of keyd with a wrong PIN, where kryoptic would lock the token at the tenth.
#[tokio::test]
async fn the_last_try_is_left_to_the_operator() {
    let (_dir, config) = kryoptic();
    let key = create(&token(&config), Algorithm::MlDsa44).await;
    let mut wrong = config.clone();
    wrong.pin = secret("not the pin");
    let mut refusals = Vec::new();
    for _ in 0..12 {
        let refusal = token(&wrong).delete(&key.handle).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenLockedOut);
        refusals.push(refusal.message);
    }
    assert!(refusals[0].contains("refused the PIN"), "{refusals:?}");
    assert!(refusals[11].contains("one more try"), "{refusals:?}");
    let refusal = token(&config).delete(&key.handle).await.unwrap_err();
    assert!(refusal.message.contains("one more try"), "the right PIN is not tried either: {refusal}");
}
