//! Mints by spire-server's own API, many over one connection.

use std::path::Path;

use anyhow::{Context, Result};
use keyd_api::unix_channel;
use keyd_core::{Algorithm, Failure, PublicKey, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::{Certificate, Signer};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// A client of spire-server's SVID API on its own Unix socket. Clones share a connection.
#[derive(Clone)]
pub struct Minter {
    channel: Channel,
}

/// spire.api.server.svid.v1.MintX509SVIDRequest
#[derive(Clone, PartialEq, Message)]
struct MintX509SvidRequest {
    #[prost(bytes = "vec", tag = "1")]
    csr: Vec<u8>,
    #[prost(int32, tag = "2")]
    ttl: i32,
}

/// spire.api.server.svid.v1.MintX509SVIDResponse
#[derive(Clone, PartialEq, Message)]
struct MintX509SvidResponse {
    #[prost(message, optional, tag = "1")]
    svid: Option<X509Svid>,
}

/// spire.api.types.X509SVID
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

    /// Mints one SVID for the key of a DER CSR; leaf first.
    ///
    /// # Errors
    /// The server's.
    pub async fn mint(&self, csr: &[u8]) -> Result<Vec<Certificate>> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let method = PathAndQuery::from_static("/spire.api.server.svid.v1.SVID/MintX509SVID");
        let request = tonic::Request::new(MintX509SvidRequest { csr: csr.to_vec(), ttl: 0 });
        let codec = ProstCodec::<MintX509SvidRequest, MintX509SvidResponse>::default();
        let svid = grpc.unary(request, method, codec).await?.into_inner().svid.context("no SVID")?;
        Ok(svid.cert_chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?)
    }
}

/// A key in this process, as a signer of requests.
pub struct Local(pub SoftKey);

impl Local {
    /// A new key.
    ///
    /// # Errors
    /// Software cannot hold one of this algorithm.
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        Ok(Self(SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm)?)?))
    }
}

impl Signer for Local {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}
