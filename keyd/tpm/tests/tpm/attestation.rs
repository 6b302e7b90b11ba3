//! Endorsement, credential activation and quotes, held against tpm2-tools and OpenSSL.

use std::path::Path;
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use keyd_core::Reason;
use keyd_tpm::Endorsement;
use peers::swtpm::Swtpm;

use crate::{Node, run};

/// NV indices of the certificates of a software TPM.
const P384_CERTIFICATE: &str = "0x1c00016";
const RSA_CERTIFICATE: &str = "0x1c00002";

/// TPM_ALG_RSA and TPM_ALG_ECC, the first two bytes of a TPMT_PUBLIC.
const RSA: [u8; 2] = [0, 0x01];
const ECC: [u8; 2] = [0, 0x23];

#[tokio::test]
async fn the_ecc_certificate_comes_first_and_verifies() {
    let node = Node::new();
    let endorsement = node.tpm().endorsement().await.unwrap();
    assert_eq!(endorsement.manufacturer, "IBM");
    assert_eq!(endorsement.firmware_version.len(), 16);
    assert_eq!(endorsement.ek_public[..2], ECC);
    verify_certificate(&node, &endorsement);
    activates(&node, &endorsement).await;
}

#[tokio::test]
async fn the_rsa_certificate_is_taken_where_there_is_no_other() {
    let node = Node::new();
    node.tool("tpm2_nvundefine", &["-C", "p", P384_CERTIFICATE]);
    let endorsement = node.tpm().endorsement().await.unwrap();
    assert_eq!(endorsement.ek_public[..2], RSA);
    verify_certificate(&node, &endorsement);
    activates(&node, &endorsement).await;
}

#[tokio::test]
async fn keys_that_nobody_persisted_are_derived_for_their_certificates() {
    for (certificate, handle) in [(RSA_CERTIFICATE, "0x81010016"), (P384_CERTIFICATE, "0x81010001")] {
        let node = Node::new();
        let persisted = {
            node.tool("tpm2_nvundefine", &["-C", "p", certificate]);
            node.tpm().endorsement().await.unwrap()
        };
        node.tool("tpm2_evictcontrol", &["-C", "o", "-c", handle]);
        assert_eq!(node.tpm().endorsement().await.unwrap(), persisted);
        activates(&node, &persisted).await;
    }
}

#[tokio::test]
async fn without_a_certificate_the_rsa_key_of_the_template_is_given() {
    let node = Node::new();
    let known = {
        node.tool("tpm2_nvundefine", &["-C", "p", P384_CERTIFICATE]);
        node.tpm().endorsement().await.unwrap()
    };
    node.tool("tpm2_nvundefine", &["-C", "p", RSA_CERTIFICATE]);
    let endorsement = node.tpm().endorsement().await.unwrap();
    assert_eq!(endorsement.ek_certificate, None);
    assert_eq!(endorsement.ek_public, known.ek_public);
    activates(&node, &endorsement).await;
}

#[tokio::test]
async fn the_certificate_of_another_tpm_is_refused() {
    let (node, other) = (Node::new(), Node::new());
    let foreign = other.tpm().endorsement().await.unwrap().ek_certificate.unwrap();
    std::fs::write(node.dir.path().join("foreign"), &foreign).unwrap();
    for index in [P384_CERTIFICATE, RSA_CERTIFICATE] {
        node.tool("tpm2_nvundefine", &["-C", "p", index]);
    }
    let size = foreign.len().to_string();
    node.tool("tpm2_nvdefine", &["-C", "o", "-s", &size, P384_CERTIFICATE]);
    node.tool("tpm2_nvwrite", &["-C", "o", "-i", "foreign", P384_CERTIFICATE]);
    let failure = node.tpm().endorsement().await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmFailed);
    assert!(failure.message.contains("0x1c00016 is of no endorsement key"), "{failure}");
}

#[tokio::test]
async fn the_attestation_key_is_the_same_after_a_restart_and_another_in_another_tpm() {
    let (mut node, other) = (Node::new(), Node::new());
    let ak = node.tpm().endorsement().await.unwrap().ak_public;
    node.swtpm.restart().unwrap();
    assert_eq!(node.tpm().endorsement().await.unwrap().ak_public, ak);
    assert_ne!(other.tpm().endorsement().await.unwrap().ak_public, ak);
}

#[tokio::test]
async fn tpms_of_one_certificate_authority_have_the_same_roots() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let start = |name| Swtpm::start_with_ca(&at(name), &at("ca")).unwrap();
    let nodes = ["a", "b"].map(|name| Node { dir: tempfile::tempdir().unwrap(), swtpm: start(name) });
    assert_eq!(nodes[0].swtpm.ek_roots(), nodes[1].swtpm.ek_roots());
    for node in &nodes {
        verify_certificate(node, &node.tpm().endorsement().await.unwrap());
    }
}

