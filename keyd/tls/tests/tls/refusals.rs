//! Who is not let in, and what is said about it.

use std::fmt;
use std::sync::Arc;

use keyd_core::SignInput;
use keyd_softkey::SoftKey;
use keyd_tls::{Identity, Settings, TlsError};
use keyd_x509::SpiffeId;
use peers::openssl::{self, Issued, Subject};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::{
    CLIENT, DOMAIN, SERVER, World, acceptor, believing, certificates, connector, identity, serve, showing,
    soft_key, visit,
};

const EC: &str = "EC -pkeyopt group:P-256";
const LONG_AGO: Option<(&str, &str)> = Some(("20200101000000Z", "20200201000000Z"));

async fn refusal(world: &World, arguments: &str) -> String {
    let arguments = format!("{arguments} {}", believing(&world.root));
    visit(&acceptor(world.server_settings()), &arguments).await.refusal()
}

#[tokio::test]
async fn another_spiffe_id_is_refused_by_name() {
    let world = World::new();
    let other = world.issue(&Subject::leaf("other", "spiffe://field.example/client/other"));
    assert_eq!(
        refusal(&world, &showing(&other)).await,
        "spiffe://field.example/client/other is refused: it is not among the allowed SPIFFE IDs"
    );
}

#[tokio::test]
async fn another_trust_domain_is_refused_even_under_a_root_that_is_believed() {
    let world = World::new();
    let foreign = world.issue(&Subject::leaf("foreign", "spiffe://elsewhere.example/client"));
    let said = refusal(&world, &showing(&foreign)).await;
    assert!(said.ends_with("there is no bundle for the trust domain elsewhere.example"), "{said}");

    // With a bundle of its own, a trust domain is still not vouched for by another one's root.
    let mut settings = world.server_settings();
    let elsewhere =
        openssl::issue(world.dir.path(), &Subject::ca("elsewhere", "elsewhere.example"), None).unwrap();
    let mut both = keyd_tls::Bundles::default();
    both.set(DOMAIN.parse().unwrap(), &certificates(&world.root.certificate)).unwrap();
    both.set("elsewhere.example".parse().unwrap(), &certificates(&elsewhere.certificate)).unwrap();
    settings.bundles = watch::channel(Arc::new(both)).1;
    settings.allowed =
        ["spiffe://elsewhere.example/client"].map(|id| id.parse::<SpiffeId>().unwrap()).into_iter().collect();
    let acceptor = acceptor(settings);
    let refused = visit(&acceptor, &format!("{} {}", showing(&foreign), believing(&world.root))).await;
    let said = refused.refusal();
    assert!(said.ends_with("its chain does not end in the bundle of its trust domain"), "{said}");
    let federated =
        world.issue_under(&Subject::leaf("federated", "spiffe://elsewhere.example/client"), &elsewhere);
    let let_in = visit(&acceptor, &format!("{} {}", showing(&federated), believing(&world.root))).await;
    assert_eq!(let_in.ours.unwrap().trust_domain().as_str(), "elsewhere.example");
}

#[tokio::test]
async fn a_root_that_only_has_the_right_name_is_refused() {
    let world = World::new();
    let other = tempfile::tempdir().unwrap();
    let root = openssl::issue(other.path(), &Subject::ca("root", DOMAIN), None).unwrap();
    let client = openssl::issue(other.path(), &Subject::leaf("client", CLIENT), Some(&root)).unwrap();
    let said = refusal(&world, &showing(&client)).await;
    assert!(said.starts_with("spiffe://field.example/client is refused: its chain does not"), "{said}");
}

