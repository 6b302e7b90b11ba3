//! Token and TPM as the configuration names them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyd_core::{Failure, Reason, Secret};
use keyd_pkcs11::{Mechanisms, Token, TokenConfig, TokenName, WorkerCommand};
use keyd_tpm::{PolicyKey, PolicySource, Tpm, TpmConfig};

use crate::config::{SealTo, TokenTable, TpmTable};

/// Longest PIN file, in bytes.
const PIN_FILE_LIMIT: u64 = 1024;

/// The token of `[token]`. Nothing is asked of it yet.
///
/// # Errors
/// [`Reason::BadConfig`] naming the PIN file and what is wrong with it.
pub fn token(table: &TokenTable, worker: WorkerCommand) -> Result<Token, Failure> {
    let token = match (&table.label, &table.serial) {
        (Some(label), _) => TokenName::Label(label.clone()),
        (None, Some(serial)) => TokenName::Serial(serial.clone()),
        (None, None) => return Err(bad("[token] needs either label or serial".to_owned())),
    };
    let config = TokenConfig {
        module: table.module.clone(),
        token,
        pin: read_pin(&pin_path(table)?)?,
        environment: table.environment.clone(),
        sessions: table.sessions,
        call_deadline: Duration::from_millis(table.call_deadline_ms),
        mechanisms: Mechanisms::default(),
    };
    Token::new(config, worker)
}

/// The TPM of `[tpm]`. Nothing is asked of it yet.
///
/// # Errors
/// [`Reason::BadConfig`] for a TCTI, name or policy key that is not well formed.
pub fn tpm(table: &TpmTable) -> Result<Tpm, Failure> {
    let srk_name = table
        .srk_name
        .as_ref()
        .map(|name| hex::decode(name).map_err(|e| bad(format!("[tpm] srk_name is not hexadecimal: {e}"))))
        .transpose()?;
    let seal_to = match table.seal_to {
        SealTo::ThisTpm => keyd_tpm::SealTo::ThisTpm,
        SealTo::Pcrs => keyd_tpm::SealTo::Pcrs(table.pcrs.clone()),
        SealTo::SignedPolicy => keyd_tpm::SealTo::SignedPolicy,
    };
    Tpm::open(TpmConfig {
        tcti: table.tcti.parse()?,
        srk_handle: table.srk_handle,
        srk_name,
        seal_to,
        policy_source: policy_source(table)?,
        call_deadline: Duration::from_millis(table.call_deadline_ms),
    })
}

fn policy_source(table: &TpmTable) -> Result<Option<PolicySource>, Failure> {
    let (Some(key), Some(file)) = (&table.policy_key, &table.policy_signatures) else { return Ok(None) };
    let failed = |why: String| bad(format!("[tpm] policy_key {}: {why}", key.display()));
    let pem = fs::read(key).map_err(|e| failed(format!("cannot read it: {e}")))?;
    let key = PolicyKey::from_pem(&pem).map_err(failed)?;
    Ok(Some(PolicySource { key, file: file.clone() }))
}

fn pin_path(table: &TokenTable) -> Result<PathBuf, Failure> {
    match (&table.pin_file, &table.pin_credential) {
        (Some(file), _) => Ok(file.clone()),
        (None, Some(name)) => {
            std::env::var_os("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(name)).ok_or_else(|| {
                bad(format!(
                    "pin_credential {name:?} needs systemd: LoadCredentialEncrypted={name} in the unit"
                ))
            })
        }
        (None, None) => Err(bad("[token] needs either pin_file or pin_credential".to_owned())),
    }
}

/// Reads a PIN from a file that nobody else may read; one newline at its end does not count.
///
/// # Errors
/// [`Reason::BadConfig`] naming the file; never its content.
pub fn read_pin(path: &Path) -> Result<Secret, Failure> {
    let failed = |why: String| bad(format!("PIN file {}: {why}", path.display()));
    let found = fs::metadata(path).map_err(|e| failed(format!("cannot look at it: {e}")))?;
    if found.mode() & 0o077 != 0 {
        return Err(failed(format!("mode {:04o} lets others read it; chmod 0600", found.mode() & 0o777)));
    }
    if found.len() > PIN_FILE_LIMIT {
        return Err(failed(format!("it has {} bytes; a PIN has at most {PIN_FILE_LIMIT}", found.len())));
    }
    let mut bytes = fs::read(path).map_err(|e| failed(format!("cannot read it: {e}")))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    Ok(Secret::new(bytes))
}

fn bad(why: String) -> Failure {
    Failure::new(Reason::BadConfig, why)
}