#[tokio::test]
async fn a_credential_for_another_attestation_key_is_refused() {
    let (node, other) = (Node::new(), Node::new());
    let endorsement = node.tpm().endorsement().await.unwrap();
    let ak_public = other.tpm().endorsement().await.unwrap().ak_public;
    let (id_object, encrypted_secret) =
        make_credential(&other, &Endorsement { ak_public, ..endorsement }, b"never seen");
    let failure = node.tpm().activate_credential(&id_object, &encrypted_secret).await.unwrap_err();
    assert_eq!(failure.reason, Reason::BadRequest);
    assert!(failure.message.contains("another TPM or attestation key"), "{failure}");
}

#[tokio::test]
async fn a_quote_verifies_and_covers_the_values_given() {
    let node = Node::new();
    let tpm = node.tpm();
    let endorsement = tpm.endorsement().await.unwrap();
    let wanted: Vec<u8> = (0..24).rev().collect();
    let quote = tpm.quote(&wanted, &[0xab; 32]).await.unwrap();
    assert_eq!(quote.pcrs, tpm.read_pcrs(&wanted).await.unwrap());
    assert!(quote.pcrs.iter().map(|pcr| pcr.index).eq(0..24));
    let values: Vec<u8> = quote.pcrs.iter().flat_map(|pcr| pcr.value).collect();
    assert!(quote.attest.ends_with(digest(&SHA256, &values).as_ref()));
    drop(tpm);

    let check = |attest: &[u8], nonce: &str| {
        let dir = node.dir.path();
        std::fs::write(dir.join("ak"), sized(&endorsement.ak_public)).unwrap();
        std::fs::write(dir.join("attest"), attest).unwrap();
        std::fs::write(dir.join("signature"), &quote.signature).unwrap();
        let mut command = Command::new("tpm2_checkquote");
        command.args(["-u", "ak", "-m", "attest", "-s", "signature", "-g", "sha256", "-q", nonce]);
        command.current_dir(dir).output().unwrap().status.success()
    };
    assert!(check(&quote.attest, &"ab".repeat(32)));
    assert!(!check(&quote.attest, &"ac".repeat(32)));
    let mut altered = quote.attest.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(!check(&altered, &"ab".repeat(32)));
}

/// The certificate's chain and that it is for the endorsement key, by OpenSSL.
fn verify_certificate(node: &Node, endorsement: &Endorsement) {
    let certificate = node.dir.path().join("ek.der");
    std::fs::write(&certificate, endorsement.ek_certificate.as_ref().unwrap()).unwrap();
    let [root, issuer] = &node.swtpm.ek_roots()[..] else { panic!("two certificates") };
    let openssl =
        |arguments: &[&str], files: &[&Path]| run(Command::new("openssl").args(arguments).args(files));
    let pem = node.dir.path().join("ek.pem");
    std::fs::write(&pem, openssl(&["x509", "-inform", "der", "-in"], &[&certificate])).unwrap();
    let [root, issuer] = [root, issuer].map(|path| path.to_str().unwrap());
    openssl(&["verify", "-ignore_critical", "-CAfile", root, "-untrusted", issuer], &[&pem]);
    let key = openssl(&["x509", "-noout", "-pubkey", "-in"], &[&pem]);
    std::fs::write(node.dir.path().join("ek"), sized(&endorsement.ek_public)).unwrap();
    let ours = node.tool("tpm2_print", &["-t", "TPM2B_PUBLIC", "-f", "pem", "ek"]);
    assert_eq!(key, ours);
}

/// Makes a credential with another TPM's tools and activates it.
async fn activates(node: &Node, endorsement: &Endorsement) {
    let verifier = Node::new();
    let (id_object, encrypted_secret) = make_credential(&verifier, endorsement, b"sesame");
    let secret = node.tpm().activate_credential(&id_object, &encrypted_secret).await.unwrap();
    assert_eq!(secret.expose(), b"sesame");
}

/// `tpm2_makecredential`: the contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
pub fn make_credential(verifier: &Node, endorsement: &Endorsement, secret: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let dir = verifier.dir.path();
    std::fs::write(dir.join("ek"), sized(&endorsement.ek_public)).unwrap();
    std::fs::write(dir.join("secret"), secret).unwrap();
    let ak_name = hex::encode([&[0, 0x0b], digest(&SHA256, &endorsement.ak_public).as_ref()].concat());
    verifier
        .tool("tpm2_makecredential", &["-Q", "-u", "ek", "-s", "secret", "-n", &ak_name, "-o", "credential"]);
    let file = std::fs::read(dir.join("credential")).unwrap();
    let rest = file.strip_prefix(&[0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1]).expect("tpm2-tools' header");
    let (id_object, rest) = contents(rest);
    let (encrypted_secret, rest) = contents(rest);
    assert!(rest.is_empty());
    (id_object, encrypted_secret)
}

/// A TPM2B structure around `content`.
fn sized(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

/// The contents of a TPM2B structure, and what follows it.
fn contents(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let (length, rest) = bytes.split_at(2);
    let (content, rest) = rest.split_at(usize::from(u16::from_be_bytes(length.try_into().unwrap())));
    (content.to_vec(), rest)
}
