//! Processes that run until they are stopped, and what happens to them.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long an orderly end may take.
const STOP: Duration = Duration::from_secs(20);
/// Pause between two looks at a process that starts.
const STARTING: Duration = Duration::from_millis(20);
/// Pause between two looks at one that is being stopped.
const STOPPING: Duration = Duration::from_millis(1);
/// How much of the log an error repeats, in lines.
const TAIL: usize = 30;

/// A running process, its output appended to a log; killed when dropped.
pub struct Process {
    child: Child,
    program: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its temporary files are in `tmp` beside the log.
    ///
    /// # Errors
    /// The kernel's.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let program = PathBuf::from(command.as_std().get_program());
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let tmp = log.with_file_name("tmp");
        std::fs::create_dir_all(&tmp)?;
        let child = command
            .env("TMPDIR", tmp)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, program, log: log.to_owned() })
    }

    /// Waits until it is as `wanted`, which `is_so` tells.
    ///
    /// # Errors
    /// With the end of the log, when the process ends or does not come so far in time.
    pub async fn until(&mut self, wanted: &str, is_so: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        while !is_so().await {
            let program = self.program.display();
            if let Some(status) = self.child.try_wait()? {
                bail!("{program} ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{program} is not {wanted}:\n{}", self.log_tail());
            }
            sleep(STARTING).await;
        }
        Ok(())
    }

    /// Waits until something listens on the Unix socket.
    ///
    /// # Errors
    /// As [`Process::until`].
    pub async fn listens_on(&mut self, socket: &Path) -> Result<()> {
        let wanted = format!("listening on {}", socket.display());
        self.until(&wanted, async || UnixStream::connect(socket).await.is_ok()).await
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

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// Lets none of its files grow beyond so many bytes: for it, a disk that is full. None lifts it.
    ///
    /// # Errors
    /// It has ended, or `prlimit` of util-linux is missing.
    pub async fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let mut prlimit = Command::new("prlimit");
        prlimit.args([format!("--pid={}", self.pid()?), format!("--fsize={limit}:")]);
        ensure!(prlimit.status().await?.success(), "prlimit sets no limit");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(timeout(STOP, self.child.wait()).await.context("it does not end")??)
    }

    /// SIGTERM, and the wait for an orderly end.
    ///
    /// # Errors
    /// It does not end in time, or not with success.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended().await.context("after SIGTERM")?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.program.display(), self.log_tail());
        Ok(())
    }

    /// SIGKILL, and the wait until it is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// What it has logged, over all starts with this log.
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

/// Whether it can be dumped, and traced by its own user, who must not be root: the kernel gives the files in /proc of one
/// that cannot be to root.
///
/// # Errors
/// It has ended.
pub fn can_be_dumped(process: Pid) -> std::io::Result<bool> {
    Ok(std::fs::metadata(format!("/proc/{process}/mem"))?.uid() != 0)
}

/// The words of a command that runs a program as a user who is not root. Where this user is root, it is a copy in `dir`,
/// and nobody owns that directory with all that is in it.
///
/// # Errors
/// The copy's, or `chown` fails.
pub fn without_root(program: &Path, dir: &Path) -> Result<Vec<OsString>> {
    if !geteuid().is_root() {
        return Ok(vec![program.into()]);
    }
    let copy = dir.join("program");
    std::fs::copy(program, &copy)?;
    let chown = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(dir).status()?;
    ensure!(chown.success(), "chown: {chown}");
    let change = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    Ok(change.map(OsString::from).into_iter().chain([copy.into()]).collect())
}

/// Stops a process, as if it hung. It has stopped once each of its threads has.
///
/// # Errors
/// It has ended.
pub async fn freeze(process: Pid) -> std::io::Result<()> {
    kill(process, Signal::SIGSTOP)?;
    while runs(process)? {
        sleep(STOPPING).await;
    }
    Ok(())
}

fn runs(process: Pid) -> std::io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        if !status.contains("State:\tT") {
            return Ok(true);
        }
    }
    Ok(false)
}
