//! keyd on tokens whose module fails, and on a second token with ML-DSA.

use std::time::Duration;

use fault_shim::code::CKR_DEVICE_REMOVED;
use fault_shim::{Action, Fault, Faults};
use keyd_core::{Algorithm, KeyId, Protection, Reason, SignInput};
use peers::token::Token;
use serde_json::Value;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use Algorithm::MlDsa65;

/// How soon a token that is back must serve.
const SOON: Duration = Duration::from_secs(10);
const INPUT: SignInput<'_> = SignInput::Message(b"m");

/// A token as its module is seen through the shim.
pub fn behind_the_shim(mut token: Token, faults: &Faults) -> Token {
    token.environment.extend(faults.environment(&token.module));
    token.module = fault_shim::module().unwrap();
    token
}

async fn on(dir: &TempDir, token: &Token) -> Keyd {
    let tables = [("hsm", &[Protection::Hsm][..]), ("soft", &[Protection::Software])];
    let config = token_with_pin(token, dir.path()).unwrap() + &namespaces(&tables);
    Keyd::start(dir.path(), &config).await.unwrap()
}

async fn behind(dir: &TempDir) -> (Faults, Keyd) {
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let token = behind_the_shim(Token::kryoptic(dir.path()).unwrap(), &faults);
    let keyd = on(dir, &token).await;
    (faults, keyd)
}

fn id(name: &str) -> KeyId {
    name.parse().unwrap()
}

async fn signs(keyd: &Keyd, key: &str) {
    let signed = keyd.client().sign(&id(key), INPUT).await.unwrap();
    let shown = keyd.client().show_key(&id(key)).await.unwrap();
    shown.public_key.verify(INPUT, &signed.signature).unwrap();
}

async fn names(keyd: &Keyd) -> Vec<String> {
    keyd.client().list_keys(None).await.unwrap().into_iter().map(|info| info.key.to_string()).collect()
}

