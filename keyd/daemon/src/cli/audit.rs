//! `keyd audit ...`.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use keyd_api::Client;
use keyd_audit::{
    AuditError, Chunk, Draft, Event, Files, Head, Log, Outcome, Position, Record, Report, SEGMENT_LIMIT,
    Verifier,
};
use keyd_core::{Failure, KeyId, PublicKey, Reason};
use keyd_unix::{ConfigFile, Output};
use serde_json::{Value, json};

use super::files::{public_pem, read, unusable, write_public};
use crate::clock::now;
use crate::config::{Config, DEFAULT_CONFIG};
use crate::devices::PEM_LIMIT;
use crate::journal::DIRECTORY;
use crate::keyring::audit_key_id;
use crate::store::Store;

/// The record of what happened to keys, which cannot be rewritten unnoticed.
///
/// Without --file the running keyd is asked, which needs the right `audit`.
#[derive(Subcommand)]
pub enum Audit {
    /// Prove that no record was changed, removed or put in; names the first one that does not hold
    ///
    /// A running keyd signs the log to its end first, and says where that is. Offline, a log whose end was cut off after its
    /// last checkpoint holds: compare the last record with what you know.
    Verify {
        /// A file of the log or its directory, such as /var/lib/keyd/audit, instead of asking keyd
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// The audit key (PEM) that you kept, as `keyd audit key` wrote it; without it, the one that the log names
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Show records
    Show {
        /// A file of the log or its directory, instead of asking keyd
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Only from this time on, in seconds since 1970 (date -d yesterday +%s)
        #[arg(long, value_name = "SECONDS")]
        since: Option<i64>,
        /// Only about this key
        #[arg(long, value_name = "NAMESPACE/ID")]
        key: Option<KeyId>,
        /// Only this event, such as key-created or denied
        #[arg(long)]
        event: Option<String>,
    },
    /// List the certificates that CA keys with an issuance profile signed
    Certificates {
        /// A file of the log or its directory, instead of asking keyd
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Only from this time on, in seconds since 1970
        #[arg(long, value_name = "SECONDS")]
        since: Option<i64>,
    },
    /// Write the public key that the log is signed by, to be kept elsewhere
    Key {
        /// File to write (PEM); without it, standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Set a broken log aside and begin a new one, with a new audit key; keyd must not run
    ///
    /// The old log is kept beside the new one as evidence, and the new one begins by saying so.
    Restart {
        /// Configuration file of keyd
        #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
        config: PathBuf,
    },
}

impl Audit {
    /// Reads, and asks keyd where no file is given.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Verify { file, key } => {
                let key = key.map(|path| read_key(&path)).transpose()?;
                verify(&Source::of(file.as_deref(), client)?, key, output).await
            }
            Self::Show { file, since, key, event } => {
                let wanted = |r: &Record| {
                    since.is_none_or(|t| r.time >= t)
                        && key.as_ref().is_none_or(|k| r.event.key() == Some(k))
                        && event.as_ref().is_none_or(|e| r.event.name() == e)
                };
                let (records, end) = collect(&Source::of(file.as_deref(), client)?, wanted).await;
                let none = "no record is like that\n";
                output.show(&json!({ "records": records }), |_| lines(&records, end.is_ok(), none))?;
                end
            }
            Self::Certificates { file, since } => {
                let wanted = |r: &Record| {
                    since.is_none_or(|t| r.time >= t) && matches!(r.event, Event::CertificateIssued { .. })
                };
                let (records, end) = collect(&Source::of(file.as_deref(), client)?, wanted).await;
                let none = "no certificates; what CA keys without an issuance profile sign is not recorded\n";
                output.show(&json!({ "certificates": records }), |_| lines(&records, end.is_ok(), none))?;
                end
            }
            Self::Key { out } => {
                let head = client.audit_head().await?;
                let pem = public_pem(&head.audit_key)?;
                if head.audit_key.is_empty() {
                    let why = match head.trouble.as_str() {
                        "" => "keyd makes it with the first record to sign, such as that of a new key",
                        trouble => trouble,
                    };
                    let say = format!("there is no audit key yet: {why}");
                    return Err(Failure::new(Reason::KeyNotFound, say));
                }
                let value = json!({
                    "fingerprint": hex::encode(PublicKey::from_spki(&head.audit_key)?.fingerprint()),
                    "public_key": STANDARD.encode(&head.audit_key),
                });
                write_public(pem.as_bytes(), out.as_deref(), &value, output)
            }
            Self::Restart { config } => restart(&Config::read(&config)?, output),
        }
    }
}

