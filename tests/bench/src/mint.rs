//! X.509-SVIDs minted by the unmodified spire-server, on keyd and on its own `disk` KeyManager.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use keyd_api::unix_channel;
use keyd_core::{Algorithm, Failure, PublicKey, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::{Certificate, Signer, request};
use peers::spire::{ServerConfig, SpireServer};
use prost::Message;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::figure::Table;
use crate::load::{Rounds, Row};
use crate::node::{Node, TRUST_DOMAIN};

/// The row about minting.
pub async fn rows(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    if !table.wants("spire/mint/ml-dsa-65") {
        return Ok(());
    }
    let dir = node.dir.path().join("disk");
    let keys = dir.join("keys.json");
    let plugins = format!(
        "NodeAttestor \"join_token\" {{ plugin_data {{}} }}\nKeyManager \"disk\" {{ plugin_data {{ keys_path = {keys:?} }} }}"
    );
    let disk = SpireServer::start(&dir, &ServerConfig::hcl(TRUST_DOMAIN, plugins)?).await?;
    let row = Row {
        name: "spire/mint/ml-dsa-65",
        unit: "SVIDs/s",
        goal: 0.65,
        what: "spire-server on keyd, CA ML-DSA-65 tpm-sealed / on its disk KeyManager, CA EC P-256; one client",
    };
    let key = SoftKey::from_secret(Algorithm::EcP256, &SoftKey::generate_secret(Algorithm::EcP256)?)?;
    let csr = request(&Local(key), Some(&format!("spiffe://{TRUST_DOMAIN}/rate").parse()?)).await?;
    let (on_disk, on_keyd) = (Minter::new(&dir), Minter::new(&node.spire_dir()));
    let figure =
        rounds.compare(row, |time| on_disk.rate(&csr, time), |time| on_keyd.rate(&csr, time)).await?;
    table.add(figure);
    disk.stop().await
}

/// A client of spire-server's SVID API on its own Unix socket.
pub struct Minter {
    channel: Channel,
}

#[derive(Clone, PartialEq, Message)]
struct MintX509SvidRequest {
    #[prost(bytes = "vec", tag = "1")]
    csr: Vec<u8>,
    #[prost(int32, tag = "2")]
    ttl: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MintX509SvidResponse {
    #[prost(message, optional, tag = "1")]
    svid: Option<X509Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    #[prost(bytes = "vec", repeated, tag = "1")]
    cert_chain: Vec<Vec<u8>>,
}

impl Minter {
    /// A client of the server in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { channel: unix_channel(dir.join("api.sock")) }
    }

    /// Mints one SVID for the key of a CSR; leaf first.
    pub async fn mint(&self, csr: &[u8]) -> Result<Vec<Certificate>> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let method = PathAndQuery::from_static("/spire.api.server.svid.v1.SVID/MintX509SVID");
        let request = tonic::Request::new(MintX509SvidRequest { csr: csr.to_vec(), ttl: 0 });
        let codec = ProstCodec::<MintX509SvidRequest, MintX509SvidResponse>::default();
        let svid = grpc.unary(request, method, codec).await?.into_inner().svid.context("no SVID")?;
        Ok(svid.cert_chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?)
    }

    async fn rate(&self, csr: &[u8], time: Duration) -> Result<f64> {
        let (start, mut done) = (Instant::now(), 0_u32);
        while start.elapsed() < time {
            self.mint(csr).await?;
            done += 1;
        }
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    }
}

/// A key in this process, as a signer of requests.
pub struct Local(pub SoftKey);

impl Signer for Local {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}
