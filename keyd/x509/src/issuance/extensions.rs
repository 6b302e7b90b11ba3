//! The extensions that a profile has a word for. Any other is refused, critical or not.

use std::collections::BTreeSet;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280;
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
    SubjectKeyIdentifier,
};

use super::{Refused, dns, malformed};

/// What the extensions say.
#[derive(Default)]
pub struct Extensions {
    /// Basic constraints, and whether they are critical.
    pub constraints: Option<(BasicConstraints, bool)>,
    /// Key usage, and whether it is critical.
    pub usage: Option<(KeyUsage, bool)>,
    /// Extended key usage.
    pub purposes: Option<ExtendedKeyUsage>,
    /// Alternative names.
    pub names: Names,
    /// The certified key's identifier.
    pub subject: Option<Vec<u8>>,
    /// The issuer's key identifier.
    pub authority: Option<Vec<u8>>,
}

/// Alternative names, as they are written, and whether they are critical.
#[derive(Default)]
pub struct Names {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub critical: bool,
}

impl Extensions {
    pub fn read(extensions: &[Extension]) -> Result<Self, Refused> {
        let (mut found, mut seen) = (Self::default(), Vec::new());
        for extension in extensions {
            let oid = extension.extn_id;
            if seen.contains(&oid) {
                return Err(malformed(format!("extension {oid} stands twice")));
            }
            seen.push(oid);
            found.take(extension)?;
        }
        Ok(found)
    }

    fn take(&mut self, extension: &Extension) -> Result<(), Refused> {
        let critical = extension.critical;
        match extension.extn_id {
            BasicConstraints::OID => self.constraints = Some((value(extension)?, critical)),
            KeyUsage::OID => self.usage = Some((value(extension)?, critical)),
            ExtendedKeyUsage::OID => self.purposes = Some(purposes(extension)?),
            SubjectAltName::OID => self.names = Names::read(value(extension)?, critical)?,
            SubjectKeyIdentifier::OID => {
                not_critical(extension)?;
                let SubjectKeyIdentifier(id) = value(extension)?;
                self.subject = Some(id.as_bytes().to_vec());
            }
            AuthorityKeyIdentifier::OID => {
                not_critical(extension)?;
                self.authority = Some(authority(value(extension)?)?);
            }
            other => return Err(malformed(format!("it has the extension {}", named(other)))),
        }
        Ok(())
    }
}

impl Names {
    fn read(names: SubjectAltName, critical: bool) -> Result<Self, Refused> {
        let (mut found, mut seen) = (Self { critical, ..Self::default() }, BTreeSet::new());
        for name in names.0 {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => found.uris.push(uri.as_str().to_owned()),
                GeneralName::DnsName(name) => {
                    let name = name.as_str().to_owned();
                    if !dns::is_well_formed(&name) {
                        let why = "is not letters in lower case, digits and hyphens between dots";
                        return Err(malformed(format!("its DNS name {name:?} {why}")));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(malformed(format!("DNS name {name} stands twice")));
                    }
                    found.dns.push(name);
                }
                _ => {
                    return Err(malformed("it has an alternative name that is neither a URI nor a DNS name"));
                }
            }
        }
        Ok(found)
    }
}

/// RFC 5280 §4.2.1.1 and §4.2.1.2: verifiers refuse a key identifier that is critical.
fn not_critical(extension: &Extension) -> Result<(), Refused> {
    if extension.critical {
        return Err(malformed(format!("extension {} is critical, which it must not be", extension.extn_id)));
    }
    Ok(())
}

/// Purposes as SPIRE gives them: some, each once, not critical.
fn purposes(extension: &Extension) -> Result<ExtendedKeyUsage, Refused> {
    not_critical(extension)?;
    let purposes: ExtendedKeyUsage = value(extension)?;
    let distinct: BTreeSet<_> = purposes.0.iter().collect();
    if distinct.is_empty() || distinct.len() != purposes.0.len() {
        return Err(malformed("its extended key usage is empty, or names a purpose twice"));
    }
    Ok(purposes)
}

fn authority(authority: AuthorityKeyIdentifier) -> Result<Vec<u8>, Refused> {
    if authority.authority_cert_issuer.is_some() || authority.authority_cert_serial_number.is_some() {
        return Err(malformed("its authority key identifier names a certificate"));
    }
    let id =
        authority.key_identifier.ok_or_else(|| malformed("its authority key identifier names no key"))?;
    Ok(id.as_bytes().to_vec())
}

/// An extension's value, which must be written as it would be written again.
fn value<T: for<'a> Decode<'a, Error = der::Error> + Encode>(extension: &Extension) -> Result<T, Refused> {
    let bytes = extension.extn_value.as_bytes();
    let bad = |why: String| malformed(format!("extension {}: {why}", named(extension.extn_id)));
    let value = T::from_der(bytes).map_err(|e| bad(e.to_string()))?;
    if value.to_der().map_err(|e| bad(e.to_string()))? != bytes {
        return Err(bad("it is not in DER".to_owned()));
    }
    Ok(value)
}

fn named(oid: ObjectIdentifier) -> String {
    match oid {
        rfc5280::ID_CE_NAME_CONSTRAINTS => "nameConstraints".to_owned(),
        rfc5280::ID_CE_CERTIFICATE_POLICIES => "certificatePolicies".to_owned(),
        other => other.to_string(),
    }
}
