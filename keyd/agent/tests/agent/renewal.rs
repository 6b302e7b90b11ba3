//! Everything is replaced about the half of its life.

use keyd_core::SignInput;
use tokio::time::timeout;

use crate::field::{Field, PATIENCE};
use crate::{chain, own_uid};

#[tokio::test(flavor = "multi_thread")]
async fn svids_are_replaced_in_time_and_the_agents_own_by_another_attestation() {
    let settings = "agent_ttl = \"40s\"\n  default_x509_svid_ttl = \"30s\"";
    let field = Field::with_settings(settings).await.unwrap();
    field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    let agent = field.agent().await.unwrap();
    let client = agent.client();
    let mut identities = client.watch(None);
    let some = timeout(PATIENCE, identities.wait_for(Option::is_some)).await.unwrap();
    let first = some.unwrap().clone().unwrap();
    let fetched = chain(&agent.fetch().await.unwrap().join("svid.0.pem"));

    let other = |i: &Option<std::sync::Arc<keyd_api::agent::AgentIdentity>>| {
        i.as_ref().is_some_and(|i| i.handle != first.handle)
    };
    let second = timeout(PATIENCE, identities.wait_for(other)).await.unwrap().unwrap().clone().unwrap();
    assert!(second.not_after > first.not_after && second.public_key != first.public_key);
    for identity in [&first, &second] {
        let signature = client.sign(&identity.handle, b"hello").await.unwrap();
        identity.public_key.verify(SignInput::Message(b"hello"), &signature).unwrap();
    }
    // The one with its key in memory has a time of its own.
    let renewed = async { while chain(&agent.fetch().await.unwrap().join("svid.0.pem"))[0] == fetched[0] {} };
    timeout(PATIENCE, renewed).await.unwrap();

    let status = agent.until(|s| s["agent"]["key"] == "keyd-agent/agent-svid-B").await.unwrap();
    let contact = status["last_contact"].as_i64().unwrap();
    agent.until(|s| s["last_contact"].as_i64().unwrap() > contact).await.unwrap();
    let log = agent.process.log().unwrap();
    assert!(!log.contains("trouble"), "{log}");
}
