//! How far the audit log went: kept here, so that a log that lost its end is noticed.

use keyd_audit::Head;
use keyd_core::Failure;
use redb::{Database, Error, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{MEND, Slot, Store, refused_by_disk};

/// Hash of the last record that a checkpoint covers, by its number; one row at most.
const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

impl Store {
    /// How far the audit log goes at least.
    ///
    /// # Errors
    /// [`keyd_core::Reason::StoreFailed`].
    pub fn audit_anchor(&self) -> Result<Option<Head>, Failure> {
        let mut slot = self.slot();
        let row = read(self.database(&mut slot)?).map_err(|e| self.failed(e))?;
        row.map(|(seq, hash)| {
            let hash = hash.try_into().map_err(|_| self.failed(format!("a hash is not one. {MEND}")))?;
            Ok(Head { seq, hash })
        })
        .transpose()
    }

    /// Remembers how far the audit log goes; durable when it returns. [`Head::START`] forgets it.
    ///
    /// # Errors
    /// [`keyd_core::Reason::StoreFailed`].
    pub fn set_audit_anchor(&self, head: Head) -> Result<(), Failure> {
        let mut slot = self.slot();
        let Err(error) = write(self.database(&mut slot)?, head) else { return Ok(()) };
        if !matches!(error, Error::Io(_) | Error::PreviousIo) {
            return Err(self.failed(error));
        }
        *slot = Slot::Broken;
        Err(self.failed(refused_by_disk(&error)))
    }
}

fn read(database: &Database) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let view = database.begin_read()?;
    let table = match view.open_table(AUDIT) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    Ok(table.last()?.map(|(seq, hash)| (seq.value(), hash.value().to_vec())))
}

fn write(database: &Database, head: Head) -> Result<(), Error> {
    let change = database.begin_write()?;
    {
        let mut table = change.open_table(AUDIT)?;
        table.retain(|_, _| false)?;
        if head.seq > 0 {
            table.insert(head.seq, head.hash.as_slice())?;
        }
    }
    Ok(change.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_audit_log_is_remembered_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        assert_eq!(store.audit_anchor().unwrap(), None);
        for seq in [7, 300, 12] {
            store.set_audit_anchor(Head { seq, hash: [3; 48] }).unwrap();
            assert_eq!(store.audit_anchor().unwrap(), Some(Head { seq, hash: [3; 48] }));
        }
        store.set_audit_anchor(Head::START).unwrap();
        assert_eq!(store.audit_anchor().unwrap(), None);
    }
}
