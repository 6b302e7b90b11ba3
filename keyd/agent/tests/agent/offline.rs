//! The server hangs, goes away and comes back.

use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use tokio::time::{Instant, sleep, timeout};

use crate::field::{Agent, Field, PATIENCE};
use crate::{chain, own_uid};

/// How long a workload may wait while the server is of no help.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn served_at_once(agent: &Agent) {
    let before = Instant::now();
    agent.fetch().await.unwrap();
    assert!(before.elapsed() < AT_ONCE, "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_holds_up_nobody() {
    let field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    let agent = field.agent().await.unwrap();
    agent.fetch().await.unwrap();
    let mut identities = agent.client().watch(None);
    let some = timeout(PATIENCE, identities.wait_for(Option::is_some)).await.unwrap();
    let handle = some.unwrap().as_ref().unwrap().handle.clone();

    let server = field.server().process.pid().unwrap();
    peers::process::freeze(server).await.unwrap();
    let status = agent.until(|s| !s["trouble"].is_null()).await.unwrap();
    let trouble = status["trouble"].as_str().unwrap();
    assert!(trouble.contains("did not answer") || trouble.contains("cannot reach"), "{trouble}");
    served_at_once(&agent).await;
    agent.client().sign(&handle, b"hello").await.unwrap();
    kill(server, Signal::SIGCONT).unwrap();
    agent.until(|s| s["trouble"].is_null()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_valid_is_served_without_the_server_and_what_has_ended_is_not() {
    let mut field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &["-x509SVIDTTL", "25"]).await.unwrap();
    let agent = field.agent().await.unwrap();
    agent.fetch().await.unwrap();
    field.stop_server().await.unwrap();
    served_at_once(&agent).await;

    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        let fetched = agent.try_fetch().await.unwrap();
        if fetched.code != Some(0) {
            break fetched;
        }
        let svid = chain(&fetched.dir.join("svid.0.pem"));
        assert!(svid[0].not_after() + Duration::from_secs(1) > SystemTime::now());
        assert!(Instant::now() < deadline, "it is still served");
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(refused.code, Some(5));
    assert!(refused.said.contains("no valid SVID for it now"), "{}", refused.said);
    let status = agent.status().await.unwrap();
    assert!(status["trouble"].as_str().unwrap().contains("cannot reach the SPIRE server"), "{status}");

    // A start without the server finds the agent's own SVID again.
    let dir = agent.dir.clone();
    agent.process.stop().await.unwrap();
    let agent = Agent::start(&dir).await.unwrap();
    agent.until(|s| s["agent"]["spiffe_id"] == field.agent_id.as_str()).await.unwrap();
    let refused = agent.try_fetch().await.unwrap();
    assert!(refused.said.contains("has not heard from its server"), "{}", refused.said);
    field.start_server().await.unwrap();
    agent.fetch().await.unwrap();
    let log = agent.process.log().unwrap();
    assert_eq!(log.matches("the agent is attested").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_kept_before_it_is_used_and_used_where_it_cannot_be_kept() {
    let mut field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    field.stop_server().await.unwrap();
    let agent = field.agent().await.unwrap();
    // No file can be put in place of a directory.
    std::fs::create_dir_all(agent.dir.join("state/bundle.pem/in-the-way")).unwrap();
    field.start_server().await.unwrap();
    agent.fetch().await.unwrap();
    let log = agent.process.log().unwrap();
    let kept = log.find("the bundle is not kept for the next start").unwrap();
    assert!(kept < log.find("the trust bundle is up to date").unwrap(), "{log}");
}
