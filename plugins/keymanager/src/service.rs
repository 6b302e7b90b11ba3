//! The gRPC service, the same for server and agent.

use keyd_api::KeyInfo;
use plugin_sdk::proto::keymanager::agent::key_manager_server::KeyManager as AgentKeyManager;
use plugin_sdk::proto::keymanager::server::key_manager_server::KeyManager;
use plugin_sdk::proto::keymanager::server::{
    GenerateKeyRequest, GenerateKeyResponse, GetPublicKeyRequest, GetPublicKeyResponse, GetPublicKeysRequest,
    GetPublicKeysResponse, PublicKey, SignDataRequest, SignDataResponse,
};
use plugin_sdk::{Configured, Deadline};
use tonic::{Request, Response, Status};

use crate::algorithm;
use crate::keys::Keys;

#[derive(Clone)]
pub(crate) struct KeyManagerService(pub(crate) Configured<Keys>);

#[tonic::async_trait]
impl KeyManager for KeyManagerService {
    async fn generate_key(
        &self,
        request: Request<GenerateKeyRequest>,
    ) -> Result<Response<GenerateKeyResponse>, Status> {
        let deadline = Deadline::of(&request);
        let GenerateKeyRequest { key_id, key_type } = request.into_inner();
        let key = self.0.plugin()?.generate(&key_id, key_type, deadline).await?;
        Ok(Response::new(GenerateKeyResponse { public_key: Some(public_key(&key)) }))
    }

    async fn get_public_key(
        &self,
        request: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        let deadline = Deadline::of(&request);
        let key = self.0.plugin()?.show(&request.into_inner().key_id, deadline).await?;
        Ok(Response::new(GetPublicKeyResponse { public_key: Some(public_key(&key)) }))
    }

    async fn get_public_keys(
        &self,
        request: Request<GetPublicKeysRequest>,
    ) -> Result<Response<GetPublicKeysResponse>, Status> {
        let keys = self.0.plugin()?.list(Deadline::of(&request)).await?;
        Ok(Response::new(GetPublicKeysResponse { public_keys: keys.iter().map(public_key).collect() }))
    }

    async fn sign_data(
        &self,
        request: Request<SignDataRequest>,
    ) -> Result<Response<SignDataResponse>, Status> {
        let deadline = Deadline::of(&request);
        let SignDataRequest { key_id, data, signer_opts } = request.into_inner();
        let opts = algorithm::opts(signer_opts)?;
        let signed = self.0.plugin()?.sign(&key_id, &data, opts, deadline).await?;
        let key_fingerprint = hex::encode(signed.fingerprint);
        Ok(Response::new(SignDataResponse { signature: signed.signature, key_fingerprint }))
    }
}

fn public_key(key: &KeyInfo) -> PublicKey {
    PublicKey {
        id: key.key.name.to_string(),
        r#type: algorithm::key_type(key.algorithm).into(),
        pkix_data: key.public_key.spki().to_vec(),
        fingerprint: hex::encode(key.public_key.fingerprint()),
    }
}

/// The agent's calls are the server's under another name.
#[tonic::async_trait]
impl AgentKeyManager for KeyManagerService {
    async fn generate_key(
        &self,
        request: Request<GenerateKeyRequest>,
    ) -> Result<Response<GenerateKeyResponse>, Status> {
        KeyManager::generate_key(self, request).await
    }

    async fn get_public_key(
        &self,
        request: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        KeyManager::get_public_key(self, request).await
    }

    async fn get_public_keys(
        &self,
        request: Request<GetPublicKeysRequest>,
    ) -> Result<Response<GetPublicKeysResponse>, Status> {
        KeyManager::get_public_keys(self, request).await
    }

    async fn sign_data(
        &self,
        request: Request<SignDataRequest>,
    ) -> Result<Response<SignDataResponse>, Status> {
        KeyManager::sign_data(self, request).await
    }
}
