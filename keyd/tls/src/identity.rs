//! What this side shows.

use std::sync::Arc;
use std::time::SystemTime;

use keyd_core::Algorithm;
use keyd_x509::{Certificate, SpiffeId, X509Error};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};

use crate::{Profile, TlsError};

/// An X.509-SVID and its key, wherever that is.
#[derive(Clone, Debug)]
pub struct Identity {
    id: SpiffeId,
    algorithm: Algorithm,
    not_after: SystemTime,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// An identity of a chain, leaf first, and the key of its leaf.
    ///
    /// # Errors
    /// [`TlsError::X509`] for a leaf that is no X.509-SVID, [`TlsError::BadIdentity`] for another one's key.
    pub fn new(chain: &[Certificate], key: Arc<dyn SigningKey>) -> Result<Self, TlsError> {
        let leaf = chain.first().ok_or_else(|| X509Error::Refused {
            what: "the certificate chain",
            why: "it is empty".to_owned(),
        })?;
        let id = leaf.leaf_spiffe_id()?;
        let algorithm = leaf.public_key()?.algorithm();
        let ders = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
        let certified = CertifiedKey::new(ders, key);
        if let Err(error) = certified.keys_match() {
            return Err(TlsError::BadIdentity { id, why: format!("its key is another ({error})") });
        }
        // A leaf is of no use beyond the end of what vouches for it.
        let not_after = chain.iter().map(Certificate::not_after).min().unwrap_or(leaf.not_after());
        Ok(Self { id, algorithm, not_after, certified: Arc::new(certified) })
    }

    /// The SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The last moment at which the whole chain is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What rustls takes, while it is valid and of a kind that the profile takes.
    pub(crate) fn usable(&self, profile: Profile) -> Result<Arc<CertifiedKey>, TlsError> {
        if SystemTime::now() > self.not_after {
            return Err(TlsError::IdentityExpired { id: self.id.clone() });
        }
        if !profile.allows(self.algorithm) {
            return Err(TlsError::BadIdentity {
                id: self.id.clone(),
                why: format!("a key of {} is not taken on this link", self.algorithm),
            });
        }
        Ok(Arc::clone(&self.certified))
    }
}
