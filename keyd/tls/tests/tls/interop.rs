//! Links that come about, and what they are made of.

use keyd_tls::{Profile, Settings, TlsError};
use peers::openssl::Subject;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::{CLIENT, SERVER, World, acceptor, believing, connector, serve, showing, visit};

#[tokio::test]
async fn openssl_is_let_in_over_post_quantum_algorithms_alone() {
    let world = World::new();
    let arguments = format!("{} {}", showing(&world.client), believing(&world.root));
    let visit = visit(&acceptor(world.server_settings()), &arguments).await;
    assert_eq!(visit.ours.unwrap().as_str(), CLIENT);
    for said in [
        "heard: over and out",
        "TLSv1.3",
        "Negotiated TLS1.3 group: X25519MLKEM768",
        "Peer signature type: mldsa65",
        "Verify return code: 0 (ok)",
    ] {
        assert!(visit.theirs.contains(said), "{said:?} is not in: {}", visit.theirs);
    }
}

#[tokio::test]
async fn openssl_is_connected_to() {
    let world = World::new();
    let server = serve(&format!("{} {} -Verify 2", showing(&world.server), believing(&world.root))).await;
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let connector = connector(world.client_settings());
    let session = connector.connect(name(), tcp).await.unwrap();
    assert_eq!(session.peer.as_str(), SERVER);
    let mut stream = BufReader::new(session.stream);
    stream.write_all(b"stressed\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "desserts\n");
}

#[tokio::test]
async fn intermediates_are_shown_and_followed() {
    let world = World::new();
    let ca = world.issue(&Subject::ca("intermediate", "field.example"));
    let server = world.issue_under(&Subject::leaf("server2", SERVER), &ca);
    let client = world.issue_under(&Subject::leaf("client2", CLIENT), &ca);
    let chain = [&server, &ca].map(|i| std::fs::read_to_string(&i.certificate).unwrap()).concat();
    std::fs::write(&server.certificate, chain).unwrap();
    let arguments =
        format!("{} -cert_chain {} {}", showing(&client), ca.certificate.display(), believing(&world.root));
    let visit = visit(&acceptor(world.settings(&server, CLIENT)), &arguments).await;
    assert_eq!(visit.ours.unwrap().as_str(), CLIENT, "{}", visit.theirs);
    assert!(visit.theirs.contains("Verify return code: 0 (ok)"), "{}", visit.theirs);
}

#[tokio::test]
async fn cnsa_2_takes_ml_kem_1024_and_ml_dsa_87_alone() {
    let world = World::new();
    let strong = |subject| Subject { algorithm: "ML-DSA-87", ..subject };
    let root = peers::openssl::issue(world.dir.path(), &strong(Subject::ca("root87", "field.example")), None);
    let world = World { root: root.unwrap(), ..world };
    let server = world.issue(&strong(Subject::leaf("server87", SERVER)));
    let client = world.issue(&strong(Subject::leaf("client87", CLIENT)));
    let settings = Settings { profile: Profile::Cnsa2, ..world.settings(&server, CLIENT) };
    let acceptor = acceptor(settings);
    let arguments = format!("{} {}", showing(&client), believing(&world.root));
    let strong = visit(&acceptor, &format!("{arguments} -groups MLKEM1024")).await;
    assert_eq!(strong.ours.unwrap().as_str(), CLIENT, "{}", strong.theirs);
    for said in ["group: MLKEM1024", "type: mldsa87", "TLS_AES_256_GCM_SHA384"] {
        assert!(strong.theirs.contains(said), "{said:?} is not in: {}", strong.theirs);
    }
    let weaker = visit(&acceptor, &format!("{arguments} -groups X25519MLKEM768")).await;
    assert!(matches!(weaker.ours, Err(TlsError::Handshake(_))), "{:?}", weaker.ours);
    let leaf_65 = world.issue(&Subject::leaf("client65", CLIENT));
    let arguments = format!("{} {} -groups MLKEM1024", showing(&leaf_65), believing(&world.root));
    assert!(visit(&acceptor, &arguments).await.refusal().ends_with("it presented no certificate"));
}

#[tokio::test]
async fn the_link_to_a_spire_server_takes_its_elliptic_curve_leaf_and_alpn() {
    let world = World::new();
    let ec = Subject { algorithm: "EC -pkeyopt group:P-256", ..Subject::leaf("ec", SERVER) };
    let ec = world.issue(&ec);
    let server = serve(&format!("{} {} -alpn h2", showing(&ec), believing(&world.root))).await;
    let strict = Settings { alpn: vec![b"h2".to_vec()], ..world.client_settings() };
    let lenient = Settings { profile: Profile::SpireServer, ..strict.clone() };
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let session = connector(lenient).connect(name(), tcp).await.unwrap();
    assert_eq!(session.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // s_server serves one at a time.
    drop(session);
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let refused = connector(strict).connect(name(), tcp).await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "ECDSA is for that one link: {refused:?}");
}

#[tokio::test]
async fn a_client_without_identity_shows_no_certificate() {
    let world = World::new();
    let server = serve(&format!("{} {} -verify 2", showing(&world.server), believing(&world.root))).await;
    let mut settings = world.client_settings();
    settings.identity = tokio::sync::watch::channel(None).1;
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let session = connector(settings).connect(name(), tcp).await.unwrap();
    assert_eq!(session.peer.as_str(), SERVER);
}

#[tokio::test]
async fn no_resumption_is_offered() {
    let world = World::new();
    let arguments = format!("{} {} -msg", showing(&world.client), believing(&world.root));
    let visit = visit(&acceptor(world.server_settings()), &arguments).await;
    visit.ours.unwrap();
    assert!(visit.theirs.contains("CertificateVerify"), "messages are listed: {}", visit.theirs);
    assert!(!visit.theirs.contains("NewSessionTicket"), "{}", visit.theirs);
}

fn name() -> ServerName<'static> {
    "server.field.example".try_into().unwrap()
}
