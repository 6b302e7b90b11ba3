//! The commands of spire-server and spire-agent.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::Process;

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(40);

/// Runs `NAME run -config FILE ARGS`, until its health check says yes. It logs to `NAME.log` under `dir`.
pub(super) async fn start(
    name: &str,
    dir: &Path,
    config: &Path,
    args: &[&str],
    socket: &Path,
) -> Result<Process> {
    let mut command = Command::new(binary(name)?);
    command.arg("run").arg("-config").arg(config).args(args);
    let mut process = Process::spawn(&mut command, &dir.join(format!("{name}.log")))?;
    let is_healthy = async || socket.exists() && ask(name, &["healthcheck"], socket).await.is_ok();
    process.until("healthy", is_healthy).await?;
    Ok(process)
}

/// Runs `NAME ARGS -socketPath SOCKET` and gives what it printed.
pub(super) async fn ask(name: &str, args: &[&str], socket: &Path) -> Result<String> {
    let mut command = Command::new(binary(name)?);
    command.args(args).arg("-socketPath").arg(socket);
    run(command).await
}

/// Where a binary of SPIRE's is.
pub(super) fn binary(name: &str) -> Result<PathBuf> {
    let binary = crate::dir().join("spire").join(name);
    ensure!(binary.exists(), "{} is missing; tests/peers/install.sh builds it", binary.display());
    Ok(binary)
}

/// Runs a command to its end and gives what it printed on stdout.
pub(super) async fn run(mut command: Command) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        timeout(COMMAND, command.output()).await.with_context(|| format!("{command:?} hangs"))??;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.success(), "{command:?}: {status}: {text}{}", String::from_utf8_lossy(&stderr));
    Ok(text)
}
