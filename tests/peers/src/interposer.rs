//! What stands between keyd and a software TPM: it records what crosses the bus, and meddles, as an attacker on the bus or
//! a failing chip would.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::ports::neighbours;
use crate::swtpm::Swtpm;

/// TPM2_NV_Increment (TPM 2.0 Part 2 §6.5.2).
pub const NV_INCREMENT: u32 = 0x134;
/// TPM2_NV_Read.
pub const NV_READ: u32 = 0x14e;
/// TPM2_Quote.
pub const QUOTE: u32 = 0x158;
/// TPM2_Unseal.
pub const UNSEAL: u32 = 0x15e;
/// TPM2_StartAuthSession.
pub const START_AUTH_SESSION: u32 = 0x176;

/// TPM2_PCR_Extend of PCR 16 with a SHA-256 digest (TPM 2.0 Part 3 §22.2), with an empty password.
pub const EXTEND_PCR_16: &str = "80020000004100000182000000100000000940000009000000000000000001000b\
    0707070707070707070707070707070707070707070707070707070707070707";
/// TPM2_Clear by the lockout hierarchy (TPM 2.0 Part 3 §24.6), with an empty password.
pub const CLEAR: &str = "80020000001b000001264000000a00000009400000090000000000";

/// Bytes of a command's or answer's tag, length and code.
const HEADER_LEN: usize = 10;
/// Longest command or answer taken, in bytes; a software TPM has 4096.
const MESSAGE_LIMIT: usize = 8192;

/// What is done, once, when a command of a certain code passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meddle {
    /// The last byte of its answer is changed.
    AlterAnswer(u32),
    /// Another command, in hexadecimal, is sent before it.
    SendBefore(u32, &'static str),
    /// It does not reach the TPM: the connection ends.
    CloseBefore(u32),
    /// The TPM does it, and the connection ends before the answer.
    CloseAfter(u32),
    /// The TPM does it, and the answer never comes; the connection stays until [`Interposer::hang_up`].
    Swallow(u32),
    /// The answer comes later.
    Delay(u32, Duration),
    /// These bytes come instead of the answer, and then the connection ends.
    Answer(u32, Vec<u8>),
}

/// Serves one client after the other until the test process ends.
pub struct Interposer {
    port: u16,
    bus: Arc<Mutex<Bus>>,
}

#[derive(Default)]
struct Bus {
    seen: Vec<u8>,
    codes: Vec<u32>,
    meddle: Option<Meddle>,
    client: Option<TcpStream>,
}

