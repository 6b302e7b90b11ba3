//! Reading a configuration: strict TOML, with errors that name file, line and the key that was probably meant.

mod tables;

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
pub use toml::Spanned;

pub use tables::{Table, tables};

use crate::{Failure, Reason, nearest};

/// Longest configuration file, in bytes.
pub const CONFIG_LIMIT: usize = 1 << 20; // 1 MiB

/// Reads `text`, which came from `file`, into `T`. `T` should refuse unknown fields; the error then says which line
/// holds one and which known key is nearest.
///
/// # Errors
/// [`Reason::BadConfig`] with file, line and column.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Failure> {
    if text.len() > CONFIG_LIMIT {
        return Err(Failure::new(
            Reason::BadConfig,
            format!("{file}: larger than {CONFIG_LIMIT} bytes; is this a configuration?"),
        ));
    }
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| position(text, span.start));
        let message = error.message();
        let hint = suggestion(message).map(|s| format!(". Did you mean {s:?}?")).unwrap_or_default();
        Failure::new(Reason::BadConfig, format!("{file}{place}: {message}{hint}"))
    })
}

/// Parts of a configuration that do not go together, and where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    why: String,
    /// Byte offset.
    at: Option<usize>,
}

impl Misfit {
    /// One that stands at a value or table, as [`Spanned`] gives its place.
    pub fn at(span: Range<usize>, why: String) -> Self {
        Self { why, at: Some(span.start) }
    }

    /// What is told of it, where it is in `text`, which came from `file`.
    pub fn in_file(&self, file: &str, text: &str) -> Failure {
        let place = self.at.map_or_else(String::new, |at| position(text, at));
        Failure::new(Reason::BadConfig, format!("{file}{place}: {}", self.why))
    }
}

impl From<String> for Misfit {
    fn from(why: String) -> Self {
        Self { why, at: None }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// `:LINE:COLUMN`, counted from 1, of a byte offset.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!(":{line}:{column}")
}

/// The known key nearest to the unknown one that a serde message names. serde puts both in backticks, the unknown first.
pub fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    nearest(unknown, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code, reason = "only parsed")]
        socket: String,
    }

    #[test]
    fn an_unknown_key_is_named_with_file_line_and_suggestion() {
        let e = parse::<Example>("keyd.toml", "# first\nsocket = \"a\"\nsokcet = \"b\"\n").unwrap_err();
        assert_eq!(e.reason, Reason::BadConfig);
        assert!(e.message.starts_with("keyd.toml:3:1: unknown field `sokcet`"), "{e}");
        assert!(e.message.ends_with("Did you mean \"socket\"?"), "{e}");
    }

    #[test]
    fn broken_toml_is_named_with_its_place() {
        let e = parse::<Example>("keyd.toml", "socket = \"a\n").unwrap_err();
        assert!(e.message.starts_with("keyd.toml:1:"), "{e}");
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let text = " ".repeat(CONFIG_LIMIT + 1);
        assert!(parse::<Example>("keyd.toml", &text).unwrap_err().message.contains("larger than"));
    }
}
