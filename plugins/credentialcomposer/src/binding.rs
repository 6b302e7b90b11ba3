//! Only the attested key is certified.

use keyd_api::Client;
use keyd_api::status::from_failure;
use keyd_attest::AGENT_PATH;
use keyd_core::{Hash, Reason};
use plugin_sdk::Deadline;
use tonic::Status;

/// Takes the binding that the NodeAttestor left for this agent and this key (DER SubjectPublicKeyInfo). Agents of other
/// attestors are none of keyd's business.
///
/// # Errors
/// `PERMISSION_DENIED` where the attestation did not name this key, or there was none; keyd's failures.
pub(crate) async fn redeem(
    keyd: &Client,
    spiffe_id: &str,
    public_key: &[u8],
    deadline: Deadline,
) -> Result<(), Status> {
    if !is_keyd_tpm(spiffe_id) {
        return Ok(());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(&Hash::Sha256.digest(public_key));
    let hash = &hash;
    let redeemed = deadline.call(keyd, |keyd| async move { keyd.redeem_binding(spiffe_id, hash).await });
    redeemed.await.map_err(|failure| {
        let key = hex::encode(hash);
        tracing::warn!(agent = spiffe_id, key, %failure, "Refused to certify an agent's key");
        match failure.reason {
            Reason::KeyNotFound => Status::permission_denied(format!(
                "the attestation of {spiffe_id} did not vouch for the key with SPKI hash {key}; the agent must attest again, with its key in keyd"
            )),
            _ => from_failure(&failure),
        }
    })
}

fn is_keyd_tpm(spiffe_id: &str) -> bool {
    let path =
        spiffe_id.strip_prefix("spiffe://").and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
    path.is_some_and(|path| path.starts_with(AGENT_PATH))
}

#[cfg(test)]
mod tests {
    use super::is_keyd_tpm;

    #[test]
    fn only_agents_of_keyd_tpm_need_a_binding() {
        assert!(is_keyd_tpm("spiffe://example.org/spire/agent/keyd_tpm/00"));
        assert!(!is_keyd_tpm("spiffe://example.org/spire/agent/join_token/spire/agent/keyd_tpm/00"));
        assert!(!is_keyd_tpm("spiffe://example.org"));
    }
}
