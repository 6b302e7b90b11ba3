//! The store of key records: one redb file, each change durable before it is acknowledged.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyd_core::{Algorithm, Failure, KeyId, Protection, PublicKey, Reason};
use prost::Message;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of records; a store with a higher number is from a newer keyd and is refused.
const SCHEMA: u64 = 1;
/// Longest encoded record, in bytes: a public key, a sealed secret and names.
const RECORD_LIMIT: usize = 16 * 1024;
/// The way out of a store that cannot be read.
const MEND: &str = "If it is damaged, put back a backup of the state directory.";

/// What keyd knows of one key. The private part is where `protection` says; `material` finds or opens it.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The id.
    pub id: KeyId,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The protection that the key really has.
    pub protection: Protection,
    /// 1, and one more at each rotation.
    pub version: u32,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub created_at: i64,
    /// The public key.
    pub public_key: PublicKey,
    /// A token's handle, or the sealed secret.
    pub material: Vec<u8>,
}

/// A [`KeyRecord`] on disk.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    algorithm: String,
    #[prost(string, tag = "2")]
    protection: String,
    #[prost(uint32, tag = "3")]
    version: u32,
    #[prost(int64, tag = "4")]
    created_at: i64,
    #[prost(bytes = "vec", tag = "5")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    material: Vec<u8>,
}

/// The open store. Its methods block on the disk; call them off the async workers.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the store in a directory of mode 0700 that belongs to this user.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`] naming the path: a directory that others may enter, a second keyd, damage.
    pub fn open(state_dir: &Path) -> Result<Self, Failure> {
        prepare(state_dir)?;
        let path = state_dir.join("keys.redb");
        let failed = |why: String| Failure::new(Reason::StoreFailed, format!("{}: {why}", path.display()));
        let database = Database::create(&path).map_err(|e| {
            failed(match e {
                DatabaseError::DatabaseAlreadyOpen => {
                    "another keyd has this store open; two must not share a state directory".to_owned()
                }
                other => format!("cannot open the store: {other}. {MEND}"),
            })
        })?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(|e| failed(format!("cannot make it private: {e}")))?;
        let store = Self { database: Arc::new(database), path };
        store.check_schema()?;
        Ok(store)
    }

    fn check_schema(&self) -> Result<(), Failure> {
        let change = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            let mut meta = change.open_table(META).map_err(|e| self.failed(e))?;
            let found = meta.get("schema").map_err(|e| self.failed(e))?.map(|v| v.value());
            match found {
                Some(SCHEMA) => {}
                None => {
                    meta.insert("schema", SCHEMA).map_err(|e| self.failed(e))?;
                }
                Some(other) => {
                    return Err(self.failed(format!(
                        "its layout is {other}, this keyd knows {SCHEMA}; use the newer keyd"
                    )));
                }
            }
            change.open_table(KEYS).map_err(|e| self.failed(e))?;
        }
        change.commit().map_err(|e| self.failed(e))
    }

    /// Every record.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; one record that cannot be read fails the whole, since nothing may vanish silently.
    pub fn load(&self) -> Result<Vec<KeyRecord>, Failure> {
        let view = self.database.begin_read().map_err(|e| self.failed(e))?;
        let table = view.open_table(KEYS).map_err(|e| self.failed(e))?;
        let mut records = Vec::new();
        for row in table.iter().map_err(|e| self.failed(e))? {
            let (id, value) = row.map_err(|e| self.failed(e))?;
            let record = decode(id.value(), value.value())
                .map_err(|why| self.failed(format!("record of {:?}: {why}. {MEND}", id.value())))?;
            records.push(record);
        }
        Ok(records)
    }

    /// Writes a record, in place of one of the same id; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; the store is then as before.
    pub fn put(&self, record: &KeyRecord) -> Result<(), Failure> {
        let bytes = encode(record);
        let change = self.database.begin_write().map_err(|e| self.failed(e))?;
        change
            .open_table(KEYS)
            .map_err(|e| self.failed(e))?
            .insert(record.id.to_string().as_str(), bytes.as_slice())
            .map_err(|e| self.failed(e))?;
        change.commit().map_err(|e| self.failed(e))
    }

    /// Removes a record; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; the store is then as before.
    pub fn remove(&self, id: &KeyId) -> Result<(), Failure> {
        let change = self.database.begin_write().map_err(|e| self.failed(e))?;
        change
            .open_table(KEYS)
            .map_err(|e| self.failed(e))?
            .remove(id.to_string().as_str())
            .map_err(|e| self.failed(e))?;
        change.commit().map_err(|e| self.failed(e))
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::StoreFailed, format!("{}: {why}", self.path.display()))
    }
}

