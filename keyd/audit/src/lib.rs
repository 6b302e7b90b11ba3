//! The audit log: what happened to keys, in an order that cannot be rewritten unnoticed.
//!
//! A record is one line, `HASH JSON`. The hash (SHA-384, hexadecimal) is over the hash before it and the JSON, so a record
//! that was changed, removed, swapped or put in breaks the chain at its place. A checkpoint is a record with a signature
//! over an earlier head, so the whole chain up to there cannot be made anew without the audit key either.
//!
//! [`Head`] and [`Verifier`] are the chain itself and know no files; [`Log`] writes files and [`Files`] reads them. Who may append,
//! when a checkpoint is due and which key signs it is the daemon's business.

mod chain;
mod checkpoint;
mod error;
mod event;
mod files;
mod log;
mod record;
mod text;
mod verify;

pub use chain::{Hash, Head, LINE_LIMIT};
pub use checkpoint::message as checkpoint_message;
pub use error::AuditError;
pub use event::{Base64, Event, KeyFacts};
pub use files::{Chunk, Files, Position};
pub use log::{Log, SEGMENT_LIMIT, Torn};
pub use record::{Draft, Origin, Outcome, Record};
pub use text::Text;
pub use verify::{Broken, Report, Verifier};
