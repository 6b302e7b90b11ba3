//! `keyd doctor` on a token that does not fit the store.

use keyd_core::Protection;
use peers::token::Token;
use system::keyd::{Keyd, allow, token_with_pin};

async fn findings(keyd: &Keyd) -> (Option<i32>, Vec<serde_json::Value>) {
    let output = keyd.output(&["--json", "doctor"]).await.unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), found["findings"].as_array().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_without_a_key_and_keys_without_an_object_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let config = token_with_pin(&token, dir.path()).unwrap()
        + &allow(&["create", "sign", "show", "status"], &[("n", &[Protection::Hsm])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    keyd.json(&["key", "create", "n/lost", "--algorithm", "ec-p256"]).await.unwrap();
    assert_eq!(findings(&keyd).await, (Some(0), vec![]), "all is well");

    // The store goes, the token stays: an object without a key.
    keyd.stop().await.unwrap();
    std::fs::rename(dir.path().join("state"), dir.path().join("old-state")).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let (code, found) = findings(&keyd).await;
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    assert!(found[0]["subject"].as_str().unwrap().contains("n/lost"), "{found:?}");

    // The old store comes back without what the token made meanwhile, and the token loses what it knows.
    keyd.json(&["key", "create", "n/new", "--algorithm", "ec-p256"]).await.unwrap();
    keyd.stop().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("softhsm2")).unwrap();
    std::fs::create_dir(dir.path().join("softhsm2")).unwrap();
    let _blank = Token::softhsm(dir.path()).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let (code, found) = findings(&keyd).await;
    assert_eq!((code, found.len()), (Some(1), 2), "{found:?}");
    assert_eq!(found[0]["subject"], "key n/new");
    assert_eq!(found[1]["subject"], "the audit log", "its key was wrapped by the token that is gone");
    assert!(found[0]["next_step"].as_str().unwrap().contains("keyd key delete n/new"), "{found:?}");
}
