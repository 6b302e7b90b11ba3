//! What commands print: text for people, JSON for programs, and one exit code per kind of failure.

use std::io::Write;

use keyd_core::{Failure, Reason};
use serde::Serialize;

/// Where a command prints.
pub struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints `value` as JSON, or the text that `human` makes of it. A reader that went away is no error.
    pub fn show<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let mut text = if self.json {
            serde_json::to_string_pretty(value)
                .map_err(|e| Failure::new(Reason::Internal, format!("cannot write JSON: {e}")))?
        } else {
            human(value)
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }

    /// Prints a failure on standard error.
    pub fn failure(&self, failure: &Failure) {
        let text = if self.json {
            serde_json::json!({ "error": { "reason": failure.reason.name(), "message": failure.message } })
                .to_string()
        } else {
            format!("keyd: {failure}")
        };
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// The exit code of a failure, as `keyd --help` lists them.
pub const fn exit_code(reason: Reason) -> u8 {
    match reason {
        Reason::BadKeyId | Reason::UnknownAlgorithm | Reason::UnknownProtection => 2,
        Reason::Denied => 3,
        Reason::KeyNotFound => 4,
        Reason::Unreachable | Reason::TokenAbsent | Reason::TpmAbsent | Reason::DeadlineExceeded => 5,
        Reason::KeyExists => 6,
        _ => 1,
    }
}
