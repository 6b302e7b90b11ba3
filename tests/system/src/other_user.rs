//! Commands as another local user, with and without being root.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::binary;

/// Runs `keyd ARGS` against the socket in `dir` as a user who owns nothing. As root that is `nobody`; otherwise the
/// first of the subordinate users that /etc/subuid gives this user.
///
/// Program and socket are reached through `dir` as the working directory, since another user may not be let into the
/// directories above it.
///
/// # Errors
/// The user cannot be changed.
pub async fn keyd_as_another_user(dir: &Path, socket: &str, args: &[&str]) -> Result<Output> {
    let program = dir.join("keyd");
    if !program.exists() {
        std::fs::copy(binary("keyd")?, &program)?;
    }
    let (tool, change): (_, &[&str]) = if nix::unistd::geteuid().is_root() {
        ("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
    } else {
        ("unshare", &["--user", "--map-auto", "--setuid=1", "--setgid=1", "--"])
    };
    Command::new(tool)
        .args(change)
        .args(["./keyd", "--socket", socket])
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{tool} of util-linux is needed to become another user"))
}
