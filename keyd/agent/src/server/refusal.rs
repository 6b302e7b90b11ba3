//! What a gRPC status of the server's says.

use std::error::Error;

use keyd_core::Failure;
use prost::Message;
use tonic::{Code, Status};

use crate::error::{AgentError, Standing};
use crate::proto::types::PermissionDeniedDetails;
use crate::proto::types::permission_denied_details::Reason;

/// The detail of a status that says what is wrong with this agent.
const DETAILS: &str = "spire.api.types.PermissionDeniedDetails";

/// The error that a status stands for.
pub fn error(address: &str, call: &'static str, status: &Status) -> AgentError {
    match cause(status) {
        Some(why) => AgentError::Unreachable { address: address.to_owned(), why },
        None => AgentError::Refused {
            call,
            code: status.code(),
            message: status.message().to_owned(),
            standing: standing(status),
        },
    }
}

/// Why there is no connection: the words of the connector, or whatever lies deepest. A status that the server sent has
/// no cause.
fn cause(status: &Status) -> Option<String> {
    let mut error: &(dyn Error + 'static) = status.source()?;
    while let Some(next) = error.source() {
        if error.is::<Failure>() {
            break;
        }
        error = next;
    }
    Some(error.to_string())
}

fn standing(status: &Status) -> Standing {
    if status.code() != Code::PermissionDenied {
        return Standing::Good;
    }
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
    let ours = details.iter().find(|any| any.type_url.rsplit('/').next() == Some(DETAILS));
    match ours.and_then(|any| PermissionDeniedDetails::decode(&*any.value).ok()).map(|d| d.reason()) {
        Some(Reason::AgentBanned) => Standing::Banned,
        Some(
            Reason::AgentExpired
            | Reason::AgentNotAttested
            | Reason::AgentNotActive
            | Reason::AgentMustReattest,
        ) => Standing::MustAttest,
        Some(Reason::Unknown) | None => Standing::Good,
    }
}