async fn findings(keyd: &Keyd) -> Vec<String> {
    let doctor = keyd.output(&["--json", "doctor"]).await.unwrap();
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    found["findings"].as_array().unwrap().iter().map(|finding| finding["subject"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_goes_away_is_told_and_serves_again_without_a_restart() {
    /// Whatever keyd asks of the token.
    const ALL: [&str; 5] =
        ["C_GetSlotList", "C_OpenSession", "C_FindObjectsInit", "C_SignInit", "C_GenerateKeyPair"];
    let dir = tempfile::tempdir().unwrap();
    let (faults, keyd) = behind(&dir).await;
    let client = keyd.client();
    for key in ["hsm/a", "hsm/b", "soft/a"] {
        client.create_key(&id(key), MlDsa65, None).await.unwrap();
    }
    for function in ALL {
        faults.inject(function, Fault::always(Action::Return(CKR_DEVICE_REMOVED))).unwrap();
    }
    let refused = [
        client.sign(&id("hsm/a"), INPUT).await.unwrap_err(),
        client.create_key(&id("hsm/c"), MlDsa65, None).await.unwrap_err(),
        client.rotate_key(&id("hsm/a"), None, None).await.unwrap_err(),
    ];
    for failure in &refused {
        assert_eq!(failure.reason, Reason::TokenAbsent, "{failure}");
        assert!(failure.message.contains("\"field-kit\""), "{failure}");
        assert!(failure.message.contains("gave CKR_DEVICE_REMOVED"), "{failure}");
    }
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert_eq!(device["state"], "absent", "{device}");
    signs(&keyd, "soft/a").await;
    // The record goes; what it leaves in the token is found later.
    client.delete_key(&id("hsm/b")).await.unwrap();
    assert_eq!(names(&keyd).await, ["hsm/a", "soft/a"]);

    for function in ALL {
        faults.lift(function).unwrap();
    }
    let start = Instant::now();
    while let Err(failure) = client.sign(&id("hsm/a"), INPUT).await {
        assert!(start.elapsed() < SOON, "{failure}");
        sleep(Duration::from_millis(50)).await;
    }
    signs(&keyd, "hsm/a").await;
    client.create_key(&id("hsm/c"), MlDsa65, None).await.unwrap();
    let found = findings(&keyd).await;
    assert!(found.len() == 1 && found[0].contains("(hsm/b)"), "{found:?}");
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_when_keyd_is_told_to_stop_gets_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, keyd) = behind(&dir).await;
    let client = keyd.client();
    let made = client.create_key(&id("hsm/a"), MlDsa65, None).await.unwrap();
    faults.inject("C_Sign", Fault::once(Action::Delay(Duration::from_secs(2)))).unwrap();
    let before = faults.calls("C_Sign").unwrap();
    let asked = tokio::spawn(async move { client.sign(&id("hsm/a"), INPUT).await });
    while faults.calls("C_Sign").unwrap() == before {
        sleep(Duration::from_millis(10)).await;
    }
    keyd.stop().await.unwrap();
    made.public_key.verify(INPUT, &asked.await.unwrap().unwrap().signature).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_gives_wrong_never_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, keyd) = behind(&dir).await;
    let client = keyd.client();
    client.create_key(&id("hsm/a"), MlDsa65, None).await.unwrap();
    faults.inject("C_Sign", Fault::always(Action::Garble)).unwrap();
    assert_eq!(client.sign(&id("hsm/a"), INPUT).await.unwrap_err().reason, Reason::Integrity);
    faults.lift("C_Sign").unwrap();
    signs(&keyd, "hsm/a").await;

    // First it is asked whether the key may leave, then for the public key.
    faults.inject("C_GetAttributeValue", Fault::always(Action::Garble).skipping(2)).unwrap();
    let refusal = client.create_key(&id("hsm/b"), MlDsa65, None).await.unwrap_err();
    assert!(faults.calls("C_GetAttributeValue").unwrap() > 2, "nothing was garbled");
    assert_eq!(refusal.reason, Reason::Integrity, "{refusal}");
    faults.lift("C_GetAttributeValue").unwrap();
    assert_eq!(names(&keyd).await, ["hsm/a"]);
    assert_eq!(findings(&keyd).await, Vec::<String>::new(), "nothing is left of it");
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_live_and_end_in_nss() {
    let dir = tempfile::tempdir().unwrap();
    let Some(token) = Token::nss(dir.path()).unwrap() else { return };
    let keyd = on(&dir, &token).await;
    for algorithm in [Algorithm::MlDsa44, MlDsa65, Algorithm::MlDsa87, Algorithm::EcP256, Algorithm::EcP384] {
        let made = keyd.client().create_key(&id(&format!("hsm/{algorithm}")), algorithm, None).await.unwrap();
        assert_eq!(made.protection, Protection::Hsm);
    }
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let all = names(&keyd).await;
    assert_eq!(all.len(), 5);
    for key in &all {
        signs(&keyd, key).await;
        keyd.client().rotate_key(&id(key), None, None).await.unwrap();
        signs(&keyd, key).await;
        keyd.client().delete_key(&id(key)).await.unwrap();
    }
    assert_eq!(findings(&keyd).await, Vec::<String>::new(), "the token is empty");
    keyd.stop().await.unwrap();
}

/// As far as keyd itself may lock its own.
#[tokio::test]
async fn the_workers_memory_is_locked_as_keyds_is() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = on(&dir, &Token::softhsm(dir.path()).unwrap()).await;
    let status = keyd.json(&["status"]).await.unwrap();
    let process = std::fs::read_to_string(format!("/proc/{}/status", keyd.worker().unwrap())).unwrap();
    let locked = process.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    let none = locked.split_whitespace().nth(1) == Some("0");
    assert_eq!(status["memory_locked"], !none, "{locked}");
}
