//! The calls that an attested agent makes.

use std::time::Duration;

use keyd_x509::{Certificate, TrustDomain};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::error::AgentError;
use crate::proto::bundle::bundle_client::BundleClient;
use crate::proto::bundle::{GetBundleRequest, GetFederatedBundleRequest};
use crate::proto::entry::GetAuthorizedEntriesRequest;
use crate::proto::entry::entry_client::EntryClient;
use crate::proto::svid::svid_client::SvidClient;
use crate::proto::svid::{BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response};
use crate::proto::types::{self, BundleMask};
use crate::server::{SpireServer, refusal};

/// How long a call may take, with the handshake before it.
const CALL: Duration = Duration::from_secs(20);
/// Longest answer, in bytes; an entry has some hundred, an SVID with its chain some 13,000.
const ANSWER_LIMIT: usize = 32 << 20; // 32 MiB
/// Most SVIDs asked for in one call; the server takes 500 signatures a second.
pub const BATCH: usize = 50;
/// Code of an item that was done.
const DONE: i32 = 0;

/// A bundle and the number that changes with it.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The authorities; not empty.
    pub authorities: Vec<Certificate>,
    /// The server's number for them.
    pub sequence: u64,
}

impl SpireServer {
    /// Every entry that this agent may ask SVIDs for.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn entries(&mut self) -> Result<Vec<types::Entry>, AgentError> {
        let mut client = EntryClient::new(self.channel()).max_decoding_message_size(ANSWER_LIMIT);
        let request = request(GetAuthorizedEntriesRequest {});
        Ok(self.answer("GetAuthorizedEntries", client.get_authorized_entries(request)).await?.entries)
    }

    /// The bundle of the own trust domain, where its number is another than `known`.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn bundle(&mut self, known: Option<u64>) -> Result<Option<Numbered>, AgentError> {
        const CALL: &str = "GetBundle";
        let mut client = BundleClient::new(self.channel()).max_decoding_message_size(ANSWER_LIMIT);
        let get = |mask| request(GetBundleRequest { output_mask: Some(mask) });
        let number = self.answer(CALL, client.get_bundle(get(NUMBER))).await?.sequence_number;
        if known == Some(number) {
            return Ok(None);
        }
        let bundle = self.answer(CALL, client.get_bundle(get(WHOLE))).await?;
        numbered(CALL, &self.trust_domain, bundle).map(Some)
    }

    /// The bundle of a foreign trust domain, where its number is another than `known`.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn federated_bundle(
        &mut self,
        trust_domain: &TrustDomain,
        known: Option<u64>,
    ) -> Result<Option<Numbered>, AgentError> {
        const CALL: &str = "GetFederatedBundle";
        let mut client = BundleClient::new(self.channel()).max_decoding_message_size(ANSWER_LIMIT);
        let get = |mask| {
            let trust_domain = trust_domain.to_string();
            request(GetFederatedBundleRequest { trust_domain, output_mask: Some(mask) })
        };
        let number = self.answer(CALL, client.get_federated_bundle(get(NUMBER))).await?.sequence_number;
        if known == Some(number) {
            return Ok(None);
        }
        let bundle = self.answer(CALL, client.get_federated_bundle(get(WHOLE))).await?;
        numbered(CALL, trust_domain, bundle).map(Some)
    }

    /// An SVID for each entry id and request (PKCS#10, DER), at most [`BATCH`] of them: the chain, DER and leaf first,
    /// or the server's words against this one.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn mint(
        &mut self,
        requests: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<Result<Vec<Vec<u8>>, String>>, AgentError> {
        const CALL: &str = "BatchNewX509SVID";
        let asked = requests.len();
        let params = requests.into_iter().map(|(entry_id, csr)| NewX509svidParams { entry_id, csr });
        let mut client = SvidClient::new(self.channel()).max_decoding_message_size(ANSWER_LIMIT);
        let batch = request(BatchNewX509svidRequest { params: params.collect() });
        let results = self.answer(CALL, client.batch_new_x509svid(batch)).await?.results;
        if results.len() != asked {
            let why = format!("{} results for {asked} requests", results.len());
            return Err(AgentError::Answer { call: CALL, why });
        }
        Ok(results.into_iter().map(item).collect())
    }

    /// Waits for an answer. After an error the next call has a connection of its own: this one may be dead.
    async fn answer<T>(
        &mut self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AgentError> {
        let result = answer_in_time(self.address(), call, CALL, answer).await;
        if result.is_err() {
            self.channel = None;
        }
        result
    }
}

