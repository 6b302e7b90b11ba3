//! "Did you mean": the known name nearest to what was typed.

/// How alike (0 to 1, by the edits between them) two names must be before one is offered for the other.
const ALIKE: f64 = 0.6;

/// Longest text that may be a mistyped name, in bytes: comparing takes as many steps and bytes as this times a name.
const TYPED_LIMIT: usize = 256;

/// The candidate most like `typed`, if any is alike enough to be worth a question.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > TYPED_LIMIT {
        return None;
    }
    candidates
        .into_iter()
        .map(|c| (strsim::normalized_damerau_levenshtein(typed, c), c))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::{TYPED_LIMIT, nearest};

    #[test]
    fn offers_the_typo_and_nothing_for_noise() {
        assert_eq!(nearest("sokcet", ["socket", "state_dir"]), Some("socket"));
        assert_eq!(nearest("hms", ["hsm", "software"]), Some("hsm"));
        assert_eq!(nearest("zzz", ["socket", "state_dir"]), None);
    }

    #[test]
    fn a_huge_text_is_not_compared() {
        let name = "x".repeat(TYPED_LIMIT);
        assert_eq!(nearest(&name, [name.as_str()]), Some(name.as_str()));
        let longer = format!("{name}x");
        assert_eq!(nearest(&longer, [name.as_str()]), None);
    }
}
