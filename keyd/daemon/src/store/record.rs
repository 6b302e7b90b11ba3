//! One key's record, and how it is written.

use keyd_core::{Algorithm, Failure, KeyId, Protection, PublicKey, Secret};
use prost::Message;
use zeroize::Zeroize;

/// Longest encoded record, in bytes: a public key, a sealed secret and names.
const RECORD_LIMIT: usize = 16 * 1024;

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
    /// A token's handle, or the sealed secret; in clear for [`Protection::Software`].
    pub material: Secret,
}

/// A [`KeyRecord`] on disk.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
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

impl Drop for Stored {
    fn drop(&mut self) {
        self.material.zeroize();
    }
}

pub(crate) fn encode(record: &KeyRecord) -> Secret {
    let stored = Stored {
        algorithm: record.algorithm.to_string(),
        protection: record.protection.to_string(),
        version: record.version,
        created_at: record.created_at,
        public_key: record.public_key.spki().to_vec(),
        material: record.material.expose().to_vec(),
    };
    Secret::new(stored.encode_to_vec())
}

/// Reads a record; nothing of it is taken on trust.
pub(crate) fn decode(id: &str, bytes: &[u8]) -> Result<KeyRecord, String> {
    if bytes.len() > RECORD_LIMIT {
        return Err(format!("{} bytes, more than {RECORD_LIMIT}", bytes.len()));
    }
    let mut stored = Stored::decode(bytes).map_err(|e| e.to_string())?;
    let record = KeyRecord {
        id: id.parse().map_err(|e: Failure| e.message)?,
        algorithm: stored.algorithm.parse().map_err(|e: Failure| e.message)?,
        protection: stored.protection.parse().map_err(|e: Failure| e.message)?,
        version: stored.version,
        created_at: stored.created_at,
        public_key: PublicKey::from_spki(&stored.public_key).map_err(|e| e.message)?,
        material: Secret::new(std::mem::take(&mut stored.material)),
    };
    if record.public_key.algorithm() != record.algorithm || record.version == 0 {
        return Err("its fields contradict each other".to_owned());
    }
    Ok(record)
}

#[cfg(test)]
pub(super) mod tests {
    use keyd_softkey::SoftKey;
    use proptest::prelude::*;

    use super::*;

    /// A key that never signs.
    pub fn record(name: &str) -> KeyRecord {
        let secret = SoftKey::generate_secret(Algorithm::EcP256).unwrap();
        KeyRecord {
            id: name.parse().unwrap(),
            algorithm: Algorithm::EcP256,
            protection: Protection::Software,
            version: 1,
            created_at: 1,
            public_key: SoftKey::from_secret(Algorithm::EcP256, &secret).unwrap().public_key().clone(),
            material: Secret::new(b"hunter2".to_vec()),
        }
    }

    #[test]
    fn a_record_does_not_show_its_material() {
        let shown = format!("{:?}", record("n/a"));
        assert!(shown.contains("material: Secret(7 bytes)"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_record_parser_panic(id: String, bytes: Vec<u8>) {
            let _ = decode(&id, &bytes);
        }

        #[test]
        fn a_damaged_record_never_reads_as_another_key(at: usize, bit in 0..8u8) {
            let good = record("n/a");
            let mut bytes = encode(&good).expose().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = decode("n/a", &bytes) {
                prop_assert_eq!(read.public_key.algorithm(), read.algorithm);
            }
        }
    }
}
