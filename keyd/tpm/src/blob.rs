//! What a sealed secret looks like at rest.
//!
//! ```text
//! version   1 byte   1
//! release   1 byte   on what condition the TPM gives the secret out
//!                    0  to this TPM, whatever it booted
//!                    1  while PCRs have the values of one of these states:
//!                         1 byte    how many states, 1 or 2
//!                         states    each a PCR list
//!                    2  while PCRs have values that a key approves:
//!                         2 bytes of length, big-endian, then the key's TPMT_PUBLIC
//!                         PCR list  what the approved PCRs were at sealing; it binds nothing, and tells what moved
//! public    2 bytes of length, big-endian, then TPMT_PUBLIC of the sealed object
//! private   2 bytes of length, big-endian, then the contents of TPM2B_PRIVATE
//!
//! PCR list  1 byte: how many, 1 to 24; then each, ascending: 1 byte of index, 32 bytes of SHA-256
//! ```

use crate::error::Error;
use crate::pcr::{PCR_MAX, PcrValue};
use crate::release::Release;

const VERSION: u8 = 1;
const THIS_TPM: u8 = 0;
const PCRS: u8 = 1;
const SIGNED: u8 = 2;
/// Longest public and longest private area, in bytes; a sealed object of ours has about 50 and 200, the key of a signed
/// policy up to 530.
const AREA_LIMIT: usize = 1024;
/// Most states; TPM2_PolicyOR takes eight.
const STATES_LIMIT: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) release: Release,
    pub(crate) public: Vec<u8>,
    pub(crate) private: Vec<u8>,
}