const NUMBER: BundleMask = BundleMask { x509_authorities: false, sequence_number: true };
const WHOLE: BundleMask = BundleMask { x509_authorities: true, sequence_number: true };

/// Waits for an answer, but no longer than `limit`.
pub async fn answer_in_time<T>(
    address: &str,
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, AgentError> {
    match timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal::error(address, call, &status)),
        Err(_) => Err(AgentError::Silent { address: address.to_owned(), call, seconds: limit.as_secs() }),
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    // So that the server gives up with us.
    request.set_timeout(CALL);
    request
}

/// A bundle with authorities that can be read. One without any would leave the agent believing nobody.
fn numbered(
    call: &'static str,
    trust_domain: &TrustDomain,
    bundle: types::Bundle,
) -> Result<Numbered, AgentError> {
    let refused = |why: String| AgentError::Answer { call, why };
    let name = bundle.trust_domain.strip_prefix("spiffe://").unwrap_or(&bundle.trust_domain);
    if name != trust_domain.as_str() {
        return Err(refused(format!("the bundle of {name:?} where that of {trust_domain} was asked for")));
    }
    let authorities = bundle.x509_authorities.iter().map(|a| Certificate::from_der(&a.asn1));
    let authorities = authorities.collect::<Result<Vec<_>, _>>().map_err(|e| refused(e.to_string()))?;
    match authorities.is_empty() {
        true => Err(refused("the bundle is empty".to_owned())),
        false => Ok(Numbered { authorities, sequence: bundle.sequence_number }),
    }
}

fn item(result: batch_new_x509svid_response::Result) -> Result<Vec<Vec<u8>>, String> {
    match (result.status, result.svid) {
        (Some(status), Some(svid)) if status.code == DONE => Ok(svid.cert_chain),
        (Some(status), _) if status.code != DONE => Err(status.message),
        _ => Err("neither an SVID nor a refusal".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use peers::openssl::{Subject, issue};

    use super::*;

    #[test]
    fn a_bundle_that_would_leave_the_agent_alone_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = issue(dir.path(), &Subject::ca("ca", "td"), None).unwrap().certificate;
        let root = keyd_x509::parse_pem_chain("ca", &std::fs::read(file).unwrap()).unwrap().remove(0);
        let sent = |name: &str, ders: &[&[u8]]| {
            let authorities = ders.iter().map(|der| types::X509Certificate { asn1: der.to_vec() });
            let bundle = types::Bundle {
                trust_domain: name.to_owned(),
                x509_authorities: authorities.collect(),
                sequence_number: 7,
            };
            numbered("GetBundle", &"td".parse().unwrap(), bundle)
        };
        for name in ["td", "spiffe://td"] {
            let bundle = sent(name, &[root.der()]).unwrap();
            assert_eq!((bundle.authorities, bundle.sequence), (vec![root.clone()], 7));
        }
        assert!(sent("td", &[]).unwrap_err().to_string().contains("the bundle is empty"));
        assert!(sent("other", &[root.der()]).unwrap_err().to_string().contains("\"other\""));
        assert!(sent("td", &[root.der(), b"x"]).is_err());
    }

    #[test]
    fn an_item_is_an_svid_or_a_refusal() {
        let svid = Some(types::X509svid { cert_chain: vec![vec![1]], ..types::X509svid::default() });
        let result = |code: Option<i32>, svid| {
            let status = code.map(|code| types::Status { code, message: "why".to_owned() });
            item(batch_new_x509svid_response::Result { status, svid })
        };
        assert_eq!(result(Some(0), svid.clone()), Ok(vec![vec![1]]));
        assert_eq!(result(Some(5), svid.clone()), Err("why".to_owned()));
        for odd in [result(None, svid), result(Some(0), None), result(None, None)] {
            assert!(odd.unwrap_err().contains("neither"));
        }
    }
}
