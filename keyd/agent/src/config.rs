//! `agent.toml`: strict, and checked before anything is opened.

use std::path::PathBuf;

use keyd_core::config::Misfit;
use keyd_core::{Algorithm, Failure, Namespace, Reason};
use keyd_unix::ConfigFile;
use keyd_x509::TrustDomain;
use rustls::pki_types::ServerName;
use serde::Deserialize;

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/keyd/agent.toml";

/// `agent.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The trust domain, as `example.org`.
    pub trust_domain: TrustDomain,
    /// The SPIRE server.
    pub server_address: ServerAddress,
    /// PEM file with the trust domain's roots, for the first contact with the server.
    pub trust_bundle: PathBuf,
    /// The Unix socket that workloads connect to. Under systemd socket activation the unit's socket is used and this
    /// one only names it.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// keyd's socket.
    #[serde(default = "default_keyd_socket")]
    pub keyd_socket: PathBuf,
    /// Where the agent keeps its own certificate and the bundle; mode 0700.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// keyd's namespace for the agent's own keys; see [`Config::namespace`].
    namespace: Option<Namespace>,
    /// keyd's namespace for the keys that workloads use by handle; it must be for this agent alone, which destroys at
    /// its start whatever key it finds there.
    workload_namespace: Option<Namespace>,
    /// The algorithm of every key that the agent makes, its own and the workloads'.
    #[serde(default = "default_algorithm")]
    pub algorithm: Algorithm,
}

impl ConfigFile for Config {
    fn check(&self) -> Result<(), Misfit> {
        if !self.algorithm.signs_messages() {
            return Err(format!(
                "algorithm {} makes no keys for certificates of this agent; use ml-dsa-65, another ML-DSA, or ec-p256 or \
                 ec-p384",
                self.algorithm
            )
            .into());
        }
        let [own, workloads] =
            [self.namespace(), self.workload_namespace()].map(|n| n.map_err(|f| f.message));
        let own = own?;
        if own == workloads? {
            return Err(format!(
                "namespace and workload_namespace are both {own}; the keys of workloads need their own"
            )
            .into());
        }
        Ok(())
    }
}

impl Config {
    /// keyd's namespace for the agent's own keys, `keyd-agent` unless told otherwise.
    ///
    /// # Errors
    /// None for a configuration that was read.
    pub fn namespace(&self) -> Result<Namespace, Failure> {
        self.namespace.clone().map_or_else(|| "keyd-agent".parse(), Ok)
    }

    /// keyd's namespace for keys by handle, `workload` unless told otherwise.
    ///
    /// # Errors
    /// None for a configuration that was read.
    pub fn workload_namespace(&self) -> Result<Namespace, Failure> {
        self.workload_namespace.clone().map_or_else(|| "workload".parse(), Ok)
    }
}

/// `host:port`; the host is a name or an address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerAddress {
    text: String,
    name: ServerName<'static>,
}

impl ServerAddress {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, for the TLS hello.
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        let parts = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|p| p != 0));
        let host = parts.map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']').to_owned());
        match host.map(ServerName::try_from) {
            Some(Ok(name)) => Ok(Self { text, name }),
            _ => Err(Failure::new(
                Reason::BadConfig,
                format!("server_address {text:?} is not HOST:PORT, such as spire.example.org:8081"),
            )),
        }
    }
}

fn default_socket() -> PathBuf {
    keyd_api::agent::DEFAULT_SOCKET.into()
}

fn default_keyd_socket() -> PathBuf {
    keyd_api::DEFAULT_SOCKET.into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/keyd-agent".into()
}

const fn default_algorithm() -> Algorithm {
    Algorithm::MlDsa65
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LEAST: &str =
        "trust_domain = \"td\"\nserver_address = \"spire:8081\"\ntrust_bundle = \"/etc/keyd/bundle.pem\"\n";

    fn refused(rest: &str) -> String {
        Config::parse("agent.toml", &format!("{LEAST}{rest}")).unwrap_err().message
    }

    #[test]
    fn three_lines_are_enough() {
        let config = Config::parse("agent.toml", LEAST).unwrap();
        assert_eq!(config.algorithm, Algorithm::MlDsa65);
        assert_eq!(config.namespace().unwrap().as_str(), "keyd-agent");
        assert_eq!(config.socket, Path::new("/run/keyd-agent/agent.sock"));
    }

    #[test]
    fn what_cannot_work_is_refused_in_words() {
        assert!(refused("sokcet = \"x\"").contains("agent.toml:4:1: unknown field `sokcet`"));
        assert!(refused("algorithm = \"ml-dsa65\"").contains("Did you mean ml-dsa-65?"));
        for algorithm in ["rsa-2048", "ml-kem-768"] {
            assert!(
                refused(&format!("algorithm = \"{algorithm}\"")).contains("makes no keys for certificates")
            );
        }
        assert!(refused("namespace = \"workload\"").contains("both workload"));
        assert!(refused("namespace = \"Own\"").contains("agent.toml:4:13: bad namespace"));
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:8081", "spire.example.org:443", "[::1]:8081"] {
            assert_eq!(ServerAddress::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        for bad in ["", "spire", "spire:", ":8081", "spire:0", "spire:65536", "a b:1", "https://spire:8081"] {
            assert!(ServerAddress::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