#[tokio::test]
async fn what_has_ended_is_refused() {
    let world = World::new();
    let leaf = world.issue(&Subject { validity: LONG_AGO, ..Subject::leaf("leaf", CLIENT) });
    let said = refusal(&world, &showing(&leaf)).await;
    assert!(said.ends_with("a certificate of its chain has ended"), "{said}");

    let ca = world.issue(&Subject { validity: LONG_AGO, ..Subject::ca("ca", DOMAIN) });
    let leaf = world.issue_under(&Subject::leaf("under-ca", CLIENT), &ca);
    let arguments = format!("{} -cert_chain {}", showing(&leaf), ca.certificate.display());
    let said = refusal(&world, &arguments).await;
    assert!(said.ends_with("a certificate of its chain has ended"), "{said}");

    let root = Subject { validity: LONG_AGO, ..Subject::ca("old-root", DOMAIN) };
    let root = openssl::issue(world.dir.path(), &root, None).unwrap();
    let leaf = world.issue_under(&Subject::leaf("under-root", CLIENT), &root);
    let mut settings = world.server_settings();
    settings.bundles = watch::channel(crate::support::bundles(DOMAIN, &root)).1;
    let arguments = format!("{} {}", showing(&leaf), believing(&world.root));
    let said = visit(&acceptor(settings), &arguments).await.refusal();
    assert!(said.ends_with("a certificate of its chain has ended"), "{said}");
}

#[tokio::test]
async fn a_leaf_that_breaks_the_profile_is_refused() {
    let world = World::new();
    let good = Subject::leaf("good", CLIENT).extensions;
    for (change, to, rule) in [
        ("CA:false", "CA:true", "it is a CA"),
        ("digitalSignature", "digitalSignature,keyCertSign", "keyCertSign or cRLSign"),
        ("digitalSignature", "keyAgreement", "lacks digitalSignature"),
        ("keyUsage=critical,digitalSignature", "", "it has no key usage"),
        ("URI:", "URI:spiffe://field.example/second,URI:", "more than one URI name"),
        ("URI:spiffe://field.example/client", "DNS:client", "it has no URI name"),
        ("/client", "", "names no workload"),
        ("serverAuth,clientAuth", "serverAuth", "its chain does not verify"),
    ] {
        let extensions = good.replace(change, to);
        assert_ne!(extensions, good);
        let leaf = world.issue(&Subject { extensions, ..Subject::leaf("bad", CLIENT) });
        let said = refusal(&world, &showing(&leaf)).await;
        assert!(said.contains(rule), "{to:?}: {said}");
    }
}

#[tokio::test]
async fn an_intermediate_that_may_not_sign_is_refused() {
    let world = World::new();
    let usage = "keyUsage=critical,keyCertSign,cRLSign\n";
    for change in ["", "keyUsage=critical,cRLSign\n"] {
        let ca = Subject::ca("ca", DOMAIN);
        let ca = Subject { extensions: ca.extensions.replace(usage, change), ..ca };
        let ca = world.issue(&ca);
        let leaf = world.issue_under(&Subject::leaf("leaf", CLIENT), &ca);
        let arguments = format!("{} -cert_chain {}", showing(&leaf), ca.certificate.display());
        let said = refusal(&world, &arguments).await;
        assert!(said.ends_with("a certificate of its chain may not sign certificates"), "{change:?}: {said}");
    }
    let leaf = world.issue(&Subject::leaf("leaf-as-ca", CLIENT));
    let below = world.issue_under(&Subject::leaf("below", CLIENT), &leaf);
    let arguments = format!("{} -cert_chain {}", showing(&below), leaf.certificate.display());
    let said = refusal(&world, &arguments).await;
    assert!(said.ends_with("a certificate of its chain may not sign certificates"), "a leaf as CA: {said}");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let world = World::new();
    let said = refusal(&world, "").await;
    assert_eq!(said, "a peer without SPIFFE ID is refused: it presented no certificate");
}

#[tokio::test]
async fn older_versions_and_other_key_exchanges_are_refused() {
    let world = World::new();
    let acceptor = acceptor(world.server_settings());
    for other in
        ["-tls1_2", "-groups X25519", "-groups P-256", "-groups SecP256r1MLKEM768", "-groups MLKEM1024"]
    {
        let arguments = format!("{} {} {other}", showing(&world.client), believing(&world.root));
        let visit = visit(&acceptor, &arguments).await;
        assert!(matches!(visit.ours, Err(TlsError::Handshake(_))), "{other}: {:?}", visit.ours);
        assert!(visit.theirs.contains("alert"), "{other}: {}", visit.theirs);
    }
}

