//! Sealing and the storage root key.

use keyd_core::{Health, HealthState, Reason, Sealer, Secret};
use keyd_tpm::{Tpm, TpmConfig};

use crate::Node;

fn seed() -> Secret {
    Secret::new((1..=32).collect())
}

#[tokio::test]
async fn a_secret_comes_back_after_a_restart_of_keyd_and_of_the_tpm() {
    let mut node = Node::new();
    let tpm = node.tpm();
    let blob = tpm.seal(&seed(), b"a/b").await.unwrap();
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose());
    drop(tpm);
    let tpm = node.tpm();
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose());
    node.swtpm.restart().unwrap();
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose(), "over the same handle");
}

#[tokio::test]
async fn one_to_64_bytes_are_sealed_and_no_other_length() {
    let node = Node::new();
    let tpm = node.tpm();
    for length in [1, 64] {
        let secret = Secret::new(vec![7; length]);
        let blob = tpm.seal(&secret, b"").await.unwrap();
        assert_eq!(tpm.unseal(&blob, b"").await.unwrap().expose(), secret.expose());
    }
    for length in [0, 65] {
        let failure = tpm.seal(&Secret::new(vec![7; length]), b"").await.unwrap_err();
        assert_eq!(failure.reason, Reason::BadRequest, "{failure}");
    }
}

#[tokio::test]
async fn a_blob_for_another_context_is_refused() {
    let node = Node::new();
    let tpm = node.tpm();
    let blob = tpm.seal(&seed(), b"a/b").await.unwrap();
    for context in [&b"a/c"[..], b"", b"a/b\0"] {
        assert_eq!(tpm.unseal(&blob, context).await.unwrap_err().reason, Reason::UnsealFailed);
    }
}

#[tokio::test]
async fn a_blob_with_any_byte_damaged_is_refused() {
    let node = Node::new();
    let tpm = node.tpm();
    let blob = tpm.seal(&seed(), b"a/b").await.unwrap();
    for index in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[index] ^= 0x10;
        let failure = tpm.unseal(&damaged, b"a/b").await.unwrap_err();
        assert_eq!(failure.reason, Reason::UnsealFailed, "byte {index}: {failure}");
    }
    assert!(tpm.unseal(&blob, b"a/b").await.is_ok(), "nothing leaked, the whole blob opens");
}

#[tokio::test]
async fn a_blob_of_another_tpm_is_refused() {
    let (node, other) = (Node::new(), Node::new());
    let blob = other.tpm().seal(&seed(), b"a/b").await.unwrap();
    let failure = node.tpm().unseal(&blob, b"a/b").await.unwrap_err();
    assert_eq!(failure.reason, Reason::UnsealFailed);
    assert!(failure.message.contains("sealed by another TPM"), "{failure}");
}

#[tokio::test]
async fn another_storage_root_key_than_the_pinned_one_is_refused() {
    let (node, other) = (Node::new(), Node::new());
    assert_eq!(node.tpm().srk_name().await.unwrap(), None, "asking makes no key");
    let name = node.tpm().ensure_srk().await.unwrap();
    assert_eq!(node.tpm().ensure_srk().await.unwrap(), name, "it is made once");
    assert_eq!(node.tpm().srk_name().await.unwrap(), Some(name.clone()));
    let pinned =
        |node: &Node| Tpm::open(TpmConfig { srk_name: Some(name.clone()), ..node.config() }).unwrap();
    let blob = pinned(&node).seal(&seed(), b"a/b").await.unwrap();
    assert!(pinned(&node).unseal(&blob, b"a/b").await.is_ok());

    other.tpm().ensure_srk().await.unwrap();
    let tpm = pinned(&other);
    for failure in [
        tpm.seal(&seed(), b"a/b").await.unwrap_err(),
        tpm.unseal(&blob, b"a/b").await.unwrap_err(),
        tpm.read_pcrs(&[0]).await.unwrap_err(),
    ] {
        assert_eq!(failure.reason, Reason::TpmReplaced);
        assert!(failure.message.contains("enrol this node anew"), "{failure}");
    }
}

#[tokio::test]
async fn a_pinned_storage_root_key_that_is_gone_is_not_made_anew() {
    let node = Node::new();
    let name = node.tpm().ensure_srk().await.unwrap();
    node.tool("tpm2_evictcontrol", &["-C", "o", "-c", "0x81000001"]);
    let tpm = Tpm::open(TpmConfig { srk_name: Some(name), ..node.config() }).unwrap();
    assert_eq!(tpm.ensure_srk().await.unwrap_err().reason, Reason::TpmReplaced);
    let Health { state, detail, .. } = tpm.health().await;
    assert_eq!(state, HealthState::Replaced, "{detail}");
    drop(tpm);
    assert!(!node.tool("tpm2_getcap", &["handles-persistent"]).contains("0x81000001"));
}

#[tokio::test]
async fn a_handle_taken_by_a_signing_key_is_refused() {
    let node = Node::new();
    node.tool(
        "tpm2_createprimary",
        &[
            "-Q",
            "-G",
            "ecc:ecdsa",
            "-c",
            "k",
            "-a",
            "sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth",
        ],
    );
    node.tool("tpm2_evictcontrol", &["-Q", "-c", "k", "0x81000001"]);
    node.tool("tpm2_flushcontext", &["-t"]);
    let failure = node.tpm().ensure_srk().await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmFailed);
    assert!(failure.message.contains("tpm2_evictcontrol -c 0x81000001"), "{failure}");
}

#[tokio::test]
async fn lockout_by_somebody_else_does_not_stop_sealing() {
    let node = Node::new();
    let blob = node.tpm().seal(&seed(), b"a/b").await.unwrap();
    node.swtpm.lock_out().unwrap();
    let tpm = node.tpm();
    assert!(tpm.unseal(&blob, b"a/b").await.is_ok());
    assert!(tpm.seal(&seed(), b"a/b").await.is_ok());
    let Health { state, detail, .. } = tpm.health().await;
    assert_eq!(state, HealthState::Ok);
    assert!(detail.contains("in dictionary-attack lockout"), "{detail}");
}

#[tokio::test]
async fn lockout_of_a_storage_root_key_made_by_others_is_told() {
    let node = Node::new();
    node.swtpm.make_srk_with_tools().unwrap();
    assert!(node.tpm().seal(&seed(), b"a/b").await.is_ok());
    let Health { state, detail, .. } = node.tpm().health().await;
    assert_eq!(state, HealthState::Ok);
    assert!(detail.contains("subject to dictionary-attack lockout"), "{detail}");
    node.swtpm.lock_out().unwrap();
    let Health { state, detail, .. } = node.tpm().health().await;
    assert_eq!(state, HealthState::LockedOut, "{detail}");
    assert!(detail.contains("no sealed key can be opened") && detail.contains("--clear-lockout"), "{detail}");
    let failure = node.tpm().seal(&seed(), b"a/b").await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmLockout, "{failure}");
    assert!(failure.message.contains("every 1000 s"), "{failure}");
    assert!(failure.message.contains("--clear-lockout"), "{failure}");
}

#[tokio::test]
async fn an_owner_password_is_told() {
    let node = Node::new();
    node.tool("tpm2_changeauth", &["-c", "o", "hidden"]);
    let failure = node.tpm().ensure_srk().await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmFailed);
    assert!(failure.message.contains("has a password"), "{failure}");
}
