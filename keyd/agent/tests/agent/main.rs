//! The agent on real parts: spire-server, keyd with a token and a TPM, OpenSSL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod field;

use field::{DOMAIN, Field};

fn own_uid() -> String {
    format!("unix:uid:{}", nix::unistd::geteuid())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_attests_and_its_workload_gets_an_ml_dsa_svid_that_openssl_verifies() {
    let field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &["-hint", "public"]).await.unwrap();
    let agent = field.agent().await.unwrap();

    let dir = agent.fetch().await.unwrap();
    let signed =
        system::openssl::verify_chain(&dir.join("svid.0.pem"), &dir.join("bundle.0.pem")).await.unwrap();
    assert!(signed.iter().all(|s| s.starts_with("ML-DSA")), "{signed:?}");
    let status = agent.status().await.unwrap();
    assert_eq!(status["agent"]["spiffe_id"], field.agent_id);
    assert_eq!(status["workloads"][0]["spiffe_id"], format!("spiffe://{DOMAIN}/web"));
    agent.service.stop().await.unwrap();
}
