//! `call_deadline_ms`

use std::time::Duration;

use serde::Deserialize;

/// How long one call to a device may take, written in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Deadline(Duration);

impl Deadline {
    /// So many ms.
    pub(super) const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }
}

impl TryFrom<u64> for Deadline {
    type Error = &'static str;

    fn try_from(ms: u64) -> Result<Self, Self::Error> {
        if ms == 0 {
            Err("call_deadline_ms is 0, so that every call would be too late; give 1 or more")
        } else {
            Ok(Self::from_millis(ms))
        }
    }
}

impl From<Deadline> for Duration {
    fn from(deadline: Deadline) -> Self {
        deadline.0
    }
}
