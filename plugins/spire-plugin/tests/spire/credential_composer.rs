//! The key usage of ML-DSA leaves, as an unmodified server issues them.

use std::path::Path;

use keyd_core::Algorithm;
use keyd_x509::request;
use peers::spire::{ServerConfig, SpireServer};
use system::minter::{Local, Minter};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

use crate::{PLUGIN, keyd};

const DOMAIN: &str = "composer.test";

/// A workload's certificate for a key of this algorithm.
async fn mint(server: &Path, algorithm: Algorithm) -> Certificate {
    let key = Local::generate(algorithm).unwrap();
    let id = format!("spiffe://{DOMAIN}/web").parse().unwrap();
    let csr = request(&key, Some(&id)).await.unwrap();
    let chain = Minter::new(server).mint(&csr).await.unwrap();
    Certificate::from_der(chain[0].der()).unwrap()
}

fn key_usage(certificate: &Certificate) -> (bool, KeyUsage) {
    certificate.tbs_certificate().get_extension().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_dsa_leaf_is_for_signatures_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let plugins = |composer: &str| {
        format!(
            "KeyManager \"memory\" {{ plugin_data {{}} }}\nNodeAttestor \"join_token\" {{ plugin_data {{}} }}\n{composer}"
        )
    };
    let composer = format!(
        "CredentialComposer \"keyd\" {{\n  plugin_cmd = \"{PLUGIN}\"\n  plugin_data {{ socket = {:?} }}\n}}",
        keyd.socket()
    );
    let config = ServerConfig::hcl(DOMAIN, plugins(&composer)).unwrap();
    let with = dir.path().join("with");
    let server = SpireServer::start(&with, &config).await.unwrap();
    for algorithm in [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87] {
        let (critical, usage) = key_usage(&mint(&with, algorithm).await);
        assert!(critical);
        assert_eq!(usage, KeyUsage(KeyUsages::DigitalSignature.into()), "{algorithm}");
    }
    let (_, ec) = key_usage(&mint(&with, Algorithm::EcP256).await);
    assert!(ec.key_encipherment(), "SPIRE's own choice for other keys stays");
    server.stop().await.unwrap();

    // What it would be otherwise.
    let config = ServerConfig::hcl(DOMAIN, plugins("")).unwrap();
    let server = SpireServer::start(&dir.path().join("without"), &config).await.unwrap();
    let (_, usage) = key_usage(&mint(&dir.path().join("without"), Algorithm::MlDsa65).await);
    assert!(usage.key_encipherment());
    server.stop().await.unwrap();
}