impl Interposer {
    /// Listens, and hands on to this TPM.
    ///
    /// # Errors
    /// No two neighbouring ports are free.
    pub fn before(swtpm: &Swtpm) -> io::Result<Self> {
        let bus = Arc::new(Mutex::new(Bus::default()));
        let (commands, control) = neighbours()?;
        let port = commands.local_addr()?.port();
        let (target, its_bus) = (swtpm.port(), Arc::clone(&bus));
        thread::spawn(move || {
            // An end of either side ends this client.
            for client in commands.incoming().flatten() {
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, target))
                    .and_then(|tpm| relay(client, tpm, &its_bus));
            }
        });
        thread::spawn(move || {
            for client in control.incoming().flatten() {
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, target.saturating_add(1)))
                    .and_then(|tpm| pipe_both(&client, &tpm));
            }
        });
        Ok(Self { port, bus })
    }

    /// The TCTI, as `swtpm:host=127.0.0.1,port=2321`.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Has the next command of the code meddled with.
    pub fn meddle(&self, meddle: Meddle) {
        lock(&self.bus).meddle = Some(meddle);
    }

    /// Whether the meddling was done.
    pub fn has_meddled(&self) -> bool {
        lock(&self.bus).meddle.is_none()
    }

    /// Whether these bytes crossed the bus, in either direction.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        lock(&self.bus).seen.windows(bytes.len()).any(|window| window == bytes)
    }

    /// How many commands of this code passed.
    pub fn count(&self, code: u32) -> usize {
        lock(&self.bus).codes.iter().filter(|seen| **seen == code).count()
    }

    /// Ends the connection of the client that there is.
    pub fn hang_up(&self) {
        if let Some(client) = lock(&self.bus).client.take() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

fn relay(mut client: TcpStream, mut tpm: TcpStream, bus: &Mutex<Bus>) -> io::Result<()> {
    client.set_nodelay(true)?;
    tpm.set_nodelay(true)?;
    lock(bus).client = Some(client.try_clone()?);
    loop {
        let command = message(&mut client)?;
        let code = code(&command);
        lock(bus).codes.push(code);
        let meddle = meant_for(bus, code);
        match &meddle {
            Some(Meddle::SendBefore(_, other)) => {
                let other = hex::decode(other).map_err(io::Error::other)?;
                tpm.write_all(&other)?;
                let answer = message(&mut tpm)?;
                assert_eq!(self::code(&answer), 0, "the TPM took the other command");
            }
            Some(Meddle::CloseBefore(_)) => return client.shutdown(Shutdown::Both),
            _ => {}
        }
        tpm.write_all(&command)?;
        let mut answer = message(&mut tpm)?;
        match meddle {
            Some(Meddle::AlterAnswer(_)) => {
                if let Some(last) = answer.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Meddle::CloseAfter(_)) => return client.shutdown(Shutdown::Both),
            Some(Meddle::Swallow(_)) => {
                // The client waits, and sends nothing more: this returns when the connection ends.
                let _ = client.read(&mut [0; 1]);
                return Ok(());
            }
            Some(Meddle::Delay(_, by)) => pause(by),
            Some(Meddle::Answer(_, garbage)) => {
                client.write_all(&garbage)?;
                return client.shutdown(Shutdown::Both);
            }
            _ => {}
        }
        client.write_all(&answer)?;
        lock(bus).seen.extend([command, answer].concat());
    }
}

/// The meddling for a command of this code, which is then done.
fn meant_for(bus: &Mutex<Bus>, code: u32) -> Option<Meddle> {
    let meddle = &mut lock(bus).meddle;
    let wanted = match meddle.as_ref()? {
        Meddle::AlterAnswer(wanted)
        | Meddle::SendBefore(wanted, _)
        | Meddle::CloseBefore(wanted)
        | Meddle::CloseAfter(wanted)
        | Meddle::Swallow(wanted)
        | Meddle::Delay(wanted, _)
        | Meddle::Answer(wanted, _) => *wanted,
    };
    if wanted == code { meddle.take() } else { None }
}

fn code(message: &[u8]) -> u32 {
    message.get(6..).and_then(|rest| rest.first_chunk()).map_or(0, |code| u32::from_be_bytes(*code))
}

/// A command or an answer: tag, length, code, rest.
fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let [_, _, a, b, c, d, ..] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(io::Error::other)?;
    let rest = length.checked_sub(HEADER_LEN).filter(|_| length <= MESSAGE_LIMIT);
    let mut body = vec![0; rest.ok_or_else(|| io::Error::other("a message of an impossible length"))?];
    stream.read_exact(&mut body)?;
    Ok([&header[..], &body].concat())
}

fn pipe_both(client: &TcpStream, tpm: &TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_tpm) = (client.try_clone()?, tpm.try_clone()?);
    let (mut from_tpm, mut to_client) = (tpm.try_clone()?, client.try_clone()?);
    let forward = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_tpm);
        let _ = to_tpm.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut from_tpm, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    forward.join().map_err(|_| io::Error::other("the other direction panicked"))
}

fn lock(bus: &Mutex<Bus>) -> MutexGuard<'_, Bus> {
    bus.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::disallowed_methods, reason = "it serves on a thread of its own")]
fn pause(by: Duration) {
    thread::sleep(by);
}
