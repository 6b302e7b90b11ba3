//! Files, read within a limit and written whole. All of it blocks on the disk.

use std::fs::{self, File, OpenOptions, remove_file, rename};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// Those of the system, and one that names the limit.
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a file of at most `limit` bytes that no other user may read, without copies of it left in memory.
///
/// # Errors
/// Those of the system, and one that names the mode or the limit; never its content.
pub fn read_private(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_closed(path, limit, 0o077)
}

/// Reads a credential that systemd has put there for this service, as [`read_private`] does. Where the file system has
/// access control lists, one entry lets the service's user read it, and shows as the group's right.
///
/// # Errors
/// Those of [`read_private`].
pub fn read_credential(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_closed(path, limit, 0o027)
}

fn read_closed(path: &Path, limit: usize, forbidden: u32) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file; put its content into one of mode 0600"));
    }
    if found.mode() & forbidden != 0 {
        let mode = found.mode() & 0o777;
        return Err(io::Error::other(format!("mode {mode:04o} lets others read it; chmod 0600")));
    }
    let len = usize::try_from(found.len()).ok().filter(|len| *len <= limit);
    let len = len.ok_or_else(|| {
        io::Error::other(format!("it has {} bytes; at most {limit} belong there", found.len()))
    })?;
    // A vector that grows would leave copies, and so would a reader that looks for the end.
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes a new file of this mode, on the disk when it returns; one that is there is left alone.
///
/// # Errors
/// Those of the system. Nothing that is not whole is left then.
pub fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    create(path, mode, bytes)?;
    sync_dir(parent(path))
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(remove_file(path)))
}

/// Writes a file of this mode in place of one that is there, on the disk when it returns: a crash leaves one of both,
/// whole.
///
/// # Errors
/// Those of the system, and one where something else than a file is there. What was there is then as it was.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    // Such as a terminal or a pipe, which a file would take the place of.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("it is no regular file; name one, or a path where nothing is"));
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => create(&new, mode, bytes)?,
    }
    rename(&new, path)?;
    sync_dir(parent(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts on the disk which files a directory holds; that is not part of the files.
///
/// # Errors
/// Those of the system.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it has more than 4 bytes");
    }

    #[test]
    fn what_others_may_read_is_no_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_new(&path, 0o640, b"12345").unwrap();
        assert!(read_private(&path, 5).unwrap_err().to_string().contains("0640"));
        replace(&path, 0o600, b"12345").unwrap();
        assert_eq!(read_private(&path, 5).unwrap(), b"12345");
        assert!(read_private(&path, 4).unwrap_err().to_string().contains("it has 5 bytes"));
        let refused = read_private(dir.path(), 5).unwrap_err().to_string();
        assert_eq!(refused, "it is no regular file; put its content into one of mode 0600");
    }

    #[test]
    fn a_credential_may_show_its_readers_entry_as_the_groups_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for (mode, taken) in [(0o400, true), (0o440, true), (0o444, false), (0o460, false), (0o640, true)] {
            fs::write(&path, b"12345").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_credential(&path, 5).is_ok(), taken, "{mode:04o}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_takes_the_place_of_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for place in [&path, &link] {
            let refused = replace(place, 0o600, b"new").unwrap_err().to_string();
            assert_eq!(refused, "it is no regular file; name one, or a path where nothing is");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_file_replaces_none_and_a_replacement_has_its_own_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_new(&path, 0o644, b"old").unwrap();
        assert_eq!(write_new(&path, 0o600, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // What a crash left.
        fs::write(dir.path().join("f.new"), b"half").unwrap();
        replace(&path, 0o600, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
