//! Which plugin SPIRE asks for.

use std::ffi::OsString;

/// A plugin type that SPIRE knows and keyd serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginType {
    /// Keys, of the server or the agent.
    KeyManager,
    /// The authority above the server's CA.
    UpstreamAuthority,
    /// Node attestation, the server's or the agent's half.
    NodeAttestor,
    /// Changes to what the server is about to sign.
    CredentialComposer,
}

impl PluginType {
    /// Every type.
    pub const ALL: [Self; 4] =
        [Self::KeyManager, Self::UpstreamAuthority, Self::NodeAttestor, Self::CredentialComposer];

    /// The name as SPIRE's configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyManager => "KeyManager",
            Self::UpstreamAuthority => "UpstreamAuthority",
            Self::NodeAttestor => "NodeAttestor",
            Self::CredentialComposer => "CredentialComposer",
        }
    }

    /// The type that started this process: SPIRE sets go-plugin's magic cookie, a variable of the environment whose
    /// name and value are both the type. `None` when somebody else started it.
    pub fn asked_for() -> Option<Self> {
        Self::from_cookie(|name| std::env::var_os(name))
    }

    fn from_cookie(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        Self::ALL.into_iter().find(|t| variable(t.name()).is_some_and(|value| value == t.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_names_the_type() {
        for wanted in PluginType::ALL {
            let cookie = |name: &str| (name == wanted.name()).then(|| OsString::from(wanted.name()));
            assert_eq!(PluginType::from_cookie(cookie), Some(wanted));
        }
    }

    #[test]
    fn another_value_is_no_cookie() {
        let cookie = |name: &str| (name == "KeyManager").then(|| OsString::from("NodeAttestor"));
        assert_eq!(PluginType::from_cookie(cookie), None);
        assert_eq!(PluginType::from_cookie(|_| None), None);
    }
}
