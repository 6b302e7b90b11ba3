//! [`Failure`] as gRPC status and back: a code for gRPC, a `google.rpc.ErrorInfo` with the reason for machines, and
//! the sentence for people.

use std::collections::HashMap;

use keyd_core::{Failure, Reason};
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our `ErrorInfo`s.
pub const DOMAIN: &str = "keyd";

/// The gRPC code that goes with a reason.
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::BadKeyId | Reason::UnknownAlgorithm | Reason::UnknownProtection | Reason::BadRequest => {
            Code::InvalidArgument
        }
        Reason::Denied | Reason::IssuanceRefused => Code::PermissionDenied,
        Reason::KeyNotFound => Code::NotFound,
        Reason::KeyExists => Code::AlreadyExists,
        Reason::LimitExceeded => Code::ResourceExhausted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::TokenAbsent | Reason::TokenInterrupted | Reason::TpmAbsent | Reason::Unreachable => {
            Code::Unavailable
        }
        Reason::UnknownNamespace
        | Reason::ProtectionUnavailable
        | Reason::ProfileForbids
        | Reason::TokenLockedOut
        | Reason::TpmLockout
        | Reason::TpmReplaced
        | Reason::PcrChanged
        | Reason::PolicyOutdated
        | Reason::StoreRolledBack
        | Reason::BadConfig => Code::FailedPrecondition,
        Reason::UnsealFailed | Reason::Integrity => Code::DataLoss,
        _ => Code::Internal,
    }
}

/// A failure as it goes over the wire.
pub fn from_failure(failure: &Failure) -> Status {
    let details = ErrorDetails::with_error_info(failure.reason.name(), DOMAIN, HashMap::new());
    Status::with_error_details(code(failure.reason), failure.message.clone(), details)
}

/// What a status of keyd says, in keyd's terms. `socket` names the server in the sentence when it could not be reached.
pub fn to_failure(status: &Status, socket: &str) -> Failure {
    failure_of("keyd", status, socket)
}

/// The same for any of our servers, `keyd` or `keyd-agent`.
pub fn failure_of(server: &str, status: &Status, socket: &str) -> Failure {
    let named = status
        .get_details_error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| Reason::from_name(&info.reason));
    if let Some(reason) = named {
        return Failure::new(reason, status.message());
    }
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled if !broke_off(status) => {
            Failure::new(Reason::DeadlineExceeded, format!("{server} on {socket} did not answer in time"))
        }
        Code::OutOfRange | Code::ResourceExhausted => Failure::new(
            Reason::LimitExceeded,
            format!("{}; a message may have {} bytes", status.message(), crate::MESSAGE_LIMIT),
        ),
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            let cause = std::error::Error::source(status).map(root_cause).unwrap_or_default();
            Failure::new(
                Reason::Unreachable,
                format!(
                    "cannot reach {server} on {socket}{cause}. Is it running ({server} serve), and may this user open the socket?"
                ),
            )
        }
        code => Failure::new(
            Reason::Internal,
            format!("{server} on {socket} answered {code}: {}", status.message()),
        ),
    }
}

/// Whether a call ended with its connection. Calls that take too long are cancelled too, by this side or by the server.
fn broke_off(status: &Status) -> bool {
    let cause = std::error::Error::source(status);
    let mut causes = std::iter::successors(cause, |error| error.source());
    status.code() == Code::Cancelled && cause.is_some() && !causes.any(|e| e.is::<TimeoutExpired>())
}

fn root_cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(next) = error.source() {
        error = next;
    }
    format!(": {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let sent = Failure::new(reason, "a sentence");
            assert_eq!(to_failure(&from_failure(&sent), "s"), sent);
        }
    }

    #[test]
    fn a_foreign_status_is_unreachable_or_internal() {
        assert_eq!(to_failure(&Status::unavailable("x"), "s").reason, Reason::Unreachable);
        assert_eq!(to_failure(&Status::unimplemented("x"), "s").reason, Reason::Internal);
    }

    /// An error of the transport's, as tonic hands it on.
    #[derive(Debug)]
    struct Ended(Status);

    impl std::fmt::Display for Ended {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("connection closed")
        }
    }

    impl std::error::Error for Ended {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_call_cancelled_by_time_is_late_and_one_cancelled_with_its_connection_unreachable() {
        let late = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!((late.code(), to_failure(&late, "s").reason), (Code::Cancelled, Reason::DeadlineExceeded));
        let of_the_server = Status::cancelled("Timeout expired");
        assert_eq!(to_failure(&of_the_server, "s").reason, Reason::DeadlineExceeded);
        let ended = Status::from_error(Box::new(Ended(Status::cancelled("operation was canceled"))));
        assert_eq!((ended.code(), to_failure(&ended, "s").reason), (Code::Cancelled, Reason::Unreachable));
    }
}