#[tokio::test]
async fn a_server_is_held_to_the_same_rules() {
    let world = World::new();
    let connector = connector(world.client_settings());
    for (subject, rule) in [
        (
            Subject::leaf("a", "spiffe://field.example/imposter"),
            "spiffe://field.example/imposter is refused: it is not",
        ),
        (Subject { validity: LONG_AGO, ..Subject::leaf("b", SERVER) }, "has ended"),
        (Subject::leaf("c", "spiffe://elsewhere.example/server"), "no bundle for the trust domain"),
        (Subject::ca("d", DOMAIN), "it is a CA"),
    ] {
        let server = serve(&showing(&world.issue(&subject))).await;
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        match connector.connect(name(), tcp).await {
            Err(TlsError::Refused(refusal)) => assert!(refusal.to_string().contains(rule), "{refusal}"),
            other => panic!("{rule}: {other:?}"),
        }
    }
    let server = serve(&format!("{} -groups X25519", showing(&world.server))).await;
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    assert!(matches!(connector.connect(name(), tcp).await, Err(TlsError::Handshake(_))));
}

#[tokio::test]
async fn an_elliptic_curve_leaf_is_refused_even_if_pressed() {
    let world = World::new();
    let ec = world.issue(&Subject { algorithm: EC, ..Subject::leaf("ec", CLIENT) });
    // OpenSSL sees that nothing it has is wanted, and shows nothing.
    assert!(refusal(&world, &showing(&ec)).await.ends_with("it presented no certificate"));

    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let pressed = press(&world, &ec, theirs);
    let acceptor = acceptor(world.server_settings());
    let (accepted, _) = tokio::join!(acceptor.accept(ours), pressed);
    match accepted {
        Err(TlsError::Refused(refusal)) => {
            assert_eq!(refusal.peer.unwrap().as_str(), CLIENT);
            assert_eq!(refusal.rule, "a key of ec-p256 is not taken on this link");
        }
        other => panic!("{other:?}"),
    }
}

/// Connects with a certificate and signature that the server did not ask for.
async fn press(world: &World, issued: &Issued, io: tokio::io::DuplexStream) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(certificates(&world.root.certificate)[0].der().to_vec())).unwrap();
    let chain = certificates(&issued.certificate).iter().map(|c| c.der().to_vec().into()).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Pressing(Arc::new(CertifiedKey::new(
            chain,
            Arc::new(PressingKey(Arc::new(soft_key(issued)))),
        )))));
    let mut config = config;
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    let _ = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name(), io).await;
}

#[derive(Debug)]
struct Pressing(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Pressing {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

struct PressingKey(Arc<SoftKey>);

impl fmt::Debug for PressingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PressingKey")
    }
}

impl SigningKey for PressingKey {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ECDSA
    }
}

impl Signer for PressingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(SignInput::Message(message)).unwrap())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// Believes every server: the one under test is on the other side.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 alone")
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn an_own_identity_that_is_no_good_is_said_before_the_handshake() {
    let world = World::new();
    let old = world.issue(&Subject { validity: LONG_AGO, ..Subject::leaf("old", SERVER) });
    let ec = world.issue(&Subject { algorithm: EC, ..Subject::leaf("ec", SERVER) });
    let with = |identity: Option<Arc<Identity>>| Settings {
        identity: watch::channel(identity).1,
        ..world.server_settings()
    };
    for (settings, sentence) in [
        (with(None), "no identity yet"),
        (with(Some(identity(&old))), "the own certificate of spiffe://field.example/server has ended"),
        (with(Some(identity(&ec))), "a key of ec-p256 is not taken on this link"),
    ] {
        let (ours, _theirs) = tokio::io::duplex(1 << 16);
        let error = acceptor(settings).accept(ours).await.unwrap_err();
        assert!(error.to_string().contains(sentence), "{error}");
    }
    let other = keyd_tls::HandleKey::new(
        soft_key(&world.client).public_key().clone(),
        Arc::new(crate::support::Signer(soft_key(&world.client))),
    );
    let chain = certificates(&world.server.certificate);
    assert!(matches!(Identity::new(&chain, Arc::new(other)), Err(TlsError::BadIdentity { .. })));
}

fn name() -> ServerName<'static> {
    "server.field.example".try_into().unwrap()
}
