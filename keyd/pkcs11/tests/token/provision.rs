//! Initialising blank tokens.

use keyd_core::{Algorithm, Reason};
use keyd_pkcs11::{NewToken, Provisioned, TokenName, init_token};
use peers::token::Token as Peer;

use super::{PATIENCE, config, create, secret, sign, token, worker};

fn new_token(peer: &Peer) -> NewToken {
    NewToken {
        module: peer.module.clone(),
        environment: peer.environment.clone(),
        label: peer.label.to_owned(),
        so_pin: secret(peer.so_pin),
        user_pin: secret(peer.user_pin),
        deadline: PATIENCE,
    }
}

#[tokio::test]
async fn a_blank_token_is_initialised_once_and_keeps_its_keys() {
    for (blank, algorithm) in
        [(Peer::blank_kryoptic as fn(&_) -> _, Algorithm::MlDsa65), (Peer::blank_softhsm, Algorithm::EcP256)]
    {
        let dir = tempfile::tempdir().unwrap();
        let peer = blank(dir.path()).unwrap();
        let new = new_token(&peer);
        assert_eq!(init_token(&worker(), &new).await, Ok(Provisioned::Initialised));
        let token = token(&config(&peer));
        let key = create(&token, algorithm).await;
        assert_eq!(init_token(&worker(), &new).await, Ok(Provisioned::Existing));
        sign(&token, &key, b"still here").await;
    }
}

#[tokio::test]
async fn a_token_of_another_label_is_never_initialised_anew() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::kryoptic(dir.path()).unwrap();
    let mut new = new_token(&peer);
    new.label = "another".into();
    let refusal = init_token(&worker(), &new).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TokenAbsent);
    assert!(refusal.message.contains("\"field-kit\""), "{refusal}");
    create(&token(&config(&peer)), Algorithm::MlDsa44).await;
}

#[tokio::test]
async fn a_token_is_found_by_serial_number_too() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::softhsm(dir.path()).unwrap();
    let mut config = config(&peer);
    config.token = TokenName::Serial("no such".into());
    let absent = keyd_core::Vault::supports(&token(&config), Algorithm::EcP256).await.unwrap_err();
    let (_, serial) = absent.message.split_once("(serial number \"").unwrap();
    config.token = TokenName::Serial(serial.split('"').next().unwrap().to_owned());
    create(&token(&config), Algorithm::EcP256).await;
}

#[tokio::test]
async fn labels_and_pins_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::blank_softhsm(dir.path()).unwrap();
    let long = NewToken { label: "x".repeat(33), ..new_token(&peer) };
    let no_pin = NewToken { user_pin: secret(""), ..new_token(&peer) };
    for bad in [long, no_pin] {
        assert_eq!(init_token(&worker(), &bad).await.unwrap_err().reason, Reason::BadRequest);
    }
}
