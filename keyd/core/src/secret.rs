//! Secret bytes: boxed, wiped when dropped, never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A seed, private scalar or PIN.
///
/// The bytes stay in one heap allocation, so that moves leave no copies, and are wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes the bytes over; a vector with spare capacity is copied once and the old buffer wiped.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let boxed: Box<[u8]> = bytes.as_slice().into();
        zeroize::Zeroize::zeroize(&mut bytes);
        Self(Zeroizing::new(boxed))
    }

    /// The bytes, for as long as the borrow lasts.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(7 bytes)");
    }
}
