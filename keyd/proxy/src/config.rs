//! `proxy.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keyd_api::agent;
use keyd_core::config::Misfit;
use keyd_tls::AllowedIds;
use keyd_unix::ConfigFile;
use keyd_x509::SpiffeId;
use serde::Deserialize;

/// Most connections that a configuration may ask for.
const CONNECTION_LIMIT: usize = 65_536;
/// Longest time that a configuration may ask for.
const TIME_LIMIT: u64 = 24 * 60 * 60 * 1000; // ms, one day

/// `proxy.toml` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where peers connect with mutual TLS.
    pub listen: SocketAddr,
    /// The plain server behind.
    pub upstream: SocketAddr,
    /// The socket of keyd-agent.
    #[serde(default = "default_agent_socket")]
    pub agent_socket: PathBuf,
    /// Which of this process's identities to show, where the agent knows several.
    pub spiffe_id: Option<SpiffeId>,
    /// Who is let in: SPIFFE IDs, or with `/*` at the end all ids below one.
    pub allow: AllowedIds,
    /// Most connections at once; more wait in the kernel's queue.
    #[serde(default = "default_connections")]
    pub connections: usize,
    /// How long a handshake may take, in ms.
    #[serde(default = "default_handshake_timeout")]
    handshake_timeout_ms: u64,
    /// How long a connection may stay without a byte in either direction, in ms.
    #[serde(default = "default_idle_timeout")]
    idle_timeout_ms: u64,
    /// How long open connections may still run after SIGTERM, in ms.
    #[serde(default = "default_drain_timeout")]
    drain_timeout_ms: u64,
}

impl ConfigFile for Config {
    fn check(&self) -> Result<(), Misfit> {
        if self.allow.is_empty() {
            let why = "allow names nobody; name a SPIFFE ID such as \"spiffe://example.org/web\"";
            return Err(why.to_owned().into());
        }
        if !(1..=CONNECTION_LIMIT).contains(&self.connections) {
            return Err(format!("connections must be 1 to {CONNECTION_LIMIT}").into());
        }
        for (name, ms) in [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("drain_timeout_ms", self.drain_timeout_ms),
        ] {
            if !(1..=TIME_LIMIT).contains(&ms) {
                return Err(format!("{name} must be 1 to {TIME_LIMIT}").into());
            }
        }
        Ok(())
    }
}

impl Config {
    /// How long a handshake may take.
    pub const fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// How long a connection may be idle.
    pub const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// How long open connections may run after SIGTERM.
    pub const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

fn default_agent_socket() -> PathBuf {
    agent::DEFAULT_SOCKET.into()
}

fn default_connections() -> usize {
    1024
}

fn default_handshake_timeout() -> u64 {
    10_000
}

fn default_idle_timeout() -> u64 {
    15 * 60 * 1000
}

fn default_drain_timeout() -> u64 {
    30_000
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keyd_core::Failure;

    use super::*;

    const GOOD: &str = "listen = '127.0.0.1:8443'\nupstream = '127.0.0.1:8080'\nallow = ['spiffe://td/a']\n";

    fn read(text: &str) -> Result<Config, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, text).unwrap();
        Config::read(&file)
    }

    #[test]
    fn three_lines_are_enough() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.agent_socket, Path::new("/run/keyd-agent/agent.sock"));
        assert_eq!((config.connections, config.handshake_timeout().as_secs()), (1024, 10));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, sentence) in [
            ("alow = []", "unknown field `alow`"),
            ("connections = 0", "connections must be 1 to 65536"),
            ("idle_timeout_ms = 0", "idle_timeout_ms must be 1 to 86400000"),
            ("spiffe_id = 'spiffe://TD/a'", "is not a SPIFFE ID"),
        ] {
            let failure = read(&format!("{GOOD}{line}\n")).unwrap_err();
            assert!(failure.message.contains(sentence), "{failure}");
        }
        let nobody = GOOD.replace("'spiffe://td/a'", "");
        assert!(read(&nobody).unwrap_err().message.contains("allow names nobody"));
        let star = GOOD.replace("spiffe://td/a", "spiffe://*");
        assert!(read(&star).unwrap_err().message.contains("proxy.toml:3:"));
    }
}
