//! The store of key records: one redb file, each change durable before it is acknowledged.

mod audit_anchor;
#[cfg(test)]
mod power_cut;
mod record;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyd_core::{Failure, KeyId, Reason, Secret};
use keyd_unix::file;
use nix::unistd::User;
use redb::{Database, DatabaseError, Error, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

pub use record::KeyRecord;
pub(crate) use record::{decode, encode};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;
/// A table, a key in it, and the value that it shall have; none to take it away.
type Row<'a> = (Table, &'a str, Option<&'a [u8]>);

const KEYS: Table = TableDefinition::new("keys");
/// The TPM's counter that the store is bound to, in its one row.
const BINDING: Table = TableDefinition::new("binding");
const COUNTER: &str = "counter";
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of records; a store with a higher number is from a newer keyd and is refused.
const SCHEMA: u64 = 1;
/// 1 in [`META`] while a keyd has the store open.
const IN_USE: &str = "in use";
/// Memory for pages that redb keeps, in bytes; keyd itself holds every record.
const CACHE: usize = 4 << 20; // 4 MiB
/// What a full disk means.
const FULL: &str = "the disk is full. Nothing was changed, and existing keys go on signing; free some space, or raise the limit \
                    on the size of files, and try again";
/// The way out of a store that cannot be read.
const MEND: &str = "If it is damaged, put back a backup of the state directory.";

/// The open store. Its methods block on the disk; call them off the async workers.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    database: Mutex<Slot>,
}

/// redb takes no change after one that the disk refused, until it is opened anew.
enum Slot {
    Open(Database),
    Broken,
    Closed,
}

impl Store {
    /// Opens or makes the store in a directory of mode 0700 that belongs to this user. Every page of it is checked.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`] naming the path: a directory that others may enter, a second keyd, damage.
    pub fn open(state_dir: &Path) -> Result<Self, Failure> {
        let directories = prepare(state_dir)?;
        let path = state_dir.join("keys.redb");
        let failed = |why: String| failed(&path, why);
        let database = open(&path).map_err(|e| failed(refused_to_open(&e)))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(|e| failed(format!("cannot make it private: {e}")))?;
        sync_entries(&directories).map_err(|e| failed(format!("cannot sync its directory: {e}")))?;
        if take_up(&database).map_err(|why| failed(why.into_sentence()))? {
            tracing::warn!(store = %path.display(), "the store was not closed in order; it was checked and is whole");
        }
        Ok(Self { shared: Arc::new(Shared { path, database: Mutex::new(Slot::Open(database)) }) })
    }

    /// Every record.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; one record that cannot be read fails the whole, since nothing may vanish silently.
    pub fn load(&self) -> Result<Vec<KeyRecord>, Failure> {
        let mut slot = self.slot();
        let rows = rows(self.database(&mut slot)?).map_err(|e| self.failed(e))?;
        let decoded = rows.into_iter().map(|(id, value)| {
            decode(&id, value.expose()).map_err(|why| self.failed(format!("record of {id:?}: {why}. {MEND}")))
        });
        decoded.collect()
    }

    /// Writes a record in place of one of the same id, or takes it away, and with it what binds the store; durable when it
    /// returns. Gives the bytes of the record that was there.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; the store is then as before.
    pub fn change(
        &self,
        id: &KeyId,
        record: Option<&[u8]>,
        binding: Option<&[u8]>,
    ) -> Result<Option<Secret>, Failure> {
        let id = id.to_string();
        let mut slot = self.slot();
        let before = read(self.database(&mut slot)?, KEYS, &id).map_err(|e| self.failed(e))?;
        let mut rows = vec![(KEYS, id.as_str(), record)];
        rows.extend(binding.map(|binding| (BINDING, COUNTER, Some(binding))));
        self.set(&mut slot, &rows).map(|()| before)
    }

    /// What binds the store; none where nothing does.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`].
    pub fn binding(&self) -> Result<Option<Secret>, Failure> {
        let mut slot = self.slot();
        read(self.database(&mut slot)?, BINDING, COUNTER).map_err(|e| self.failed(e))
    }

