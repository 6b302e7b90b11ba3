//! What an attacker on the TPM's bus sees and can do.

use keyd_core::{Reason, Sealer, Secret};
use keyd_tpm::{Tpm, TpmConfig};

use crate::attestation::make_credential;
use crate::{Node, config};
use peers::interposer::{CLEAR, EXTEND_PCR_16, Interposer, Meddle, QUOTE, START_AUTH_SESSION, UNSEAL};

const CONTEXT: &[u8] = b"spire-server/x509-CA-A";

#[tokio::test]
async fn a_sealed_secret_never_crosses_the_bus_in_clear() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let secret = Secret::new((100..132).collect());
    let blob = tpm.seal(&secret, CONTEXT).await.unwrap();
    assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), secret.expose());
    tpm.quote(&[0], b"not encrypted").await.unwrap();
    assert!(bus.saw(b"not encrypted"), "the interposer sees what is in clear");
    assert!(!bus.saw(secret.expose()));
    assert!(!bus.saw(&secret.expose()[..16]));
}

#[tokio::test]
async fn an_answer_altered_on_the_bus_is_refused_and_told() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let blob = tpm.seal(&Secret::new(vec![9; 32]), CONTEXT).await.unwrap();
    bus.meddle(Meddle::AlterAnswer(UNSEAL));
    let failure = tpm.unseal(&blob, CONTEXT).await.unwrap_err();
    assert!(bus.has_meddled());
    assert_eq!(failure.reason, Reason::TpmFailed);
    assert!(failure.message.contains("altered the answer"), "{failure}");
    tpm.unseal(&blob, CONTEXT).await.expect("it goes on");
}

#[tokio::test]
async fn a_pcr_that_changes_between_reading_and_quoting_is_read_again() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let before = tpm.read_pcrs(&[16]).await.unwrap();
    bus.meddle(Meddle::SendBefore(QUOTE, EXTEND_PCR_16));
    let quote = tpm.quote(&[16], b"n").await.unwrap();
    assert!(bus.has_meddled());
    assert_ne!(quote.pcrs, before);
    assert_eq!(quote.pcrs, tpm.read_pcrs(&[16]).await.unwrap());
}

#[tokio::test]
async fn the_secret_of_a_credential_never_crosses_the_bus_in_clear() {
    let (node, verifier) = (Node::new(), Node::new());
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let secret: Vec<u8> = (50..82).collect();
    let credential = make_credential(&verifier, &tpm.endorsement().await.unwrap(), &secret);
    let activated = tpm.activate_credential(&credential.0, &credential.1).await.unwrap();
    assert_eq!(activated.expose(), secret);
    assert!(!bus.saw(&secret));
}

#[tokio::test]
async fn a_tpm_that_is_cleared_while_connected_is_told() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let name = node.tpm().ensure_srk().await.unwrap();
    let tpm = Tpm::open(TpmConfig { srk_name: Some(name), ..config(&bus.tcti()) }).unwrap();
    let blob = tpm.seal(&Secret::new(vec![9; 32]), CONTEXT).await.unwrap();
    bus.meddle(Meddle::SendBefore(START_AUTH_SESSION, CLEAR));
    let failure = tpm.unseal(&blob, CONTEXT).await.unwrap_err();
    assert!(bus.has_meddled());
    assert_eq!(failure.reason, Reason::TpmReplaced, "{failure}");
}
