//! The audit log over the local API.

use keyd_api::v1;
use keyd_audit::{Files, Position};
use keyd_core::{Failure, Operation};
use keyd_unix::off_worker;
use tonic::Request;

use super::Services;

impl Services {
    /// A piece of the log.
    ///
    /// # Errors
    /// [`Reason::Denied`], [`Reason::AuditFailed`].
    pub async fn answer_audit_log(
        &self,
        request: Request<v1::AuditLogRequest>,
    ) -> Result<v1::AuditLogResponse, Failure> {
        self.permit_node(&request, Operation::Audit).await?;
        let v1::AuditLogRequest { segment, offset } = request.into_inner();
        let dir = self.journal.dir().to_owned();
        let read = move || -> Result<_, Failure> { Ok(Files::at(&dir)?.read(Position { segment, offset })?) };
        let chunk = off_worker(read).await?;
        Ok(v1::AuditLogResponse {
            file: chunk.path.display().to_string(),
            lines: chunk.lines.into(),
            next_segment: chunk.next.segment,
            next_offset: chunk.next.offset,
            last: chunk.last,
        })
    }

    /// Where the log ends, after it was signed to its end.
    ///
    /// # Errors
    /// [`Reason::Denied`].
    pub async fn answer_audit_head(
        &self,
        request: Request<v1::AuditHeadRequest>,
    ) -> Result<v1::AuditHeadResponse, Failure> {
        self.permit_node(&request, Operation::Audit).await?;
        self.journal.flush(true).await;
        let standing = self.checkpoints.sign().await;
        let state = standing.state;
        Ok(v1::AuditHeadResponse {
            seq: state.head.seq,
            hash: state.head.hash.to_vec().into(),
            audit_key: state.audit_key.unwrap_or_default().into(),
            trouble: standing.unsigned.map(|f| f.message).or(state.trouble).unwrap_or_default(),
        })
    }
}
