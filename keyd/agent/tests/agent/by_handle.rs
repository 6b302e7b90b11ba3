//! Identities whose keys never leave the token.

use std::sync::Arc;
use std::time::SystemTime;

use keyd_api::agent::AgentIdentity;
use keyd_core::{Algorithm, Reason, SignInput};
use keyd_x509::{Certificate, to_pem};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::field::{Agent, DOMAIN, Field, PATIENCE};
use crate::own_uid;

type Identities = watch::Receiver<Option<Arc<AgentIdentity>>>;

async fn identity(
    identities: &mut Identities,
    wanted: impl Fn(&AgentIdentity) -> bool,
) -> Arc<AgentIdentity> {
    let some = identities.wait_for(|identity| identity.as_ref().is_some_and(|i| wanted(i)));
    timeout(PATIENCE, some).await.expect("in time").unwrap().clone().unwrap()
}

async fn keys_by_handle(field: &Field) -> Vec<String> {
    let keys = field.node.keyd.client().list_keys(Some(&"workload".parse().unwrap())).await.unwrap();
    keys.into_iter().map(|key| key.key.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_handle_is_in_the_token_and_signs_for_its_owner_alone() {
    let field = Field::start().await.unwrap();
    let entry = field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    let agent = field.agent().await.unwrap();
    let client = agent.client();
    let mut identities = client.watch(None);
    let own = identity(&mut identities, |_| true).await;

    assert_eq!(own.spiffe_id, format!("spiffe://{DOMAIN}/web"));
    assert_eq!(own.public_key.algorithm(), Algorithm::MlDsa65);
    assert!(own.not_after > SystemTime::now());
    let key = field.node.keyd.json(&["key", "show", &format!("workload/{}", own.handle)]).await.unwrap();
    assert_eq!(key["protection"], "hsm");
    let certificates: Vec<_> = own.chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    assert_eq!(certificates[0].public_key().unwrap(), own.public_key);
    let roots: Vec<_> = own.bundles[DOMAIN].iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    let (svid, bundle) = (field.node.path("svid.pem"), field.node.path("roots.pem"));
    std::fs::write(&svid, to_pem(&certificates).unwrap()).unwrap();
    std::fs::write(&bundle, to_pem(&roots).unwrap()).unwrap();
    system::openssl::verify_chain(&svid, &bundle).await.unwrap();

    let signature = client.sign(&own.handle, b"hello").await.unwrap();
    own.public_key.verify(SignInput::Message(b"hello"), &signature).unwrap();
    let unknown = client.sign("none", b"hello").await.unwrap_err();
    assert_eq!(unknown.reason, Reason::KeyNotFound);
    let another = client.watch(Some(format!("spiffe://{DOMAIN}/other")));

    // From now on this process is a foreign caller.
    let spiffe_id = format!("spiffe://{DOMAIN}/web");
    let mut update = vec!["entry", "update", "-entryID", &entry, "-parentID", &field.agent_id];
    update.extend(["-spiffeID", &spiffe_id, "-selector", "unix:uid:4711"]);
    field.server().command(&update).await.unwrap();
    timeout(PATIENCE, identities.wait_for(Option::is_none)).await.unwrap().unwrap();
    let foreign = client.sign(&own.handle, b"hello").await.unwrap_err();
    assert_eq!((foreign.reason, foreign.message), (unknown.reason, unknown.message));
    assert!(another.borrow().is_none(), "an id that no entry gives");

    field.server().command(&["entry", "delete", "-entryID", &entry]).await.unwrap();
    agent.until(|s| s["workloads"].as_array().unwrap().is_empty()).await.unwrap();
    let gone = async {
        while !keys_by_handle(&field).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the keys of an entry go with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_leaves_keys_that_its_next_start_destroys() {
    let field = Field::start().await.unwrap();
    field.entry("/web", &[&own_uid()], &[]).await.unwrap();
    let agent = field.agent().await.unwrap();
    let mut identities = agent.client().watch(None);
    let first = identity(&mut identities, |_| true).await;
    assert_eq!(keys_by_handle(&field).await, [first.handle.as_str()]);

    let dir = agent.dir.clone();
    agent.process.kill().await.unwrap();
    let agent = Agent::start(&dir).await.unwrap();
    let second = identity(&mut identities, |i| i.handle != first.handle).await;
    assert_eq!(keys_by_handle(&field).await, [second.handle.as_str()]);
    let signature = agent.client().sign(&second.handle, b"hello").await.unwrap();
    second.public_key.verify(SignInput::Message(b"hello"), &signature).unwrap();
}
