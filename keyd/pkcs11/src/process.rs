//! Starting a worker process.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::config::WorkerCommand;
use crate::error::Error;
use crate::frame;
use crate::wire::{Opening, Task};

/// Starts a worker and tells it its task. The worker's standard input is the other end of the socket; its errors
/// go where keyd's go.
pub(crate) fn start(
    command: &WorkerCommand,
    environment: &BTreeMap<String, String>,
    task: Task,
) -> Result<(Child, UnixStream), Error> {
    let opening = Opening { task: Some(task) };
    spawn(command, environment, &opening)
        .map_err(|source| Error::WorkerNotStarted { program: command.program.clone(), source })
}

fn spawn(
    command: &WorkerCommand,
    environment: &BTreeMap<String, String>,
    opening: &Opening,
) -> io::Result<(Child, UnixStream)> {
    let (mut ours, theirs) = StdUnixStream::pair()?;
    // A few hundred bytes into an empty socket: it cannot block.
    ours.write_all(&frame::encode(opening)?)?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let child = Command::new(&command.program)
        .args(&command.args)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, ours))
}
