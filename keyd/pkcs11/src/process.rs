//! Starting a worker process.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::config::{SESSIONS_LIMIT, WorkerCommand};
use crate::error::Error;
use crate::frame;
use crate::wire::{Opening, Task};

/// A worker process and keyd's ends of its sockets.
pub(crate) struct Worker {
    /// The process; killed when dropped.
    pub child: Child,
    /// Its standard input. It brings news that nobody asked for, and tells of the worker's end.
    pub control: UnixStream,
    /// One for each session.
    pub sessions: Vec<UnixStream>,
}

/// Starts a worker with as many sessions as that, and tells it its task. Its errors go where keyd's go.
pub(crate) fn start(
    command: &WorkerCommand,
    environment: &BTreeMap<String, String>,
    task: Task,
    sessions: usize,
) -> Result<Worker, Error> {
    let opening = Opening { task: Some(task) };
    spawn(command, environment, &opening, sessions)
        .map_err(|source| Error::WorkerNotStarted { program: command.program.clone(), source })
}

fn spawn(
    command: &WorkerCommand,
    environment: &BTreeMap<String, String>,
    opening: &Opening,
    sessions: usize,
) -> io::Result<Worker> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let pairs = (0..sessions).map(|_| StdUnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    let (sessions, handed): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    send_opening(&ours, opening, &handed)?;
    let child = Command::new(&command.program)
        .args(&command.args)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let asynchronous = |socket: StdUnixStream| {
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    Ok(Worker {
        child,
        control: asynchronous(ours)?,
        sessions: sessions.into_iter().map(asynchronous).collect::<io::Result<_>>()?,
    })
}

/// A few hundred bytes into an empty socket: it neither blocks nor takes a part.
fn send_opening(socket: &StdUnixStream, opening: &Opening, sessions: &[StdUnixStream]) -> io::Result<()> {
    let frame = frame::encode(opening)?;
    let descriptors: Vec<_> = sessions.iter().map(AsFd::as_fd).collect();
    let mut space = vec![std::mem::MaybeUninit::uninit(); ANCILLARY_ROOM];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many sessions for one worker"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Bytes that the descriptors of the most sessions take in a message.
pub(crate) const ANCILLARY_ROOM: usize = rustix::cmsg_space!(ScmRights(SESSIONS_LIMIT));
