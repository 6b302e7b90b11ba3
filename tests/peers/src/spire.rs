//! The real spire-server and spire-agent, unmodified, each in a directory of its own.
//!
//! A server or agent that is started again on the same directory goes on with its data.

mod agent;
mod command;
mod server;

use std::net::TcpListener;

pub use agent::{AgentConfig, SpireAgent};
pub use server::{Language, Minted, ServerConfig, SpireServer};

/// A loopback port that was free a moment ago.
///
/// # Errors
/// None could be bound.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
