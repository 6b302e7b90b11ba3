//! The process that loads the vendor's module.
//!
//! Its standard input is a socket to keyd, over which it gets its task and a socket for each session. A session's
//! thread answers what comes over its own; the first thread watches for keyd's end, which ends the worker too,
//! whatever the module does.

mod decapsulate;
mod desk;
mod dialect;
mod inventory;
mod keys;
mod module;
mod provision;
mod survey;
pub(crate) mod wrap;
mod wrapping_keys;

use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::frame::{self, LENGTH_BYTES};
use crate::lock;
use crate::process::ANCILLARY_ROOM;
use crate::wire::{Answer, Opening, Reply, Request, Serve, Task};
use desk::Desk;
use module::Module;

/// The last of the standard descriptors.
const STDERR: RawFd = 2;

/// How long sessions may take to close once keyd has gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one token until keyd closes the socket that is this process's standard input; the whole of the hidden
/// command `keyd pkcs11-worker`.
///
/// The process can be neither dumped nor traced by its own user, because the PIN and unwrapped seeds pass through.
pub fn run() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent logs the end of the process; why is known here alone.
            let _ = writeln!(io::stderr(), "PKCS#11 worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    // What `ps` and `top` show: the kernel would name it after /proc/self/exe.
    nix::sys::prctl::set_name(c"keyd-pkcs11")?;
    close_inherited()?;
    let mut socket = take_stdin()?;
    let (opening, sessions) = read_opening(&mut socket)?;
    match opening.task {
        Some(Task::Serve(serve)) => serve_until_hangup(socket, serve, sessions),
        Some(Task::Provision(task)) => send(&mut socket, provision::run(&task)),
        Some(Task::Survey(task)) => send(&mut socket, survey::run(task)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "keyd gave no task")),
    }
}

/// Closes every descriptor but the standard ones. Libraries of keyd's open some without O_CLOEXEC (libtss2 its TPM),
/// and those are no business of a vendor's module.
fn close_inherited() -> io::Result<()> {
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > STDERR)
        .collect();
    for number in numbers {
        match nix::unistd::close(number) {
            // The listing's own is closed already.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes the socket, and leaves /dev/null in its place, so that nothing a module starts inherits it.
fn take_stdin() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket
        .peer_addr()
        .map_err(|_| io::Error::other("this command is keyd's own; it is not to be run by hand"))?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

/// The first frame, and the sockets that come with its first bytes.
fn read_opening(socket: &mut UnixStream) -> io::Result<(Opening, Vec<UnixStream>)> {
    let mut prefix = [0; LENGTH_BYTES];
    let mut space = vec![std::mem::MaybeUninit::uninit(); ANCILLARY_ROOM];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        &*socket,
        &mut [IoSliceMut::new(&mut prefix)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    let sessions = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .map(UnixStream::from)
        .collect();
    let opening = frame::read(&mut prefix.get(..got.bytes).unwrap_or_default().chain(socket))?;
    Ok((opening.ok_or(io::ErrorKind::UnexpectedEof)?, sessions))
}

fn serve_until_hangup(control: UnixStream, mut serve: Serve, sessions: Vec<UnixStream>) -> io::Result<()> {
    let module = Arc::new(Module::new(&mut serve, News(Mutex::new(control.try_clone()?)))?);
    drop(serve);
    let (alive, ended) = mpsc::channel::<()>();
    for (n, socket) in sessions.into_iter().enumerate() {
        let (module, alive) = (module.clone(), alive.clone());
        std::thread::Builder::new().name(format!("session-{n}")).spawn(move || {
            // Dropped with the thread.
            let _alive = alive;
            attend(socket, Desk::new(module))
        })?;
    }
    drop((alive, module));
    await_hangup(&control)?;
    if ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
        // A thread is stuck in the module, where no destructor would come through either.
        kill(Pid::this(), Signal::SIGKILL)?;
    }
    Ok(())
}

/// Answers requests until there are no more.
fn attend(mut socket: UnixStream, mut desk: Desk) -> io::Result<()> {
    while let Some(Request { operation: Some(operation) }) = frame::read(&mut socket)? {
        send(&mut socket, desk.handle(operation))?;
    }
    Ok(())
}

fn send(socket: &mut UnixStream, answer: Answer) -> io::Result<()> {
    socket.write_all(&frame::encode(&Reply { answer: Some(answer) })?)
}

/// Returns once the other end of the socket is closed. Data that arrives wakes nobody here.
fn await_hangup(socket: &UnixStream) -> io::Result<()> {
    loop {
        // POLLHUP is always reported, and alone of interest.
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::empty())], PollTimeout::NONE) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

// === News ===

/// What keyd is told without having asked.
pub(crate) struct News(Mutex<UnixStream>);

impl News {
    /// Tells it. Where keyd has gone, nobody needs to know.
    fn tell(&self, news: Answer) {
        let _ = send(&mut lock(&self.0), news);
    }
}
