//! The log that is being written. Everything here blocks on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::chain::{self, Hash, Head};
use crate::files::{self, Files, Position, io};
use crate::{AuditError, Base64, Draft, Event, Origin, Report, Verifier};

/// How long a file may grow before the next one begins, in bytes.
pub const SEGMENT_LIMIT: u64 = 16 << 20; // 16 MiB
/// How much of a file's end is read to find its last whole line, in bytes: enough for a line; and, where a power cut left no
/// line of all that was written together, for that.
const END: [u64; 2] = [64 << 10, 32 << 20]; // 64 KiB, 32 MiB

/// An open log.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    limit: u64,
    audit_key: Option<Vec<u8>>,
    head: Head,
    signed_through: u64,
    blank: bool,
    /// None before the first record, and after a failure that left the file in an unknown state.
    open: Option<Open>,
    /// Why nothing can be written any more.
    lost: Option<String>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// How much of it is known to be durable, in bytes.
    durable: u64,
}

/// What a crash left of a last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// How long it was, in bytes.
    pub bytes: u64,
    /// SHA-384 of it.
    pub sha384: Hash,
}

impl Log {
    /// Opens the log in a directory, or begins one there. What is newer than `anchor`, a record known from elsewhere, is
    /// verified, and at least the newest file. A last line that is not whole is cut off and told.
    ///
    /// # Errors
    /// [`AuditError::Broken`] when it does not hold, or does not go as far as `anchor`; [`AuditError::Io`].
    pub fn open(dir: &Path, limit: u64, anchor: Option<Head>) -> Result<(Self, Option<Torn>), AuditError> {
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir, "cannot make it"))?;
        }
        let mut found = files::segments(dir)?;
        // What a crash left: the end of the last file that has a whole line, and files without one, which were about to
        // follow it.
        let mut ends = Vec::new();
        while let Some((_, path)) = found.last() {
            let end = End::of(path)?;
            let whole = end.whole;
            ends.push(end);
            if whole > 0 {
                break;
            }
            found.pop();
        }
        let whole = ends.last().map_or(0, |end| end.whole);
        let known = anchor.map_or(u64::MAX, |anchor| anchor.seq);
        let from = found.iter().rposition(|(first, _)| *first <= known).unwrap_or_default();
        let (report, blank) = verify(dir, found.get(from..).unwrap_or_default(), whole, anchor)?;
        // Only what follows a log that holds is a crash's. Of one that does not, all stays as it is found.
        for end in &ends {
            end.cut_off()?;
        }
        let torn = ends.into_iter().find_map(|end| end.torn);
        let blank = blank && report.first <= 1;
        let open = match found.pop() {
            None => None,
            Some((_, path)) => {
                let file =
                    OpenOptions::new().append(true).open(&path).map_err(io(&path, "cannot open it"))?;
                let durable = file.metadata().map_err(io(&path, "cannot look at it"))?.len();
                Some(Open { path, file, durable })
            }
        };
        let audit_key = report.audit_key.map(|key| key.spki().to_vec());
        let (head, signed_through) = (report.last, report.signed_through);
        let log =
            Self { dir: dir.to_owned(), limit, audit_key, head, signed_through, blank, open, lost: None };
        Ok((log, torn))
    }

    /// The last record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The last record that a checkpoint covers, as far as the log was verified; 0 for none.
    pub fn signed_through(&self) -> u64 {
        self.signed_through
    }

    /// The audit key that the log has named, DER SubjectPublicKeyInfo.
    pub fn audit_key(&self) -> Option<&[u8]> {
        self.audit_key.as_deref()
    }

    /// Whether it tells of nothing but starts and stops.
    pub fn is_blank(&self) -> bool {
        self.blank
    }

    /// Appends records; they are durable when it returns. All of them, or none.
    ///
    /// # Errors
    /// [`AuditError::Io`] (a full disk), and the log is then as before; [`AuditError::Refused`] for a record that is too
    /// long, or once the log could not be put back as it was.
    pub fn append(&mut self, time: i64, drafts: &[Draft]) -> Result<Head, AuditError> {
        if let Some(why) = &self.lost {
            return Err(AuditError::Refused { path: self.dir.clone(), why: why.clone() });
        }
        let mut open = match self.open.take() {
            Some(open) if open.durable < self.limit => open,
            _ => self.begin_file(time)?,
        };
        let (mut head, mut lines) = (self.head, Vec::new());
        for draft in drafts {
            if let Err(why) = head.append(time, draft, &mut lines) {
                let path = open.path.clone();
                self.open = Some(open);
                return Err(AuditError::Refused { path, why });
            }
        }
        let written = open.file.write_all(&lines).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.durable += lines.len() as u64;
                self.head = head;
                for draft in drafts {
                    self.blank &= draft.event.is_start_or_stop();
                    match &draft.event {
                        Event::AuditKey { audit_key, .. } => self.audit_key = Some(audit_key.0.clone()),
                        Event::Checkpoint { through, .. } => self.signed_through = *through,
                        _ => {}
                    }
                }
                self.open = Some(open);
                Ok(head)
            }
            Err(error) => {
                let failed = io(&open.path, "cannot write it")(error);
                // What was half written must not stand before what comes next.
                match open.file.set_len(open.durable).and_then(|()| open.file.sync_all()) {
                    Ok(()) => self.open = Some(open),
                    Err(error) => {
                        let why = format!("half a record could not be taken back: {error}; restart keyd");
                        self.lost = Some(why);
                    }
                }
                Err(failed)
            }
        }
    }

    /// Begins the next file with a record of its own, durably.
    fn begin_file(&mut self, time: i64) -> Result<Open, AuditError> {
        let event =
            Event::Segment { previous: self.head.hash, audit_key: self.audit_key.clone().map(Base64) };
        let (mut head, mut line) = (self.head, Vec::new());
        let path = files::segment_path(&self.dir, head.seq.saturating_add(1));
        head.append(time, &Draft::done(Origin::KEYD, event), &mut line)
            .map_err(|why| AuditError::Refused { path: path.clone(), why })?;
        let begin = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.set_len(0)?;
            file.write_all(&line)?;
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
            if self.head == Head::START {
                // The directory is as new as the file.
                File::open(self.dir.join(".."))?.sync_all()?;
            }
            Ok(file)
        };
        match begin() {
            Ok(file) => {
                self.head = head;
                Ok(Open { path, file, durable: line.len() as u64 })
            }
            Err(error) => {
                // The next try begins it again, and a start without it takes the file before.
                let _ = fs::remove_file(&path);
                Err(io(&path, "cannot begin it")(error))
            }
        }
    }
}

