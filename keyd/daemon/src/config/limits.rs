//! `[limits]`: the bounds on what callers may ask for.

use keyd_api::MESSAGE_LIMIT;
use serde::Deserialize;

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most keys in the store.
    pub keys: usize,
    /// Most calls of one user that are at work at once, over all its connections; more wait.
    pub calls_per_user: usize,
    /// Most connections of one user at once; more are closed.
    pub connections_per_user: usize,
    /// Longest message that is signed, in bytes; at most 1 MiB.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys: 10_000, calls_per_user: 256, connections_per_user: 256, message_bytes: MESSAGE_LIMIT }
    }
}

impl Limits {
    /// Refuses bounds that nothing could work within.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { keys: _, calls_per_user, connections_per_user, message_bytes } = *self;
        if calls_per_user == 0 || connections_per_user == 0 {
            return Err(
                "[limits] calls_per_user and connections_per_user let nobody in where they are 0".to_owned()
            );
        }
        if !(1..=MESSAGE_LIMIT).contains(&message_bytes) {
            return Err(format!(
                "[limits] message_bytes is {message_bytes}, and must be 1 to {MESSAGE_LIMIT}"
            ));
        }
        Ok(())
    }
}
