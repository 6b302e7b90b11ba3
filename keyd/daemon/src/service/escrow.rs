//! `keyd.v1.EscrowService`.

use std::time::Duration;

use keyd_api::v1;
use keyd_api::v1::escrow_service_server::EscrowService;
use keyd_api::v1::export_escrow_response::Part as Out;
use keyd_api::v1::restore_escrow_request::Part as In;
use keyd_audit::{Draft, Event, Text};
use keyd_core::{Failure, KeyId, Namespace, Operation, Reason, Secret};
use keyd_escrow::{EscrowFile, EscrowedKey, FILE_LIMIT, Recipient, seal};
use keyd_unix::off_worker;
use prost::bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::each::{Told, each};
use super::{Services, optional, refuse};
use crate::clock::now;
use crate::config::OWN_NAMESPACE;

/// Length of a part of the file in one message, in bytes.
const CHUNK: usize = 256 * 1024;
/// How long a file may take to arrive; it comes from this machine.
const ARRIVAL: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl EscrowService for Services {
    type ExportStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ExportEscrowResponse, Status>>>;

    async fn export(
        &self,
        request: Request<v1::ExportEscrowRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let parts = async {
            let wanted: Option<Namespace> = optional(&request.get_ref().namespace)?;
            let namespaces = match &wanted {
                Some(namespace) => vec![namespace.clone()],
                None => self.rules.now().config.namespaces().map(|n| n.name.clone()).collect(),
            };
            let origin = self.permit_node(&request, Operation::Escrow).await?;
            for namespace in &namespaces {
                self.permit(&request, Operation::Escrow, namespace).await?;
            }
            let recipient = self.recipient().await?;
            let _one = self.one_escrow()?;
            let (keys, made_in_token) = self.keyring.escrow(&namespaces).await?;
            let left = |id: &KeyId, why: &str| v1::LeftOut { key: id.to_string(), why: why.to_owned() };
            let mut left_out: Vec<_> = made_in_token
                .iter()
                .map(|id| {
                    left(id, "it was made in the token and cannot leave it: a new token needs a new key")
                })
                .collect();
            if wanted.is_none() {
                let ours = |id: &KeyId| namespaces.contains(&id.namespace);
                let strange = self.keyring.all();
                let strange = strange.iter().map(|key| &key.record.id).filter(|id| !ours(id));
                left_out.extend(strange.map(|id| match id.namespace.as_str() {
                    OWN_NAMESPACE => left(id, "it is keyd's own, which each keyd makes for itself"),
                    _ => left(id, "its namespace is not in keyd.toml"),
                }));
            }
            let (node, count, of) = (node_name()?, keys.len(), recipient.fingerprint());
            let summary = v1::ExportedEscrow {
                keys: u32::try_from(count).unwrap_or(u32::MAX),
                left_out,
                recipient: of.to_vec().into(),
                node: node.clone(),
            };
            let file = off_worker(move || seal(&recipient, &node, now(), &keys)).await?;
            let event = Event::EscrowExported { keys: summary.keys, namespace: wanted, recipient: of };
            self.journal.append(vec![Draft::done(origin, event)]).await?;
            tracing::warn!(keys = count, recipient = hex::encode(&summary.recipient), "escrow exported");
            Ok(parts(summary, file.into()))
        };
        parts.await.map(|parts| Response::new(tokio_stream::iter(parts))).map_err(refuse)
    }

    type RestoreStream = Told;

    async fn restore(
        &self,
        request: Request<Streaming<v1::RestoreEscrowRequest>>,
    ) -> Result<Response<Self::RestoreStream>, Status> {
        let (metadata, extensions, mut sent) = request.into_parts();
        let caller = Request::from_parts(metadata, extensions, ());
        let keys = async {
            let origin = self.permit_node(&caller, Operation::Escrow).await?;
            let one = self.one_escrow()?;
            let arrived = timeout(ARRIVAL, receive(&mut sent)).await;
            let (mut terms, file) =
                arrived.map_err(|_| not_whole(Reason::DeadlineExceeded, "its end is late"))??;
            let unlocked = terms.take_secret();
            let node = if terms.node.is_empty() { node_name()? } else { terms.node.clone() };
            let dry_run = terms.dry_run;
            let opened = |keys| Event::EscrowOpened { node: Text::cut(&node), keys, dry_run };
            let of = node.clone();
            let keys = match off_worker(move || open(&file, &unlocked, &of)).await {
                Ok(keys) => keys,
                Err(failure) => {
                    self.journal.owe(Draft::failed(origin, opened(0), failure.reason)).await;
                    return Err(failure);
                }
            };
            let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            self.journal.append(vec![Draft::done(origin, opened(count))]).await?;
            for key in &keys {
                self.permit(&caller, Operation::Escrow, &key.id().namespace).await?;
            }
            tracing::warn!(keys = count, dry_run, "escrow opened");
            Ok((origin, keys, dry_run, one))
        };
        let (origin, keys, dry_run, one) = keys.await.map_err(refuse)?;
        let keys = keys.into_iter().map(|key| (key.id().clone(), key)).collect();
        let keyring = self.keyring.clone();
        let restore = move |_, key| {
            // Held until the last key is done.
            let _ = &one;
            let keyring = keyring.clone();
            async move { keyring.restore(origin, key, dry_run).await }
        };
        Ok(Response::new(each(keys, "restored", restore)))
    }
}

