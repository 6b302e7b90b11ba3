//! `keyd ca ...`: the root of a trust domain.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, KeyId, Protection, PublicKey, Reason, SignInput};
use keyd_unix::Output;
use keyd_x509::{
    Certificate, PEM_LIMIT, Signer, TrustDomain, Validity, parse_pem_chain, self_signed_root, to_pem,
};
use serde_json::json;

use super::files::{read_existing, save};
use crate::keyring::ROOT;

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// The root of a trust domain: its key in keyd, its certificate in a file that SPIRE and verifiers read.
#[derive(Subcommand)]
pub enum Ca {
    /// Make the root key, unless it exists, and its self-signed certificate
    ///
    /// Running it again changes nothing: a certificate that fits the key is left alone, one that does not is refused.
    Init {
        /// NAMESPACE/ID of the root key
        #[arg(default_value = ROOT)]
        key: KeyId,
        /// Trust domain, such as example.org; the certificate names it, the key itself is bound to none
        #[arg(long, value_name = "NAME")]
        trust_domain: TrustDomain,
        /// File for the root certificate (PEM)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Algorithm of the root key
        #[arg(long, default_value_t = Algorithm::MlDsa87)]
        algorithm: Algorithm,
        /// hsm, hsm-wrapped, tpm-sealed or software; without it the namespace's order decides
        #[arg(long)]
        protection: Option<Protection>,
        /// How long the certificate is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
}

impl Ca {
    /// Asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let Self::Init { key, trust_domain, out, algorithm, protection, days } = self;
        let (info, made_key) = match client.show_key(&key).await {
            Ok(info) => (info, false),
            Err(f) if f.reason == Reason::KeyNotFound => {
                (client.create_key(&key, algorithm, protection).await?, true)
            }
            Err(f) => return Err(f),
        };
        let existing = existing(&out, &info, &trust_domain)?;
        let made_certificate = existing.is_none();
        let root = match existing {
            Some(root) => root,
            None => {
                let lifetime = Duration::from_secs(u64::from(days) * DAY);
                let signer = RootKey { client, info: &info };
                let validity = Validity::starting(SystemTime::now(), lifetime);
                let root = self_signed_root(&signer, &trust_domain, validity).await?;
                save(&out, to_pem([&root])?.as_bytes())?;
                root
            }
        };
        let value = json!({
            "key": info.key, "algorithm": info.algorithm, "protection": info.protection,
            "trust_domain": trust_domain, "certificate": out, "serial": hex::encode(root.serial()),
            "made_key": made_key, "made_certificate": made_certificate,
        });
        output.show(&value, |_| {
            let did = if made_certificate { "made" } else { "was there already, and fits its key" };
            format!(
                "root of {trust_domain}: {} {} in {} ({}); {did}",
                info.algorithm,
                info.key,
                out.display(),
                info.protection
            )
        })
    }
}

/// The certificate that lies at `out` already; one for another key or trust domain is left alone and refused.
fn existing(out: &Path, info: &KeyInfo, trust_domain: &TrustDomain) -> Result<Option<Certificate>, Failure> {
    let file = out.display();
    let Some(text) = read_existing(out, PEM_LIMIT)? else { return Ok(None) };
    let root = parse_pem_chain(&file.to_string(), &text)?.swap_remove(0);
    if root.public_key()? != info.public_key || root.uri_id()? != trust_domain.id() {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "{file} holds a certificate of another key or trust domain; give another --out, or move it away"
            ),
        ));
    }
    Ok(Some(root))
}

/// The root key in keyd, as a signer of certificates.
struct RootKey<'a> {
    client: &'a Client,
    info: &'a KeyInfo,
}

impl Signer for RootKey<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.info.public_key
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        Ok(self.client.sign(&self.info.key, SignInput::Message(message)).await?.signature)
    }
}
