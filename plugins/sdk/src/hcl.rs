//! plugin_data as SPIRE sends it: HCL 1, re-printed from an HCL or a JSON configuration, or the bytes of a
//! plugin_data_file.
//!
//! No crate reads HCL 1. `hcl-rs` reads HCL 2, which is the same for what a plugin needs, save that HCL 1 lets keys
//! be quoted and a JSON configuration arrives with every key quoted: [`unquote_keys`] takes those quotes away. The few
//! things that HCL 2 would read as something else are refused.

use keyd_core::config::{CONFIG_LIMIT, suggestion};
use keyd_core::{Failure, Reason};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deepest nesting read, in brackets of any kind; the reader of HCL 2 recurses.
const DEPTH_LIMIT: usize = 32;

/// Reads `text` into `T`. `T` should refuse unknown fields; the error then names the nearest known one.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    if text.len() > CONFIG_LIMIT {
        return Err(bad(&format!("larger than {CONFIG_LIMIT} bytes")));
    }
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| bad(&e.to_string()));
    }
    let value: Value = hcl::from_str(&unquote_keys(text)?).map_err(|e| match e {
        hcl::Error::Parse(e) => {
            let at = e.location();
            let what = e.message().trim_end_matches('\n').replace('\n', "; ");
            bad(&format!("line {}, column {}: {what}", at.line(), at.column()))
        }
        e => bad(&e.to_string()),
    })?;
    refuse_expressions(&value)?;
    serde_json::from_value(value).map_err(|e| bad(&e.to_string()))
}

/// `hcl-rs` gives a template, and any expression such as a bare word, as a string with `${`.
fn refuse_expressions(value: &Value) -> Result<(), Failure> {
    match value {
        Value::String(s) if s.contains("${") || s.contains("%{") => {
            Err(bad(&format!("{s:?} is an expression; write the value itself, a text in quotes")))
        }
        Value::Array(items) => items.iter().try_for_each(refuse_expressions),
        Value::Object(fields) => fields.values().try_for_each(refuse_expressions),
        _ => Ok(()),
    }
}

/// A failure on one line, which is what SPIRE prints, whatever the text held that `what` repeats.
fn bad(what: &str) -> Failure {
    let what = &what.replace(char::is_control, " ");
    let hint = suggestion(what).map(|s| format!(". Did you mean {s:?}?")).unwrap_or_default();
    Failure::new(Reason::BadConfig, format!("plugin_data: {what}{hint}"))
}