impl Blob {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = vec![VERSION];
        match &self.release {
            Release::ThisTpm => out.push(THIS_TPM),
            Release::Pcrs(states) => {
                out.push(PCRS);
                put_count(&mut out, states.len(), STATES_LIMIT)?;
                for state in states {
                    put_pcrs(&mut out, state)?;
                }
            }
            Release::Signed { key, at_sealing } => {
                out.push(SIGNED);
                put_area(&mut out, key)?;
                put_pcrs(&mut out, at_sealing)?;
            }
        }
        put_area(&mut out, &self.public)?;
        put_area(&mut out, &self.private)?;
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (head, rest) = bytes.split_first_chunk().ok_or(Error::Blob("it is too short"))?;
        let (release, rest) = match head {
            [VERSION, THIS_TPM] => (Release::ThisTpm, rest),
            [VERSION, PCRS] => states(rest)?,
            [VERSION, SIGNED] => {
                let (key, rest) = area(rest)?;
                let (at_sealing, rest) = pcrs(rest)?;
                (Release::Signed { key: key.to_vec(), at_sealing }, rest)
            }
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

fn put_area(out: &mut Vec<u8>, area: &[u8]) -> Result<(), Error> {
    let length = u16::try_from(area.len()).ok().filter(|n| (1..=AREA_LIMIT).contains(&usize::from(*n)));
    out.extend(length.ok_or(Error::BadAnswer("an object of an impossible length"))?.to_be_bytes());
    out.extend(area);
    Ok(())
}

fn put_pcrs(out: &mut Vec<u8>, pcrs: &[PcrValue]) -> Result<(), Error> {
    put_count(out, pcrs.len(), usize::from(PCR_MAX) + 1)?;
    for pcr in pcrs {
        out.push(pcr.index);
        out.extend(pcr.value);
    }
    Ok(())
}

fn put_count(out: &mut Vec<u8>, count: usize, limit: usize) -> Result<(), Error> {
    let count = u8::try_from(count).ok().filter(|n| (1..=limit).contains(&usize::from(*n)));
    out.push(count.ok_or(Error::BadAnswer("an impossible number of PCRs"))?);
    Ok(())
}

fn area(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let (length, rest) = bytes.split_first_chunk().ok_or(CUT_SHORT)?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > AREA_LIMIT {
        return Err(Error::Blob("an area has an impossible length"));
    }
    rest.split_at_checked(length).ok_or(CUT_SHORT)
}

fn states(bytes: &[u8]) -> Result<(Release, &[u8]), Error> {
    let (count, mut rest) = bytes.split_first().ok_or(CUT_SHORT)?;
    if !(1..=STATES_LIMIT).contains(&usize::from(*count)) {
        return Err(Error::Blob("it has an impossible number of states"));
    }
    let mut states = Vec::with_capacity(STATES_LIMIT);
    for _ in 0..*count {
        let (state, after) = pcrs(rest)?;
        states.push(state);
        rest = after;
    }
    Ok((Release::Pcrs(states), rest))
}

fn pcrs(bytes: &[u8]) -> Result<(Vec<PcrValue>, &[u8]), Error> {
    let (count, mut rest) = bytes.split_first().ok_or(CUT_SHORT)?;
    let mut pcrs: Vec<PcrValue> = Vec::new();
    for _ in 0..*count {
        let (index, after) = rest.split_first().ok_or(CUT_SHORT)?;
        let (value, after) = after.split_first_chunk().ok_or(CUT_SHORT)?;
        if *index > PCR_MAX || pcrs.last().is_some_and(|last| last.index >= *index) {
            return Err(Error::Blob("its PCRs are out of order"));
        }
        pcrs.push(PcrValue { index: *index, value: *value });
        rest = after;
    }
    if pcrs.is_empty() { Err(Error::Blob("it names no PCR")) } else { Ok((pcrs, rest)) }
}

const CUT_SHORT: Error = Error::Blob("it is cut short");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pcr_list() -> impl Strategy<Value = Vec<PcrValue>> {
        let map = prop::collection::btree_map(0..=PCR_MAX, any::<[u8; 32]>(), 1..=4);
        map.prop_map(|map| map.into_iter().map(|(index, value)| PcrValue { index, value }).collect())
    }

    fn release() -> impl Strategy<Value = Release> {
        let key = prop::collection::vec(any::<u8>(), 1..=AREA_LIMIT);
        prop_oneof![
            Just(Release::ThisTpm),
            prop::collection::vec(pcr_list(), 1..=STATES_LIMIT).prop_map(Release::Pcrs),
            (key, pcr_list()).prop_map(|(key, at_sealing)| Release::Signed { key, at_sealing }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            release in release(),
            public in prop::collection::vec(any::<u8>(), 1..=AREA_LIMIT),
            private in prop::collection::vec(any::<u8>(), 1..=AREA_LIMIT),
        ) {
            let blob = Blob { release, public, private };
            prop_assert_eq!(Blob::decode(&blob.encode().unwrap()).unwrap(), blob);
        }

        #[test]
        fn whatever_is_read_is_written_the_same(
            release in 0..3_u8,
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [&[VERSION, release, 0, 2][..], &bytes].concat();
            if let Ok(blob) = Blob::decode(&bytes) {
                prop_assert_eq!(blob.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn every_truncation_and_any_addition_is_refused(release in release()) {
            let whole = Blob { release, public: vec![1; 5], private: vec![2; 7] }.encode().unwrap();
            for end in 0..whole.len() {
                prop_assert!(Blob::decode(&whole[..end]).is_err(), "{}", end);
            }
            prop_assert!(Blob::decode(&[&whole[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let pcr = |index: u8| [&[index][..], &[7; 32]].concat();
        for (bytes, why) in [
            (vec![2, 0, 0, 1, 1, 0, 1, 1], "version"),
            (vec![VERSION, 3, 0, 1, 1, 0, 1, 1], "policy of a newer keyd"),
            ([&[VERSION, THIS_TPM, 0x04, 0x01][..], &[1; 1025], &[0, 1, 1]].concat(), "impossible length"),
            (vec![VERSION, PCRS, 0], "number of states"),
            (vec![VERSION, PCRS, 3], "number of states"),
            (vec![VERSION, PCRS, 1, 0], "names no PCR"),
            ([&[VERSION, PCRS, 1, 2][..], &pcr(7), &pcr(7)].concat(), "out of order"),
            ([&[VERSION, PCRS, 1, 1][..], &pcr(24)].concat(), "out of order"),
            (vec![VERSION, SIGNED, 0, 1, 9, 0], "names no PCR"),
        ] {
            assert!(matches!(Blob::decode(&bytes), Err(Error::Blob(said)) if said.contains(why)), "{why}");
        }
    }
}