    /// Replaces what binds the store; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; the store is then as before.
    pub fn bind(&self, binding: &[u8]) -> Result<(), Failure> {
        self.set(&mut self.slot(), &[(BINDING, COUNTER, Some(binding))])
    }

    /// Writes down that all is well, so that the next start need not mend anything. No change is taken afterwards.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; nothing that was acknowledged is lost by that.
    pub fn close(&self) -> Result<(), Failure> {
        match std::mem::replace(&mut *self.slot(), Slot::Closed) {
            Slot::Open(database) => {
                lay_down(&database).map_err(|e| self.failed(refused_by_disk(&e)))?;
                database.close().map_err(|e| self.failed(e))
            }
            Slot::Broken | Slot::Closed => Ok(()),
        }
    }

    /// Puts rows in place, or takes them away, all or none. Where the disk refused, the store is opened anew, which also
    /// tells what became of the change.
    fn set(&self, slot: &mut Slot, rows: &[Row<'_>]) -> Result<(), Failure> {
        let Err(error) = write(self.database(slot)?, rows) else { return Ok(()) };
        if !matches!(error, Error::Io(_) | Error::PreviousIo) {
            return Err(self.failed(error));
        }
        // Its file is locked until it is dropped.
        *slot = Slot::Broken;
        let is_there = |(table, key, value): &Row<'_>, database: &Database| {
            read(database, *table, key).is_ok_and(|found| found.as_ref().map(Secret::expose) == *value)
        };
        match self.database(slot) {
            Ok(database) if rows.iter().all(|row| is_there(row, database)) => Ok(()),
            _ => Err(self.failed(refused_by_disk(&error))),
        }
    }

    fn database<'a>(&self, slot: &'a mut Slot) -> Result<&'a Database, Failure> {
        if matches!(slot, Slot::Broken) {
            *slot = Slot::Open(open(&self.shared.path).map_err(|e| self.failed(refused_to_open(&e)))?);
        }
        match slot {
            Slot::Open(database) => Ok(database),
            Slot::Broken | Slot::Closed => Err(self.failed("keyd is stopping; try again once it is back")),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.shared.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        failed(&self.shared.path, why)
    }
}

// === the database ===

/// Opens the database and reads every page of it, because redb promises nothing of a file that something else wrote to.
fn open(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)
}

/// Checks the layout and notes that the store is in use; tells whether it was left so.
fn take_up(database: &Database) -> Result<bool, Schema> {
    let change = database.begin_write().map_err(Error::from)?;
    let in_use = {
        let mut meta = change.open_table(META).map_err(Error::from)?;
        let schema = meta.insert("schema", SCHEMA).map_err(Error::from)?.map(|found| found.value());
        if let Some(other) = schema.filter(|found| *found != SCHEMA) {
            return Err(Schema::Other(other));
        }
        change.open_table(KEYS).map_err(Error::from)?;
        change.open_table(BINDING).map_err(Error::from)?;
        meta.insert(IN_USE, 1).map_err(Error::from)?.is_some_and(|found| found.value() == 1)
    };
    change.commit().map_err(Error::from)?;
    Ok(in_use)
}

/// Notes that the store is not in use any more.
fn lay_down(database: &Database) -> Result<(), Error> {
    let change = database.begin_write()?;
    change.open_table(META)?.insert(IN_USE, 0)?;
    Ok(change.commit()?)
}

fn rows(database: &Database) -> Result<Vec<(String, Secret)>, Error> {
    let mut rows = Vec::new();
    for row in database.begin_read()?.open_table(KEYS)?.iter()? {
        let (id, value) = row?;
        rows.push((id.value().to_owned(), Secret::new(value.value().to_vec())));
    }
    Ok(rows)
}

fn read(database: &Database, table: Table, key: &str) -> Result<Option<Secret>, Error> {
    let view = database.begin_read()?.open_table(table)?;
    Ok(view.get(key)?.map(|value| Secret::new(value.value().to_vec())))
}

