//! What one side of a link shows and demands, and the rustls configurations that follow from it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme, version};
use tokio::sync::watch;

use crate::verify::SpiffeVerifier;
use crate::{AllowedIds, Bundles, Identity, Profile, TlsError};

/// What one side of a link shows and demands. Each handshake looks at the newest identity and bundles, so that a
/// rotation needs no restart.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which algorithms are taken.
    pub profile: Profile,
    /// What this side shows. While there is none, a server refuses everyone and a client shows nothing.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Whose signatures are believed.
    pub bundles: watch::Receiver<Arc<Bundles>>,
    /// Which peers are let in, or connected to.
    pub allowed: AllowedIds,
    /// ALPN protocols in order of preference, as `h2`; none for a link that needs no name.
    pub alpn: Vec<Vec<u8>>,
    /// How long a handshake may take, from the first byte to the last.
    pub handshake_timeout: Duration,
}

impl Settings {
    /// The identity to show now; `None` where there is none.
    pub(crate) fn usable_identity(&self) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        let identity = self.identity.borrow().clone();
        identity.map(|identity| identity.usable(self.profile)).transpose()
    }

    pub(crate) fn server(&self) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(self.profile.provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(TlsError::Settings)?;
        let mut config = builder
            .with_client_cert_verifier(Arc::new(self.verifier()))
            .with_cert_resolver(Arc::new(Newest(self.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        // A resumed session would be neither verified nor authorized again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    pub(crate) fn client(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.profile.provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(TlsError::Settings)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier()))
            .with_client_cert_resolver(Arc::new(Newest(self.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn verifier(&self) -> SpiffeVerifier {
        SpiffeVerifier { profile: self.profile, bundles: self.bundles.clone(), allowed: self.allowed.clone() }
    }
}

/// Resolves to the newest identity; to none while it is no good, which ends a server's handshake.
#[derive(Debug)]
struct Newest(Settings);

impl Newest {
    fn newest(&self) -> Option<Arc<CertifiedKey>> {
        self.0.usable_identity().ok().flatten()
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.newest()
    }
}

impl ResolvesClientCert for Newest {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.newest()
    }

    fn has_certs(&self) -> bool {
        self.newest().is_some()
    }
}
