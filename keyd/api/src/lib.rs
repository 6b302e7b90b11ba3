//! The local API of keyd, `keyd.v1`: gRPC over a Unix socket.
//!
//! [`v1`] is generated from `proto/keyd/v1/keyd.proto`. [`Client`] speaks it in keyd's own types. [`status`] is the one
//! place where a [`keyd_core::Failure`] becomes a gRPC status and back. [`agent`] is what keyd-agent offers workloads,
//! `keyd.agent.v1`.

pub mod agent;
mod client;
mod connect;
mod secrets;
pub mod status;

/// The generated messages, clients and servers.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto file")]
pub mod v1 {
    tonic::include_proto!("keyd.v1");
}

pub use client::{Client, Decapsulated, Endorsement, KeyInfo, Quote, Signed, is_transient};
pub use connect::{DEFAULT_SOCKET, unix_channel};

/// Longest message in either direction, in bytes.
pub const MESSAGE_LIMIT: usize = 1 << 20; // 1 MiB

/// HTTP/2 window of a stream and of a connection, in bytes: wide enough that a message never waits for a window update.
pub const WINDOW: u32 = 4 << 20; // 4 MiB

/// Room for what surrounds a message of [`MESSAGE_LIMIT`], in bytes.
pub const ENVELOPE: usize = 4096;
