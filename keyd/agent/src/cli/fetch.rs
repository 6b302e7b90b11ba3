//! `keyd-agent fetch ...`: what a workload gets, for looking at it and for programs that read files.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use der::pem::{LineEnding, encode_string};
use der::{Reader, SliceReader};
use keyd_api::{status, unix_channel};
use keyd_core::{Failure, Reason};
use keyd_unix::{Output, file};
use keyd_x509::{Certificate, to_pem};
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::Socket;
use crate::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::proto::workload::{X509svidRequest, X509svidResponse};

/// How long the first answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const ANSWER_LIMIT: usize = 16 << 20; // 16 MiB

/// What to get.
#[derive(Subcommand)]
pub enum Fetch {
    /// X.509-SVIDs of the user that runs this command, over the SPIFFE Workload API
    X509 {
        #[command(flatten)]
        at: Socket,
        /// Directory for svid.N.pem, svid.N.key and bundle.N.pem; without it only the names are printed
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
}

impl Fetch {
    /// Asks the agent.
    ///
    /// # Errors
    /// The agent's, and those of files.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        let Self::X509 { at, write } = self;
        let response = fetch(&at.socket).await?;
        let mut described = Vec::new();
        for (index, svid) in response.svids.iter().enumerate() {
            let chain = certificates(&svid.x509_svid)?;
            if let Some(dir) = &write {
                let key = Zeroizing::new(
                    encode_string("PRIVATE KEY", LineEnding::LF, &svid.x509_svid_key)
                        .map_err(|e| unreadable(&e.to_string()))?,
                );
                keep(dir, &format!("svid.{index}.pem"), 0o644, &to_pem(&chain)?)?;
                keep(dir, &format!("svid.{index}.key"), 0o600, &key)?;
                keep(dir, &format!("bundle.{index}.pem"), 0o644, &to_pem(&certificates(&svid.bundle)?)?)?;
            }
            described.push((svid.spiffe_id.clone(), svid.hint.clone(), chain.len()));
        }
        let value = described
            .iter()
            .map(|(id, hint, chain)| json!({ "spiffe_id": id, "hint": hint, "certificates": chain }))
            .collect::<Vec<_>>();
        output.show(&json!({ "svids": value, "written": write }), |_| {
            let names: Vec<_> = described.iter().map(|(id, _, _)| id.as_str()).collect();
            names.join("\n")
        })
    }
}

async fn fetch(socket: &Path) -> Result<X509svidResponse, Failure> {
    let client = SpiffeWorkloadApiClient::new(unix_channel(socket));
    let mut client = client.max_decoding_message_size(ANSWER_LIMIT);
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let first = async {
        let mut stream = client.fetch_x509svid(request).await?.into_inner();
        stream.message().await?.ok_or_else(|| Status::unavailable("the agent ended the stream"))
    };
    let late = |_| Err(Status::deadline_exceeded("no answer"));
    let answer = tokio::time::timeout(LIMIT, first).await.unwrap_or_else(late);
    answer.map_err(|s| status::failure_of("keyd-agent", &s, &socket.display().to_string()))
}

/// DER certificates one after another.
pub(crate) fn certificates(ders: &[u8]) -> Result<Vec<Certificate>, Failure> {
    let mut reader = SliceReader::new(ders).map_err(|e| unreadable(&e.to_string()))?;
    let mut certificates = Vec::new();
    while !reader.is_finished() {
        let next = reader.tlv_bytes().map_err(|e| unreadable(&e.to_string()))?;
        certificates.push(Certificate::from_der(next)?);
    }
    Ok(certificates)
}

fn unreadable(why: &str) -> Failure {
    Failure::new(Reason::BadRequest, format!("the agent's answer cannot be read: {why}"))
}

/// Written whole, readable by whom `mode` says from the first byte on.
fn keep(dir: &Path, name: &str, mode: u32, text: &str) -> Result<(), Failure> {
    let path = dir.join(name);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.and_then(|()| file::replace(&path, mode, text.as_bytes()))
        .map_err(|e| Failure::new(Reason::StoreFailed, format!("{}: {e}", path.display())))
}
