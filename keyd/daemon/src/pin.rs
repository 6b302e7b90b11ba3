//! The token's user PIN: in a file, in a systemd credential, or sealed by the TPM. It is never an argument, and never in the
//! environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use keyd_core::{BoxFuture, Failure, Reason, Sealer, Secret};
use keyd_pkcs11::PinSource;
use keyd_tpm::Tpm;
use keyd_unix::{file, off_worker};

use crate::config::TokenTable;

/// Longest text of a PIN, in bytes.
pub const PIN_LIMIT: usize = 1024;
/// Longest sealed PIN, in bytes: two PCR states and the areas of a sealed object.
const SEALED_LIMIT: usize = 8 * 1024;
/// What a sealed PIN is bound to, so that no key's seal passes for it.
const CONTEXT: &[u8] = b"keyd v1 token-pin";

/// Where the PIN is that `[token]` names. One in clear is read now; a sealed one is unsealed when the token is first used,
/// since the TPM may come later.
///
/// # Errors
/// [`Reason::BadConfig`] naming the file and what is wrong with it, never its content.
pub fn source(table: &TokenTable, tpm: Option<&Arc<Tpm>>) -> Result<Arc<dyn PinSource>, Failure> {
    let Some(path) = &table.pin_sealed else { return Ok(Arc::new(in_clear(table)?)) };
    let tpm = tpm.ok_or_else(|| bad("[token] pin_sealed needs a [tpm]".to_owned()))?;
    sealed(path)?;
    Ok(Arc::new(SealedPin { path: path.clone(), tpm: Arc::clone(tpm) }))
}

/// A PIN in a file that the TPM opens. The file is read at each try, so that one that was sealed anew counts at once.
struct SealedPin {
    path: PathBuf,
    tpm: Arc<Tpm>,
}

impl PinSource for SealedPin {
    fn pin(&self) -> BoxFuture<'_, Result<Secret, Failure>> {
        Box::pin(async {
            let path = self.path.clone();
            let blob = off_worker(move || sealed(&path)).await?;
            self.tpm.unseal(&blob, CONTEXT).await.map_err(|f| {
                let again = "with the PIN at hand, `keyd token seal-pin` seals it anew";
                // Of the token, that would say that it does not open what it wrapped.
                let reason = if f.reason == Reason::UnsealFailed { Reason::TokenFailed } else { f.reason };
                Failure::new(reason, format!("sealed PIN {}: {f} For a PIN, {again}.", self.path.display()))
            })
        })
    }
}

impl fmt::Debug for SealedPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedPin").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The sealed PIN in a file.
///
/// # Errors
/// [`Reason::BadConfig`] naming the file.
pub fn sealed(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = file::read(path, SEALED_LIMIT);
    read.map_err(|e| bad(format!("sealed PIN {}: cannot read it: {e}", path.display())))
}

/// Seals a PIN into a file of mode 0600, in place of one that is there.
///
/// # Errors
/// [`Reason::BadRequest`] for a PIN of more than 64 bytes, and a file that cannot be written; the TPM's own.
pub async fn seal(pin: &Secret, tpm: &Tpm, path: &Path) -> Result<(), Failure> {
    let blob = tpm.seal(pin, CONTEXT).await?;
    let path = path.to_owned();
    off_worker(move || {
        file::replace(&path, 0o600, &blob).map_err(|e| {
            Failure::new(Reason::BadRequest, format!("{}: cannot write it: {e}", path.display()))
        })
    })
    .await
}

/// Reads a PIN from a file that nobody else may read; one newline at its end does not count.
///
/// # Errors
/// [`Reason::BadConfig`] naming the file; never its content.
pub fn from_file(path: &Path) -> Result<Secret, Failure> {
    taken(path, file::read_private(path, PIN_LIMIT))
}

fn taken(path: &Path, read: io::Result<Vec<u8>>) -> Result<Secret, Failure> {
    let failed = |why: String| bad(format!("PIN file {}: {why}", path.display()));
    let bytes = read.map_err(|e| failed(format!("cannot read it: {e}")))?;
    from_text(bytes).ok_or_else(|| failed("it is empty".to_owned()))
}

/// A PIN as it was read; one newline at its end does not count. None for an empty one.
pub fn from_text(mut bytes: Vec<u8>) -> Option<Secret> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    (!bytes.is_empty()).then(|| Secret::new(bytes))
}

fn in_clear(table: &TokenTable) -> Result<Secret, Failure> {
    match (&table.pin_file, &table.pin_credential) {
        (Some(path), _) => from_file(path),
        (None, Some(name)) => {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                bad(format!(
                    "pin_credential {name:?} needs systemd: LoadCredentialEncrypted={name} in the unit"
                ))
            })?;
            let path = Path::new(&dir).join(name);
            taken(&path, file::read_credential(&path, PIN_LIMIT))
        }
        (None, None) => Err(bad("[token] names no PIN".to_owned())),
    }
}

fn bad(why: String) -> Failure {
    Failure::new(Reason::BadConfig, why)
}
