//! The audit log, as a client reads it.

use keyd_core::Failure;

use super::Client;
use crate::v1;
use crate::v1::admin_service_client::AdminServiceClient;

impl Client {
    /// A piece of the audit log: from a file's number and an offset in it, both 0 for the beginning.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn audit_log(&self, segment: u64, offset: u64) -> Result<v1::AuditLogResponse, Failure> {
        let mut client = AdminServiceClient::new(self.channel.clone());
        self.answer(client.audit_log(self.request(v1::AuditLogRequest { segment, offset })).await)
    }

    /// Where the audit log ends, after keyd signed it to there.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn audit_head(&self) -> Result<v1::AuditHeadResponse, Failure> {
        let mut client = AdminServiceClient::new(self.channel.clone());
        self.answer(client.audit_head(self.request(v1::AuditHeadRequest {})).await)
    }
}
