//! What the kernel says of a process in its `/proc/PID`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

/// Longest `/proc/PID/status`, in bytes; a process may be in 65,536 groups.
const STATUS_LIMIT: u64 = 1 << 20; // 1 MiB
/// Largest program that is hashed, in bytes.
const PROGRAM_LIMIT: u64 = 1 << 30; // 1 GiB
/// How much of a program is read at a time, in bytes.
const BLOCK: usize = 1 << 17; // 128 KiB

/// The supplementary groups.
///
/// # Errors
/// The kernel's, and for a file of another form.
pub fn supplementary_groups(process: &Path) -> io::Result<Vec<u32>> {
    let mut text = String::new();
    File::open(process.join("status"))?.take(STATUS_LIMIT).read_to_string(&mut text)?;
    groups(&text)
}

pub(crate) fn groups(status: &str) -> io::Result<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups = line.ok_or_else(|| io::Error::other("the kernel lists no groups"))?.split_whitespace();
    groups.map(|gid| gid.parse().map_err(io::Error::other)).collect()
}

/// The path of the program. The link alone does not count: in a mount namespace of its own a process can have any file
/// under any name. So the agent must find the same file under that path itself.
///
/// # Errors
/// The kernel's, and for another file or a path that is not UTF-8.
pub fn program_path(process: &Path) -> io::Result<String> {
    let link = process.join("exe");
    let path = fs::read_link(&link)?;
    let (running, found) = (fs::metadata(&link)?, fs::metadata(&path)?);
    if (running.dev(), running.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other(format!("{} is another file here", path.display())));
    }
    path.into_os_string().into_string().map_err(|_| io::Error::other("its program's path is not UTF-8"))
}

/// SHA-256 of the program, hexadecimal. The kernel lets nobody write to a program that runs (ETXTBSY).
///
/// # Errors
/// The kernel's, and for a program that is too large.
pub fn program_sha256(process: &Path) -> io::Result<String> {
    let file = File::open(process.join("exe"))?;
    if file.metadata()?.len() > PROGRAM_LIMIT {
        return Err(io::Error::other(format!("its program has more than {PROGRAM_LIMIT} bytes")));
    }
    let mut rest = file.take(PROGRAM_LIMIT);
    let mut hash = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    loop {
        match rest.read(&mut block)? {
            0 => return Ok(hex::encode(hash.finish())),
            read => hash.update(block.get(..read).unwrap_or_default()),
        }
    }
}
