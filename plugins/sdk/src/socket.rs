//! The Unix socket that SPIRE connects to, in a private directory of its own.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How every directory of a plugin's socket begins.
const PREFIX: &str = "keyd-plugin-";

/// The socket's name in it.
const NAME: &str = "s";

/// How old a socket is at least that may be swept: one just made refuses until its plugin listens.
const SETTLED: Duration = Duration::from_secs(60);

/// How long an old socket may take to answer.
const ANSWER: Duration = Duration::from_millis(200);

/// Most entries of the temporary directory that are looked at for old sockets.
const SWEEP_LIMIT: usize = 10_000;

/// A listening socket; its directory goes when this is dropped.
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
    pub(crate) dir: TempDir,
}

impl Socket {
    /// Listens in a new directory of mode 0700 under `parent`.
    pub(crate) fn listen(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let path = dir.path().join(NAME);
        Ok(Self { listener: UnixListener::bind(&path)?, path, dir })
    }
}

/// Removes the sockets of plugins that were killed: those of this user where nobody listens any more. What cannot be
/// examined or removed stays.
pub(crate) async fn sweep(parent: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(SWEEP_LIMIT).flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let dir = entry.path();
            if is_dead(&dir, now).await && fs::remove_file(dir.join(NAME)).is_ok() {
                let _ = fs::remove_dir(&dir);
            }
        }
    }
}

/// Whether this is a real directory of ours whose socket refuses. Asking the socket, unlike asking for a process id,
/// also gives the right answer across containers that share the directory.
async fn is_dead(dir: &Path, now: SystemTime) -> bool {
    let socket = dir.join(NAME);
    let ours = |path: &Path| fs::symlink_metadata(path).ok().filter(|m| m.uid() == geteuid().as_raw());
    let settled = |m: &Metadata| {
        let age = m.modified().ok().and_then(|made| now.duration_since(made).ok());
        age.is_some_and(|age| age >= SETTLED)
    };
    let is_socket = ours(dir).is_some_and(|m| m.is_dir())
        && ours(&socket).is_some_and(|m| m.file_type().is_socket() && settled(&m));
    is_socket
        && matches!(
            timeout(ANSWER, UnixStream::connect(&socket)).await,
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_directory_is_private_and_goes_with_the_socket() {
        let parent = tempfile::tempdir().unwrap();
        let socket = Socket::listen(parent.path()).unwrap();
        let dir = socket.path.parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn dead_sockets_are_swept_and_live_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let live = Socket::listen(parent.path()).unwrap();
        let dead = parent.path().join("keyd-plugin-dead");
        fs::create_dir(&dead).unwrap();
        // A std listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(dead.join(NAME)).unwrap());
        let foreign = parent.path().join("someone-else");
        fs::create_dir(&foreign).unwrap();
        drop(std::os::unix::net::UnixListener::bind(foreign.join(NAME)).unwrap());
        let starting = parent.path().join("keyd-plugin-starting");
        fs::create_dir(&starting).unwrap();

        sweep(parent.path(), SystemTime::now()).await;
        assert!(dead.exists(), "its plugin may be between bind and listen");
        sweep(parent.path(), SystemTime::now() + SETTLED).await;
        assert!(!dead.exists());
        assert!(live.path.exists());
        assert!(foreign.exists());
        assert!(starting.exists(), "a plugin may be between mkdir and bind");
    }
}
