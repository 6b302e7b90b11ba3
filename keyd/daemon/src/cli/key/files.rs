//! Files that commands read and write; `-` is standard input or output.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use keyd_api::MESSAGE_LIMIT;
use keyd_core::{Failure, Reason, Secret};

/// Whether a path stands for standard input or output.
pub(super) fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a file or standard input, never more than one message may have.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::new(Reason::BadRequest, format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let limit = MESSAGE_LIMIT as u64 + 1;
    let result = if is_stdio(path) {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map_err(|e| failed(format!("cannot read it: {e}")))?;
    if bytes.len() > MESSAGE_LIMIT {
        return Err(failed(format!("more than {MESSAGE_LIMIT} bytes, the most that keyd signs")));
    }
    Ok(bytes)
}

/// Writes a file or standard output.
pub(in crate::cli) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let result = if is_stdio(path) { std::io::stdout().write_all(bytes) } else { fs::write(path, bytes) };
    result.map_err(|e| Failure::new(Reason::Internal, format!("{}: cannot write it: {e}", path.display())))
}

/// Writes a secret to a file that only this user can read, also where it was there before, or to standard output.
pub(super) fn write_secret(path: &Path, secret: &Secret) -> Result<(), Failure> {
    if is_stdio(path) {
        return write(path, secret.expose());
    }
    let save = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(secret.expose())
    };
    save().map_err(|e: std::io::Error| {
        Failure::new(Reason::Internal, format!("{}: cannot write it: {e}", path.display()))
    })
}
