//! Files that commands read and write.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use der::pem::LineEnding;
use keyd_api::MESSAGE_LIMIT;
use keyd_core::{Failure, Reason, Secret};
use keyd_unix::{Output, file};
use serde_json::Value;

/// Reads a file of at most `limit` bytes.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    file::read(path, limit).map_err(|e| unusable(path, format!("cannot read it: {e}")))
}

/// Reads a file of at most `limit` bytes that may be missing.
pub fn read_existing(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    match file::read(path, limit) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unusable(path, format!("cannot read it: {e}"))),
        Ok(bytes) => Ok(Some(bytes)),
    }
}

/// Reads a secret of at most `limit` bytes, from a file that nobody else may read.
pub fn read_secret(path: &Path, limit: usize) -> Result<Secret, Failure> {
    let read = file::read_private(path, limit).map(Secret::new);
    read.map_err(|e| unusable(path, format!("cannot read it: {e}")))
}

/// Writes a file that all may read, whole or not at all, in place of one that is there.
pub fn save(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    file::replace(path, 0o644, contents).map_err(|e| unusable(path, format!("cannot write it: {e}")))
}

/// Writes a file of this mode where there is none.
pub fn save_new(path: &Path, mode: u32, contents: &[u8]) -> Result<(), Failure> {
    file::write_new(path, mode, contents).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            unusable(path, "it exists already and is not overwritten; name another file".to_owned())
        }
        _ => unusable(path, format!("cannot write it: {e}")),
    })
}

/// For a file of the command line that does not do.
pub fn unusable(path: &Path, why: String) -> Failure {
    Failure::new(Reason::BadRequest, format!("{}: {why}", path.display()))
}

/// Whether a path stands for standard input or output.
pub fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a file or standard input, never more than one message may have.
pub fn read_input(path: &Path) -> Result<Vec<u8>, Failure> {
    if !is_stdio(path) {
        return read(path, MESSAGE_LIMIT);
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(MESSAGE_LIMIT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| unusable(path, format!("cannot read it: {e}")))?;
    if bytes.len() > MESSAGE_LIMIT {
        return Err(unusable(path, format!("it has more than {MESSAGE_LIMIT} bytes")));
    }
    Ok(bytes)
}

/// Writes a file or standard output.
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = if is_stdio(path) { std::io::stdout().write_all(bytes) } else { fs::write(path, bytes) };
    written.map_err(|e| unusable(path, format!("cannot write it: {e}")))
}

/// Writes what anybody may read to a file, or to standard output, where JSON describes it instead.
pub fn write_public(
    bytes: &[u8],
    out: Option<&Path>,
    described: &Value,
    output: &Output,
) -> Result<(), Failure> {
    match out.filter(|path| !is_stdio(path)) {
        None if !output.is_json() => write_output(Path::new("-"), bytes),
        None => output.show(described, |_| String::new()),
        Some(path) => {
            write_output(path, bytes)?;
            output.show(described, |_| String::new())
        }
    }
}

/// Writes a secret to a file that only this user can read, in place of one that is there, or to standard output.
pub fn write_secret(path: &Path, secret: &Secret) -> Result<(), Failure> {
    if is_stdio(path) {
        return write_output(path, secret.expose());
    }
    // A new file: whoever has the old one open sees nothing of this.
    file::replace(path, 0o600, secret.expose()).map_err(|e| unusable(path, format!("cannot write it: {e}")))
}

/// A public key as PEM, from its DER SubjectPublicKeyInfo.
pub fn public_pem(spki: &[u8]) -> Result<String, Failure> {
    der::pem::encode_string("PUBLIC KEY", LineEnding::LF, spki)
        .map_err(|e| Failure::new(Reason::Internal, format!("cannot write PEM: {e}")))
}
