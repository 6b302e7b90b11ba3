//! Ports for what wants two neighbouring ones.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// How often a pair that is not free is given up for another.
const ATTEMPTS: u32 = 100;
/// Below the ports that Linux gives to clients, of which a busy machine leaves no two neighbours free.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Two neighbouring loopback ports, taken.
///
/// # Errors
/// There are none.
pub fn neighbours() -> io::Result<(TcpListener, TcpListener)> {
    for _ in 0..ATTEMPTS {
        let first = fastrand::u16(RANGE);
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if let (Ok(first), Ok(second)) = (bind(first), bind(first.saturating_add(1))) {
            return Ok((first, second));
        }
    }
    Err(io::Error::other("no two free neighbouring ports"))
}
