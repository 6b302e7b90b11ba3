//! Secrets wrapped under the token's AES key.

use std::time::Duration;

use fault_shim::{Action, Fault, Faults};
use keyd_core::{Reason, Sealer, Secret};
use keyd_pkcs11::{ObjectKind, Token};
use tokio::time::sleep;

use super::faults::behind_the_shim;
use super::{kryoptic, nss, softhsm, token};

const CONTEXT: &[u8] = b"spire-server/x509-CA-A ml-dsa-65 1";

async fn seal(token: &Token, seed: &Secret) -> Vec<u8> {
    let blob = token.seal(seed, CONTEXT).await.unwrap();
    assert_eq!(blob.len(), 1 + 16 + 12 + seed.len() + 16);
    blob
}

#[tokio::test]
async fn a_seed_opens_again_after_a_restart_on_either_token() {
    for (_dir, config) in [softhsm(), kryoptic()] {
        let seed = Secret::new((0..32).collect());
        let blob = seal(&token(&config), &seed).await;
        let opened = token(&config).unseal(&blob, CONTEXT).await.unwrap();
        assert_eq!(opened.expose(), seed.expose());
    }
}

#[tokio::test]
async fn a_changed_byte_or_another_context_does_not_open() {
    for (_dir, config) in [softhsm(), kryoptic()] {
        let token = token(&config);
        let blob = seal(&token, &Secret::new(vec![5; 32])).await;
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            let refusal = token.unseal(&changed, CONTEXT).await.unwrap_err();
            assert_eq!(refusal.reason, Reason::UnsealFailed, "byte {at}: {refusal}");
        }
        for cut in [0, 1, 16, 17, 28, 29, 44, blob.len() - 1] {
            let refusal = token.unseal(&blob[..cut], CONTEXT).await.unwrap_err();
            assert_eq!(refusal.reason, Reason::UnsealFailed, "{cut} bytes: {refusal}");
        }
        let refusal = token.unseal(&blob, b"another key").await.unwrap_err();
        assert_eq!(refusal.reason, Reason::UnsealFailed, "{refusal}");
        token.unseal(&blob, CONTEXT).await.unwrap();
    }
}

#[tokio::test]
async fn another_token_does_not_open_it_and_makes_no_key_for_it() {
    let ((_dir, config), (_other_dir, other_config)) = (softhsm(), softhsm());
    let (token, other) = (token(&config), token(&other_config));
    let blob = seal(&token, &Secret::new(vec![5; 32])).await;
    let refusal = other.unseal(&blob, CONTEXT).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::UnsealFailed, "{refusal}");
    assert!(refusal.message.contains("keyd wrapping key"), "{refusal}");
    assert_eq!(other.list_objects().await.unwrap(), []);
}

#[tokio::test]
async fn the_wrapping_key_is_made_once_and_cannot_leave() {
    for (_dir, config) in [softhsm(), kryoptic()] {
        let token = token(&config);
        let seeds: Vec<_> = (0..8).map(|n| Secret::new(vec![n; 32])).collect();
        let [a, b, c, d, e, f, g, h] = &seeds[..] else { unreachable!() };
        tokio::join!(
            seal(&token, a),
            seal(&token, b),
            seal(&token, c),
            seal(&token, d),
            seal(&token, e),
            seal(&token, f),
            seal(&token, g),
            seal(&token, h),
        );
        let objects = token.list_objects().await.unwrap();
        let [key] = &objects[..] else { panic!("one wrapping key, not {objects:?}") };
        assert_eq!((key.kind, key.label.as_str()), (ObjectKind::WrappingKey, "keyd wrapping key"));
        assert!(key.sensitive && !key.extractable, "{key:?}");
    }
}

#[tokio::test]
async fn a_secret_that_is_no_seed_is_refused() {
    let (_dir, config) = softhsm();
    let refusal = token(&config).seal(&Secret::new(vec![0; 65]), CONTEXT).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BadRequest, "{refusal}");
}

/// NSS leaves the tag out of the room that C_Encrypt asks for.
#[tokio::test]
async fn a_token_whose_aes_gcm_is_of_no_use_says_that_it_cannot_wrap() {
    let Some((_dir, config)) = nss() else { return };
    let refusal = token(&config).seal(&Secret::new(vec![5; 32]), CONTEXT).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ProtectionUnavailable, "{refusal}");
}

/// As two hosts would, or a killed keyd's old worker and the next keyd's.
#[tokio::test]
async fn two_that_make_a_wrapping_key_at_once_open_what_either_wrapped() {
    let (dir, config) = softhsm();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let (quick, slow) = (token(&config), token(&behind_the_shim(&faults, config.clone())));
    let seed = Secret::new(vec![5; 32]);
    // It has searched and found none, and makes its own when the other has one already.
    faults.inject("C_GenerateKey", Fault::once(Action::Delay(Duration::from_secs(1)))).unwrap();
    let (of_slow, of_quick) = tokio::join!(seal(&slow, &seed), async {
        while faults.calls("C_GenerateKey").unwrap() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        seal(&quick, &seed).await
    });
    // SoftHSM2 may not show what another process made at the same time before it is loaded anew.
    let tokens = [token(&config), token(&config)];
    assert_eq!(tokens[0].list_objects().await.unwrap().len(), 2, "two wrapping keys");
    let later = [seal(&tokens[0], &seed).await, seal(&tokens[1], &seed).await];
    assert_eq!(later[0][..17], later[1][..17], "from there on one wraps");
    for blob in later.iter().chain([&of_slow, &of_quick]) {
        for token in &tokens {
            assert_eq!(token.unseal(blob, CONTEXT).await.unwrap().expose(), seed.expose());
        }
    }
}
