//! keyd itself: how it is, and what is done to all of its keys.

use std::time::Duration;

use keyd_core::Failure;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::Client;
use crate::v1;
use crate::v1::admin_service_client::AdminServiceClient;

/// How long one key of many may take to be sealed anew: a discrete TPM unseals twice, in 11 s each, behind other calls.
const RESEAL_STEP: Duration = Duration::from_secs(180);

impl Client {
    /// Whether keyd serves. Needs no right.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.answer(self.admin().ping(self.request(v1::PingRequest {})).await).map(drop)
    }

    /// How keyd and its devices are.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn status(&self) -> Result<v1::StatusResponse, Failure> {
        self.answer(self.admin().status(self.request(v1::StatusRequest {})).await)
    }

    /// What does not fit together; nothing where all is well.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn doctor(&self) -> Result<Vec<v1::Finding>, Failure> {
        Ok(self.answer(self.admin().doctor(self.request(v1::DoctorRequest {})).await)?.findings)
    }

    /// What keyd has counted, as OpenMetrics text.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn metrics(&self) -> Result<String, Failure> {
        Ok(self.answer(self.admin().metrics(self.request(v1::MetricsRequest {})).await)?.openmetrics)
    }

    /// Destroys the token object with this CKA_ID, which no key uses, and gives its label.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn remove_orphan(&self, object: Vec<u8>) -> Result<String, Failure> {
        let request = v1::RemoveOrphanRequest { object: object.into() };
        Ok(self.answer(self.admin().remove_orphan(self.request(request)).await)?.label)
    }

    /// Seals every tpm-sealed key anew, and tells of each as it is done. `expected` are PCRs with the values (32 bytes)
    /// that they are to have after a planned change. There is no deadline for the whole, but one for each key.
    ///
    /// # Errors
    /// See [`Client::create_key`]; a key that failed is none.
    pub async fn reseal(
        &self,
        expected: &[(u8, [u8; 32])],
        dry_run: bool,
        done: impl FnMut(&v1::KeyOutcome),
    ) -> Result<Vec<v1::KeyOutcome>, Failure> {
        let expected = expected
            .iter()
            .map(|(index, value)| v1::PcrValue { index: (*index).into(), value: value.to_vec().into() })
            .collect();
        let request = v1::ResealRequest { expected, dry_run };
        self.each(self.admin().reseal(request), done).await
    }

    /// What a call says of one key after the other.
    pub(super) async fn each(
        &self,
        call: impl Future<Output = Result<Response<Streaming<v1::KeyOutcome>>, Status>>,
        mut done: impl FnMut(&v1::KeyOutcome),
    ) -> Result<Vec<v1::KeyOutcome>, Failure> {
        let started = timeout(RESEAL_STEP, call).await.map_err(overdue).flatten();
        let mut keys = self.answer(started)?;
        let mut all = Vec::new();
        loop {
            let next = timeout(RESEAL_STEP, keys.message()).await.map_err(overdue).flatten();
            match self.answer(next.map(Response::new))? {
                Some(key) => {
                    done(&key);
                    all.push(key);
                }
                None => return Ok(all),
            }
        }
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }
}

pub(super) fn overdue(_: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("")
}
