//! `keyd.v1.KeyService`.

use keyd_api::v1::key_service_server::KeyService;
use keyd_api::v1::{self, sign_request::Input};
use keyd_core::{Failure, Hash, KeyId, Namespace, Operation, Reason, SignInput};
use tonic::{Request, Response, Status};

use super::{Services, refuse};
use crate::keyring::Key;

#[tonic::async_trait]
impl KeyService for Services {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::KeyInfo>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            self.permit(&request, Operation::Create, &id.namespace)?;
            let asked = request.get_ref();
            let algorithm = asked.algorithm.parse()?;
            let protection = optional(&asked.protection)?;
            self.keyring.create(id, algorithm, protection).await
        };
        result.await.map(|key| Response::new(info(&key))).map_err(refuse)
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let wanted: Option<Namespace> = optional(&request.get_ref().namespace).map_err(refuse)?;
        let namespaces = match wanted {
            Some(namespace) => {
                self.permit(&request, Operation::List, &namespace).map_err(refuse)?;
                vec![namespace]
            }
            None => {
                self.permit_node(&request, Operation::List).map_err(refuse)?;
                let all = self.admin.namespaces();
                all.filter(|n| self.permit(&request, Operation::List, n).is_ok()).cloned().collect()
            }
        };
        let keys = namespaces.iter().flat_map(|n| self.keyring.list(n)).map(|k| info(&k)).collect();
        Ok(Response::new(v1::ListKeysResponse { keys }))
    }

    async fn show_key(&self, request: Request<v1::ShowKeyRequest>) -> Result<Response<v1::KeyInfo>, Status> {
        let find = || {
            let id: KeyId = request.get_ref().key.parse()?;
            self.permit(&request, Operation::Show, &id.namespace)?;
            self.keyring.find(&id)
        };
        find().map(|key| Response::new(info(&key))).map_err(refuse)
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let result = async {
            let asked = request.get_ref();
            let id: KeyId = asked.key.parse()?;
            self.permit(&request, Operation::Sign, &id.namespace)?;
            let (key, signature) = self.keyring.sign(&id, input(asked)?).await?;
            Ok(v1::SignResponse { signature: signature.into(), fingerprint: key.fingerprint.clone() })
        };
        result.await.map(Response::new).map_err(refuse)
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::KeyInfo>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            self.permit(&request, Operation::Rotate, &id.namespace)?;
            let algorithm = optional(&request.get_ref().algorithm)?;
            self.keyring.rotate(id, algorithm).await
        };
        result.await.map(|key| Response::new(info(&key))).map_err(refuse)
    }

    async fn delete_key(
        &self,
        request: Request<v1::DeleteKeyRequest>,
    ) -> Result<Response<v1::DeleteKeyResponse>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            self.permit(&request, Operation::Delete, &id.namespace)?;
            self.keyring.delete(id).await
        };
        result.await.map(|()| Response::new(v1::DeleteKeyResponse {})).map_err(refuse)
    }
}

/// An empty string is "not given".
fn optional<T: std::str::FromStr<Err = Failure>>(text: &str) -> Result<Option<T>, Failure> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn input(request: &v1::SignRequest) -> Result<SignInput<'_>, Failure> {
    match &request.input {
        Some(Input::Message(message)) => Ok(SignInput::Message(message)),
        Some(Input::Digest(digest)) => {
            let hash = match digest.hash() {
                v1::Hash::Sha256 => Hash::Sha256,
                v1::Hash::Sha384 => Hash::Sha384,
                v1::Hash::Sha512 => Hash::Sha512,
                v1::Hash::Unspecified => {
                    return Err(Failure::new(Reason::BadRequest, "a digest needs the hash that made it"));
                }
            };
            Ok(SignInput::Digest { hash, digest: &digest.value })
        }
        None => Err(Failure::new(Reason::BadRequest, "there is nothing to sign: give a message or a digest")),
    }
}

fn info(key: &Key) -> v1::KeyInfo {
    let record = &key.record;
    v1::KeyInfo {
        key: record.id.to_string(),
        algorithm: record.algorithm.to_string(),
        protection: record.protection.to_string(),
        version: record.version,
        created_at: record.created_at,
        state: "active".to_owned(),
        public_key: record.public_key.spki().to_vec().into(),
    }
}
