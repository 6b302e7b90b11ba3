//! What commands print: text for people, JSON for programs, and one exit code per kind of failure.

use std::io::Write;
use std::process::ExitCode;

use keyd_core::{Failure, Reason};
use serde::Serialize;

/// Where a command of `program` prints.
pub struct Output {
    program: &'static str,
    json: bool,
}

impl Output {
    /// Text, or JSON.
    pub fn new(program: &'static str, json: bool) -> Self {
        Self { program, json }
    }

    /// Whether it is for programs.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints `value` as JSON, or the text that `human` makes of it. A reader that went away is no error.
    ///
    /// # Errors
    /// [`Reason::Internal`] for a value that is no JSON.
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

    /// Says on standard error how far a long command is; with JSON nothing.
    pub fn progress(&self, line: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Ends the command: a failure is printed on standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied,
    /// 4 no such key, 5 a service or device cannot be reached, 6 the key exists.
    pub fn end(&self, result: Result<(), Failure>) -> ExitCode {
        let Err(failure) = result else { return ExitCode::SUCCESS };
        self.failure(&failure);
        ExitCode::from(exit_code(failure.reason))
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        let text = if self.json {
            serde_json::json!({ "error": { "reason": failure.reason.name(), "message": failure.message } })
                .to_string()
        } else {
            format!("{}: {failure}", self.program)
        };
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

const fn exit_code(reason: Reason) -> u8 {
    match reason {
        Reason::BadKeyId | Reason::UnknownAlgorithm | Reason::UnknownProtection => 2,
        Reason::Denied => 3,
        Reason::KeyNotFound => 4,
        Reason::Unreachable
        | Reason::TokenAbsent
        | Reason::TokenInterrupted
        | Reason::TpmAbsent
        | Reason::DeadlineExceeded => 5,
        Reason::KeyExists => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reason and exit code of each row of the operator's table.
    fn documented() -> Vec<(String, u8)> {
        let table = include_str!("../../../docs/failures.md");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        rows.filter_map(|(name, rest)| {
            let cells: Vec<_> = rest.trim_end_matches(" |").split(" | ").collect();
            // The rows of the log have no exit code.
            let code = cells[0].parse().ok()?;
            assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{name}: {cells:?}");
            Some((name.to_owned(), code))
        })
        .collect()
    }

    #[test]
    fn every_reason_stands_in_the_operators_table_with_its_exit_code_and_nothing_else_does() {
        let known: Vec<_> = Reason::ALL.iter().map(|r| (r.name().to_owned(), exit_code(*r))).collect();
        let documented = documented();
        for row in &known {
            assert!(documented.contains(row), "{row:?} is not in docs/failures.md");
        }
        for row in &documented {
            assert!(known.contains(row), "docs/failures.md has {row:?}, which keyd never says");
        }
        assert_eq!(documented.len(), known.len(), "a reason stands twice");
    }
}
