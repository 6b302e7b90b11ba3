//! What runs on the TPM's thread: jobs, one after the other, on a connection that is opened when it is needed.

use std::sync::Arc;

use crate::connection::Connection;
use crate::error::Error;
use crate::queue::Queue;
use crate::{TpmConfig, health};

/// The state of the TPM's thread.
pub(crate) struct Worker {
    config: TpmConfig,
    connection: Option<Connection>,
}

impl Worker {
    /// The thread's body; returns once the queue is closed.
    pub(crate) fn run(queue: &Arc<Queue>, config: TpmConfig) {
        let mut worker = Self { config, connection: None };
        while let Some(job) = queue.next() {
            job(&mut worker);
        }
    }

    /// Runs `operation`. One that fails because an older connection broke, or because the TPM was reset meanwhile, is
    /// run again, once, on a new connection; so each operation must bear to be done twice.
    pub(crate) fn perform<T>(
        &mut self,
        operation: impl Fn(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let may_be_stale = self.connection.is_some();
        match self.attempt(&operation) {
            Err(error) if may_be_stale && error.is_worth_retrying() => {
                tracing::warn!(tcti = %self.config.tcti, %error, "TPM connection lost, opening it again");
                self.attempt(&operation)
            }
            result => result,
        }
    }

    fn attempt<T>(&mut self, operation: &impl Fn(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.config)?,
        };
        let connection = self.connection.insert(connection);
        let result = operation(connection).map_err(|error| health::explain_lockout(connection, error));
        if result.as_ref().is_err_and(Error::ends_connection) {
            self.connection = None;
        }
        result
    }
}
