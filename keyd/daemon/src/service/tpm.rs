//! `keyd.v1.TpmService`.

use std::sync::Arc;

use keyd_api::v1;
use keyd_api::v1::tpm_service_server::TpmService;
use keyd_audit::{Draft, Event, Origin, Text};
use keyd_core::{Failure, Operation, Reason};
use keyd_tpm::Tpm;
use tonic::{Request, Response, Status};

use super::{Services, refuse};
use crate::journal::Journal;
use crate::keyring::undisturbed;

#[tonic::async_trait]
impl TpmService for Services {
    async fn endorsement(
        &self,
        request: Request<v1::EndorsementRequest>,
    ) -> Result<Response<v1::EndorsementResponse>, Status> {
        let e = self.tpm(&request).await.map_err(refuse)?.endorsement().await.map_err(refuse)?;
        Ok(Response::new(v1::EndorsementResponse {
            ek_certificate: e.ek_certificate.unwrap_or_default().into(),
            ek_public: e.ek_public.into(),
            ak_public: e.ak_public.into(),
            manufacturer: e.manufacturer,
            firmware_version: e.firmware_version,
        }))
    }

    async fn storage_root(
        &self,
        request: Request<v1::StorageRootRequest>,
    ) -> Result<Response<v1::StorageRootResponse>, Status> {
        let origin = self.permit_node(&request, Operation::Attest).await.map_err(refuse)?;
        let tpm = self.tpm.clone().ok_or_else(no_tpm).map_err(refuse)?;
        let name = match tpm.srk_name().await.map_err(refuse)? {
            None if request.get_ref().make => {
                undisturbed(make_storage_root(tpm, self.journal.clone(), origin)).await.map_err(refuse)?
            }
            name => name.unwrap_or_default(),
        };
        Ok(Response::new(v1::StorageRootResponse { name: name.into() }))
    }

    async fn activate_credential(
        &self,
        request: Request<v1::ActivateCredentialRequest>,
    ) -> Result<Response<v1::ActivateCredentialResponse>, Status> {
        let tpm = self.tpm(&request).await.map_err(refuse)?;
        let request = request.into_inner();
        let secret =
            tpm.activate_credential(&request.id_object, &request.encrypted_secret).await.map_err(refuse)?;
        Ok(Response::new(v1::ActivateCredentialResponse { secret: secret.expose().to_vec().into() }))
    }

    async fn quote(&self, request: Request<v1::QuoteRequest>) -> Result<Response<v1::QuoteResponse>, Status> {
        let tpm = self.tpm(&request).await.map_err(refuse)?;
        let request = request.into_inner();
        let pcrs = pcrs(&request.pcrs).map_err(refuse)?;
        let quote = tpm.quote(&pcrs, &request.qualifying_data).await.map_err(refuse)?;
        Ok(Response::new(v1::QuoteResponse {
            attest: quote.attest.into(),
            signature: quote.signature.into(),
            pcrs: values(quote.pcrs),
        }))
    }

    async fn read_pcrs(
        &self,
        request: Request<v1::ReadPcrsRequest>,
    ) -> Result<Response<v1::ReadPcrsResponse>, Status> {
        let tpm = self.tpm(&request).await.map_err(refuse)?;
        let pcrs = pcrs(&request.get_ref().pcrs).map_err(refuse)?;
        let read = tpm.read_pcrs(&pcrs).await.map_err(refuse)?;
        Ok(Response::new(v1::ReadPcrsResponse { pcrs: values(read) }))
    }
}

impl Services {
    async fn tpm<T>(&self, request: &Request<T>) -> Result<&keyd_tpm::Tpm, Failure> {
        self.permit_node(request, Operation::Attest).await?;
        self.tpm.as_deref().ok_or_else(no_tpm)
    }
}

/// Makes the storage root key; the record says so whatever became of it.
async fn make_storage_root(tpm: Arc<Tpm>, journal: Journal, origin: Origin) -> Result<Vec<u8>, Failure> {
    let made = tpm.ensure_srk().await;
    let name = made.as_ref().ok().map(|name| Text::cut(&hex::encode(name)));
    let event = Event::StorageRootMade { name };
    let draft = match &made {
        Ok(_) => Draft::done(origin, event),
        Err(failure) => Draft::failed(origin, event, failure.reason),
    };
    journal.owe(draft).await;
    made
}

pub(super) fn no_tpm() -> Failure {
    Failure::new(Reason::TpmAbsent, "no TPM is configured; add a [tpm] table to keyd.toml")
}

/// PCR indexes of the SHA-256 bank: 0 to 23, each once.
fn pcrs(asked: &[u32]) -> Result<Vec<u8>, Failure> {
    let mut pcrs = Vec::with_capacity(asked.len().min(24));
    for index in asked {
        match u8::try_from(*index) {
            Ok(index) if index < 24 && !pcrs.contains(&index) => pcrs.push(index),
            _ => {
                return Err(Failure::new(
                    Reason::BadRequest,
                    format!("PCR {index}: indexes are 0 to 23, each at most once"),
                ));
            }
        }
    }
    pcrs.sort_unstable();
    Ok(pcrs)
}

fn values(pcrs: Vec<keyd_tpm::PcrValue>) -> Vec<v1::PcrValue> {
    pcrs.into_iter().map(|p| v1::PcrValue { index: p.index.into(), value: p.value.to_vec().into() }).collect()
}
