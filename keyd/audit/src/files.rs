//! The files of a log, oldest first, read piece by piece.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::AuditError;
use crate::chain::LINE_LIMIT;

/// Most bytes of one piece; a piece ends with a line.
const CHUNK: u64 = 512 * 1024;
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".log";

/// The files of a log.
#[derive(Clone, Debug)]
pub struct Files {
    /// Number of the first record, and the file.
    list: Vec<(u64, PathBuf)>,
    /// How much of the last one counts, in bytes.
    whole: u64,
}

/// A place between two lines. The default is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the first record of a file.
    pub segment: u64,
    /// Bytes from that file's beginning.
    pub offset: u64,
}

/// Whole lines, and where the next ones begin.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The file that they are in.
    pub path: PathBuf,
    /// Each ends with a newline.
    pub lines: Vec<u8>,
    /// Where to go on.
    pub next: Position,
    /// Whether nothing follows at present.
    pub last: bool,
    /// Bytes of a line that is not whole, at the very end: a write that is under way, or that a crash broke off.
    pub torn: u64,
}

impl Files {
    /// The log in a directory, or one file of a log.
    ///
    /// # Errors
    /// [`AuditError::Missing`] where there is none, [`AuditError::Io`].
    pub fn at(path: &Path) -> Result<Self, AuditError> {
        let missing = || AuditError::Missing { path: path.to_owned() };
        let list = match fs::metadata(path) {
            Ok(found) if found.is_dir() => segments(path)?,
            Ok(_) => vec![(0, path.to_owned())],
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(e) => return Err(io(path, "cannot look at it")(e)),
        };
        if list.is_empty() { Err(missing()) } else { Ok(Self { list, whole: u64::MAX }) }
    }

    pub(crate) fn of(list: Vec<(u64, PathBuf)>, whole: u64) -> Self {
        Self { list, whole }
    }

    /// The lines from `from` on, as many as one piece takes.
    ///
    /// # Errors
    /// [`AuditError::Io`], [`AuditError::Refused`] for what cannot be lines.
    pub fn read(&self, from: Position) -> Result<Chunk, AuditError> {
        let mut rest = self.list.iter().skip_while(|(first, _)| *first < from.segment);
        let Some((first, path)) = rest.next() else {
            let path = self.list.last().map(|(_, path)| path.clone()).unwrap_or_default();
            return Ok(Chunk { path, lines: Vec::new(), next: from, last: true, torn: 0 });
        };
        let offset = if *first == from.segment { from.offset } else { 0 };
        let mut file = File::open(path).map_err(io(path, "cannot open it"))?;
        file.seek(SeekFrom::Start(offset)).map_err(io(path, "cannot read it"))?;
        let after = rest.next();
        let room = if after.is_none() { self.whole.saturating_sub(offset).min(CHUNK) } else { CHUNK };
        let mut lines = Vec::new();
        let read = file.take(room).read_to_end(&mut lines).map_err(io(path, "cannot read it"))? as u64;
        let whole = lines.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (torn, at_end) = (read - whole as u64, read < CHUNK);
        lines.truncate(whole);
        if torn >= LINE_LIMIT as u64 || (torn > 0 && at_end && after.is_some()) {
            let why = format!("from byte {} on it has no lines", offset + whole as u64);
            return Err(AuditError::Refused { path: path.clone(), why });
        }
        let next = match after {
            Some((first, _)) if at_end => Position { segment: *first, offset: 0 },
            _ => Position { segment: *first, offset: offset + whole as u64 },
        };
        let last = at_end && after.is_none();
        Ok(Chunk { path: path.clone(), lines, next, last, torn: if last { torn } else { 0 } })
    }
}

impl Chunk {
    /// The lines, without their ends.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split_inclusive(|b| *b == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
    }
}

/// The files in a directory, oldest first, each with the number of its first record.
pub(crate) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let mut list = Vec::new();
    for entry in fs::read_dir(dir).map_err(io(dir, "cannot list it"))? {
        let path = entry.map_err(io(dir, "cannot list it"))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        list.extend(number.map(|first| (first, path)));
    }
    list.sort_unstable();
    Ok(list)
}

/// The file that begins with this record.
pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{first:012}{SUFFIX}"))
}

pub(crate) fn io(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io { path: path.clone(), what, source }
}
