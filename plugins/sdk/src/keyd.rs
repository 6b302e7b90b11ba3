//! Where keyd is, as plugin_data says.

use std::path::PathBuf;

use keyd_api::{Client, DEFAULT_SOCKET};
use serde::Deserialize;

/// The value of `socket` in plugin_data: the path of keyd's socket; without one [`DEFAULT_SOCKET`].
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct KeydSocket(PathBuf);

impl KeydSocket {
    /// A client on that socket. It connects at its first call.
    pub fn client(&self) -> Client {
        Client::new(&self.0)
    }
}

impl Default for KeydSocket {
    fn default() -> Self {
        Self(PathBuf::from(DEFAULT_SOCKET))
    }
}