fn write(database: &Database, rows: &[Row<'_>]) -> Result<(), Error> {
    let change = database.begin_write()?;
    for (table, key, value) in rows {
        let mut table = change.open_table(*table)?;
        match value {
            Some(value) => table.insert(*key, *value)?,
            None => table.remove(*key)?,
        };
    }
    Ok(change.commit()?)
}

// === what went wrong, in words ===

/// Why the layout is not ours.
enum Schema {
    Other(u64),
    Unread(Error),
}

impl From<Error> for Schema {
    fn from(error: Error) -> Self {
        Self::Unread(error)
    }
}

impl Schema {
    fn into_sentence(self) -> String {
        match self {
            Self::Other(other) => {
                format!("its layout is {other}, this keyd knows {SCHEMA}; use the newer keyd")
            }
            Self::Unread(Error::Io(error)) => refused_by_disk(&Error::Io(error)),
            Self::Unread(error) => format!("cannot read the store: {error}. {MEND}"),
        }
    }
}

fn failed(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::StoreFailed, format!("{}: {why}", path.display()))
}

fn refused_to_open(error: &DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another keyd has this store open; two must not share a state directory".to_owned()
        }
        DatabaseError::Storage(StorageError::Io(io)) if is_full(io) => FULL.to_owned(),
        other => format!("cannot open the store: {other}. {MEND}"),
    }
}

fn refused_by_disk(error: &Error) -> String {
    match error {
        Error::Io(io) if is_full(io) => FULL.to_owned(),
        other => format!("the disk refused the change: {other}. Nothing was changed; look after the disk."),
    }
}

/// No space, no quota, or a limit on the size of files.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Makes the state directory, or refuses one that is not ours alone. Gives the directories whose entries must be on the disk
/// for the store to be found again: it, its parent, and the parents of what was made for it.
fn prepare(state_dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |why: String| Failure::new(Reason::StoreFailed, format!("{}: {why}", state_dir.display()));
    let cannot_make = |e| failed(format!("cannot make the state directory: {e}"));
    let whole = std::path::absolute(state_dir).map_err(cannot_make)?;
    let missing = whole.ancestors().take_while(|dir| !dir.exists()).count();
    if missing > 0 {
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(cannot_make)?;
    }
    let found =
        fs::metadata(state_dir).map_err(|e| failed(format!("cannot look at the state directory: {e}")))?;
    let (mode, us) = (found.mode() & 0o777, nix::unistd::geteuid().as_raw());
    if !found.is_dir() {
        return Err(failed("the state directory is no directory".to_owned()));
    }
    if found.uid() != us {
        return Err(failed(of_another_user(state_dir, found.uid(), us)));
    }
    if mode & 0o077 != 0 {
        let dir = state_dir.display();
        return Err(failed(format!(
            "the state directory is mode {mode:04o}, and others than its owner have no business in it: chmod 0700 {dir}"
        )));
    }
    Ok(whole.ancestors().take(missing.max(1) + 1).map(Path::to_owned).collect())
}

/// What to do where a state directory is `owner`'s and keyd runs as `us`. Given to root, it would be lost to the service.
fn of_another_user(state_dir: &Path, owner: u32, us: u32) -> String {
    let name = |uid: u32| {
        User::from_uid(uid.into()).ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
    };
    let (owner, us, as_root) = (name(owner), name(us), us == 0);
    let remedy = if as_root {
        format!(
            "Run keyd as {owner}: `systemctl start keyd` does, and so does `runuser -u {owner} -- keyd ...`"
        )
    } else {
        format!("Run keyd as {owner}, or give the directory to {us}: chown -R {us} {}", state_dir.display())
    };
    format!("the state directory belongs to user {owner}, and keyd runs as {us}. {remedy}")
}

