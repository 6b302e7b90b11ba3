//! The Unix socket that SPIRE connects to, in a private directory of its own.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How every directory of a plugin's socket begins.
const PREFIX: &str = "keyd-plugin-";

/// The socket's name in it, once it listens.
const NAME: &str = "s";

/// Its name before: between bind and listen a socket refuses, as a dead one does.
const STARTING: &str = "n";

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
        let (starting, path) = (dir.path().join(STARTING), dir.path().join(NAME));
        let listener = UnixListener::bind(&starting)?;
        fs::rename(starting, &path)?;
        Ok(Self { listener, path, dir })
    }
}

/// Removes the sockets of plugins that were killed: those of this user where nobody listens any more. What cannot be
/// examined or removed stays.
pub(crate) async fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(SWEEP_LIMIT).flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let dir = entry.path();
            if is_dead(&dir).await && fs::remove_file(dir.join(NAME)).is_ok() {
                let _ = fs::remove_dir(&dir);
            }
        }
    }
}

/// Whether this is a real directory of ours whose socket refuses. Asking the socket, unlike asking for a process id,
/// also gives the right answer across containers that share the directory.
async fn is_dead(dir: &Path) -> bool {
    let socket = dir.join(NAME);
    let ours = |path: &Path| fs::symlink_metadata(path).ok().filter(|m| m.uid() == geteuid().as_raw());
    let is_socket =
        ours(dir).is_some_and(|m| m.is_dir()) && ours(&socket).is_some_and(|m| m.file_type().is_socket());
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
        drop(std::os::unix::net::UnixListener::bind(starting.join(STARTING)).unwrap());

        sweep(parent.path()).await;
        assert!(!dead.exists());
        assert!(live.path.exists());
        assert!(foreign.exists());
        assert!(starting.exists(), "its plugin may be between bind and listen");
    }
}
