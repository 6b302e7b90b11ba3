//! Escrow: files that are longer than a message, in parts.

use std::time::Duration;

use keyd_core::{Failure, Namespace, Reason, Secret};
use prost::bytes::Bytes;
use tokio::time::timeout;

use super::Client;
use super::admin::overdue;
use crate::v1;
use crate::v1::escrow_service_client::EscrowServiceClient;
use crate::v1::export_escrow_response::Part as In;
use crate::v1::restore_escrow_request::Part as Out;

/// Length of a part in one message, in bytes.
const CHUNK: usize = 256 * 1024;
/// How long an export may take: a discrete TPM needs up to 11 s for each key that was not used yet.
const EXPORT: Duration = Duration::from_secs(60 * 60);

impl Client {
    /// An escrow of the keys of a namespace, or of all: what is in it, and the file.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn export_escrow(
        &self,
        namespace: Option<&Namespace>,
    ) -> Result<(v1::ExportedEscrow, Vec<u8>), Failure> {
        let request =
            v1::ExportEscrowRequest { namespace: namespace.map(ToString::to_string).unwrap_or_default() };
        let work = async {
            // The keys that are left out can be many.
            let mut client =
                EscrowServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
            let mut parts = client.export(request).await?.into_inner();
            let (mut summary, mut file) = (None, Vec::new());
            while let Some(message) = parts.message().await? {
                match message.part {
                    Some(In::Summary(first)) => summary = Some(first),
                    Some(In::Chunk(chunk)) => file.extend_from_slice(&chunk),
                    None => {}
                }
            }
            Ok(tonic::Response::new((summary, file)))
        };
        let (summary, file) = self.answer(timeout(EXPORT, work).await.map_err(overdue).flatten())?;
        let summary = summary
            .ok_or_else(|| Failure::new(Reason::Internal, "keyd does not say what is in the escrow"))?;
        Ok((summary, file))
    }

    /// Puts the keys of an escrow back, and tells of each as it is done. `unlocked` opens this one file (32 bytes); `node` is
    /// the node that it is of, empty for this one. There is no deadline for the whole, but one for each key.
    ///
    /// # Errors
    /// See [`Client::create_key`]; a key that failed is none.
    pub async fn restore_escrow(
        &self,
        file: Vec<u8>,
        unlocked: &Secret,
        node: &str,
        dry_run: bool,
        done: impl FnMut(&v1::KeyOutcome),
    ) -> Result<Vec<v1::KeyOutcome>, Failure> {
        let terms = v1::RestoreEscrowTerms {
            unlocked: unlocked.expose().to_vec().into(),
            node: node.to_owned(),
            dry_run,
        };
        let (mut file, mut parts) = (Bytes::from(file), vec![Out::Terms(terms)]);
        while !file.is_empty() {
            parts.push(Out::Chunk(file.split_to(file.len().min(CHUNK))));
        }
        let parts = parts.into_iter().map(|part| v1::RestoreEscrowRequest { part: Some(part) });
        let mut client = EscrowServiceClient::new(self.channel.clone());
        self.each(client.restore(tokio_stream::iter(parts)), done).await
    }
}