/// Takes the quotes from keys. A string is a key when it begins an item and `=`, a block's label or `{` follows.
fn unquote_keys(text: &str) -> Result<String, Failure> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Whether the next token begins an item of a body.
    let mut begins = true;
    let mut depth = 0_usize;
    while let Some(token) = Token::next(rest) {
        rest = rest.get(token.text.len()..).unwrap_or_default();
        out.push_str(match token.kind {
            Kind::String if begins && is_key(rest) => plain(token.text)?,
            Kind::Word => decimal(token.text)?,
            _ => token.text,
        });
        match token.text {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            return Err(bad(&format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        begins = match token.kind {
            Kind::Comment | Kind::Space => begins,
            _ => matches!(token.text, "\n" | "{" | "}" | ","),
        };
    }
    Ok(out)
}

/// Whether what follows a string makes it a key: on the same line `=`, `{`, or a label.
fn is_key(rest: &str) -> bool {
    rest.trim_start_matches([' ', '\t']).starts_with(['=', '{', '"'])
}

/// A quoted key without its quotes.
fn plain(raw: &str) -> Result<&str, Failure> {
    let key = raw.trim_matches('"');
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if plain { Ok(key) } else { Err(bad(&format!("the key {raw} is not a plain name"))) }
}

/// A word that is no octal number: HCL 1 reads 0755 as 493, HCL 2 as 755.
fn decimal(raw: &str) -> Result<&str, Failure> {
    let octal = raw.len() > 1 && raw.starts_with('0') && raw.bytes().all(|b| b.is_ascii_digit());
    if octal { Err(bad(&format!("the number {raw} is octal; write it in decimal"))) } else { Ok(raw) }
}

// === Token ===

/// A piece of HCL, as far as finding keys needs one.
#[derive(Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy)]
enum Kind {
    /// With its quotes.
    String,
    /// From `<<` to the line that ends it.
    Heredoc,
    /// Without the end of its line.
    Comment,
    /// A name, number or keyword.
    Word,
    /// One character of white space, a line's end not among them.
    Space,
    /// One character of punctuation, or a line's end.
    Mark,
}

impl<'a> Token<'a> {
    /// The first token of `text`; `None` at its end.
    fn next(text: &'a str) -> Option<Self> {
        let first = text.chars().next()?;
        let (kind, end) = match first {
            '"' => (Kind::String, string_end(text)),
            '#' => (Kind::Comment, line_end(text)),
            '/' if text.starts_with("//") => (Kind::Comment, line_end(text)),
            '/' if text.starts_with("/*") => {
                let inner = text.get(2..).unwrap_or_default();
                (Kind::Comment, inner.find("*/").map_or(text.len(), |at| at + 4))
            }
            '<' if text.starts_with("<<") => (Kind::Heredoc, heredoc_end(text)),
            c if is_word(c) => (Kind::Word, text.find(|c| !is_word(c)).unwrap_or(text.len())),
            ' ' | '\t' | '\r' => (Kind::Space, 1),
            c => (Kind::Mark, c.len_utf8()),
        };
        Some(Self { kind, text: text.get(..end).unwrap_or(text) })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn line_end(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Past the closing quote; a backslash takes the next character along.
fn string_end(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Past the line that holds only the word after `<<` or `<<-`.
fn heredoc_end(text: &str) -> usize {
    let mut lines = text.split_inclusive('\n');
    let Some(opening) = lines.next() else { return text.len() };
    let word = opening.trim_start_matches('<').trim_start_matches('-').trim();
    let mut end = opening.len();
    for line in lines {
        if line.trim() == word {
            return end + line.trim_end().len();
        }
        end += line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn reads(text: &str, wanted: Value) {
        assert_eq!(parse::<Value>(text).unwrap(), wanted, "{text}");
    }

    #[track_caller]
    fn refuses(text: &str, wanted: &str) {
        let e = parse::<Value>(text).unwrap_err();
        assert!(e.message.contains(wanted), "{text}: {e}");
        assert!(!e.message.contains('\n'), "one line: {e}");
    }

    /// As SPIRE prints what a configuration in JSON holds.
    #[test]
    fn a_json_configuration_is_read() {
        reads(
            "\"dir\" = \"x\"\n\n\"n\" = 3\n\n\"list\" = [\"a\", \"b\"]\n\n\"obj\" = {\n  \"b\" = \"c\"\n\n  \"d\" = 2\n}\n\n\
             \"deep\" \"a\" {\n  \"z\" = true\n}\n\n\"empty\" = {}\n\n\"el\" = []\n\n\"s\" = \"a \\\"q\\\" = \\\\ ü\"",
            json!({"dir": "x", "n": 3, "list": ["a", "b"], "obj": {"b": "c", "d": 2}, "deep": {"a": {"z": true}},
                   "empty": {}, "el": [], "s": "a \"q\" = \\ ü"}),
        );
    }

    /// As SPIRE prints what a configuration in HCL holds.
    #[test]
    fn an_hcl_configuration_is_read() {
        reads(
            "# a comment = \"x\" {\ndir = \"x\" # \"tail\" = 1\n\n// \"two\" = 2\n/* \"three\" = 3\n*/\n\
             block {\n  b = \"c\"\n}\n\nobject = {\n  b = \"c\"\n\n  d = 2\n}\n\nwith-dash = true",
            json!({"dir": "x", "block": {"b": "c"}, "object": {"b": "c", "d": 2}, "with-dash": true}),
        );
        reads("\"labelled\" \"l1\" {\n  b = 1\n}\n", json!({"labelled": {"l1": {"b": 1}}}));
        reads("a = \"x\"\r\n\"b\" = \"y\"\r\n", json!({"a": "x", "b": "y"}));
        reads("", json!({}));
        reads("# nothing\n", json!({}));
    }

    #[test]
    fn quotes_stay_where_they_are_not_a_keys() {
        reads("a = \"b\" # = {\nc = [\"d\",\n  \"e\",\n]", json!({"a": "b", "c": ["d", "e"]}));
        reads("a = <<EOF\n\"b\" = \"c\"\nEOF\n\"d\" = 1", json!({"a": "\"b\" = \"c\"\n", "d": 1}));
        reads("a = <<-EOF\n  \"b\" = 1\n  EOF\n", json!({"a": "\"b\" = 1\n"}));
        reads(r#"a = "x\" = \\""#, json!({"a": "x\" = \\"}));
    }

    #[test]
    fn a_plugin_data_file_may_be_json() {
        reads("\n{\"dir\": \"x\", \"n\": 3}\n", json!({"dir": "x", "n": 3}));
        refuses("{\"dir\" = 1}", "plugin_data: expected `:`");
    }

    #[test]
    fn what_the_two_versions_read_differently_is_refused() {
        refuses("mode = 0755", "0755 is octal");
        refuses("\"mode\" = 0755", "0755 is octal");
        refuses("home = \"${HOME}/x\"", "is an expression");
        refuses("cost = \"$${x}\"", "is an expression");
        refuses("if = \"%{if}\"", "plugin_data: ");
        refuses("a = <<EOF\n${x}\nEOF", "is an expression");
        refuses("path = unquoted", "is an expression");
        refuses("sum = [1 + 2, f(3)]", "is an expression");
        refuses("\"a.b\" = 1", "the key \"a.b\" is not a plain name");
        refuses("\"a b\" = 1", "is not a plain name");
        refuses("\"\" = 1", "is not a plain name");
        refuses("a = 1\na = 2", "plugin_data: ");
    }

    #[test]
    fn a_key_over_two_lines_is_refused_on_one() {
        refuses("\"a\nb\" = 1", "the key \"a b\" is not a plain name");
        let message = parse::<Example>(r#"{"a\nb": 1}"#).unwrap_err().message;
        assert!(message.starts_with("plugin_data: unknown field `a b`"), "{message:?}");
    }

    #[test]
    fn broken_text_is_refused_with_its_place() {
        refuses("a = \"x\nb = 1", "plugin_data: line ");
        refuses("a = \"x", "plugin_data: line ");
        refuses("\"nul\" = ", "plugin_data: line ");
        refuses("a = <<EOF\nx", "plugin_data: line ");
        refuses("/* never closed", "plugin_data: line ");
        refuses("/*/", "plugin_data: line ");
        refuses(&" ".repeat(CONFIG_LIMIT + 1), "larger than");
    }

    #[test]
    fn deep_nesting_is_refused_unread() {
        for open in ["[", "{", "a {\n", "a = (", "[{a="] {
            refuses(&format!("a = {}", open.repeat(50_000)), "nested deeper");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\"=\\n{}\\[\\]<#/*a\\\\ \\t,\\-ü$%0]{0,80}") {
            let _ = parse::<Value>(&text);
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code, reason = "only parsed")]
        socket: String,
    }

    #[test]
    fn typed_errors_name_the_field() {
        let fails = |text: &str| parse::<Example>(text).unwrap_err().message;
        assert_eq!(
            fails("sokcet = 1"),
            "plugin_data: unknown field `sokcet`, expected `socket`. Did you mean \"socket\"?"
        );
        assert_eq!(fails(""), "plugin_data: missing field `socket`");
        assert!(fails("socket = 7").contains("invalid type: integer `7`, expected a string"));
    }
}
