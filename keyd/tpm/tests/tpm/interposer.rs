//! What an attacker on the bus could do: a proxy between keyd and a software TPM that records and meddles.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use peers::swtpm::Swtpm;

/// Command codes (TPM 2.0 Part 2 §6.5.2).
pub const UNSEAL: u32 = 0x15e;
pub const NV_READ: u32 = 0x14e;
pub const QUOTE: u32 = 0x158;
pub const START_AUTH_SESSION: u32 = 0x176;

/// TPM2_PCR_Extend of PCR 16 with a SHA-256 digest (TPM 2.0 Part 3 §22.2), with an empty password.
pub const EXTEND_PCR_16: &str = "80020000004100000182000000100000000940000009000000000000000001000b\
    0707070707070707070707070707070707070707070707070707070707070707";
/// TPM2_Clear by the lockout hierarchy (TPM 2.0 Part 3 §24.6), with an empty password.
pub const CLEAR: &str = "80020000001b000001264000000a00000009400000090000000000";

/// What is done, once, when a command of a certain code passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddle {
    /// The last byte of its answer is changed.
    AlterAnswer(u32),
    /// Another command, in hexadecimal, is sent before it.
    SendBefore(u32, &'static str),
}

/// Serves one client after the other until the test process ends.
pub struct Interposer {
    port: u16,
    bus: Arc<Mutex<Bus>>,
}

#[derive(Default)]
struct Bus {
    seen: Vec<u8>,
    meddle: Option<Meddle>,
}

impl Interposer {
    pub fn before(swtpm: &Swtpm) -> Self {
        let bus = Arc::new(Mutex::new(Bus::default()));
        let (commands, control) = listeners();
        let port = commands.local_addr().unwrap().port();
        let target = swtpm.port();
        let its_bus = Arc::clone(&bus);
        thread::spawn(move || {
            for client in commands.incoming() {
                let tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).unwrap();
                // An end of either side ends this client.
                let _ = relay(client.unwrap(), tpm, &its_bus);
            }
        });
        thread::spawn(move || {
            for client in control.incoming() {
                let tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, target + 1)).unwrap();
                pipe_both(&client.unwrap(), &tpm);
            }
        });
        Self { port, bus }
    }

    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    pub fn meddle(&self, meddle: Meddle) {
        self.bus.lock().unwrap().meddle = Some(meddle);
    }

    /// Whether the meddling was done.
    pub fn has_meddled(&self) -> bool {
        self.bus.lock().unwrap().meddle.is_none()
    }

    /// Whether these bytes crossed the bus, in either direction.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.bus.lock().unwrap().seen.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Neighbouring ports for commands and control.
pub fn listeners() -> (TcpListener, TcpListener) {
    loop {
        let commands = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let next = commands.local_addr().unwrap().port() + 1;
        if let Ok(control) = TcpListener::bind((Ipv4Addr::LOCALHOST, next)) {
            return (commands, control);
        }
    }
}

fn relay(mut client: TcpStream, mut tpm: TcpStream, bus: &Mutex<Bus>) -> io::Result<()> {
    client.set_nodelay(true)?;
    tpm.set_nodelay(true)?;
    loop {
        let command = message(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let meddle = bus.lock().unwrap().meddle;
        if let Some(Meddle::SendBefore(before, other)) = meddle
            && before == code
        {
            bus.lock().unwrap().meddle = None;
            tpm.write_all(&hex::decode(other).unwrap())?;
            assert_eq!(message(&mut tpm)?[6..10], [0; 4], "the TPM took the other command");
        }
        tpm.write_all(&command)?;
        let mut answer = message(&mut tpm)?;
        if meddle == Some(Meddle::AlterAnswer(code)) {
            bus.lock().unwrap().meddle = None;
            *answer.last_mut().unwrap() ^= 1;
        }
        client.write_all(&answer)?;
        bus.lock().unwrap().seen.extend([command, answer].concat());
    }
}

/// A command or an answer: tag, length, code, rest.
fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message)?;
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(length as usize, 0);
    stream.read_exact(&mut message[10..])?;
    Ok(message)
}

fn pipe_both(client: &TcpStream, tpm: &TcpStream) {
    let (mut up, mut down) = (client.try_clone().unwrap(), tpm.try_clone().unwrap());
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client.try_clone().unwrap());
    let mut to_tpm = tpm.try_clone().unwrap();
    let forward = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_tpm);
        let _ = to_tpm.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut down, &mut to_client);
    let _ = up.flush();
    let _ = up.shutdown(Shutdown::Both);
    forward.join().unwrap();
}
