//! `keyd key ...`.

mod how;

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Subcommand, ValueEnum};
use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, KeyId, Namespace, Protection, Reason};
use keyd_unix::Output;
use serde_json::{Value, json};

use how::How;

use super::files::{is_stdio, public_pem, read_input, write_output, write_public, write_secret};

/// Keys are named NAMESPACE/ID, such as spire-server/x509-CA-A.
#[derive(Subcommand)]
pub enum Key {
    /// Make a key
    Create {
        /// NAMESPACE/ID
        key: KeyId,
        /// ml-dsa-44, ml-dsa-65, ml-dsa-87, ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096, ml-kem-768 or ml-kem-1024
        #[arg(long, default_value_t = Algorithm::MlDsa65)]
        algorithm: Algorithm,
        /// hsm, hsm-wrapped, tpm-sealed or software; without it the namespace's order decides
        #[arg(long)]
        protection: Option<Protection>,
    },
    /// List the keys that you may list
    List {
        /// Only of this namespace
        namespace: Option<Namespace>,
    },
    /// Show a key and its public key
    Show {
        /// NAMESPACE/ID
        key: KeyId,
    },
    /// Write a public key as other tools read it
    Public {
        /// NAMESPACE/ID
        key: KeyId,
        /// SubjectPublicKeyInfo as PEM or DER
        #[arg(long, value_enum, default_value_t = Format::Pem)]
        format: Format,
        /// File to write; without it, standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign a file: raw signature for ML-DSA (pure, empty context) and RSA, DER for ECDSA
    ///
    /// RSA needs --padding. Elliptic curves hash the file with SHA-256 (P-256) or SHA-384 (P-384) unless --hash says otherwise.
    Sign {
        /// NAMESPACE/ID
        key: KeyId,
        /// File to sign, - for standard input; at most 1 MiB
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        #[command(flatten)]
        how: How,
        /// File for the signature, - for standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verify a signature over a file, here, with the public key that keyd shows
    ///
    /// Takes the options that it was signed with. Exit code 0: it verifies; 1, with the reason INTEGRITY: it does not.
    Verify {
        /// NAMESPACE/ID
        key: KeyId,
        /// The file that was signed, - for standard input
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        #[command(flatten)]
        how: How,
        /// The signature
        #[arg(long, value_name = "FILE")]
        signature: PathBuf,
    },
    /// Recover the shared secret from an ML-KEM ciphertext
    Decapsulate {
        /// NAMESPACE/ID
        key: KeyId,
        /// The ciphertext, - for standard input
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        /// File for the shared secret of 32 bytes, which nobody else can read; - for standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Replace a key by a new one of the same name; the old private key is destroyed
    Rotate {
        /// NAMESPACE/ID
        key: KeyId,
        /// Another algorithm than before
        #[arg(long)]
        algorithm: Option<Algorithm>,
        /// Another protection than before
        #[arg(long)]
        protection: Option<Protection>,
    },
    /// Move a key to another protection that its namespace accepts; it stays the same key
    ///
    /// A key with the protection hsm was made in the token, and stays there: none is moved into it or out of it; `keyd key
    /// rotate --protection` makes a new one. A key that is where it should be is left alone.
    Migrate {
        /// NAMESPACE/ID
        key: KeyId,
        /// hsm-wrapped, tpm-sealed or software
        #[arg(long, value_name = "PROTECTION")]
        to: Protection,
        /// The new protection may be weaker than the one that the key has
        #[arg(long)]
        weaker: bool,
    },
    /// Destroy a key
    Delete {
        /// NAMESPACE/ID
        key: KeyId,
    },
}

/// How a public key is written.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// With armour.
    Pem,
    /// Bytes.
    Der,
}

impl Key {
    /// Asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Create { key, algorithm, protection } => {
                let info = client.create_key(&key, algorithm, protection).await?;
                output.show(&describe(&info), |_| human(&info))
            }
            Self::List { namespace } => {
                let keys = client.list_keys(namespace.as_ref()).await?;
                output
                    .show(&json!({ "keys": keys.iter().map(describe).collect::<Vec<_>>() }), |_| table(&keys))
            }
            Self::Show { key } => {
                let info = client.show_key(&key).await?;
                output.show(&describe(&info), |_| human(&info))
            }
            Self::Public { key, format, out } => {
                let info = client.show_key(&key).await?;
                let bytes = match format {
                    Format::Pem => public_pem(info.public_key.spki())?.into_bytes(),
                    Format::Der => info.public_key.spki().to_vec(),
                };
                write_public(&bytes, out.as_deref(), &describe(&info), output)
            }
            Self::Sign { key, input, how, out } => {
                let given = read_input(&input)?;
                let signed = client.sign(&key, how.prepare(&given).input()).await?;
                write_output(&out, &signed.signature)?;
                let value = json!({
                    "key": key, "signature_bytes": signed.signature.len(), "fingerprint": hex::encode(&signed.fingerprint),
                });
                // Standard output carries the signature where it was asked for there.
                if is_stdio(&out) { Ok(()) } else { output.show(&value, |_| String::new()) }
            }
            Self::Verify { key, input, how, signature } => {
                let (given, signature) = (read_input(&input)?, read_input(&signature)?);
                let (prepared, info) = (how.prepare(&given), client.show_key(&key).await?);
                // What this key never signs is a mistake in the options and no bad signature.
                prepared.input().check(info.algorithm)?;
                info.public_key.verify(prepared.input(), &signature).map_err(|_| {
                    Failure::new(Reason::Integrity, format!("the signature by {key} does not verify"))
                })?;
                let value = json!({ "key": key, "verified": true, "version": info.version });
                output.show(&value, |_| format!("verified by {key}"))
            }
            Self::Decapsulate { key, input, out } => {
                let opened = client.decapsulate(&key, &read_input(&input)?).await?;
                write_secret(&out, &opened.shared_secret)?;
                let value = json!({
                    "key": key, "shared_secret_bytes": opened.shared_secret.len(),
                    "fingerprint": hex::encode(&opened.fingerprint),
                });
                if is_stdio(&out) { Ok(()) } else { output.show(&value, |_| String::new()) }
            }
            Self::Rotate { key, algorithm, protection } => {
                let info = client.rotate_key(&key, algorithm, protection).await?;
                output.show(&describe(&info), |_| human(&info))
            }
            Self::Migrate { key, to, weaker } => {
                let (info, before) = client.migrate_key(&key, to, weaker).await?;
                let moved = before != info.protection;
                let value = json!({ "key": describe(&info), "before": before, "migrated": moved });
                output.show(&value, |_| migrated(&info, before))
            }
            Self::Delete { key } => {
                client.delete_key(&key).await?;
                output.show(&json!({ "key": key, "deleted": true }), |_| format!("{key} is deleted"))
            }
        }
    }
}

