//! Files that nobody else may read.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Reads a file of at most `limit` bytes that no other user may read.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name; never its content.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|e| format!("cannot read it: {e}"))?;
    let found = file.metadata().map_err(|e| format!("cannot look at it: {e}"))?;
    if found.mode() & 0o077 != 0 {
        return Err(format!("mode {:04o} lets others read it; chmod 0600", found.mode() & 0o777));
    }
    let len = usize::try_from(found.len()).ok().filter(|_| found.len() <= limit);
    let len = len.ok_or_else(|| format!("it has {} bytes; at most {limit} belong there", found.len()))?;
    // A vector that grows would leave copies.
    let mut bytes = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut bytes).map_err(|e| format!("cannot read it: {e}"))?;
    Ok(bytes)
}

/// Writes a new file of this mode, on the disk when it returns; one that is there is left alone.
///
/// # Errors
/// What is wrong, as [`read`] says it. Nothing is left then.
pub fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), String> {
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(mode).open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "it exists already and is not overwritten; name another file".to_owned()
            }
            _ => format!("cannot make it: {e}"),
        })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        let _ = fs::remove_file(path);
        format!("cannot write it: {e}")
    })
}
