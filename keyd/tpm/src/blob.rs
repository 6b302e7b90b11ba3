//! What a sealed secret looks like at rest.
//!
//! ```text
//! version   1 byte   1
//! release   1 byte   on what condition the TPM gives the secret out; 0: to this TPM alone
//! public    2 bytes of length, big-endian, then TPMT_PUBLIC of the sealed object
//! private   2 bytes of length, big-endian, then the contents of TPM2B_PRIVATE
//! ```

use crate::error::Error;

const VERSION: u8 = 1;
/// Longest public and longest private area, in bytes; a sealed object of ours has about 50 and 200.
const AREA_LIMIT: usize = 1024;

/// On what condition the TPM gives a secret out. A policy over PCRs is to become another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// To this TPM, whatever it booted.
    ThisTpm = 0,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) release: Release,
    pub(crate) public: Vec<u8>,
    pub(crate) private: Vec<u8>,
}

impl Blob {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = vec![VERSION, self.release as u8];
        for area in [&self.public, &self.private] {
            let length = u16::try_from(area.len()).ok().filter(|n| usize::from(*n) <= AREA_LIMIT);
            out.extend(length.ok_or(Error::BadAnswer("an object that is too long"))?.to_be_bytes());
            out.extend(area);
        }
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (head, rest) = bytes.split_first_chunk().ok_or(Error::Blob("it is too short"))?;
        let release = match head {
            [VERSION, 0] => Release::ThisTpm,
            [VERSION, _] => return Err(Error::Blob("it has a policy of a newer keyd")),
            _ => return Err(Error::Blob("it has a version that this keyd does not know")),
        };
        let (public, rest) = area(rest)?;
        let (private, rest) = area(rest)?;
        if !rest.is_empty() {
            return Err(Error::Blob("something follows it"));
        }
        Ok(Self { release, public: public.to_vec(), private: private.to_vec() })
    }
}

fn area(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let (length, rest) = bytes.split_first_chunk().ok_or(Error::Blob("it is cut short"))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > AREA_LIMIT {
        return Err(Error::Blob("an area has an impossible length"));
    }
    rest.split_at_checked(length).ok_or(Error::Blob("it is cut short"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            public in prop::collection::vec(any::<u8>(), 1..=AREA_LIMIT),
            private in prop::collection::vec(any::<u8>(), 1..=AREA_LIMIT),
        ) {
            let blob = Blob { release: Release::ThisTpm, public, private };
            prop_assert_eq!(Blob::decode(&blob.encode().unwrap()).unwrap(), blob);
        }

        #[test]
        fn whatever_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[VERSION, 0, 0, 2][..], &bytes].concat();
            if let Ok(blob) = Blob::decode(&bytes) {
                prop_assert_eq!(blob.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn every_truncation_and_any_addition_is_refused() {
        let whole =
            Blob { release: Release::ThisTpm, public: vec![1; 5], private: vec![2; 7] }.encode().unwrap();
        for end in 0..whole.len() {
            assert!(Blob::decode(&whole[..end]).is_err(), "{end}");
        }
        assert!(Blob::decode(&[&whole[..], &[0]].concat()).is_err());
        let long = [&[VERSION, 0, 0x04, 0x01][..], &[1; 1025], &[0, 1, 1]].concat();
        assert!(matches!(Blob::decode(&long), Err(Error::Blob(why)) if why.contains("impossible length")));
    }

    #[test]
    fn a_newer_version_or_policy_is_named() {
        for (head, why) in [([2, 0], "version"), ([VERSION, 1], "policy of a newer keyd")] {
            let bytes = [&head[..], &[0, 1, 1, 0, 1, 1]].concat();
            assert!(matches!(Blob::decode(&bytes), Err(Error::Blob(said)) if said.contains(why)));
        }
    }
}
