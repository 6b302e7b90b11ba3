//! Sets of PCRs and their values, SHA-256 bank.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Refusal;

/// How many PCRs a TPM has: 0 to 23 (PC Client Platform TPM Profile §4.6).
const PCRS: u8 = 24;

/// Some of the PCRs 0 to 23.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcrSet(u32);

impl PcrSet {
    /// The set of these indexes.
    ///
    /// # Errors
    /// [`Refusal::NoSuchPcr`] for one above 23.
    pub fn new(indexes: impl IntoIterator<Item = u8>) -> Result<Self, Refusal> {
        indexes.into_iter().try_fold(Self::default(), |set, index| match index < PCRS {
            true => Ok(Self(set.0 | 1 << index)),
            false => Err(Refusal::NoSuchPcr { index: index.into() }),
        })
    }

    /// The set as a bitmap, PCR 0 in the lowest bit; `None` if it names one above 23.
    pub(crate) const fn from_bitmap(bitmap: u32) -> Option<Self> {
        if bitmap >> PCRS == 0 { Some(Self(bitmap)) } else { None }
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it names none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The indexes, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..PCRS).filter(move |index| self.0 & 1 << index != 0)
    }
}

impl fmt::Display for PcrSet {
    /// As `0,2,7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indexes: Vec<String> = self.iter().map(|i| i.to_string()).collect();
        f.write_str(&indexes.join(","))
    }
}

// === impl PcrValues ===

/// Values of some PCRs, 32 bytes each. In JSON an object of hexadecimal, as `{"7": "65ca..."}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u8, [u8; 32]>);

impl PcrValues {
    /// Takes index and value pairs in any order.
    ///
    /// # Errors
    /// [`Refusal::NoSuchPcr`] for an index above 23, [`Refusal::PcrTwice`] for one that comes twice,
    /// [`Refusal::PcrLength`] for a value that has not 32 bytes.
    pub fn new<V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (u8, V)>) -> Result<Self, Refusal> {
        let mut values = Self::default();
        for (index, value) in pairs {
            let value = <[u8; 32]>::try_from(value.as_ref()).map_err(|_| Refusal::PcrLength { index })?;
            values.insert(index, value)?;
        }
        Ok(values)
    }

    /// Which PCRs these are.
    pub fn set(&self) -> PcrSet {
        // No index is above 23: `insert` saw to it.
        PcrSet(self.0.keys().fold(0, |bits, index| bits | 1 << index))
    }

    /// The value of one.
    pub fn get(&self, index: u8) -> Option<&[u8; 32]> {
        self.0.get(&index)
    }

    /// Index and value, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8; 32])> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    fn insert(&mut self, index: u8, value: [u8; 32]) -> Result<(), Refusal> {
        if index >= PCRS {
            return Err(Refusal::NoSuchPcr { index: index.into() });
        }
        match self.0.insert(index, value) {
            None => Ok(()),
            Some(_) => Err(Refusal::PcrTwice { index }),
        }
    }
}

impl Serialize for PcrValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(index, value)| (index, hex::encode(value))))
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PcrValuesVisitor)
    }
}

/// Reads the object pair by pair: serde's own maps let a later pair silently win.
struct PcrValuesVisitor;

impl<'de> Visitor<'de> for PcrValuesVisitor {
    type Value = PcrValues;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of PCR indexes and hexadecimal SHA-256 values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PcrValues, A::Error> {
        let mut values = PcrValues::default();
        while let Some((index, text)) = map.next_entry::<u8, String>()? {
            let mut value = [0; 32];
            hex::decode_to_slice(&text, &mut value)
                .map_err(|_| A::Error::custom(Refusal::PcrLength { index }))?;
            values.insert(index, value).map_err(A::Error::custom)?;
        }
        Ok(values)
    }
}