/// Verifies these files, one after the other, the last one up to `whole` bytes; also gives whether they tell of nothing
/// but starts and stops.
fn verify(
    dir: &Path,
    files: &[(u64, PathBuf)],
    whole: u64,
    anchor: Option<Head>,
) -> Result<(Report, bool), AuditError> {
    let (mut verifier, mut blank) = (Verifier::new(None).expecting(anchor), true);
    let files = Files::of(files.to_vec(), whole);
    let mut position = Position::default();
    loop {
        let chunk = files.read(position)?;
        let broken = |broken| AuditError::Broken { path: chunk.path.clone(), broken };
        for line in chunk.lines() {
            let record = verifier.take(line).map_err(broken)?;
            blank &= matches!(record.event, Event::Segment { .. }) || record.event.is_start_or_stop();
        }
        if chunk.last {
            let path = if chunk.path.as_os_str().is_empty() { dir.to_owned() } else { chunk.path };
            let report = verifier.finish().map_err(|broken| AuditError::Broken { path, broken })?;
            return Ok((report, blank));
        }
        position = chunk.next;
    }
}

// === impl End ===

/// How a file ends.
struct End {
    path: PathBuf,
    /// Length up to the last newline, in bytes.
    whole: u64,
    /// What follows it.
    torn: Option<Torn>,
}

impl End {
    fn of(path: &Path) -> Result<Self, AuditError> {
        let mut file = File::open(path).map_err(io(path, "cannot open it"))?;
        let (length, tail) = tail(&mut file).map_err(io(path, "cannot read it"))?;
        let tail = tail.ok_or_else(|| {
            let why =
                "no record ends in its last 32 MiB: it is damaged, or no log of keyd's; put back a backup of it";
            AuditError::Refused { path: path.to_owned(), why: why.to_owned() }
        })?;
        let bytes = tail.len() as u64;
        let torn = (bytes > 0).then(|| Torn { bytes, sha384: chain::hash(&[&tail]) });
        Ok(Self { path: path.to_owned(), whole: length.saturating_sub(bytes), torn })
    }

    /// Takes off what follows the last newline, and the file where nothing is before it.
    fn cut_off(&self) -> Result<(), AuditError> {
        let Self { path, whole, torn } = self;
        if *whole == 0 {
            return fs::remove_file(path).map_err(io(path, "cannot remove it"));
        }
        if torn.is_none() {
            return Ok(());
        }
        let cut = |file: File| file.set_len(*whole).and_then(|()| file.sync_all());
        let open = OpenOptions::new().write(true).open(path);
        open.and_then(cut).map_err(io(path, "cannot cut its torn end off"))
    }
}

/// How long a file is, and what follows its last newline; none where that is too long.
fn tail(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let length = file.metadata()?.len();
    for end in END {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(length.saturating_sub(end)))?;
        file.take(end).read_to_end(&mut bytes)?;
        let newline = bytes.iter().rposition(|b| *b == b'\n');
        if newline.is_some() || length <= end {
            return Ok((length, Some(bytes.split_off(newline.map_or(0, |at| at + 1)))));
        }
    }
    Ok((length, None))
}
