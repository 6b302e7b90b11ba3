//! The Unix socket: systemd's where it hands one over, or our own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use keyd_core::{Failure, Reason};
use tokio::net::UnixListener;

/// Everyone may connect: who the caller is decides what it may do.
const MODE: u32 = 0o666;

/// The listening socket, and where it is: `path`, or where systemd made it. Its directory is made where it is missing.
///
/// # Errors
/// [`Reason::BadConfig`] naming the path: something else lies there, or another process listens already.
pub fn bind(path: &Path) -> Result<(UnixListener, PathBuf), Failure> {
    let failed = |why: String| Failure::new(Reason::BadConfig, format!("socket {}: {why}", path.display()));
    let handed = listenfd::ListenFd::from_env()
        .take_unix_listener(0)
        .map_err(|e| failed(format!("what systemd handed over is no Unix socket: {e}")))?;
    if let Some(listener) = handed {
        listener.set_nonblocking(true).map_err(|e| failed(e.to_string()))?;
        let listener = UnixListener::from_std(listener).map_err(|e| failed(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| failed(e.to_string()))?;
        let place = address.as_pathname().unwrap_or(path).to_path_buf();
        return Ok((listener, place));
    }
    remove_stale(path).map_err(failed)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| failed(format!("cannot make its directory: {e}")))?;
    }
    let listener = UnixListener::bind(path).map_err(|e| failed(format!("cannot listen: {e}")))?;
    fs::set_permissions(path, Permissions::from_mode(MODE))
        .map_err(|e| failed(format!("cannot open it: {e}")))?;
    Ok((listener, path.to_path_buf()))
}

/// Removes the socket that a killed process left; one that answers, or a file of another kind, is left alone.
fn remove_stale(path: &Path) -> Result<(), String> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err("there is a file of another kind; remove it or choose another path".to_owned());
    }
    if BlockingStream::connect(path).is_ok() {
        return Err("another process listens there already".to_owned());
    }
    fs::remove_file(path).map_err(|e| format!("cannot remove the socket that an earlier process left: {e}"))
}
