//! Command lines, and what is said of a wrong one.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use keyd_core::{Failure, Reason};

use crate::Output;

/// Exit code of wrong usage.
const WRONG_USAGE: u8 = 2;

/// Reads the command line of `program`, whose option `--json` also turns what is said of a wrong one into JSON.
///
/// # Errors
/// The exit code, once it was said: 0 after `--help` and `--version`, 2 for wrong usage.
pub fn parse<C: Parser>(program: &'static str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let json = error.use_stderr() && std::env::args_os().any(|argument| argument == "--json");
        if json {
            Output::new(program, true).failure(&wrong_usage(&error));
        } else {
            let _ = error.print();
        }
        if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// A value that is none keeps its own reason; all else is a bad request, in clap's words.
fn wrong_usage(error: &clap::Error) -> Failure {
    if let Some(failure) = error.source().and_then(|source| source.downcast_ref::<Failure>()) {
        return failure.clone();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split("Usage:").next().unwrap_or_default();
    Failure::new(Reason::BadRequest, said.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use keyd_core::Algorithm;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long)]
        algorithm: Algorithm,
    }

    fn said_of(arguments: &[&str]) -> Failure {
        wrong_usage(&Cli::try_parse_from(arguments).unwrap_err())
    }

    #[test]
    fn a_value_that_is_none_keeps_its_reason_and_other_usage_is_a_bad_request() {
        let unknown = said_of(&["keyd", "--algorithm", "ml-dsa65"]);
        assert_eq!(unknown.reason, Reason::UnknownAlgorithm);
        assert!(unknown.message.contains("ml-dsa-65"), "{unknown}");
        let other = said_of(&["keyd", "--colour"]);
        assert_eq!(other.reason, Reason::BadRequest);
        assert!(other.message.starts_with("unexpected argument '--colour'"), "{other}");
        assert!(!other.message.contains("Usage"), "{other}");
    }
}
