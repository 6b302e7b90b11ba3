//! keyd on a token older than PKCS#11 3.2, whose vendor's numbers for ML-DSA stand in the configuration, or do not.

use std::path::Path;

use fault_shim::code::{CKA_PARAMETER_SET, CKK_ML_DSA, CKM_ML_DSA, CKM_ML_DSA_KEY_PAIR_GEN};
use fault_shim::{Faults, Renumbering};
use keyd_api::KeyInfo;
use keyd_core::{Algorithm, Protection, Reason, SignInput};
use peers::token::Token;
use system::keyd::{Keyd, configure, namespaces, token_with_pin};

use super::faults::behind_the_shim;

/// As an operator copies them out of the vendor's handbook.
const TABLE: &str = "[token.mechanisms.ml_dsa]\nkey_pair_gen = 0x80000101\nsign = 0x80000102\n\
                     key_type = 0x80000103\nparameter_set = 0x80000104\n";

fn numbers() -> Renumbering {
    Renumbering {
        mechanisms: vec![(CKM_ML_DSA_KEY_PAIR_GEN, 0x8000_0101), (CKM_ML_DSA, 0x8000_0102)],
        key_types: vec![(CKK_ML_DSA, 0x8000_0103)],
        attributes: vec![(CKA_PARAMETER_SET, 0x8000_0104)],
    }
}

fn config(dir: &Path, token: &Token, table: &str) -> String {
    let tables = [("hsm", &[Protection::Hsm][..]), ("either", &[Protection::Hsm, Protection::HsmWrapped])];
    token_with_pin(token, dir).unwrap() + table + &namespaces(&tables)
}

async fn create(keyd: &Keyd, key: &str) -> Result<KeyInfo, keyd_core::Failure> {
    keyd.client().create_key(&key.parse().unwrap(), Algorithm::MlDsa65, None).await
}

async fn signs(keyd: &Keyd, key: &KeyInfo) {
    let input = SignInput::Message(b"m");
    let signed = keyd.client().sign(&key.key, input).await.unwrap();
    key.public_key.verify(input, &signed.signature).unwrap();
}

/// What `keyd token list` says that the token makes.
async fn listed(keyd: &Keyd, dir: &Path) -> String {
    let config = dir.join("keyd.toml");
    let listed = keyd.json(&["token", "list", "--config", config.to_str().unwrap()]).await.unwrap();
    listed["tokens"][0]["algorithms"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_vendors_numbers_ml_dsa_keys_are_in_the_token_and_without_them_never_silently_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let mut token = behind_the_shim(Token::kryoptic(dir.path()).unwrap(), &faults);
    token.environment.extend(numbers().environment());

    let keyd = Keyd::start(dir.path(), &config(dir.path(), &token, "")).await.unwrap();
    let refused = create(&keyd, "hsm/a").await.unwrap_err();
    assert_eq!(refused.reason, Reason::ProtectionUnavailable);
    for words in ["cannot make ml-dsa-65 keys", "accept hsm-wrapped", "[token.mechanisms]"] {
        assert!(refused.message.contains(words), "{refused}");
    }
    let wrapped = create(&keyd, "either/a").await.unwrap();
    assert_eq!(wrapped.protection, Protection::HsmWrapped);
    let metrics = String::from_utf8(keyd.output(&["metrics"]).await.unwrap().stdout).unwrap();
    let fallback = "keyd_fallbacks_total{namespace=\"either\",preferred=\"hsm\",got=\"hsm-wrapped\"} 1";
    assert!(metrics.contains(fallback), "{metrics}");
    let log = keyd.process.log().unwrap();
    assert!(log.contains("protection not available"), "{log}");
    assert!(!listed(&keyd, dir.path()).await.contains("ml-dsa"));
    keyd.stop().await.unwrap();

    configure(dir.path(), &config(dir.path(), &token, TABLE)).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let status = keyd.json(&["status"]).await.unwrap();
    assert!(status["devices"][0]["detail"].as_str().unwrap().contains("ml-dsa-65"), "{status}");
    assert!(listed(&keyd, dir.path()).await.contains("ml-dsa-65"));
    signs(&keyd, &wrapped).await;
    for key in ["hsm/a", "either/b"] {
        let made = create(&keyd, key).await.unwrap();
        assert_eq!(made.protection, Protection::Hsm, "{key}");
        signs(&keyd, &made).await;
    }
    keyd.stop().await.unwrap();
}
