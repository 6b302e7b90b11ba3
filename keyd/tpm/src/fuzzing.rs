//! What the fuzz target of this crate reaches beyond its public interface.

use crate::blob::Blob;
use crate::seal;

/// Reads a sealed blob as unsealing does, and checks that what is read is written the same.
pub fn sealed_blob(bytes: &[u8]) {
    // What libtss2 makes of the areas is its own affair, as long as it returns.
    let _ = seal::read(bytes);
    if let Ok(blob) = Blob::decode(bytes) {
        assert!(blob.encode().is_ok_and(|written| written == bytes), "{blob:?}");
    }
}
