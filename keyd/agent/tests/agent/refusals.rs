//! Servers that the agent attests to under no circumstances.

use peers::openssl::{self, Issued, Subject, issue};
use peers::spire::free_port;
use tokio::process::Child;

use crate::field::{DOMAIN, Node};

fn serve(port: u16, groups: &str, issued: &Issued) -> Child {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    openssl::spawn(&format!(
        "s_server -quiet -alpn h2 -groups {groups} -accept 127.0.0.1:{port} -cert {certificate} -key {key}"
    ))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_trust_domains_or_not_post_quantum_is_refused_in_words() {
    let node = Node::start().await.unwrap();
    let dir = node.path("ca");
    std::fs::create_dir(&dir).unwrap();
    let ca = |name| issue(&dir, &Subject::ca(name, DOMAIN), None).unwrap();
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let leaf = |name: &str, path: &str, issuer: &Issued| {
        issue(&dir, &Subject::leaf(name, &format!("spiffe://{DOMAIN}{path}")), Some(issuer)).unwrap()
    };
    const POST_QUANTUM: &str = "X25519MLKEM768";
    for (name, groups, issued, words) in [
        (
            "a1",
            POST_QUANTUM,
            leaf("l1", "/spire/server", &theirs),
            "its chain does not end in the bundle of its trust domain",
        ),
        ("a2", POST_QUANTUM, leaf("l2", "/web", &ours), "it is not among the allowed SPIFFE IDs"),
        (
            "a3",
            "X25519:P-256",
            leaf("l3", "/spire/server", &ours),
            "offers TLS 1.3 with X25519MLKEM768 alone",
        ),
    ] {
        let port = free_port().unwrap();
        let _server = serve(port, groups, &issued);
        let agent = node.agent(name, port, &ours.certificate).await.unwrap();
        agent.says(words).await.unwrap();
        let status = agent.until(|s| s["trouble"].as_str().is_some_and(|t| t.contains(words))).await.unwrap();
        assert!(status["agent"].is_null(), "{status}");
        assert_eq!(
            agent.told_manager(),
            ["READY=1\nSTATUS=not attested yet"],
            "it answers, and has no identity"
        );
        let fetched = agent.try_fetch().await.unwrap();
        assert_eq!(fetched.code, Some(5), "{}", fetched.said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_trust_bundle_the_agent_does_not_start() {
    let node = Node::start().await.unwrap();
    let Err(error) = node.agent("agent", 1, &node.path("none.pem")).await else { panic!("it started") };
    assert!(error.to_string().contains("spire-server bundle show"), "{error}");
    let open = node.path("open");
    std::fs::create_dir_all(open.join("state")).unwrap();
    let Err(error) = node.agent("open", 1, &node.path("none.pem")).await else { panic!("it started") };
    assert!(error.to_string().contains("chmod 700"), "{error}");
}