/// Until a directory is synced, a power cut can take away what was made in it, however well that was synced itself.
fn sync_entries(directories: &[PathBuf]) -> std::io::Result<()> {
    for dir in directories {
        match file::sync_dir(dir) {
            // Whoever may not read it did not make anything in it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::record::tests::record;
    use super::*;

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    fn refused(dir: &tempfile::TempDir) -> String {
        Store::open(dir.path()).err().unwrap().message
    }

    fn put(store: &Store, record: &KeyRecord) -> Result<Option<Secret>, Failure> {
        store.change(&record.id, Some(encode(record).expose()), None)
    }

    #[test]
    fn a_closed_store_takes_no_change_and_can_be_opened_anew() {
        let dir = state();
        let store = Store::open(dir.path()).unwrap();
        put(&store, &record("n/a")).unwrap();
        store.close().unwrap();
        assert!(put(&store, &record("n/b")).unwrap_err().message.contains("stopping"));
        assert_eq!(Store::open(dir.path()).unwrap().load().unwrap().len(), 1);
    }

    #[test]
    fn records_are_there_after_reopening() {
        let dir = state();
        let (a, b) = (record("n/a"), record("n/b"));
        {
            let store = Store::open(dir.path()).unwrap();
            put(&store, &a).unwrap();
            put(&store, &b).unwrap();
            let before = store.change(&b.id, None, Some(b"bound")).unwrap().unwrap();
            assert_eq!(before.expose(), encode(&b).expose());
            assert_eq!(store.binding().unwrap().unwrap().expose(), b"bound");
        }
        let found = Store::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0].id, &found[0].public_key, found[0].material.expose()),
            (&a.id, &a.public_key, a.material.expose())
        );
    }

    #[test]
    fn ten_thousand_records_are_checked_and_read_in_little_time() {
        const MANY: usize = 10_000;
        let dir = state();
        let store = Store::open(dir.path()).unwrap();
        let one = encode(&record("n/a"));
        {
            let mut slot = store.slot();
            let change = store.database(&mut slot).unwrap().begin_write().unwrap();
            for number in 0..MANY {
                let mut keys = change.open_table(KEYS).unwrap();
                keys.insert(format!("n/{number}").as_str(), one.expose()).unwrap();
            }
            change.commit().unwrap();
        }
        store.close().unwrap();
        let start = tokio::time::Instant::now();
        let store = Store::open(dir.path()).unwrap();
        let opened = start.elapsed();
        assert_eq!(store.load().unwrap().len(), MANY);
        println!("{MANY} records: checked in {opened:?}, read in {:?}", start.elapsed() - opened);
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let dir = state();
        let _first = Store::open(dir.path()).unwrap();
        assert!(refused(&dir).contains("another keyd"));
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let dir = state();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(refused(&dir).contains("0750"));
    }

    #[test]
    fn root_is_told_to_run_as_the_owner_and_never_to_take_the_directory_from_the_service() {
        let dir = Path::new("/var/lib/keyd");
        let (of_service, of_root) = (of_another_user(dir, 65534, 0), of_another_user(dir, 0, 65534));
        assert!(
            of_service.contains("`runuser -u nobody -- keyd") && !of_service.contains("chown"),
            "{of_service}"
        );
        assert!(of_root.contains("chown -R nobody /var/lib/keyd"), "{of_root}");
        assert!(of_another_user(dir, 4_000_000, 0).contains("user #4000000"), "one without a name");
    }

    #[test]
    fn a_directory_that_is_missing_is_made_for_us_alone_with_those_above_it() {
        let dir = state();
        let (above, below) = (dir.path().join("a"), dir.path().join("a/b"));
        Store::open(&below).unwrap();
        for made in [&above, &below] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
        }
        let synced = |state: &Path| prepare(state).unwrap();
        assert_eq!(synced(&below), [below.as_path(), &above]);
        let lower = below.join("c/d");
        assert_eq!(synced(&lower), [lower.as_path(), &below.join("c"), &below]);
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_left_alone() {
        let dir = state();
        fs::write(dir.path().join("keys.redb"), b"not a store").unwrap();
        assert!(Store::open(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join("keys.redb")).unwrap(), b"not a store");
    }
}
