//! Keys that are slow, refuse, change, or are used where they must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyd_core::{BoxFuture, Failure, Reason};
use keyd_tls::{
    Acceptor, Connector, HandleKey, Handshakes, Identity, RemoteSigner, Session, Settings, TlsError,
};
use keyd_x509::SpiffeId;
use peers::openssl::{self, Issued, Subject};
use rustls::SignatureScheme;
use rustls::sign::SigningKey as _;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::{
    CLIENT, DOMAIN, PATIENCE, SERVER, Signer, World, acceptor, bundles, certificates, connector, identity,
    soft_key,
};

type Outcome = Result<Session<DuplexStream>, TlsError>;

async fn link(acceptor: &Acceptor, connector: &Connector) -> (Outcome, Outcome) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let name = "server.field.example".try_into().unwrap();
    tokio::join!(acceptor.accept(ours), connector.connect(name, theirs))
}

fn identity_with(issued: &Issued, signer: Arc<dyn RemoteSigner>) -> Arc<Identity> {
    let key = HandleKey::new(soft_key(issued).public_key().clone(), signer);
    Arc::new(Identity::new(&certificates(&issued.certificate), Arc::new(key)).unwrap())
}

/// Hangs at the first signatures, as many as it is told, then signs.
struct Hanging {
    left: AtomicUsize,
    signer: Signer,
}

impl RemoteSigner for Hanging {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        let less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Box::pin(std::future::pending());
        }
        self.signer.sign(message)
    }
}

#[tokio::test]
async fn a_key_that_hangs_costs_its_own_handshakes_alone() {
    // More than there are threads to drive handshakes.
    const HANGING: usize = 8;
    let world = World::new();
    let signer = Arc::new(Hanging { left: HANGING.into(), signer: Signer(soft_key(&world.server)) });
    let limit = Duration::from_secs(2);
    let acceptor = acceptor(Settings {
        identity: watch::channel(Some(identity_with(&world.server, signer.clone()))).1,
        handshake_timeout: limit,
        ..world.server_settings()
    });
    let connector = connector(world.client_settings());
    let start = Instant::now();
    let mut hung = tokio::task::JoinSet::new();
    for _ in 0..HANGING {
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        hung.spawn(async move { link(&acceptor, &connector).await.0 });
    }
    while signer.left.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < limit, "not all of them came to sign");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (server, client) = link(&acceptor, &connector).await;
    assert_eq!(server.unwrap().peer.as_str(), CLIENT);
    assert_eq!(client.unwrap().peer.as_str(), SERVER);
    assert!(start.elapsed() < limit, "it waited for none of the others");
    while let Some(outcome) = hung.join_next().await {
        let outcome = outcome.unwrap();
        assert!(
            matches!(&outcome, Err(TlsError::TimedOut { .. }))
                || matches!(&outcome, Err(TlsError::Signer(f)) if f.reason == Reason::DeadlineExceeded),
            "{outcome:?}"
        );
    }
    assert!(start.elapsed() < limit + PATIENCE, "and they ended");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_on() {
    let world = World::new();
    let limit = Duration::from_millis(300);
    let settings = Settings { handshake_timeout: limit, ..world.server_settings() };
    let (ours, _silent) = tokio::io::duplex(1 << 16);
    let error = acceptor(settings).accept(ours).await.unwrap_err();
    assert_eq!(error.to_string(), "the handshake did not end within 300 ms");
}

struct Refusing;

impl RemoteSigner for Refusing {
    fn sign<'a>(&'a self, _message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async { Err(Failure::new(Reason::TokenAbsent, "the token is gone")) })
    }
}

#[tokio::test]
async fn a_key_that_refuses_is_reported_as_it_said() {
    let world = World::new();
    let identity = identity_with(&world.server, Arc::new(Refusing));
    let settings = Settings { identity: watch::channel(Some(identity)).1, ..world.server_settings() };
    let (server, client) = link(&acceptor(settings), &connector(world.client_settings())).await;
    match server {
        Err(TlsError::Signer(failure)) => assert_eq!(failure.reason, Reason::TokenAbsent),
        other => panic!("{other:?}"),
    }
    assert!(client.is_err());
}

