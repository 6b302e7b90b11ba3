//! What the fuzz targets of this crate reach beyond its public interface.

use crate::contents;

/// Reads what was encrypted, and checks that what is read is written so that it reads the same.
pub fn contents(bytes: &[u8]) {
    if let Ok(keys) = contents::decode(bytes) {
        let written = contents::encode(&keys, contents::encoded_len(&keys));
        let again = contents::decode(&written).map(|keys| contents::encode(&keys, 0));
        assert!(again.is_ok_and(|again| again == written));
    }
}