/// A key as JSON.
pub fn describe(info: &KeyInfo) -> Value {
    json!({
        "key": info.key,
        "algorithm": info.algorithm,
        "protection": info.protection,
        "version": info.version,
        "created_at": info.created_at,
        "state": info.state,
        "fingerprint": hex::encode(info.public_key.fingerprint()),
        "public_key": STANDARD.encode(info.public_key.spki()),
    })
}

fn human(info: &KeyInfo) -> String {
    format!(
        "key          {}\nalgorithm    {}\nprotection   {}\nversion      {}\nstate        {}\nfingerprint  {}\n",
        info.key,
        info.algorithm,
        info.protection,
        info.version,
        info.state,
        hex::encode(info.public_key.fingerprint()),
    )
}

fn migrated(info: &KeyInfo, before: Protection) -> String {
    let (key, now) = (&info.key, info.protection);
    if before == now {
        return format!("{key} is {now} already; nothing was changed");
    }
    // A store does not overwrite what it replaces, and neither does flash memory.
    let note = match before {
        Protection::Software => format!(
            "\nIts secret lay on the disk in clear, and traces of that may be there still: `keyd key rotate {key}` makes a key \
             that never did."
        ),
        _ => String::new(),
    };
    format!("{key} was {before} and is {now}{note}")
}

fn table(keys: &[KeyInfo]) -> String {
    if keys.is_empty() {
        return "no keys\n".to_owned();
    }
    let width = keys.iter().map(|k| k.key.to_string().len()).max().unwrap_or_default().max(3);
    let mut text = format!("{:width$}  {:10}  {:11}  VERSION\n", "KEY", "ALGORITHM", "PROTECTION");
    for key in keys {
        let (id, algorithm, protection) = (key.key.to_string(), key.algorithm.name(), key.protection.name());
        text.push_str(&format!("{id:width$}  {algorithm:10}  {protection:11}  {}\n", key.version));
    }
    text
}