#[tokio::test]
async fn a_signature_by_another_key_is_no_proof() {
    let world = World::new();
    let identity = identity_with(&world.server, Arc::new(Signer(soft_key(&world.client))));
    let settings = Settings { identity: watch::channel(Some(identity)).1, ..world.server_settings() };
    let (_, client) = link(&acceptor(settings), &connector(world.client_settings())).await;
    assert!(matches!(client, Err(TlsError::Handshake(_))), "{client:?}");
}

#[tokio::test]
async fn new_handshakes_follow_a_rotation() {
    let world = World::new();
    let (identities, identity_source) = watch::channel(Some(identity(&world.server)));
    let (roots, bundle_source) = watch::channel(bundles(DOMAIN, &world.root));
    let acceptor =
        acceptor(Settings { identity: identity_source, bundles: bundle_source, ..world.server_settings() });
    let serial = async |connector: &Connector| {
        let (server, client) = link(&acceptor, connector).await;
        let (server, client) = (server?, client?);
        let leaf = client.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_eq!(server.peer.as_str(), CLIENT);
        Ok::<_, TlsError>(leaf.to_vec())
    };
    let before = connector(world.client_settings());
    let der = |issued: &Issued| certificates(&issued.certificate)[0].der().to_vec();
    assert_eq!(serial(&before).await.unwrap(), der(&world.server));

    let renewed = world.issue(&Subject::leaf("renewed", SERVER));
    identities.send_replace(Some(identity(&renewed)));
    assert_eq!(serial(&before).await.unwrap(), der(&renewed));

    let other = World::new();
    roots.send_replace(bundles(DOMAIN, &other.root));
    assert!(matches!(serial(&before).await, Err(TlsError::Refused(_))), "the old root is believed no more");
    let after = Settings { bundles: world.client_settings().bundles, ..other.client_settings() };
    assert_eq!(serial(&connector(after)).await.unwrap(), der(&renewed));

    identities.send_replace(None);
    assert!(matches!(serial(&before).await, Err(TlsError::NoIdentity)));
}

#[tokio::test]
async fn a_key_by_handle_signs_in_handshakes_alone() {
    let world = World::new();
    let signer = Signer(soft_key(&world.server));
    let key = HandleKey::new(signer.0.public_key().clone(), Arc::new(signer));
    let key = key.choose_scheme(&[SignatureScheme::ML_DSA_65]).unwrap();
    match key.sign(b"message") {
        Err(rustls::Error::Other(error)) => {
            assert!(error.to_string().contains("Acceptor or Connector alone"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bundle_takes_authorities_alone() {
    let world = World::new();
    let mut bundles = keyd_tls::Bundles::default();
    let error = bundles.set(DOMAIN.parse().unwrap(), &certificates(&world.server.certificate)).unwrap_err();
    assert!(error.to_string().ends_with("\"CN=server\" may not sign certificates"), "{error}");
}

#[tokio::test]
async fn a_root_renewed_with_its_key_counts_by_its_own_end() {
    let world = World::new();
    let root = &world.root;
    let mut old = root.clone();
    old.certificate = world.dir.path().join("old-root.pem");
    openssl::run(&format!(
        "x509 -in {} -key {} -not_before 20200101000000Z -not_after 20200201000000Z -copy_extensions copyall -out {}",
        root.certificate.display(),
        root.key.display(),
        old.certificate.display()
    ))
    .unwrap();
    let both = [&old, root].map(|i| std::fs::read_to_string(&i.certificate).unwrap()).concat();
    let both_file = world.dir.path().join("both.pem");
    std::fs::write(&both_file, both).unwrap();
    let with = |file| Settings {
        bundles: watch::channel(bundles(DOMAIN, &Issued { certificate: file, key: root.key.clone() })).1,
        ..world.server_settings()
    };
    let connector = connector(world.client_settings());
    let (server, _) = link(&acceptor(with(old.certificate.clone())), &connector).await;
    assert!(matches!(server, Err(TlsError::Refused(_))), "the old one has ended");
    let (server, _) = link(&acceptor(with(both_file)), &connector).await;
    assert_eq!(server.unwrap().peer, CLIENT.parse::<SpiffeId>().unwrap());
}

#[test]
fn handshakes_may_be_dropped_within_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(Handshakes::start().unwrap()) });
}
