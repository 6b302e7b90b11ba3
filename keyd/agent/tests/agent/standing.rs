//! The operator of the server turns against the node.

use crate::field::Field;
use crate::own_uid;

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_attests_again_and_a_banned_one_serves_nobody() {
    let field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    let agent = field.agent().await.unwrap();
    agent.fetch().await.unwrap();

    field.server().command(&["agent", "evict", "-spiffeID", &field.agent_id]).await.unwrap();
    agent.until(|s| s["agent"]["key"] == "keyd-agent/agent-svid-B").await.unwrap();
    agent.until(|s| s["trouble"].is_null()).await.unwrap();
    agent.fetch().await.unwrap();

    field.server().command(&["agent", "ban", "-spiffeID", &field.agent_id]).await.unwrap();
    agent.says("the server has banned this agent").await.unwrap();
    let status = agent.until(|s| s["agent"].is_null()).await.unwrap();
    assert_eq!(status["workloads"].as_array().unwrap().len(), 0);
    assert_eq!(agent.try_fetch().await.unwrap().code, Some(3));
    assert!(!agent.dir.join("state/agent-svid.pem").exists());
}
