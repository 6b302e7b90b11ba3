//! A service of ours that runs until it is stopped.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How much of the log an error repeats, in lines.
const TAIL: usize = 20;

/// A running process, its output appended to a log; killed when dropped.
pub struct Service {
    child: Child,
    program: PathBuf,
    log: PathBuf,
}

impl Service {
    /// Starts `program ARGS`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn spawn<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, program: program.to_owned(), log: log.to_owned() })
    }

    /// Waits until something listens on the Unix socket.
    ///
    /// # Errors
    /// With the end of the log, when the process ends or the socket does not answer in time.
    pub async fn listens_on(&mut self, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + START;
        while UnixStream::connect(socket).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.program.display(), self.log_tail());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen on {}:\n{}",
                    self.program.display(),
                    socket.display(),
                    self.log_tail()
                );
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Its process id.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.child.id().context("it has ended")?.try_into()?))
    }

    /// The processes that it has started and that still run.
    ///
    /// # Errors
    /// It has ended.
    pub fn children(&self) -> Result<Vec<Pid>> {
        let mut children = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()?))? {
            let of_thread = std::fs::read_to_string(thread?.path().join("children"))?;
            for child in of_thread.split_whitespace() {
                children.push(Pid::from_raw(child.parse()?));
            }
        }
        Ok(children)
    }

    /// SIGTERM, and the wait for an orderly end.
    ///
    /// # Errors
    /// It does not end in time, or not with success.
    pub async fn stop(mut self) -> Result<()> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let status = timeout(STOP, self.child.wait()).await.context("SIGTERM does not end it")??;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.program.display(), self.log_tail());
        }
        Ok(())
    }

    /// SIGKILL, and the wait until it is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// What it has logged.
    ///
    /// # Errors
    /// The file's.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    fn log_tail(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
}
