//! The trust domain's root: a certificate in a file, a key in keyd.

use std::path::Path;
use std::time::SystemTime;

use keyd_api::Client;
use keyd_core::{Failure, KeyId, PublicKey, Reason, SignInput};
use keyd_unix::{file, off_worker};
use keyd_x509::{Certificate, PEM_LIMIT, Signer, TrustDomain, parse_pem_chain};
use plugin_sdk::Deadline;

/// The root of one trust domain.
pub(crate) struct Root {
    pub(crate) keyd: Client,
    pub(crate) key: KeyId,
    pub(crate) certificate: Certificate,
    pub(crate) trust_domain: TrustDomain,
    /// How many CAs may stand below SPIRE's, one under the other.
    pub(crate) path_length: Option<u8>,
}

impl Root {
    /// The root's key as a signer for one call. keyd's key must be the one in the certificate.
    pub(crate) async fn signer(&self, deadline: Deadline) -> Result<RootSigner<'_>, Failure> {
        let key = &self.key;
        let shown = deadline.call(&self.keyd, |keyd| async move { keyd.show_key(key).await }).await?;
        if shown.public_key != self.certificate.public_key()? {
            return Err(Failure::new(
                Reason::BadConfig,
                format!(
                    "key {key} is not the key of the root certificate; was it rotated, or is root_certificate another root's?"
                ),
            ));
        }
        Ok(RootSigner { root: self, public_key: shown.public_key, deadline })
    }
}

/// Reads the root's certificate: one, a CA, of this trust domain, not expired.
pub(crate) async fn read_certificate(
    path: &Path,
    trust_domain: &TrustDomain,
) -> Result<Certificate, Failure> {
    let name = path.display().to_string();
    let bad = |why: &str| Failure::new(Reason::BadConfig, format!("root_certificate {name}: {why}"));
    let at = path.to_owned();
    let text = off_worker(move || Ok::<_, Failure>(file::read(&at, PEM_LIMIT)));
    let text = text.await?.map_err(|e| bad(&format!("{e}. keyd ca init writes it")))?;
    let mut chain = parse_pem_chain(&name, &text)?;
    let (Some(root), true) = (chain.pop(), chain.is_empty()) else {
        return Err(bad("it must hold one certificate, the root's"));
    };
    if !root.is_ca()? {
        return Err(bad("it is no CA certificate"));
    }
    let id = root.uri_id()?;
    if id != trust_domain.id() {
        return Err(bad(&format!("it is the root of {id}, but SPIRE's trust domain is {trust_domain}")));
    }
    if root.not_after() <= SystemTime::now() {
        return Err(bad("it has expired; make a new root with keyd ca init"));
    }
    Ok(root)
}

// === RootSigner ===

/// The root's key for as long as one call of SPIRE's lasts.
pub(crate) struct RootSigner<'a> {
    root: &'a Root,
    public_key: PublicKey,
    deadline: Deadline,
}

impl Signer for RootSigner<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = &self.root.key;
        let input = SignInput::Message(message);
        let signed = self.deadline.call(&self.root.keyd, |keyd| async move { keyd.sign(key, input).await });
        Ok(signed.await?.signature)
    }
}
