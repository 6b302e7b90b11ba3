//! What was acknowledged is there after a power cut at any write, whatever the disk did with writes that were not synced.

use std::io;
use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend};

use super::record::tests::record;
use super::*;

/// A disk that holds writes back until they are synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What programs read.
    now: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// Writes since the last sync: place and bytes; none is a new length.
    pending: Vec<(usize, Option<Vec<u8>>)>,
    /// What power cuts can leave, each with how many keys had been acknowledged.
    cuts: Vec<(usize, Vec<u8>)>,
    acknowledged: usize,
}

impl State {
    fn write(&mut self, at: usize, bytes: Option<Vec<u8>>) {
        apply(&mut self.now, at, bytes.as_deref());
        self.pending.push((at, bytes));
        // None of the writes that were not synced, and every other one of them.
        for kept in [2, 0, 1] {
            let mut left = self.synced.clone();
            for (number, (at, bytes)) in self.pending.iter().enumerate() {
                if number % 2 == kept {
                    apply(&mut left, *at, bytes.as_deref());
                }
            }
            self.cuts.push((self.acknowledged, left));
        }
    }
}

fn apply(image: &mut Vec<u8>, at: usize, bytes: Option<&[u8]>) {
    match bytes {
        None => image.resize(at, 0),
        Some(bytes) => {
            image.resize(image.len().max(at + bytes.len()), 0);
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let (state, at) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let found = state.now.get(at..at + out.len()).ok_or(io::Error::from(ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.lock().unwrap().write(usize::try_from(len).unwrap(), None);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.synced = state.now.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.lock().unwrap().write(usize::try_from(offset).unwrap(), Some(data.to_vec()));
        Ok(())
    }
}

fn on(disk: Disk) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(disk)
}

#[test]
fn an_acknowledged_key_outlasts_a_power_cut() {
    const KEYS_MADE: usize = 12;
    let disk = Disk::default();
    let database = on(disk.clone()).unwrap();
    take_up(&database).map_err(Schema::into_sentence).unwrap();
    let value = encode(&record("n/0"));
    let id = |number: usize| format!("n/{number}");
    for number in 0..KEYS_MADE {
        let (counter, id) = (number.to_be_bytes(), id(number));
        write(&database, &[(KEYS, &id, Some(value.expose())), (BINDING, COUNTER, Some(&counter))]).unwrap();
        disk.0.lock().unwrap().acknowledged = number + 1;
    }
    let cuts = std::mem::take(&mut disk.0.lock().unwrap().cuts);
    let mut met = 0;
    for (acknowledged, image) in cuts.into_iter().filter(|(acknowledged, _)| *acknowledged > 0) {
        let left = Disk::default();
        *left.0.lock().unwrap() = State { now: image.clone(), synced: image, ..State::default() };
        let database = on(left).unwrap();
        let found = rows(&database).unwrap();
        // The one that was being made is there whole or not at all.
        assert!(
            found.len() == acknowledged || found.len() == acknowledged + 1,
            "{} of {acknowledged}",
            found.len()
        );
        assert!((0..acknowledged).all(|number| {
            found.iter().any(|(found, record)| *found == id(number) && record.expose() == value.expose())
        }));
        let counter = read(&database, BINDING, COUNTER).unwrap().unwrap();
        assert_eq!(counter.expose(), (found.len() - 1).to_be_bytes());
        met += 1;
    }
    assert!(met > KEYS_MADE, "{met} power cuts");
}
