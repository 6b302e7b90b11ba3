//! `keyd escrow ...`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use keyd_api::Client;
use keyd_api::v1::KeyOutcome;
use keyd_core::{Failure, Namespace, Secret};
use keyd_escrow::{EscrowFile, FILE_LIMIT, OperatorKey, PEM_LIMIT};
use keyd_unix::Output;
use serde_json::json;

use super::files::{read, read_secret, save_new};
use super::outcomes::{self, Counts};

/// The keys of a node in one file that only the operator opens, for the day when its TPM or token is lost.
///
/// keyd.toml names the operator's public key under [escrow]; without it nothing is exported. What was made in a token (hsm)
/// is in no escrow.
#[derive(Subcommand)]
pub enum Escrow {
    /// Make the operator's key pair; it needs no keyd, and belongs on a machine that is no node
    NewRecipient {
        /// New file for the public key (PEM), which goes to the nodes
        #[arg(long, value_name = "FILE")]
        out_public: PathBuf,
        /// New file of mode 0600 for the private key (PEM), which opens every escrow made for it
        #[arg(long, value_name = "FILE")]
        out_private: PathBuf,
    },
    /// Write this node's keys into a new file, encrypted to the operator
    Export {
        /// New file for the escrow
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Only the keys of this namespace
        #[arg(long)]
        namespace: Option<Namespace>,
    },
    /// Put the keys of an escrow back, sealed to this node's TPM or token
    ///
    /// Each key goes to the first protection that its namespace accepts and that works. A key that is there and opens is left
    /// alone; another key of the same name is not touched, and told. The private key stays with this command: keyd gets what
    /// opens this one file.
    Restore {
        /// The escrow
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        /// File of mode 0600 with the operator's private key (PEM)
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Name of the node that the escrow is of, where this one takes its place
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Open it and say what would be done; change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Escrow {
    /// Asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::NewRecipient { out_public, out_private } => {
                new_recipient(&out_public, &out_private, output)
            }
            Self::Export { out, namespace } => export(client, &out, namespace.as_ref(), output).await,
            Self::Restore { input, key, node, dry_run } => {
                let (file, unlocked) = unlock(&input, &key)?;
                let node = node.unwrap_or_default();
                let say = |key: &KeyOutcome| output.progress(&outcomes::line(key));
                let keys = client.restore_escrow(file, &unlocked, &node, dry_run, say).await?;
                let sentence = |counts: &Counts| {
                    let Counts { done, current, due, failed } = counts;
                    match dry_run {
                        true => format!("{due} would be restored, {current} are there, {failed} cannot be"),
                        false => format!("{done} restored, {current} were there, {failed} failed"),
                    }
                };
                outcomes::show(&keys, "restored", sentence, "were not restored", output)
            }
        }
    }
}

fn new_recipient(public: &Path, private: &Path, output: &Output) -> Result<(), Failure> {
    let key = OperatorKey::generate()?;
    let recipient = key.recipient();
    save_new(private, 0o600, key.to_pem()?.expose())?;
    save_new(public, 0o644, recipient.to_pem()?.as_bytes())?;
    let recipient = hex::encode(recipient.fingerprint());
    output.show(&json!({ "recipient": recipient, "public": public, "private": private }), |_| {
        format!(
            "operator key {recipient}\n{} goes to the nodes, as recipient under [escrow] of keyd.toml\n{} opens every escrow \
             made for it: keep it offline, and a copy of it\n",
            public.display(),
            private.display()
        )
    })
}

async fn export(
    client: &Client,
    out: &Path,
    namespace: Option<&Namespace>,
    output: &Output,
) -> Result<(), Failure> {
    let (summary, file) = client.export_escrow(namespace).await?;
    save_new(out, 0o600, &file)?;
    let recipient = hex::encode(&summary.recipient);
    let left_out: Vec<_> = summary.left_out.iter().map(|l| json!({ "key": l.key, "why": l.why })).collect();
    let value = json!({
        "file": out, "node": summary.node, "recipient": recipient, "keys": summary.keys, "left_out": left_out,
    });
    output.show(&value, |_| {
        let mut text = format!(
            "{} keys of {} are in {}, for the operator key {recipient}\n",
            summary.keys,
            summary.node,
            out.display()
        );
        for left in &summary.left_out {
            text.push_str(&format!("NOT in it: {}; {}\n", left.key, left.why));
        }
        text
    })
}

/// The escrow, and what opens it and no other.
fn unlock(input: &Path, key: &Path) -> Result<(Vec<u8>, Secret), Failure> {
    let file = read(input, FILE_LIMIT)?;
    let named = |path: &Path, e: keyd_escrow::Error| {
        let failure = Failure::from(e);
        Failure::new(failure.reason, format!("{}: {}", path.display(), failure.message))
    };
    let escrow = EscrowFile::parse(&file).map_err(|e| named(input, e))?;
    let operator = OperatorKey::from_pem(&read_secret(key, PEM_LIMIT)?).map_err(|e| named(key, e))?;
    let unlocked = operator.unlock(&escrow).map_err(|e| named(input, e))?;
    Ok((file, unlocked))
}