/// Where the log is read.
enum Source<'a> {
    Files(Files),
    Keyd(&'a Client),
}

impl<'a> Source<'a> {
    fn of(file: Option<&Path>, client: &'a Client) -> Result<Self, Failure> {
        Ok(match file {
            Some(path) => Self::Files(Files::at(path)?),
            None => Self::Keyd(client),
        })
    }

    /// Has every record verified and seen, in order. Gives how much of a line stands at the end that is not whole, in bytes.
    async fn read(&self, verifier: &mut Verifier, mut see: impl FnMut(Record)) -> Result<u64, Failure> {
        let mut position = Position::default();
        loop {
            let chunk = match self {
                Self::Files(files) => files.read(position)?,
                Self::Keyd(client) => {
                    let r = client.audit_log(position.segment, position.offset).await?;
                    let next = Position { segment: r.next_segment, offset: r.next_offset };
                    Chunk { path: r.file.into(), lines: r.lines.into(), next, last: r.last, torn: 0 }
                }
            };
            for line in chunk.lines() {
                see(verifier
                    .take(line)
                    .map_err(|broken| AuditError::Broken { path: chunk.path.clone(), broken })?);
            }
            if chunk.last {
                return Ok(chunk.torn);
            }
            position = chunk.next;
        }
    }
}

async fn verify(source: &Source<'_>, key: Option<PublicKey>, output: &Output) -> Result<(), Failure> {
    let (mut key, mut known, mut trouble) = (key, None, String::new());
    if let Source::Keyd(client) = source {
        let head = client.audit_head().await?;
        let hash = head.hash.as_ref().try_into();
        let hash = hash.map_err(|_| Failure::new(Reason::Internal, "keyd's answer holds no hash"))?;
        known = Some(Head { seq: head.seq, hash });
        trouble = head.trouble;
        if key.is_none() && !head.audit_key.is_empty() {
            key = Some(PublicKey::from_spki(&head.audit_key)?);
        }
    }
    let given = key.is_some();
    let mut verifier = Verifier::new(key).expecting(known);
    let torn = source.read(&mut verifier, drop).await?;
    let report = verifier
        .finish()
        .map_err(|b| Failure::new(Reason::Integrity, format!("the audit log is broken: {b}")))?;
    let signer = report.audit_key.as_ref().map(|k| hex::encode(k.fingerprint()));
    let value = json!({
        "verified": true, "first": report.first, "last": report.last.seq, "hash": hex::encode(report.last.hash),
        "signed_through": report.signed_through, "audit_key": signer, "clock_set_back": report.clock_set_back,
        "tails_cut": report.tails_cut, "torn_bytes": torn, "trouble": trouble,
    });
    output.show(&value, |_| describe(&report, given, torn, &trouble))
}

