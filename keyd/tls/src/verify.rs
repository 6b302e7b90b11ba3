//! Whether a peer is who it says and may come in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keyd_x509::{Certificate, SpiffeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::bundles::Bundle;
use crate::{AllowedIds, Bundles, Profile, Refusal};

/// Most intermediates that a peer may present.
const INTERMEDIATE_LIMIT: usize = 8;

/// Verifies either side: the leaf is an X.509-SVID (X509-SVID §4, §5), its chain ends in the bundle of its own trust
/// domain, and its SPIFFE ID is allowed. Host names play no part.
#[derive(Debug)]
pub(crate) struct SpiffeVerifier {
    pub(crate) profile: Profile,
    pub(crate) bundles: watch::Receiver<Arc<Bundles>>,
    pub(crate) allowed: AllowedIds,
}

impl SpiffeVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Refusal> {
        let bundles = Arc::clone(&self.bundles.borrow());
        let id = self.profile.verify(&bundles, leaf, intermediates, now, usage)?;
        if !self.allowed.allow(&id) {
            let rule = "it is not among the allowed SPIFFE IDs".to_owned();
            return Err(Refusal { peer: Some(id), rule });
        }
        Ok(())
    }
}

impl Bundles {
    /// Verifies an X.509-SVID and its chain, leaf first, as whoever is shown it will: the chain ends in the bundle of the
    /// leaf's own trust domain. Gives the SPIFFE ID.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn verify(
        &self,
        chain: &[Certificate],
        profile: Profile,
        now: SystemTime,
    ) -> Result<SpiffeId, Refusal> {
        let ders: Vec<_> = chain.iter().map(|c| CertificateDer::from(c.der())).collect();
        let empty = || Refusal { peer: None, rule: "its chain is empty".to_owned() };
        let (leaf, intermediates) = ders.split_first().ok_or_else(empty)?;
        // Where a leaf has purposes at all, it has both (X509-SVID §4.4).
        profile.verify(self, leaf, intermediates, unix_time(now), KeyUsage::client_auth())
    }
}

impl Profile {
    fn verify(
        self,
        bundles: &Bundles,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, Refusal> {
        let nameless = |rule: String| Refusal { peer: None, rule };
        let parsed = Certificate::from_der(leaf).map_err(|e| nameless(e.to_string()))?;
        let id = parsed.leaf_spiffe_id().map_err(|e| nameless(e.to_string()))?;
        let verified = self.verify_leaf(&parsed, &id).and_then(|()| {
            let bundle = bundles
                .get(id.trust_domain())
                .ok_or_else(|| format!("there is no bundle for the trust domain {}", id.trust_domain()))?;
            self.verify_chain(bundle, leaf, intermediates, now, usage)
        });
        match verified {
            Ok(()) => Ok(id),
            Err(rule) => Err(Refusal { peer: Some(id), rule }),
        }
    }

    fn verify_leaf(self, leaf: &Certificate, id: &SpiffeId) -> Result<(), String> {
        if id.path().is_empty() {
            return Err("the id of a trust domain itself names no workload".to_owned());
        }
        let algorithm = leaf.public_key().map_err(|e| e.to_string())?.algorithm();
        if !self.allows(algorithm) {
            return Err(format!("a key of {algorithm} is not taken on this link"));
        }
        Ok(())
    }

    fn verify_chain(
        self,
        bundle: &Bundle,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), String> {
        if intermediates.len() > INTERMEDIATE_LIMIT {
            return Err(format!("{} intermediates, more than {INTERMEDIATE_LIMIT}", intermediates.len()));
        }
        // What webpki does not look at: key usage, and the end of an anchor.
        let path_rules = |path: &VerifiedPath<'_>| {
            for intermediate in path.intermediate_certificates() {
                let signs = Certificate::from_der(&intermediate.der()).and_then(|c| c.is_ca());
                if !signs.map_err(|_| webpki::Error::BadDer)? {
                    return Err(webpki::Error::EndEntityUsedAsCa);
                }
            }
            match bundle.end_of(path.anchor()) {
                Some(end) if end >= SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()) => Ok(()),
                Some(end) => Err(webpki::Error::CertExpired { time: now, not_after: unix_time(end) }),
                None => Err(webpki::Error::UnknownIssuer),
            }
        };
        let leaf = EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
        let algorithms = self.signatures().all;
        leaf.verify_for_usage(
            algorithms,
            bundle.anchors(),
            intermediates,
            now,
            usage,
            None,
            Some(&path_rules),
        )
        .map(drop)
        .map_err(rule)
    }
}

/// A sentence for what webpki found.
fn rule(error: webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { .. } => "a certificate of its chain has ended".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "a certificate of its chain is not valid yet".to_owned(),
        webpki::Error::UnknownIssuer => "its chain does not end in the bundle of its trust domain".to_owned(),
        webpki::Error::EndEntityUsedAsCa => "a certificate of its chain may not sign certificates".to_owned(),
        other => format!("its chain does not verify ({other})"),
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

// === rustls ===

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.profile.signatures())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.profile.signatures().supported_schemes()
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
