//! Whose signatures are believed, by trust domain.

use std::collections::BTreeMap;
use std::time::SystemTime;

use keyd_x509::{Certificate, TrustDomain};
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::TlsError;

/// Most authorities in one bundle.
const AUTHORITY_LIMIT: usize = 64;

/// The authorities of each trust domain. A peer is verified against the bundle of its own trust domain alone.
#[derive(Clone, Debug, Default)]
pub struct Bundles(BTreeMap<TrustDomain, Bundle>);

/// The authorities of one trust domain: anchors as webpki wants them, and beside each its last moment, which webpki
/// does not look at.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    ends: Vec<SystemTime>,
}

impl Bundles {
    /// Puts the bundle of a trust domain in, in place of the one before. With no authority, no peer of that trust
    /// domain is believed.
    ///
    /// # Errors
    /// [`TlsError::BadBundle`] for an authority that may not sign certificates, and for too many.
    pub fn set(&mut self, trust_domain: TrustDomain, authorities: &[Certificate]) -> Result<(), TlsError> {
        match Bundle::new(authorities) {
            Ok(bundle) => {
                self.0.insert(trust_domain, bundle);
                Ok(())
            }
            Err(why) => Err(TlsError::BadBundle { trust_domain, why }),
        }
    }

    pub(crate) fn get(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.0.get(trust_domain)
    }
}

impl Bundle {
    fn new(authorities: &[Certificate]) -> Result<Self, String> {
        if authorities.len() > AUTHORITY_LIMIT {
            return Err(format!("{} authorities, more than {AUTHORITY_LIMIT}", authorities.len()));
        }
        let mut bundle = Self { anchors: Vec::new(), ends: Vec::new() };
        for authority in authorities {
            let name = || authority.subject().to_string();
            if !authority.is_ca().map_err(|e| e.to_string())? {
                return Err(format!("{:?} may not sign certificates", name()));
            }
            let der = CertificateDer::from(authority.der());
            let anchor = webpki::anchor_from_trusted_cert(&der)
                .map_err(|e| format!("{:?} is not a trust anchor ({e})", name()))?;
            bundle.anchors.push(anchor.to_owned());
            bundle.ends.push(authority.not_after());
        }
        Ok(bundle)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// When one of [`Bundle::anchors`] ends; `None` for any other anchor.
    pub(crate) fn end_of(&self, anchor: &TrustAnchor<'_>) -> Option<SystemTime> {
        // By place, not by value: a root that was renewed with its key equals its predecessor.
        let same = |own: &TrustAnchor<'static>| {
            std::ptr::eq(std::ptr::from_ref(own).cast::<()>(), std::ptr::from_ref(anchor).cast())
        };
        self.anchors.iter().position(same).and_then(|at| self.ends.get(at)).copied()
    }
}
