//! Issuer and subject (RFC 5280 §4.1.2.4), and whether verifiers tell two of them apart.

use const_oid::db::rfc4519::{
    C, CN, L, O, OU, POSTAL_CODE, SERIAL_NUMBER, ST, STREET, X_500_UNIQUE_IDENTIFIER,
};
use der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use der::{Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::Name;

use super::{Refused, malformed};

/// What SPIRE writes: the attributes of Go's `pkix.Name`, and the one of SPIRE's plugin `uniqueid`.
const KNOWN: [ObjectIdentifier; 10] =
    [C, O, OU, L, ST, STREET, POSTAL_CODE, CN, SERIAL_NUMBER, X_500_UNIQUE_IDENTIFIER];

/// A name of known attributes, each of them a readable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName {
    name: Name,
    texts: Vec<(ObjectIdentifier, String)>,
}

impl DistinguishedName {
    /// Reads a certificate's `which`, its subject or issuer.
    pub fn read(which: &str, name: &Name) -> Result<Self, Refused> {
        let texts = name.iter().map(|attribute| match text(attribute) {
            Some(text) => Ok((attribute.oid, text.to_owned())),
            None => Err(malformed(format!(
                "its {which} has an attribute {} that is not one of SPIRE's, or no printable text",
                attribute.oid
            ))),
        });
        Ok(Self { name: name.clone(), texts: texts.collect::<Result<_, _>>()? })
    }

    /// Whether it has no attribute.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The common names, of which there may be several.
    pub fn common_names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().filter(|(kind, _)| *kind == CN).map(|(_, text)| text.as_str())
    }

    /// Whether every verifier tells it from `other`. Some compare the bytes, others fold case, blanks and string types
    /// (RFC 5280 §7.1) and the order of attributes; each folds other letters than ASCII's in his own way.
    pub fn differs(&self, other: &Self) -> bool {
        KNOWN.into_iter().any(|kind| {
            let (ours, theirs) = (self.folded(kind), other.folded(kind));
            let ascii = ours.iter().chain(&theirs).all(|text| text.is_ascii());
            ours.len() != theirs.len() || (ascii && ours != theirs)
        })
    }

    fn folded(&self, kind: ObjectIdentifier) -> Vec<String> {
        let fold = |text: &str| text.replace(' ', "").to_ascii_lowercase();
        let mut texts: Vec<_> =
            self.texts.iter().filter(|(k, _)| *k == kind).map(|(_, text)| fold(text)).collect();
        texts.sort();
        texts
    }
}

/// The text of a known attribute. Go writes PrintableString and UTF8String, and so does keyd.
fn text(attribute: &AttributeTypeAndValue) -> Option<&str> {
    let value = &attribute.value;
    let text = match value.tag() {
        Tag::PrintableString => PrintableStringRef::new(value.value()).ok()?.as_str(),
        Tag::Utf8String => Utf8StringRef::new(value.value()).ok()?.as_str(),
        _ => return None,
    };
    let readable = !text.trim().is_empty() && !text.chars().any(char::is_control);
    (readable && KNOWN.contains(&attribute.oid)).then_some(text)
}
