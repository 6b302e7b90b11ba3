//! What imaging writes down about a node's TPM, and the list that a server keeps of such manifests.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use der::pem::{self, LineEnding};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ek_certificate::certified_key;
use crate::{PcrValues, Refusal};

/// The version of the manifest that this release writes and reads.
const VERSION: u32 = 1;
/// Longest text that manifests are read from, in bytes: room for ten thousand.
const TEXT_LIMIT: usize = 64 << 20; // 64 MiB
/// Longest node name, manufacturer and firmware version, in bytes.
const FIELD_LIMIT: usize = 128;
/// Lengths of a Name in bytes: two of algorithm, and a SHA-256, SHA-384 or SHA-512.
const NAME_LENGTHS: [usize; 3] = [34, 50, 66];

/// A node's TPM, as one JSON object.
///
/// ```json
/// {
///   "version": 1,
///   "node": "edge-17",
///   "ek_sha256": "…",
///   "ek_certificate": "-----BEGIN CERTIFICATE-----\n…",
///   "ak_name": "000b…",
///   "manufacturer": "IBM",
///   "firmware_version": "2020022800120000",
///   "pcrs": { "sha256": { "7": "…" } }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub version: u32,
    /// The node's name: letters, digits, `-`, `_` and `.`.
    pub node: String,
    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo, hexadecimal.
    #[serde(with = "hex::serde")]
    pub ek_sha256: [u8; 32],
    /// The EK certificate, PEM, where the TPM or its manufacturer has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ek_certificate: Option<EkCertificate>,
    /// Name of the attestation key, hexadecimal. Another key of the same TPM is refused.
    #[serde(with = "hex::serde")]
    pub ak_name: Vec<u8>,
    /// As `IBM`; for people, nothing is decided by it.
    pub manufacturer: String,
    /// For people, nothing is decided by it.
    pub firmware_version: String,
    /// The values that PCRs must have.
    #[serde(default)]
    pub pcrs: References,
}

/// PCR values that a manifest demands, bank by bank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// The SHA-256 bank.
    #[serde(default)]
    pub sha256: PcrValues,
}

/// A DER certificate that is PEM in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate(pub Vec<u8>);

impl Manifest {
    /// The version that this release writes and reads.
    pub const VERSION: u32 = VERSION;

    /// Reads every manifest in `text`, one JSON object after another. `file` names the text in refusals.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] with what is wrong, and where.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Self>, Refusal> {
        let refusal = |why: String| Refusal::Manifest { file: file.to_owned(), why };
        if text.len() > TEXT_LIMIT {
            return Err(refusal(format!("larger than {TEXT_LIMIT} bytes; are these manifests?")));
        }
        let mut manifests = Vec::new();
        for manifest in serde_json::Deserializer::from_str(text).into_iter::<Self>() {
            let manifest = manifest.map_err(|e| refusal(e.to_string()))?;
            manifest.check().map_err(|why| refusal(format!("node {:?}: {why}", manifest.node)))?;
            manifests.push(manifest);
        }
        Ok(manifests)
    }

    /// The manifest as JSON, for people to read too.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] if it would not be read back.
    pub fn to_json(&self) -> Result<String, Refusal> {
        let refusal = |why| Refusal::Manifest { file: self.node.clone(), why };
        self.check().map_err(refusal)?;
        serde_json::to_string_pretty(self).map_err(|e| refusal(e.to_string()))
    }

    fn check(&self) -> Result<(), String> {
        let name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        let printable = |c: u8| c.is_ascii_graphic() || c == b' ';
        if self.version != VERSION {
            return Err(format!("version {} is not one that keyd reads ({VERSION})", self.version));
        }
        if !bounded(&self.node, name) {
            return Err(format!("node is not 1 to {FIELD_LIMIT} of A-Z, a-z, 0-9, -, _ and ."));
        }
        if !bounded(&self.manufacturer, printable) || !bounded(&self.firmware_version, printable) {
            return Err(format!(
                "manufacturer or firmware_version is not 1 to {FIELD_LIMIT} printable characters"
            ));
        }
        if !NAME_LENGTHS.contains(&self.ak_name.len()) {
            return Err("ak_name is not the Name of a key".to_owned());
        }
        if let Some(EkCertificate(der)) = &self.ek_certificate {
            let key = certified_key(der).map_err(|e| e.to_string())?;
            if key.sha256() != self.ek_sha256 {
                return Err("ek_certificate is of another key than ek_sha256".to_owned());
            }
        }
        Ok(())
    }
}

fn bounded(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=FIELD_LIMIT).contains(&text.len()) && text.bytes().all(allowed)
}

