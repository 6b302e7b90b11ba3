//! A record: an event, who caused it, when, and how it ended.

use keyd_core::{Caller, Reason};
use serde::{Deserialize, Serialize};

use crate::Event;

/// A record without its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who caused it.
    pub origin: Origin,
    /// What happened.
    pub event: Event,
    /// How it ended.
    pub result: Outcome,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 1, without gaps.
    pub seq: u64,
    /// Seconds since 1970-01-01T00:00:00Z, by this machine's clock. The order is `seq`'s, whatever the clock says.
    pub time: i64,
    /// Who caused it.
    #[serde(flatten)]
    pub origin: Origin,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// How it ended.
    pub result: Outcome,
}

/// A local process as the kernel named it, or keyd itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// User id; none for keyd itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Process id. It can be reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// Done, or the reason why not. In JSON `ok`, or the reason's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not done.
    Failed(Reason),
}

impl Draft {
    /// What was done for `origin`.
    pub const fn done(origin: Origin, event: Event) -> Self {
        Self { origin, event, result: Outcome::Ok }
    }

    /// What was not done for `origin`.
    pub const fn failed(origin: Origin, event: Event, reason: Reason) -> Self {
        Self { origin, event, result: Outcome::Failed(reason) }
    }
}

impl Origin {
    /// keyd itself.
    pub const KEYD: Self = Self { uid: None, pid: None };
}

impl From<&Caller> for Origin {
    fn from(caller: &Caller) -> Self {
        Self { uid: Some(caller.uid), pid: caller.pid }
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => "ok",
            Outcome::Failed(reason) => reason.name(),
        }
        .to_owned()
    }
}

impl TryFrom<String> for Outcome {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "ok" => Ok(Self::Ok),
            name => {
                Reason::from_name(name).map(Self::Failed).ok_or_else(|| format!("unknown result {name:?}"))
            }
        }
    }
}
