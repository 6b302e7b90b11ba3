//! Token and TPM as the configuration names them.

use keyd_core::{Failure, Reason};
use keyd_pkcs11::{Token, TokenConfig, TokenName, WorkerCommand};
use keyd_tpm::{PolicyKey, PolicySource, Tpm, TpmConfig};
use keyd_unix::file;
use std::sync::Arc;

use crate::config::{SealTo, TokenTable, TpmTable};
use crate::pin;

/// Longest PEM file with a public key, in bytes.
pub const PEM_LIMIT: usize = 16 * 1024;

/// The token of `[token]`, and where its user PIN is. Nothing is asked of the token yet, nor of a TPM that sealed the PIN.
///
/// # Errors
/// As [`pin::source`].
pub fn token(table: &TokenTable, worker: WorkerCommand, tpm: Option<&Arc<Tpm>>) -> Result<Token, Failure> {
    let token = match (&table.label, &table.serial) {
        (Some(label), _) => TokenName::Label(label.clone()),
        (None, Some(serial)) => TokenName::Serial(serial.clone()),
        (None, None) => return Err(bad("[token] needs either label or serial".to_owned())),
    };
    let config = TokenConfig {
        module: table.module.clone(),
        token,
        pin: pin::source(table, tpm)?,
        environment: table.environment.clone(),
        sessions: table.sessions.into(),
        call_deadline: table.call_deadline_ms.into(),
        mechanisms: table.mechanisms.mechanisms(),
    };
    Token::new(config, worker)
}

/// The TPM of `[tpm]`. Nothing is asked of it yet.
///
/// # Errors
/// As [`policy_source`].
pub fn tpm(table: &TpmTable) -> Result<Tpm, Failure> {
    let seal_to = match table.seal_to {
        SealTo::ThisTpm => keyd_tpm::SealTo::ThisTpm,
        SealTo::Pcrs => keyd_tpm::SealTo::Pcrs(table.pcrs.clone()),
        SealTo::SignedPolicy => keyd_tpm::SealTo::SignedPolicy,
    };
    Tpm::open(TpmConfig {
        tcti: table.tcti.clone(),
        srk_handle: table.srk_handle,
        srk_name: table.srk_name.clone().map(Into::into),
        seal_to,
        policy_source: policy_source(table)?,
        call_deadline: table.call_deadline_ms.into(),
    })
}

/// The signed policy of `[tpm]`, where there is one. Blocks on the disk.
///
/// # Errors
/// [`Reason::BadConfig`] naming the file.
pub fn policy_source(table: &TpmTable) -> Result<Option<PolicySource>, Failure> {
    let (Some(key), Some(file)) = (&table.policy_key, &table.policy_signatures) else { return Ok(None) };
    let failed = |why: String| bad(format!("[tpm] policy_key {}: {why}", key.display()));
    let pem = file::read(key, PEM_LIMIT).map_err(|e| failed(format!("cannot read it: {e}")))?;
    let key = PolicyKey::from_pem(&pem).map_err(failed)?;
    Ok(Some(PolicySource { key, file: file.clone() }))
}

fn bad(why: String) -> Failure {
    Failure::new(Reason::BadConfig, why)
}
