//! Tokens that are not there, do not open, or cannot do what is asked.

use std::path::PathBuf;

use keyd_core::{Protection, Reason};
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_table, write_private};
use tempfile::TempDir;

use super::{FAILED, UNREACHABLE, refusal};

const NAMESPACES: &[(&str, &[Protection])] =
    &[("hsm", &[Protection::Hsm]), ("soft", &[Protection::Software])];

/// A keyd on a token whose PIN file holds `pin`.
async fn on(dir: &TempDir, token: &Token, pin: &str) -> Keyd {
    let file = pin_file(dir);
    write_private(&file, pin).unwrap();
    Keyd::start(dir.path(), &(token_table(token, &file) + &namespaces(NAMESPACES))).await.unwrap()
}

fn pin_file(dir: &TempDir) -> PathBuf {
    dir.path().join("pin")
}

/// kryoptic locks at the tenth wrong PIN, so a keyd that tried it more than once would lock the token here.
#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_a_corrected_one_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::kryoptic(dir.path()).unwrap();
    let keyd = on(&dir, &token, "a-wrong-pin").await;
    let words = ["\"field-kit\"", "refused the PIN", "does not try it again", "restart keyd"];
    for _ in 0..12 {
        let refused = refusal(&keyd, &["key", "create", "hsm/a"]).await;
        refused.is(FAILED, Reason::TokenLockedOut, &words);
        assert!(!refused.message.contains("a-wrong-pin"));
    }
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert_eq!(device["state"], "locked out", "{device}");
    keyd.json(&["key", "create", "soft/a"]).await.unwrap();

    write_private(&pin_file(&dir), token.user_pin).unwrap();
    refusal(&keyd, &["key", "create", "hsm/a"]).await.is(FAILED, Reason::TokenLockedOut, &words);
    let log = keyd.process.log().unwrap();
    assert!(!log.contains("a-wrong-pin") && !log.contains(token.user_pin), "{log}");
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let made = keyd.json(&["key", "create", "hsm/a"]).await.unwrap();
    assert_eq!(made["protection"], "hsm", "the token is not locked");
}

#[tokio::test]
async fn a_pin_that_is_locked_is_told_with_the_way_out_and_one_with_a_single_try_left_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::kryoptic(dir.path()).unwrap();
    // kryoptic locks at the tenth wrong PIN.
    for _ in 0..9 {
        try_wrong_pin(&token).await;
    }
    let keyd = on(&dir, &token, "a-wrong-pin").await;
    let words = ["\"field-kit\"", "one more try of the PIN, and keyd leaves it to you", "restart keyd"];
    refusal(&keyd, &["key", "create", "hsm/a"]).await.is(FAILED, Reason::TokenLockedOut, &words);
    keyd.stop().await.unwrap();

    try_wrong_pin(&token).await;
    let keyd = on(&dir, &token, token.user_pin).await;
    let words = ["\"field-kit\"", "the user PIN is locked", "as security officer", "restart keyd"];
    refusal(&keyd, &["key", "create", "hsm/a"]).await.is(FAILED, Reason::TokenLockedOut, &words);
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert_eq!(device["state"], "locked out", "{device}");
    keyd.json(&["key", "create", "soft/a"]).await.unwrap();
}

/// Has another tool log in with a wrong PIN.
async fn try_wrong_pin(token: &Token) {
    let mut login = tokio::process::Command::new("softhsm2-util");
    login.arg("--module").arg(&token.module).args(["--token", token.label, "--pin", "a-wrong-pin"]);
    login.args(["--import", "/dev/null", "--label", "none", "--id", "01"]).envs(&token.environment);
    let output = login.output().await.unwrap();
    // At the last try kryoptic says only that there is no login.
    let said = String::from_utf8_lossy(&output.stderr);
    let refused = said.contains("does not match the one in the token") || said.contains("Could not log in");
    assert!(refused, "{said}");
}

#[tokio::test]
async fn a_missing_module_is_told_and_other_namespaces_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let absent = Token { module: "/nonexistent/libvendor.so".into(), ..token };
    let keyd = on(&dir, &absent, absent.user_pin).await;
    let words = ["/nonexistent/libvendor.so", "cannot load the module", "Is it installed"];
    assert_absent(&keyd, &words).await;
}

#[tokio::test]
async fn a_label_that_no_token_has_is_told_with_those_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let wrong = Token { label: "field-kat", ..token };
    let keyd = on(&dir, &wrong, wrong.user_pin).await;
    assert_absent(&keyd, &["\"field-kat\"", "it shows \"field-kit\"", "correct the name"]).await;
}

async fn assert_absent(keyd: &Keyd, words: &[&str]) {
    refusal(keyd, &["key", "create", "hsm/a"]).await.is(UNREACHABLE, Reason::TokenAbsent, words);
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert_eq!(device["state"], "absent", "{device}");
    for word in words {
        assert!(device["detail"].as_str().unwrap().contains(word), "{device}");
    }
    keyd.json(&["key", "create", "soft/a"]).await.unwrap();
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_no_accepted_protection_can_be_had_each_device_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token { label: "field-kat", ..Token::softhsm(dir.path()).unwrap() };
    write_private(&pin_file(&dir), token.user_pin).unwrap();
    let config = token_table(&token, &pin_file(&dir))
        + "[tpm]\ntcti = \"device:/dev/no-such-tpm\"\ncounter = false\n"
        + &namespaces(&[("n", &[Protection::Hsm, Protection::TpmSealed])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let words = ["hsm: ", "\"field-kat\"", "tpm-sealed: ", "/dev/no-such-tpm"];
    refusal(&keyd, &["key", "create", "n/a"]).await.is(UNREACHABLE, Reason::TpmAbsent, &words);
}

#[tokio::test]
async fn a_token_without_ml_dsa_gets_no_key_elsewhere_unless_the_namespace_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    write_private(&pin_file(&dir), token.user_pin).unwrap();
    let (hsm, either) = ([Protection::Hsm], [Protection::Hsm, Protection::HsmWrapped]);
    let tables: &[(&str, &[Protection])] = &[("strict", &hsm), ("either", &either)];
    let config = token_table(&token, &pin_file(&dir)) + &namespaces(tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();

    let words = ["ml-dsa-65", "accept hsm-wrapped in the namespace"];
    let refused = refusal(&keyd, &["key", "create", "strict/a"]).await;
    refused.is(FAILED, Reason::ProtectionUnavailable, &words);
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 0);
    let made = keyd.json(&["key", "create", "strict/a", "--algorithm", "ec-p256"]).await.unwrap();
    assert_eq!(made["protection"], "hsm");

    let made = keyd.json(&["key", "create", "either/a"]).await.unwrap();
    assert_eq!(made["protection"], "hsm-wrapped");
    let shown = keyd.json(&["key", "show", "either/a"]).await.unwrap();
    assert_eq!(shown["protection"], "hsm-wrapped");
    let log = keyd.process.log().unwrap();
    let logged = |line: &&str| line.contains("protection not available") && line.contains("key=either/a");
    let line = log.lines().find(logged).expect("the fallback is logged");
    assert!(line.contains("protection=hsm") && line.contains("cannot make ml-dsa-65"), "{line}");
}
