//! Text that came from outside, in a record.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most bytes of a text as JSON writes it, without its quotes: a SPIFFE ID is not longer (SPIFFE-ID §2.3).
const TEXT_LIMIT: usize = 2048;

/// Text that is cut where it is too long: a record that no line has room for would keep all later ones from being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// As much of a text as a record shows.
    pub fn cut(text: &str) -> Self {
        let mut room = TEXT_LIMIT;
        let shown = |c: &char| {
            let left = room.checked_sub(written_len(*c));
            room = left.unwrap_or_default();
            left.is_some()
        };
        Self(text.chars().take_while(shown).collect())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many bytes JSON writes for a character, at most (RFC 8259 §7).
fn written_len(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spiffe_id_is_whole_and_what_is_longer_is_cut() {
        let id = format!("spiffe://td/{}", "a".repeat(TEXT_LIMIT - 12));
        assert_eq!(Text::cut(&id).to_string(), id);
        assert_eq!(Text::cut(&format!("{id}a")).to_string(), id);
    }

    proptest! {
        #[test]
        fn no_text_takes_more_room_than_there_is(text in "(?s).{0,40}", times in 1..400usize) {
            let whole = text.repeat(times);
            let cut = Text::cut(&whole);
            let written = serde_json::to_string(&cut).unwrap();
            prop_assert!(written.len() <= TEXT_LIMIT + 2, "{}", written.len());
            prop_assert!(whole.starts_with(&cut.0));
            prop_assert_eq!(serde_json::from_str::<Text>(&written).unwrap(), cut);
        }
    }
}
