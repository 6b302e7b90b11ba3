//! The gRPC service.

use std::time::Duration;

use keyd_api::status::from_failure;
use keyd_x509::Certificate;
use plugin_sdk::proto::types::X509Certificate;
use plugin_sdk::proto::upstreamauthority::upstream_authority_server::UpstreamAuthority;
use plugin_sdk::proto::upstreamauthority::{
    MintX509caRequest, MintX509caResponse, PublishJwtKeyRequest, PublishJwtKeyResponse,
    SubscribeToLocalBundleRequest, SubscribeToLocalBundleResponse,
};
use plugin_sdk::{Configured, Deadline, Responses, held_open};
use tonic::{Request, Response, Status};

use crate::mint::mint;
use crate::root::Root;

pub(crate) struct UpstreamAuthorityService(pub(crate) Configured<Root>);

#[tonic::async_trait]
impl UpstreamAuthority for UpstreamAuthorityService {
    type MintX509CAAndSubscribeStream = Responses<MintX509caResponse>;
    type PublishJWTKeyAndSubscribeStream = Responses<PublishJwtKeyResponse>;
    type SubscribeToLocalBundleStream = Responses<SubscribeToLocalBundleResponse>;

    async fn mint_x509ca_and_subscribe(
        &self,
        request: Request<MintX509caRequest>,
    ) -> Result<Response<Self::MintX509CAAndSubscribeStream>, Status> {
        let deadline = Deadline::of(&request);
        let MintX509caRequest { csr, preferred_ttl } = request.into_inner();
        let ttl = u64::try_from(preferred_ttl).ok().filter(|s| *s > 0).map(Duration::from_secs);
        let root = self.0.plugin()?;
        let ca = mint(&root, &csr, ttl, deadline).await.map_err(|f| from_failure(&f))?;
        tracing::info!(
            subject = %ca.subject(),
            serial = hex::encode(ca.serial()),
            "Issued SPIRE's CA"
        );
        Ok(Response::new(held_open([MintX509caResponse {
            x509_ca_chain: vec![wire(&ca)],
            upstream_x509_roots: vec![wire(&root.certificate)],
        }])))
    }

    /// SPIRE then keeps the key in its own bundle.
    async fn publish_jwt_key_and_subscribe(
        &self,
        _: Request<PublishJwtKeyRequest>,
    ) -> Result<Response<Self::PublishJWTKeyAndSubscribeStream>, Status> {
        Err(Status::unimplemented("JWT keys are not published above SPIRE; its own bundle holds them"))
    }

    async fn subscribe_to_local_bundle(
        &self,
        _: Request<SubscribeToLocalBundleRequest>,
    ) -> Result<Response<Self::SubscribeToLocalBundleStream>, Status> {
        Err(Status::unimplemented("the root comes with each CA; there is no other bundle above SPIRE"))
    }
}

fn wire(certificate: &Certificate) -> X509Certificate {
    X509Certificate { asn1: certificate.der().to_vec(), tainted: false }
}
