//! The key usage of ML-DSA leaves, as an unmodified server issues them.

use std::path::PathBuf;

use keyd_api::unix_channel;
use keyd_core::Algorithm;
use keyd_x509::request;
use peers::spire::{ServerConfig, SpireServer};
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

use crate::PLUGIN;
use crate::keyd::Keyd;
use crate::software::Software;

const DOMAIN: &str = "composer.test";

/// spire.api.server.svid.v1.MintX509SVIDRequest
#[derive(Clone, PartialEq, prost::Message)]
struct MintRequest {
    #[prost(bytes = "vec", tag = "1")]
    csr: Vec<u8>,
}

/// spire.api.server.svid.v1.MintX509SVIDResponse
#[derive(Clone, PartialEq, prost::Message)]
struct MintResponse {
    #[prost(message, optional, tag = "1")]
    svid: Option<Svid>,
}

/// spire.api.types.X509SVID
#[derive(Clone, PartialEq, prost::Message)]
struct Svid {
    #[prost(bytes = "vec", repeated, tag = "1")]
    cert_chain: Vec<Vec<u8>>,
}

/// A workload's certificate for a key of this algorithm.
async fn mint(socket: PathBuf, algorithm: Algorithm) -> Certificate {
    let key = Software::generate(algorithm);
    let id = format!("spiffe://{DOMAIN}/web").parse().unwrap();
    let csr = request(&key, Some(&id)).await.unwrap();
    let mut client = tonic::client::Grpc::new(unix_channel(socket));
    client.ready().await.unwrap();
    let method = PathAndQuery::from_static("/spire.api.server.svid.v1.SVID/MintX509SVID");
    let codec = tonic_prost::ProstCodec::<MintRequest, MintResponse>::default();
    let minted = client.unary(Request::new(MintRequest { csr }), method, codec).await.unwrap();
    let chain = minted.into_inner().svid.unwrap().cert_chain;
    Certificate::from_der(&chain[0]).unwrap()
}

fn key_usage(certificate: &Certificate) -> (bool, KeyUsage) {
    certificate.tbs_certificate().get_extension().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_dsa_leaf_is_for_signatures_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path()).await;
    let plugins = |composer: &str| {
        format!(
            "KeyManager \"memory\" {{ plugin_data {{}} }}\nNodeAttestor \"join_token\" {{ plugin_data {{}} }}\n{composer}"
        )
    };
    let composer = format!(
        "CredentialComposer \"keyd\" {{\n  plugin_cmd = \"{PLUGIN}\"\n  plugin_data {{ socket = \"{}\" }}\n}}",
        keyd.socket()
    );
    let config = ServerConfig::hcl(DOMAIN, plugins(&composer)).unwrap();
    let server = SpireServer::start(&dir.path().join("with"), &config).await.unwrap();
    let socket = dir.path().join("with/api.sock");
    for algorithm in [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87] {
        let (critical, usage) = key_usage(&mint(socket.clone(), algorithm).await);
        assert!(critical);
        assert_eq!(usage, KeyUsage(KeyUsages::DigitalSignature.into()), "{algorithm}");
    }
    let (_, ec) = key_usage(&mint(socket, Algorithm::EcP256).await);
    assert!(ec.key_encipherment(), "SPIRE's own choice for other keys stays");
    server.stop().await.unwrap();

    // What it would be otherwise.
    let config = ServerConfig::hcl(DOMAIN, plugins("")).unwrap();
    let server = SpireServer::start(&dir.path().join("without"), &config).await.unwrap();
    let (_, usage) = key_usage(&mint(dir.path().join("without/api.sock"), Algorithm::MlDsa65).await);
    assert!(usage.key_encipherment());
    server.stop().await.unwrap();
}