fn describe(report: &Report, given: bool, torn: u64, trouble: &str) -> String {
    let mut text = format!("records {} to {} hold\n", report.first, report.last.seq);
    if report.first > 1 {
        text.push_str("  earlier ones are not here; their files were moved away\n");
    }
    match &report.audit_key {
        Some(key) if report.signed_through > 0 => {
            let which = if given { "" } else { ", which is the one that the log itself names" };
            let print = hex::encode(key.fingerprint());
            text.push_str(&format!("signed up to record {} by key {print}{which}\n", report.signed_through));
        }
        _ => text.push_str("signed nowhere: whoever may write the file could have made it up\n"),
    }
    if report.clock_set_back > 0 {
        text.push_str(&format!(
            "the clock was set back {} times; the order of records is right\n",
            report.clock_set_back
        ));
    }
    if report.tails_cut > 0 {
        text.push_str(&format!(
            "after {} crashes a record that was not whole was cut off\n",
            report.tails_cut
        ));
    }
    if torn > 0 {
        text.push_str(&format!(
            "the last {torn} bytes are no whole record; keyd cuts them off when it starts\n"
        ));
    }
    if !trouble.is_empty() {
        text.push_str(&format!("not signed to its end: {trouble}\n"));
    }
    text
}

/// The wanted records, and what ended the reading.
async fn collect(
    source: &Source<'_>,
    wanted: impl Fn(&Record) -> bool,
) -> (Vec<Record>, Result<(), Failure>) {
    let mut records = Vec::new();
    let take = |record: Record| {
        if wanted(&record) {
            records.push(record);
        }
    };
    let end = source.read(&mut Verifier::new(None), take).await.map(drop);
    (records, end)
}

/// A line for each; `none` where there is nothing in a log that was read to its end.
fn lines(records: &[Record], whole: bool, none: &str) -> String {
    if records.is_empty() && whole { none.to_owned() } else { records.iter().map(human).collect() }
}

/// `17 2026-01-31T10:00:00Z key-created uid=0 key=a/b ...`.
fn human(record: &Record) -> String {
    let time = u64::try_from(record.time)
        .ok()
        .and_then(|s| der::DateTime::from_unix_duration(std::time::Duration::from_secs(s)).ok())
        .map_or_else(|| record.time.to_string(), |t| t.to_string());
    let mut line = format!("{} {time} {}", record.seq, record.event.name());
    if let Ok(Value::Object(members)) = serde_json::to_value(record) {
        for (name, value) in
            members.iter().filter(|(n, _)| !matches!(n.as_str(), "seq" | "time" | "event" | "result"))
        {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(&format!(" {name}={value}"));
        }
    }
    if let Outcome::Failed(reason) = record.result {
        line.push_str(&format!(" failed: {}", reason.name()));
    }
    line.push('\n');
    line
}

fn read_key(path: &Path) -> Result<PublicKey, Failure> {
    match der::pem::decode_vec(&read(path, PEM_LIMIT)?) {
        Ok(("PUBLIC KEY", spki)) => PublicKey::from_spki(&spki),
        Ok((label, _)) => Err(unusable(path, format!("it holds a {label}, not a PUBLIC KEY"))),
        Err(e) => Err(unusable(path, format!("it is not PEM: {e}"))),
    }
}

fn restart(config: &Config, output: &Output) -> Result<(), Failure> {
    // Whoever has the store open is the only one: a running keyd is refused here.
    let store = Store::open(&config.state_dir)?;
    let last = store.audit_anchor()?.map_or(0, |head| head.seq);
    let dir = config.state_dir.join(DIRECTORY);
    let aside = config.state_dir.join(format!("{DIRECTORY}-set-aside-{}", now()));
    let kept = dir.exists();
    if kept {
        fs::rename(&dir, &aside).map_err(|e| {
            Failure::new(Reason::AuditFailed, format!("cannot set {} aside: {e}", dir.display()))
        })?;
    }
    let (mut log, _) = Log::open(&dir, SEGMENT_LIMIT, None)?;
    log.append(now(), &[Draft::done(super::this_process(), Event::LogRestarted { last })])?;
    store.set_audit_anchor(Head::START)?;
    store.change(&audit_key_id()?, None, None)?;
    store.close()?;
    let aside = kept.then_some(aside);
    output.show(&json!({ "restarted": true, "last": last, "set_aside": aside }), |_| {
        let kept = aside.as_ref().map_or("there was none to keep".to_owned(), |a| {
            format!("the old one is kept in {}", a.display())
        });
        format!("a new audit log begins with the next start of keyd, under a new audit key; {kept}")
    })
}
