//! What a server judges by, read from its files anew for each attestation, so that a manifest counts once it is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keyd_attest::{EkRoots, Enrolled, PcrSet, Policy, Verifier};
use keyd_core::{Failure, Reason};
use keyd_unix::{file, off_worker};

/// Largest file of roots or manifests, in bytes.
const FILE_LIMIT: usize = 64 << 20; // 64 MiB
/// Most entries of a directory of manifests.
const ENTRIES: usize = 100_000;

/// Where the policy is.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFiles {
    pub(crate) ek_roots: Option<PathBuf>,
    pub(crate) enrolled: Option<PathBuf>,
    pub(crate) pcrs: PcrSet,
}

impl PolicyFiles {
    /// A verifier by what the files say now.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] for a file that cannot be read, or holds what it should not; never a laxer policy.
    pub(crate) async fn verifier(&self) -> Result<Verifier, Failure> {
        let files = self.clone();
        off_worker(move || files.read()).await
    }

    fn read(&self) -> Result<Verifier, Failure> {
        let ek_roots = self.ek_roots.as_deref().map(read_roots).transpose()?;
        let enrolled = self.enrolled.as_deref().map(read_enrolled).transpose()?;
        Ok(Verifier::new(Policy { ek_roots, enrolled, pcrs: self.pcrs })?)
    }
}

fn read_roots(file: &Path) -> Result<EkRoots, Failure> {
    let pem = file::read(file, FILE_LIMIT).map_err(|e| unreadable("ek_roots", file, &e))?;
    EkRoots::from_pem(&pem)
        .map_err(|e| Failure::new(Reason::BadConfig, format!("{} in {}", e, file.display())))
}

fn read_enrolled(path: &Path) -> Result<Enrolled, Failure> {
    let files = manifest_files(path).map_err(|e| unreadable("enrolled", path, &e))?;
    let text = |file: PathBuf| {
        let text = file::read(&file, FILE_LIMIT)
            .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        let text = text.map_err(|e| unreadable("enrolled", &file, &e))?;
        Ok((file.display().to_string(), text))
    };
    let texts = files.into_iter().map(text).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Enrolled::from_texts(texts)?)
}

/// The file itself, or the `.json` files of a directory.
fn manifest_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for (count, entry) in fs::read_dir(path)?.enumerate() {
        if count >= ENTRIES {
            return Err(io::Error::other(format!("more than {ENTRIES} entries")));
        }
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    // The order decides which of two conflicting manifests is blamed.
    files.sort();
    Ok(files)
}

fn unreadable(key: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Reason::BadConfig, format!("{key} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(node: &str, ek: u8) -> String {
        let (ek, ak) = (hex::encode([ek; 32]), format!("000b{}", "22".repeat(32)));
        format!(
            r#"{{"version": 1, "node": "{node}", "ek_sha256": "{ek}", "ak_name": "{ak}", "manufacturer": "IBM", "firmware_version": "1"}}"#
        )
    }

    #[test]
    fn a_directory_gives_the_json_files_in_it_and_a_file_all_that_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), manifest("a", 1)).unwrap();
        fs::write(dir.path().join("b.json"), manifest("b", 2)).unwrap();
        fs::write(dir.path().join("b.json~"), "an editor's").unwrap();
        let list = dir.path().join("list");
        fs::write(&list, format!("{}\n{}\n", manifest("a", 1), manifest("b", 2))).unwrap();
        let enrolled = read_enrolled(dir.path()).unwrap();
        assert_eq!(enrolled.get(&[1; 32]).unwrap().node, "a");
        assert_eq!(enrolled, read_enrolled(&list).unwrap());
    }

    #[test]
    fn one_file_that_cannot_be_used_makes_the_whole_list_unusable() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), manifest("a", 1)).unwrap();
        for (name, content, cause) in [
            ("broken.json", b"{".as_slice(), "broken.json: EOF"),
            ("latin.json", b"\xe4", "latin.json: incomplete utf-8"),
            ("other.json", manifest("other", 1).as_bytes(), "say different things of the TPM"),
        ] {
            let file = dir.path().join(name);
            fs::write(&file, content).unwrap();
            let failure = read_enrolled(dir.path()).unwrap_err();
            assert_eq!(failure.reason, Reason::BadConfig);
            assert!(failure.message.contains(cause), "{failure}");
            fs::remove_file(file).unwrap();
        }
        fs::create_dir(dir.path().join("dir.json")).unwrap();
        assert!(read_enrolled(dir.path()).unwrap_err().message.contains("dir.json: Is a directory"));
    }
}
