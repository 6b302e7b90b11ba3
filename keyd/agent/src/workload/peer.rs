//! The process at the other end of a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

/// The process that opened a connection, as the kernel remembers it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Effective user id at the time of connect.
    pub uid: u32,
    /// Effective group id at the time of connect.
    pub gid: u32,
    /// The process, where the kernel can hand it over without a race (SO_PEERPIDFD, Linux 6.5).
    pub process: Option<Arc<Process>>,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

impl Peer {
    /// Whether this kernel hands over processes without a race.
    pub fn processes_are_certain() -> bool {
        let own = UnixStream::pair().and_then(|(stream, _)| Self::of(&stream));
        own.is_ok_and(|peer| peer.process.is_some())
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        let pid = cred.pid().filter(|pid| *pid > 0);
        let pidfd = getsockopt(stream, sockopt::PeerPidfd);
        let process = pid.zip(pidfd.ok()).map(|(pid, pidfd)| Arc::new(Process { pid, pidfd }));
        Ok(Self { uid: cred.uid(), gid: cred.gid(), process })
    }
}

impl Process {
    /// Runs `look`, which may read `/proc/PID`. The number belongs to this process for as long as it lives: what was
    /// seen counts only if it lives afterwards.
    ///
    /// # Errors
    /// Those of `look`; the process has ended.
    pub fn look<T>(&self, look: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let seen = look(Path::new(&format!("/proc/{}", self.pid)))?;
        match self.ended()? {
            false => Ok(seen),
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended")),
        }
    }

    /// Its number, for messages alone.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A pidfd can be read once its process has ended (pidfd_open(2)).
    fn ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? != 0)
    }
}
