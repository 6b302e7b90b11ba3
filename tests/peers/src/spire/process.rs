//! A SPIRE process that runs until it is stopped, and commands that talk to it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(20);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(40);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How much of the log an error repeats, in lines.
const TAIL: usize = 30;

/// A running process; killed when dropped.
pub(super) struct Process {
    child: Child,
    binary: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) log: PathBuf,
}

impl Process {
    /// Runs `NAME run -config FILE ARGS`, until its health check says yes. Under `dir` it has its temporary files in
    /// `tmp`, and its output is appended to `NAME.log`.
    pub(super) async fn start(
        name: &str,
        dir: &Path,
        config: &Path,
        args: &[&str],
        socket: PathBuf,
    ) -> Result<Self> {
        let binary = binary(name)?;
        let tmp = dir.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        let log = dir.join(name).with_extension("log");
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new(&binary)
            .arg("run")
            .arg("-config")
            .arg(config)
            .args(args)
            .env("TMPDIR", tmp)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        let mut started = Self { child, binary, socket, log };
        started.wait_until_healthy().await?;
        Ok(started)
    }

    async fn wait_until_healthy(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.binary.display(), self.log_tail());
            }
            if self.socket.exists() && self.command(&["healthcheck"]).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not healthy:\n{}", self.binary.display(), self.log_tail());
            }
            sleep(PAUSE).await;
        }
    }

    /// Runs `binary ARGS -socketPath SOCKET` and gives what it printed.
    pub(super) async fn command(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(args).arg("-socketPath").arg(&self.socket);
        run(command).await
    }

    /// SIGTERM, and the wait for an orderly end.
    pub(super) async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid()?)?), Signal::SIGTERM)?;
        let status = timeout(STOP, self.child.wait()).await.context("SIGTERM does not end it")??;
        ensure!(status.success(), "ended with {status}:\n{}", self.log_tail());
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("it has ended")
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
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