impl Serialize for EkCertificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pem = pem::encode_string("CERTIFICATE", LineEnding::LF, &self.0);
        serializer.serialize_str(&pem.map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for EkCertificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pem = String::deserialize(deserializer)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(D::Error::custom)?;
        Ok(Self(der.to_vec()))
    }
}

// === impl Enrolled ===

/// The nodes that a server lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolled(BTreeMap<[u8; 32], Manifest>);

impl Enrolled {
    /// Reads the manifests in these texts, each with the name of the file that it came from.
    ///
    /// # Errors
    /// [`Refusal::Manifest`] for one that cannot be used, and for two that say different things of one TPM.
    pub fn from_texts<F, T>(texts: impl IntoIterator<Item = (F, T)>) -> Result<Self, Refusal>
    where
        F: AsRef<str>,
        T: AsRef<str>,
    {
        let mut nodes = BTreeMap::new();
        for (file, text) in texts {
            let file = file.as_ref();
            for manifest in Manifest::parse_all(file, text.as_ref())? {
                match nodes.entry(manifest.ek_sha256) {
                    Entry::Vacant(entry) => {
                        entry.insert(manifest);
                    }
                    Entry::Occupied(entry) if *entry.get() == manifest => {}
                    Entry::Occupied(entry) => {
                        let (ek, one, other) =
                            (hex::encode(manifest.ek_sha256), &entry.get().node, &manifest.node);
                        let why = format!(
                            "nodes {one:?} and {other:?} say different things of the TPM {ek}; keep one"
                        );
                        return Err(Refusal::Manifest { file: file.to_owned(), why });
                    }
                }
            }
        }
        Ok(Self(nodes))
    }

    /// The manifest of the TPM whose endorsement key has this hash.
    pub fn get(&self, ek_sha256: &[u8; 32]) -> Option<&Manifest> {
        self.0.get(ek_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{"version": 1, "node": "edge-17", "ek_sha256": "EK", "ak_name": "AK",
        "manufacturer": "IBM", "firmware_version": "2020", "pcrs": {"sha256": {"7": "PCR"}}}"#;

    fn json() -> String {
        let text =
            MANIFEST.replace("EK", &"11".repeat(32)).replace("AK", &format!("000b{}", "22".repeat(32)));
        text.replace("PCR", &"33".repeat(32))
    }

    fn refusal(text: &str) -> String {
        Manifest::parse_all("edge-17.json", text).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_is_read_and_written() {
        let manifests = Manifest::parse_all("a", &json()).unwrap();
        let [manifest] = manifests.as_slice() else { panic!("{}", manifests.len()) };
        assert_eq!(manifest.pcrs.sha256.get(7), Some(&[0x33; 32]));
        let written = manifest.to_json().unwrap();
        assert_eq!(Manifest::parse_all("b", &written).unwrap(), manifests);
    }

    #[test]
    fn odd_manifests_are_refused_with_file_and_cause() {
        let json = json();
        let cases = [
            (json.replace("\"node\"", "\"nodes\""), "unknown field `nodes`"),
            (json.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            (json.replace("edge-17", "edge/17"), "node is not"),
            (json.replace("IBM", "I\\u0000BM"), "manufacturer"),
            (json.replace("000b", "0b"), "ak_name"),
            (json.replace("\"7\"", "\"24\""), "PCR 24 does not exist"),
            (json.replace(&"33".repeat(32), "33"), "not a SHA-256 digest"),
            (
                json.replace("sha256\": {", &format!("sha256\": {{\"7\": \"{}\",", "44".repeat(32))),
                "given twice",
            ),
            (json.replace("\"sha256\": {", "\"sha1\": {"), "unknown field `sha1`"),
            (format!("{json} nonsense"), "expected"),
        ];
        for (text, cause) in cases {
            let refusal = refusal(&text);
            assert!(refusal.starts_with("edge-17.json: ") && refusal.contains(cause), "{cause}: {refusal}");
        }
    }

    #[test]
    fn a_list_is_made_of_many_texts_and_of_many_manifests_in_one() {
        let (one, other) = (json(), json().replace("1111", "1112"));
        let apart = Enrolled::from_texts([("a", &one), ("b", &other), ("again", &one)]).unwrap();
        let together = Enrolled::from_texts([("a", format!("{one}\n{other}\n"))]).unwrap();
        assert_eq!(apart, together);
        assert!(apart.get(&[0x11; 32]).is_some());
        assert!(apart.get(&[0x44; 32]).is_none());
    }

    #[test]
    fn two_manifests_that_disagree_about_a_tpm_are_refused() {
        let (one, other) = (json(), json().replace("edge-17", "edge-18"));
        let refusal = Enrolled::from_texts([("a.json", one), ("b.json", other)]).unwrap_err().to_string();
        assert!(refusal.starts_with("b.json: nodes \"edge-17\" and \"edge-18\""), "{refusal}");
    }
}
