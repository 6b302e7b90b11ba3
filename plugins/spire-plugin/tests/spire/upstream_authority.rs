//! What the UpstreamAuthority certifies, and what it refuses.

use std::time::{Duration, SystemTime};

use keyd_core::Algorithm;
use keyd_x509::{Certificate, request};
use plugin_sdk::proto::upstreamauthority::upstream_authority_client::UpstreamAuthorityClient;
use plugin_sdk::proto::upstreamauthority::{MintX509caRequest, MintX509caResponse};
use system::keyd::Keyd;
use system::minter::Local;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::plugin::Plugin;
use crate::{DOMAIN, chain, keyd};

struct Authority {
    keyd: Keyd,
    root: Certificate,
    plugin: Plugin,
    _dir: tempfile::TempDir,
}

impl Authority {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keyd = keyd::start(dir.path(), "").await;
        let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
        let plugin = Plugin::start("UpstreamAuthority", dir.path()).await;
        let (socket, file) = (keyd.socket(), root.display());
        let data = format!(
            "\"socket\" = {socket:?}\n\n\"root_key\" = \"spire-root/root\"\n\n\"root_certificate\" = \"{file}\""
        );
        plugin.configure(&data).await.unwrap();
        Self { keyd, root: chain(&root).remove(0), plugin, _dir: dir }
    }

    /// The first response; the stream must stay open after it.
    async fn mint(&self, csr: Vec<u8>, preferred_ttl: i32) -> Result<MintX509caResponse, Status> {
        let mut client = UpstreamAuthorityClient::new(self.plugin.channel.clone());
        let stream = client.mint_x509ca_and_subscribe(MintX509caRequest { csr, preferred_ttl }).await;
        let mut stream = stream?.into_inner();
        let first = stream.message().await?.unwrap();
        let more = timeout(Duration::from_millis(100), stream.message()).await;
        assert!(more.is_err(), "SPIRE reports a stream that ends: {more:?}");
        Ok(first)
    }
}

async fn csr(id: Option<&str>) -> Vec<u8> {
    let key = Local::generate(Algorithm::MlDsa65).unwrap();
    request(&key, id.map(|id| id.parse().unwrap()).as_ref()).await.unwrap()
}

fn lifetime(certificate: &Certificate) -> Duration {
    certificate.not_after().duration_since(SystemTime::now()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_lives_as_long_as_asked_and_never_longer_than_the_root() {
    let authority = Authority::start().await;
    let hour = Duration::from_secs(3600);
    for (asked, wanted) in [(0, 24 * hour), (2 * 3600, 2 * hour), (90 * 86_400, lifetime(&authority.root))] {
        let minted = authority.mint(csr(Some("spiffe://plugins.test")).await, asked).await.unwrap();
        assert_eq!(minted.upstream_x509_roots[0].asn1, authority.root.der());
        assert_eq!(minted.x509_ca_chain.len(), 1);
        let ca = Certificate::from_der(&minted.x509_ca_chain[0].asn1).unwrap();
        assert!(ca.is_ca().unwrap());
        assert_eq!(ca.uri_id().unwrap().as_str(), "spiffe://plugins.test");
        assert!(lifetime(&ca) <= wanted && lifetime(&ca) + Duration::from_secs(60) > wanted, "{asked}");
        assert!(ca.not_after() <= authority.root.not_after());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_for_the_trust_domain_is_refused() {
    let authority = Authority::start().await;
    let mut forged = csr(Some("spiffe://plugins.test")).await;
    *forged.last_mut().unwrap() ^= 1;
    for (csr, sentence) in [
        (forged, "its signature does not verify"),
        (csr(Some("spiffe://other.test")).await, "not for spiffe://plugins.test"),
        (csr(Some("spiffe://plugins.test/web")).await, "not for spiffe://plugins.test"),
        (csr(None).await, "not for spiffe://plugins.test"),
        (vec![0x30; 32], "DER"),
        (vec![0; 1 << 20], "bytes, more than"),
    ] {
        let status = authority.mint(csr, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(sentence), "{sentence}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_that_is_not_the_certificates_is_refused() {
    let authority = Authority::start().await;
    authority.keyd.client().rotate_key(&"spire-root/root".parse().unwrap(), None, None).await.unwrap();
    let status = authority.mint(csr(Some("spiffe://plugins.test")).await, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("is not the key of the root certificate"), "{status}");
}
