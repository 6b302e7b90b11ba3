//! What became of each key, where keyd goes through many.

use keyd_api::v1::KeyOutcome;
use keyd_core::{Failure, Reason};
use keyd_unix::Output;
use serde_json::{Value, json};

/// How many keys fared how.
pub struct Counts {
    /// What was to be done was done.
    pub done: usize,
    /// It was so already.
    pub current: usize,
    /// It is to be done; nothing was changed.
    pub due: usize,
    /// It was not done.
    pub failed: usize,
}

/// A line about one key, as it is done.
pub fn line(key: &KeyOutcome) -> String {
    let details: Vec<_> =
        [&key.protection, &key.message].into_iter().filter(|text| !text.is_empty()).cloned().collect();
    let details = if details.is_empty() { String::new() } else { format!(": {}", details.join(", ")) };
    format!("{} of {}: {} {}{details}", key.number, key.of, key.key, key.outcome)
}

/// Shows all. `done` is what a key that is done is called, `sentence` the whole in words.
///
/// # Errors
/// The first key's failure, after `undone`, if any key failed.
pub fn show(
    keys: &[KeyOutcome],
    done: &str,
    sentence: impl Fn(&Counts) -> String,
    undone: &str,
    output: &Output,
) -> Result<(), Failure> {
    let count = |outcome: &str| keys.iter().filter(|key| key.outcome == outcome).count();
    let counts =
        Counts { done: count(done), current: count("current"), due: count("due"), failed: count("failed") };
    let value = json!({
        "keys": keys.iter().map(describe).collect::<Vec<_>>(),
        done: counts.done, "current": counts.current, "due": counts.due, "failed": counts.failed,
    });
    output.show(&value, |_| sentence(&counts))?;
    match keys.iter().find(|key| key.outcome == "failed") {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            Reason::from_name(&first.reason).unwrap_or(Reason::Internal),
            format!("{} keys {undone}, first {}: {}", counts.failed, first.key, first.message),
        )),
    }
}

fn describe(key: &KeyOutcome) -> Value {
    match key.outcome.as_str() {
        "failed" => json!({
            "key": key.key, "outcome": key.outcome, "reason": key.reason, "message": key.message,
        }),
        "due" => json!({ "key": key.key, "outcome": key.outcome }),
        _ => json!({ "key": key.key, "outcome": key.outcome, "protection": key.protection }),
    }
}