pub(crate) fn encode(record: &KeyRecord) -> Vec<u8> {
    Stored {
        algorithm: record.algorithm.to_string(),
        protection: record.protection.to_string(),
        version: record.version,
        created_at: record.created_at,
        public_key: record.public_key.spki().to_vec(),
        material: record.material.clone(),
    }
    .encode_to_vec()
}

/// Reads a record; nothing of it is taken on trust.
pub(crate) fn decode(id: &str, bytes: &[u8]) -> Result<KeyRecord, String> {
    if bytes.len() > RECORD_LIMIT {
        return Err(format!("{} bytes, more than {RECORD_LIMIT}", bytes.len()));
    }
    let stored = Stored::decode(bytes).map_err(|e| e.to_string())?;
    let record = KeyRecord {
        id: id.parse().map_err(|e: Failure| e.message)?,
        algorithm: stored.algorithm.parse().map_err(|e: Failure| e.message)?,
        protection: stored.protection.parse().map_err(|e: Failure| e.message)?,
        version: stored.version,
        created_at: stored.created_at,
        public_key: PublicKey::from_spki(&stored.public_key).map_err(|e| e.message)?,
        material: stored.material,
    };
    if record.public_key.algorithm() != record.algorithm || record.version == 0 {
        return Err("its fields contradict each other".to_owned());
    }
    Ok(record)
}

/// Makes the state directory, or refuses one that is not ours alone.
fn prepare(state_dir: &Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Reason::StoreFailed, format!("{}: {why}", state_dir.display()));
    if !state_dir.exists() {
        fs::create_dir_all(state_dir).map_err(|e| failed(format!("cannot make the state directory: {e}")))?;
        fs::set_permissions(state_dir, fs::Permissions::from_mode(0o700))
            .map_err(|e| failed(format!("cannot make it private: {e}")))?;
    }
    let found =
        fs::metadata(state_dir).map_err(|e| failed(format!("cannot look at the state directory: {e}")))?;
    let (mode, us) = (found.mode() & 0o777, nix::unistd::geteuid().as_raw());
    if !found.is_dir() || mode & 0o077 != 0 || found.uid() != us {
        return Err(failed(format!(
            "the state directory must be mode 0700 and belong to user {us}; it is {mode:04o} of user {}. Mend it with chown and chmod.",
            found.uid()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use keyd_softkey::SoftKey;
    use proptest::prelude::*;

    use super::*;

    fn record(name: &str) -> KeyRecord {
        let secret = SoftKey::generate_secret(Algorithm::EcP256).unwrap();
        KeyRecord {
            id: name.parse().unwrap(),
            algorithm: Algorithm::EcP256,
            protection: Protection::Software,
            version: 1,
            created_at: 1,
            public_key: SoftKey::from_secret(Algorithm::EcP256, &secret).unwrap().public_key().clone(),
            material: vec![1, 2, 3],
        }
    }

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn records_are_there_after_reopening() {
        let dir = state();
        let (a, b) = (record("n/a"), record("n/b"));
        {
            let store = Store::open(dir.path()).unwrap();
            store.put(&a).unwrap();
            store.put(&b).unwrap();
            store.remove(&b.id).unwrap();
        }
        let found = Store::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0].id, &found[0].public_key, &found[0].material),
            (&a.id, &a.public_key, &a.material)
        );
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let dir = state();
        let _first = Store::open(dir.path()).unwrap();
        assert!(Store::open(dir.path()).unwrap_err().message.contains("another keyd"));
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let dir = state();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(Store::open(dir.path()).unwrap_err().message.contains("0750"));
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_left_alone() {
        let dir = state();
        fs::write(dir.path().join("keys.redb"), b"not a store").unwrap();
        assert!(Store::open(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join("keys.redb")).unwrap(), b"not a store");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_record_parser_panic(id: String, bytes: Vec<u8>) {
            let _ = decode(&id, &bytes);
        }

        #[test]
        fn a_damaged_record_never_reads_as_another_key(at: usize, bit in 0..8u8) {
            let good = record("n/a");
            let mut bytes = encode(&good);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = decode("n/a", &bytes) {
                prop_assert_eq!(read.public_key.algorithm(), read.algorithm);
            }
        }
    }
}
