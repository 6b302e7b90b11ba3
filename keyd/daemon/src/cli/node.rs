//! `keyd node ...`: this node's TPM, as a server that attests it will know it.

use clap::Subcommand;
use keyd_api::Client;
use keyd_attest::wire::Public;
use keyd_attest::{
    AttestationKey, EkCertificate, EkKey, Manifest, PcrValues, References, Refusal, certified_key,
};
use keyd_core::{Failure, Reason};
use keyd_unix::Output;
use serde_json::json;

/// This node's TPM.
#[derive(Subcommand)]
pub enum Node {
    /// Show the endorsement key, the attestation key and the maker
    ///
    /// With --json it prints the manifest that a server's list of enrolled nodes takes.
    Show {
        /// The node's name in the manifest; without it, the host name
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// PCRs of the SHA-256 bank whose present values the server shall demand, such as 0,2,4,7
        #[arg(long, value_delimiter = ',', value_name = "INDEX", value_parser = clap::value_parser!(u8).range(0..24))]
        pcrs: Vec<u8>,
    },
    /// Show the Name of the storage root key, the value of srk_name in keyd.toml
    Srk {
        /// Make the key where the TPM has none
        #[arg(long)]
        make: bool,
    },
}

impl Node {
    /// Asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Show { node, pcrs } => show(node, &pcrs, client, output).await,
            Self::Srk { make } => {
                let name = client.storage_root(make).await?.map(hex::encode);
                output
                    .show(&json!({ "srk_name": name }), |_| name.clone().unwrap_or_else(|| "none".to_owned()))
            }
        }
    }
}

async fn show(node: Option<String>, pcrs: &[u8], client: &Client, output: &Output) -> Result<(), Failure> {
    let node = node.map_or_else(host_name, Ok)?;
    let endorsement = client.endorsement().await?;
    let values = if pcrs.is_empty() { Vec::new() } else { client.read_pcrs(pcrs).await? };
    let manifest = manifest(node, endorsement, values).map_err(|refusal| {
        Failure::new(Reason::TpmFailed, format!("this node's TPM cannot be enrolled: {refusal}"))
    })?;
    output.show(&manifest, human)
}

fn manifest(
    node: String,
    endorsement: keyd_api::Endorsement,
    pcrs: Vec<(u8, Vec<u8>)>,
) -> Result<Manifest, Refusal> {
    // A server takes the key from the certificate where there is one, so the manifest does too.
    let ek = match &endorsement.ek_certificate {
        Some(der) => certified_key(der)?,
        None => EkKey::from_public(&Public::parse(&endorsement.ek_public)?)?,
    };
    let ak = AttestationKey::from_public(&Public::parse(&endorsement.ak_public)?)?;
    let manifest = Manifest {
        version: Manifest::VERSION,
        node,
        ek_sha256: ek.sha256(),
        ek_certificate: endorsement.ek_certificate.map(EkCertificate),
        ak_name: ak.name().to_vec(),
        manufacturer: endorsement.manufacturer,
        firmware_version: endorsement.firmware_version,
        pcrs: References { sha256: PcrValues::new(pcrs)? },
    };
    // What would not be read back is not printed.
    manifest.to_json().map(|_| manifest)
}

fn human(manifest: &Manifest) -> String {
    let mut text = format!(
        "node            {}\nEK sha256       {}\nEK certificate  {}\nAK name         {}\nmanufacturer    {}\nfirmware        {}\n",
        manifest.node,
        hex::encode(manifest.ek_sha256),
        if manifest.ek_certificate.is_some() { "present" } else { "none in this TPM" },
        hex::encode(&manifest.ak_name),
        manifest.manufacturer,
        manifest.firmware_version,
    );
    for (index, value) in manifest.pcrs.sha256.iter() {
        text.push_str(&format!("PCR {index:<2} sha256   {}\n", hex::encode(value)));
    }
    text
}

fn host_name() -> Result<String, Failure> {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .ok_or_else(|| Failure::new(Reason::BadRequest, "this host's name cannot be read; give --node NAME"))
}
