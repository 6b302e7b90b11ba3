//! The process that loads the vendor's module.
//!
//! Its standard input is a socket to keyd. Session threads take turns at reading it, so a call needs no hand-over
//! between threads; the first thread watches for keyd's end, which ends the worker too, whatever the module does.

mod desk;
mod inventory;
mod keys;
mod module;
mod provision;
mod wrap;

use std::io::{self, Write};
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

use crate::wire::{Answer, Opening, Reply, Request, Serve, Task};
use crate::{frame, lock};
use desk::Desk;
use module::Module;

/// Label of the token's AES key that wraps secrets.
pub(crate) const WRAPPING_KEY: &str = "keyd wrapping key";

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
    close_inherited()?;
    let mut socket = take_stdin()?;
    match frame::read::<Opening>(&mut socket)?.and_then(|opening| opening.task) {
        Some(Task::Serve(serve)) => serve_until_hangup(socket, serve),
        Some(Task::Provision(task)) => {
            Replies(Mutex::new(socket)).send(Reply { id: 0, answer: Some(provision::run(&task)) })
        }
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

fn serve_until_hangup(socket: UnixStream, mut serve: Serve) -> io::Result<()> {
    let requests = Arc::new(Mutex::new(socket.try_clone()?));
    let replies = Arc::new(Replies(Mutex::new(socket.try_clone()?)));
    let sessions = serve.sessions;
    let module = Arc::new(Module::new(&mut serve, replies.clone())?);
    drop(serve);
    let (alive, ended) = mpsc::channel::<()>();
    for n in 0..sessions {
        let (requests, replies, module, alive) =
            (requests.clone(), replies.clone(), module.clone(), alive.clone());
        std::thread::Builder::new().name(format!("session-{n}")).spawn(move || {
            // Dropped with the thread.
            let _alive = alive;
            attend(&requests, &replies, Desk::new(module))
        })?;
    }
    drop((alive, module));
    await_hangup(&socket)?;
    if ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
        // A thread is stuck in the module, where no destructor would come through either.
        kill(Pid::this(), Signal::SIGKILL)?;
    }
    Ok(())
}

/// Takes requests until there are no more.
fn attend(requests: &Mutex<UnixStream>, replies: &Replies, mut desk: Desk) -> io::Result<()> {
    loop {
        let next = frame::read::<Request>(&mut *lock(requests))?;
        let Some(Request { id, operation: Some(operation) }) = next else { return Ok(()) };
        replies.send(Reply { id, answer: Some(desk.handle(operation)) })?;
    }
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

// === Replies ===

/// The way back to keyd.
pub(crate) struct Replies(Mutex<UnixStream>);

impl Replies {
    fn send(&self, reply: Reply) -> io::Result<()> {
        let frame = frame::encode(&reply)?;
        lock(&self.0).write_all(&frame)
    }

    /// Tells what nobody asked for. Where keyd has gone, nobody needs to know.
    fn tell(&self, news: Answer) {
        let _ = self.send(Reply { id: 0, answer: Some(news) });
    }
}
