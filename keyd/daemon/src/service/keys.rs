//! `keyd.v1.KeyService`.

use keyd_api::v1::key_service_server::KeyService;
use keyd_api::v1::{self, sign_request::Input};
use keyd_core::{Failure, Hash, KeyId, Namespace, Operation, Reason, RsaPadding, SignInput};
use tonic::{Request, Response, Status};

use super::{Services, caller, optional, refuse};
use crate::keyring::Key;

#[tonic::async_trait]
impl KeyService for Services {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::KeyInfo>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            let origin = self.permit(&request, Operation::Create, &id.namespace).await?;
            let asked = request.get_ref();
            let algorithm = asked.algorithm.parse()?;
            let protection = optional(&asked.protection)?;
            self.keyring.create(origin, id, algorithm, protection).await
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
                self.permit(&request, Operation::List, &namespace).await.map_err(refuse)?;
                vec![namespace]
            }
            None => {
                self.permit_node(&request, Operation::List).await.map_err(refuse)?;
                let caller = caller(&request).map_err(refuse)?;
                self.rules.now().open_to(&caller, Operation::List).cloned().collect()
            }
        };
        let keys = namespaces.iter().flat_map(|n| self.keyring.list(n)).map(|k| info(&k)).collect();
        Ok(Response::new(v1::ListKeysResponse { keys }))
    }

    async fn show_key(&self, request: Request<v1::ShowKeyRequest>) -> Result<Response<v1::KeyInfo>, Status> {
        let find = async {
            let id: KeyId = request.get_ref().key.parse()?;
            self.permit(&request, Operation::Show, &id.namespace).await?;
            self.keyring.find(&id)
        };
        find.await.map(|key| Response::new(info(&key))).map_err(refuse)
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let result = async {
            let asked = request.get_ref();
            let id: KeyId = asked.key.parse()?;
            let origin = self.permit(&request, Operation::Sign, &id.namespace).await?;
            let (key, signature) = self.keyring.sign(origin, &id, input(asked)?).await?;
            Ok(v1::SignResponse { signature: signature.into(), fingerprint: key.fingerprint.clone() })
        };
        result.await.map(Response::new).map_err(refuse)
    }

    async fn decapsulate(
        &self,
        request: Request<v1::DecapsulateRequest>,
    ) -> Result<Response<v1::DecapsulateResponse>, Status> {
        let result = async {
            let asked = request.get_ref();
            let id: KeyId = asked.key.parse()?;
            let origin = self.permit(&request, Operation::Decapsulate, &id.namespace).await?;
            let (key, secret) = self.keyring.decapsulate(origin, &id, &asked.ciphertext).await?;
            let shared_secret = secret.expose().to_vec().into();
            Ok(v1::DecapsulateResponse { shared_secret, fingerprint: key.fingerprint.clone() })
        };
        result.await.map(Response::new).map_err(refuse)
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::KeyInfo>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            let origin = self.permit(&request, Operation::Rotate, &id.namespace).await?;
            let asked = request.get_ref();
            self.keyring.rotate(origin, id, optional(&asked.algorithm)?, optional(&asked.protection)?).await
        };
        result.await.map(|key| Response::new(info(&key))).map_err(refuse)
    }

    async fn migrate_key(
        &self,
        request: Request<v1::MigrateKeyRequest>,
    ) -> Result<Response<v1::MigrateKeyResponse>, Status> {
        let result = async {
            let asked = request.get_ref();
            let id: KeyId = asked.key.parse()?;
            let origin = self.permit(&request, Operation::Migrate, &id.namespace).await?;
            let (key, before) =
                self.keyring.migrate(origin, id, asked.protection.parse()?, asked.weaker).await?;
            Ok(v1::MigrateKeyResponse { key: Some(info(&key)), before: before.to_string() })
        };
        result.await.map(Response::new).map_err(refuse)
    }

    async fn delete_key(
        &self,
        request: Request<v1::DeleteKeyRequest>,
    ) -> Result<Response<v1::DeleteKeyResponse>, Status> {
        let result = async {
            let id: KeyId = request.get_ref().key.parse()?;
            let origin = self.permit(&request, Operation::Delete, &id.namespace).await?;
            self.keyring.delete(origin, id).await
        };
        result.await.map(|()| Response::new(v1::DeleteKeyResponse {})).map_err(refuse)
    }
}

fn input(request: &v1::SignRequest) -> Result<SignInput<'_>, Failure> {
    let bad = |why: &str| Failure::new(Reason::BadRequest, why);
    let padding = match v1::RsaPadding::try_from(request.padding) {
        Ok(v1::RsaPadding::Unspecified) => None,
        Ok(v1::RsaPadding::Pkcs1v15) => Some(RsaPadding::Pkcs1v15),
        Ok(v1::RsaPadding::Pss) => Some(RsaPadding::Pss),
        Err(_) => return Err(bad("a padding that this keyd does not know")),
    };
    match (&request.input, padding) {
        (Some(Input::Message(message)), None) => Ok(SignInput::Message(message)),
        (Some(Input::Message(_)), Some(_)) => Err(bad("a padding goes with a digest, not with a message")),
        (Some(Input::Digest(digest)), padding) => {
            let hash = match digest.hash() {
                v1::Hash::Sha256 => Hash::Sha256,
                v1::Hash::Sha384 => Hash::Sha384,
                v1::Hash::Sha512 => Hash::Sha512,
                v1::Hash::Unspecified => return Err(bad("a digest needs the hash that made it")),
            };
            let digest = &digest.value;
            Ok(match padding {
                None => SignInput::Digest { hash, digest },
                Some(padding) => SignInput::RsaDigest { padding, hash, digest },
            })
        }
        (None, _) => Err(bad("there is nothing to sign: give a message or a digest")),
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
