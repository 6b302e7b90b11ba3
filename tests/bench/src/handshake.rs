//! Full mutual TLS handshakes with the server's key in keyd and with the key in this process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use keyd_api::Client;
use keyd_core::{Algorithm, BoxFuture, Failure, KeyId, PublicKey, Secret, SignInput};
use keyd_tls::{
    Acceptor, AllowedId, AllowedIds, Bundles, Connector, HandleKey, Handshakes, Identity, Profile,
};
use keyd_tls::{RemoteSigner, Settings};
use keyd_x509::{Certificate, Signer, request};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use system::minter::{Local, Minter};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::figure::{Goal, Table};
use crate::load::{Rounds, Row};
use crate::node::{Node, TRUST_DOMAIN};

/// Room of the in-memory link in bytes: more than a whole flight.
const LINK: usize = 64 * 1024;
/// Handshakes at once.
const AT_ONCE: usize = 8;

/// The row about handshakes.
pub async fn rows(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    if !table.wants("handshake/by-handle/ml-dsa-65") {
        return Ok(());
    }
    let row = Row {
        name: "handshake/by-handle/ml-dsa-65",
        unit: "1/s",
        goal: Goal::RatioAtLeast(0.85),
        what: "full mTLS, server's key tpm-sealed in keyd / in process; 8 at once, in memory",
    };
    let minter = Minter::new(&node.spire_dir());
    let bundle = keyd_x509::parse_pem_chain("bundle", node.spire.bundle().await?.as_bytes())?;
    let pair = |server| Pair::new(server, &minter, &bundle);
    let in_process = pair(in_process(&minter).await?).await?;
    let by_handle = pair(by_handle(node, &minter).await?).await?;
    table.add(rounds.compare(row, |time| in_process.rate(time), |time| by_handle.rate(time)).await?);
    Ok(())
}

/// An acceptor and a connector that trust each other.
struct Pair {
    acceptor: Acceptor,
    connector: Connector,
    // What the two look at for as long as they live.
    _sources: Sources,
}

type Sources = (Vec<watch::Sender<Option<Arc<Identity>>>>, watch::Sender<Arc<Bundles>>);

impl Pair {
    async fn new(server: Identity, minter: &Minter, bundle: &[Certificate]) -> Result<Self> {
        let mut bundles = Bundles::default();
        bundles.set(TRUST_DOMAIN.parse()?, bundle)?;
        let (bundles_source, bundles) = watch::channel(Arc::new(bundles));
        let handshakes = Handshakes::start()?;
        let (server_source, server) = watch::channel(Some(Arc::new(server)));
        let (client_source, client) = watch::channel(Some(Arc::new(in_process(minter).await?)));
        let settings = |identity| -> Result<Settings> {
            Ok(Settings {
                profile: Profile::PostQuantum,
                identity,
                bundles: bundles.clone(),
                allowed: AllowedIds::from_iter([AllowedId::Exactly(id()?.parse()?)]),
                alpn: Vec::new(),
                handshake_timeout: Duration::from_secs(10),
            })
        };
        Ok(Self {
            acceptor: Acceptor::new(handshakes.clone(), settings(server)?)?,
            connector: Connector::new(handshakes, settings(client)?)?,
            _sources: (vec![server_source, client_source], bundles_source),
        })
    }

    async fn rate(&self, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (acceptor, connector) = (self.acceptor.clone(), self.connector.clone());
            running.spawn(async move {
                let mut done = 0_u32;
                while start.elapsed() < time {
                    let (near, far) = tokio::io::duplex(LINK);
                    let name = ServerName::try_from("bench")?;
                    let (server, client) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
                    server?;
                    client?;
                    done += 1;
                }
                anyhow::Ok(done)
            });
        }
        let mut done = 0;
        while let Some(ended) = running.join_next().await {
            done += ended.context("a handshake broke off")??;
        }
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    }
}

fn id() -> Result<String> {
    Ok(format!("spiffe://{TRUST_DOMAIN}/bench"))
}

/// An identity whose key is in this process, as rustls itself holds it.
async fn in_process(minter: &Minter) -> Result<Identity> {
    let key = Local::generate(Algorithm::MlDsa65)?;
    let pkcs8: Secret = key.0.to_pkcs8()?;
    let signing = PrivateKeyDer::try_from(pkcs8.expose().to_vec()).map_err(anyhow::Error::msg)?;
    let signing = any_supported_type(&signing)?;
    identity(minter, &key, signing).await
}

/// An identity whose key keyd holds.
async fn by_handle(node: &Node, minter: &Minter) -> Result<Identity> {
    let key: KeyId = "sealed/handshake".parse()?;
    let client = node.keyd.client();
    let info = client.create_key(&key, Algorithm::MlDsa65, None).await?;
    let held = Held { client, key, public_key: info.public_key.clone() };
    let signing = Arc::new(HandleKey::new(info.public_key, Arc::new(held.clone())));
    identity(minter, &held, signing).await
}

async fn identity(minter: &Minter, signer: &impl Signer, key: Arc<dyn SigningKey>) -> Result<Identity> {
    let csr = request(signer, Some(&id()?.parse()?)).await?;
    Ok(Identity::new(&minter.mint(&csr).await?, key)?)
}

#[derive(Clone)]
struct Held {
    client: Client,
    key: KeyId,
    public_key: PublicKey,
}

impl Signer for Held {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        Ok(self.client.sign(&self.key, SignInput::Message(message)).await?.signature)
    }
}

impl RemoteSigner for Held {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(Signer::sign(self, message))
    }
}
