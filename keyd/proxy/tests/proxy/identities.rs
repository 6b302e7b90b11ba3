//! Whose identity the proxy shows, and when it shows none.

use std::process::Command;

use keyd_tls::TlsError;
use peers::openssl::{self, Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, certificates};
use crate::support::{CLIENT, DOMAIN, PROXY, World};

#[tokio::test]
async fn a_rotation_is_followed_and_open_connections_stay() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let mut old = world.connect(&proxy).await.unwrap();
    let mut upstream = world.arrival().await;
    let renewed = world.issue(&Subject::leaf("renewed", PROXY));
    world.agent.give(PROXY, &renewed, &world.root);
    proxy.has_identity(2).await;
    let new = world.connect(&proxy).await.unwrap();
    let shown = new.stream.get_ref().1.peer_certificates().unwrap().first().unwrap().to_vec();
    assert_eq!(shown, certificates(&renewed).first().unwrap().der());
    old.stream.write_all(b"still here").await.unwrap();
    let mut buffer = [0; 10];
    upstream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"still here");
}

#[tokio::test]
async fn a_new_root_is_followed() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    world.connect(&proxy).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let root = openssl::issue(other.path(), &Subject::ca("root", DOMAIN), None).unwrap();
    let web = openssl::issue(other.path(), &Subject::leaf("web", PROXY), Some(&root)).unwrap();
    let client = openssl::issue(other.path(), &Subject::leaf("client", CLIENT), Some(&root)).unwrap();
    world.agent.give(PROXY, &web, &root);
    proxy.has_identity(2).await;
    assert!(
        matches!(world.connect(&proxy).await, Err(TlsError::Refused(_))),
        "the client's root is the old one"
    );
    let world = World { root, client, ..world };
    world.connect(&proxy).await.unwrap();
}

#[tokio::test]
async fn nobody_is_let_in_without_an_identity() {
    let world = World::new().await;
    world.agent.take();
    let proxy = world.proxy("").await;
    assert!(world.connect(&proxy).await.is_err());
    proxy.logged("no identity yet", 1).await;
    world.agent.give(PROXY, &world.issue(&Subject::leaf("late", PROXY)), &world.root);
    proxy.has_identity(1).await;
    world.connect(&proxy).await.unwrap();
    world.agent.take();
    proxy.logged("nobody is let in", 1).await;
    assert!(world.connect(&proxy).await.is_err());
}

#[tokio::test]
async fn an_identity_that_has_ended_is_not_shown() {
    let world = World::new().await;
    let ended =
        Subject { validity: Some(("20200101000000Z", "20200201000000Z")), ..Subject::leaf("ended", PROXY) };
    world.agent.give(PROXY, &world.issue(&ended), &world.root);
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    assert!(matches!(world.connect(&proxy).await, Err(TlsError::Handshake(_))));
    proxy.logged("the own certificate of spiffe://field.example/web has ended", 1).await;
}

#[tokio::test]
async fn without_the_agent_there_is_no_signature_and_with_it_again_there_is() {
    let world = World::new().await;
    let proxy = world.proxy("").await;
    proxy.has_identity(1).await;
    let World { dir, root, client, agent, upstream } = world;
    let socket = dir.path().join("agent.sock");
    drop(agent);
    let world = World { dir, root, client, agent: Agent::start(&socket.with_extension("other")), upstream };
    assert!(world.connect(&proxy).await.is_err());
    proxy.logged("the key of this side did not sign: cannot reach keyd-agent", 1).await;
    let agent = Agent::start(&socket);
    agent.give(PROXY, &world.issue(&Subject::leaf("again", PROXY)), &world.root);
    proxy.has_identity(2).await;
    world.connect(&proxy).await.unwrap();
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_keyd-proxy"))
            .args(["config", "check", "--config", file.to_str().unwrap()])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    };
    let good = "listen = '127.0.0.1:8443'\nupstream = '127.0.0.1:8080'\nallow = ['spiffe://td/a', 'spiffe://td/b/*']\n";
    let (code, said) = check(good);
    assert_eq!(code, 0, "{said}");
    assert!(said.ends_with("is valid; 127.0.0.1:8443 to 127.0.0.1:8080, 2 rules\n"), "{said}");
    let (code, said) = check(&good.replace("upstream", "upstraem"));
    assert_eq!(code, 1);
    assert!(said.contains("proxy.toml:2:1: unknown field `upstraem`"), "{said}");
    assert!(said.contains("Did you mean \"upstream\"?"), "{said}");
}
