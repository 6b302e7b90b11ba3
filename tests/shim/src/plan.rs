//! The directory through which a test steers the shim in a worker: a file of a function's name holds its [`Fault`], and
//! beside it one byte is kept for each call, so that the count outlives the workers.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// Names the directory to the shim.
pub(crate) const DIRECTORY: &str = "FAULT_SHIM_DIR";
/// Names the real module to the shim.
pub(crate) const MODULE: &str = "FAULT_SHIM_MODULE";

/// The faults of one token.
#[derive(Clone, Debug)]
pub struct Faults {
    dir: PathBuf,
}

impl Faults {
    /// None yet. `dir` is made unless it is there.
    ///
    /// # Errors
    /// The directory's.
    pub fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// What a worker needs in its environment beside the real module's own.
    pub fn environment(&self, real_module: &Path) -> [(String, String); 2] {
        [
            (DIRECTORY.to_owned(), self.dir.display().to_string()),
            (MODULE.to_owned(), real_module.display().to_string()),
        ]
    }

    /// Gives `function`, such as `C_Sign`, this fault in place of an earlier one, and counts its calls from zero.
    ///
    /// # Errors
    /// The directory's.
    pub fn inject(&self, function: &str, fault: Fault) -> io::Result<()> {
        let new = self.dir.join(format!("{function}.new"));
        fs::write(&new, fault.to_string())?;
        remove(&counter(&self.dir, function))?;
        fs::rename(new, self.dir.join(function))
    }

    /// Takes the fault of `function` away, if it has one.
    ///
    /// # Errors
    /// The directory's.
    pub fn lift(&self, function: &str) -> io::Result<()> {
        remove(&self.dir.join(function))?;
        remove(&counter(&self.dir, function))
    }

    /// How often `function` was called since its fault was injected.
    ///
    /// # Errors
    /// The directory's.
    pub fn calls(&self, function: &str) -> io::Result<u64> {
        match fs::metadata(counter(&self.dir, function)) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// The fault that this call of `function` has, in the shim. What cannot be read is no fault.
pub(crate) fn next(function: &str) -> Option<Fault> {
    let dir = PathBuf::from(std::env::var_os(DIRECTORY)?);
    let fault: Fault = fs::read_to_string(dir.join(function)).ok()?.parse().ok()?;
    let count = count(&counter(&dir, function)).ok()?;
    fault.strikes(count).then_some(fault)
}

/// Adds a byte, and gives how many there are. The kernel orders appends of several processes.
fn count(file: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(b".")?;
    file.stream_position()
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn counter(dir: &Path, function: &str) -> PathBuf {
    dir.join(format!("{function}.calls"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Action;

    #[test]
    fn calls_are_counted_from_the_injection() {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::new(dir.path()).unwrap();
        for _ in 0..2 {
            faults.inject("C_Sign", Fault::always(Action::Pass)).unwrap();
            assert_eq!(faults.calls("C_Sign").unwrap(), 0);
            let file = counter(dir.path(), "C_Sign");
            assert_eq!((count(&file).unwrap(), count(&file).unwrap()), (1, 2));
            assert_eq!(faults.calls("C_Sign").unwrap(), 2);
        }
        faults.lift("C_Sign").unwrap();
        faults.lift("C_Sign").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
