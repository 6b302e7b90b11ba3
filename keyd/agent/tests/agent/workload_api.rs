//! What workloads get, and who gets nothing.

use std::path::Path;
use std::process::Output;

use keyd_api::unix_channel;
use keyd_core::{Algorithm, Reason};
use peers::openssl::{Subject, issue};
use spiffe::{TrustDomain, WorkloadApiClient, WorkloadApiError, X509Source};
use tokio::process::Command;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::field::{AGENT, Agent, DOMAIN, Field};
use crate::{chain, leaf_id, own_uid};

#[tokio::test(flavor = "multi_thread")]
async fn workloads_get_what_entries_give_them_and_nothing_else() {
    let field = Field::start().await.unwrap();
    // The command means itself; this test is no such program.
    let command = format!("unix:path:{}", Path::new(AGENT).canonicalize().unwrap().display());
    field.entry("/command", &[&own_uid(), &command], &["-hint", "internal"]).await.unwrap();
    let agent = field.agent().await.unwrap();

    let fetched = agent.fetch().await.unwrap();
    let attested = format!("STATUS=attested as {}", field.agent_id);
    assert_eq!(agent.told_manager(), ["READY=1\nSTATUS=not attested yet", &attested]);
    let svid = fetched.join("svid.0.pem");
    assert_eq!(leaf_id(&chain(&svid)), format!("spiffe://{DOMAIN}/command"));
    assert_eq!(chain(&svid)[0].public_key().unwrap().algorithm(), Algorithm::MlDsa65);
    let signed = system::openssl::verify_chain(&svid, &fetched.join("bundle.0.pem")).await.unwrap();
    assert!(signed.iter().all(|s| s.starts_with("ML-DSA")), "{signed:?}");
    openssl_takes_the_key(&fetched.join("svid.0.key")).await;

    let endpoint = format!("unix:{}", agent.socket().display());
    let client = WorkloadApiClient::connect_to(&endpoint).await.unwrap();
    let denied = client.fetch_x509_context().await.unwrap_err();
    assert!(matches!(denied, WorkloadApiError::NoIdentityIssued), "{denied:?}");
    let refused = agent.client().sign("any", b"m").await.unwrap_err();
    assert_eq!(refused.reason, Reason::KeyNotFound, "{refused}");

    federate(&field).await;
    field.entry("/app", &[&own_uid()], &["-federatesWith", "spiffe://other.test"]).await.unwrap();
    let source = X509Source::builder().endpoint(&endpoint).build().await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), format!("spiffe://{DOMAIN}/app"));
    let context = client.fetch_x509_context().await.unwrap();
    for trust_domain in [DOMAIN, "other.test"] {
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        assert_eq!(context.bundle_set().get(&trust_domain).unwrap().authorities().len(), 1);
    }
    assert_eq!(client.fetch_x509_bundles().await.unwrap().len(), 2);

    let to = field.node.path("spire-agent-fetched");
    std::fs::create_dir(&to).unwrap();
    let output = spire_agent(&agent, &["api", "fetch", "x509", "-write", to.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(leaf_id(&chain(&to.join("svid.0.pem"))), format!("spiffe://{DOMAIN}/app"));
    let output = spire_agent(&agent, &["api", "fetch", "jwt", "-audience", "a"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("issues no JWT-SVIDs"), "{output:?}");

    let status = agent.until(|s| s["workloads"].as_array().unwrap().len() == 2).await.unwrap();
    assert_eq!(status["agent"]["spiffe_id"], field.agent_id);
    assert_eq!(status["agent"]["key"], "keyd-agent/agent-svid-A");
    assert_eq!(status["workloads"][0]["hint"], "internal");
    assert!(status["workloads"][1]["seconds_left"].as_i64().unwrap() > 3000, "{status}");
    assert_eq!(agent.process.log().unwrap().matches("an SVID is issued").count(), 2);
    agent.process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_others_may_have_led_here_is_refused() {
    let field = Field::start().await.unwrap();
    let agent = field.agent().await.unwrap();
    for method in ["FetchX509SVID", "FetchX509Bundles"] {
        let mut grpc = Grpc::new(unix_channel(agent.socket()));
        grpc.ready().await.unwrap();
        let path: PathAndQuery = format!("/SpiffeWorkloadAPI/{method}").parse().unwrap();
        let codec = ProstCodec::<(), ()>::default();
        let answer = grpc.server_streaming(Request::new(()), path, codec).await;
        let status = answer.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status}");
        assert!(status.message().contains("workload.spiffe.io"), "{method}: {status}");
    }
}

async fn federate(field: &Field) {
    let dir = field.node.path("other");
    std::fs::create_dir(&dir).unwrap();
    let other = issue(&dir, &Subject::ca("other", "other.test"), None).unwrap();
    let file = other.certificate.to_str().unwrap();
    let set = ["bundle", "set", "-id", "spiffe://other.test", "-format", "pem", "-path", file];
    field.server().command(&set).await.unwrap();
}

async fn spire_agent(agent: &Agent, args: &[&str]) -> Output {
    let mut command = Command::new(peers::dir().join("spire/spire-agent"));
    command.args(args).arg("-socketPath").arg(agent.socket()).kill_on_drop(true);
    command.output().await.unwrap()
}

async fn openssl_takes_the_key(file: &Path) {
    let mut pkey = system::openssl::openssl();
    let output = pkey.args(["pkey", "-noout", "-text", "-in"]).arg(file).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("ML-DSA-65 Private-Key"), "{output:?}");
}