impl Services {
    async fn recipient(&self) -> Result<Recipient, Failure> {
        let table = self.rules.now().config.escrow.clone().ok_or_else(|| {
            Failure::new(
                Reason::BadConfig,
                "escrow is off: keyd.toml has no [escrow] with a recipient, the operator's public key. `keyd escrow \
                 new-recipient` makes a key pair, away from the nodes",
            )
        })?;
        off_worker(move || table.recipient()).await
    }

    /// One export or restore at a time: each holds the secrets of all keys.
    fn one_escrow(&self) -> Result<OwnedMutexGuard<()>, Failure> {
        self.escrow.clone().try_lock_owned().map_err(|_| {
            Failure::new(
                Reason::LimitExceeded,
                "another escrow is exported or restored now; try again after it",
            )
        })
    }
}

/// The summary, and then the file.
fn parts(summary: v1::ExportedEscrow, mut file: Bytes) -> Vec<Result<v1::ExportEscrowResponse, Status>> {
    let mut parts = vec![Out::Summary(summary)];
    while !file.is_empty() {
        parts.push(Out::Chunk(file.split_to(file.len().min(CHUNK))));
    }
    parts.into_iter().map(|part| Ok(v1::ExportEscrowResponse { part: Some(part) })).collect()
}

/// What the caller sends: his terms, and then the file.
async fn receive(
    sent: &mut Streaming<v1::RestoreEscrowRequest>,
) -> Result<(v1::RestoreEscrowTerms, Vec<u8>), Failure> {
    let (mut terms, mut file) = (None, Vec::new());
    loop {
        let next = sent.message().await;
        match next.map_err(|e| not_whole(Reason::BadRequest, e.message()))?.map(|message| message.part) {
            Some(Some(In::Terms(first))) if terms.is_none() => terms = Some(first),
            Some(Some(In::Chunk(chunk))) if terms.is_some() => {
                if file.len() + chunk.len() > FILE_LIMIT {
                    return Err(keyd_escrow::Error::TooLong { limit: FILE_LIMIT }.into());
                }
                file.extend_from_slice(&chunk);
            }
            Some(_) => return Err(not_whole(Reason::BadRequest, "its parts are out of order")),
            None => {
                let terms = terms.ok_or_else(|| not_whole(Reason::BadRequest, "nothing was sent"))?;
                return Ok((terms, file));
            }
        }
    }
}

fn not_whole(reason: Reason, why: &str) -> Failure {
    Failure::new(reason, format!("the escrow did not arrive whole: {why}"))
}

/// Opens an escrow of this node. The name only keeps mistakes out: whoever restores can give another.
fn open(file: &[u8], unlocked: &Secret, node: &str) -> Result<Vec<EscrowedKey>, Failure> {
    let file = EscrowFile::parse(file)?;
    let of = &file.header().node;
    if of != node {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "the escrow is of node {of}, and this is {node}: no key may live on two nodes. If this node takes the place of \
                 {of}, add --node {of}"
            ),
        ));
    }
    Ok(file.open(unlocked)?)
}

fn node_name() -> Result<String, Failure> {
    let failed = |why: String| Failure::new(Reason::Internal, format!("the host name cannot be had: {why}"));
    let name = nix::unistd::gethostname().map_err(|e| failed(e.to_string()))?;
    name.into_string().map_err(|_| failed("it is no text".to_owned()))
}
