//! SPIRE's CA under the root.

use std::time::{Duration, SystemTime};

use keyd_core::{Failure, Reason};
use keyd_x509::{Certificate, Validity, VerifiedRequest, issue_ca};
use plugin_sdk::Deadline;

use crate::root::Root;

/// How long SPIRE's CA lives when SPIRE does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Certifies the key of `csr` (DER PKCS#10) as a CA of the trust domain, for `ttl` and never longer than the root.
///
/// # Errors
/// A request that does not prove its key or asks for another name; keyd's failures.
pub(crate) async fn mint(
    root: &Root,
    csr: &[u8],
    ttl: Option<Duration>,
    deadline: Deadline,
) -> Result<Certificate, Failure> {
    let request = VerifiedRequest::from_der(csr)?;
    let asked = request.id().map(ToString::to_string).unwrap_or_default();
    if asked != root.trust_domain.id().as_str() {
        return Err(Failure::new(
            Reason::BadRequest,
            format!("the CSR is for {asked:?}, not for {}", root.trust_domain.id()),
        ));
    }
    let now = SystemTime::now();
    if root.certificate.not_after() <= now {
        return Err(Failure::new(
            Reason::BadConfig,
            "the root certificate has expired; make a new root with keyd ca init",
        ));
    }
    let validity = Validity::starting(now, ttl.unwrap_or(DEFAULT_TTL));
    let signer = root.signer(deadline).await?;
    let (issuer, trust_domain) = (&root.certificate, &root.trust_domain);
    let ca = issue_ca(&signer, issuer, &request, trust_domain, validity, root.path_length).await?;
    if ca.not_after() < validity.not_after - Duration::from_secs(1) {
        tracing::warn!("SPIRE's CA ends with the root, earlier than asked; make a new root in time");
    }
    Ok(ca)
}
