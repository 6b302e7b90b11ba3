//! The extensions that a profile has a word for. Any other is refused, critical or not.

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

use super::{Refused, malformed};

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
    /// The issuer's key identifier.
    pub authority: Option<Vec<u8>>,
}

/// Alternative names, as they are written.
#[derive(Default)]
pub struct Names {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
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
            ExtendedKeyUsage::OID => self.purposes = Some(value(extension)?),
            SubjectAltName::OID => self.names = Names::read(value(extension)?)?,
            SubjectKeyIdentifier::OID => drop(value::<SubjectKeyIdentifier>(extension)?),
            AuthorityKeyIdentifier::OID => {
                let authority: AuthorityKeyIdentifier = value(extension)?;
                if authority.authority_cert_issuer.is_some()
                    || authority.authority_cert_serial_number.is_some()
                {
                    return Err(malformed("its authority key identifier names a certificate"));
                }
                self.authority = authority.key_identifier.map(|id| id.as_bytes().to_vec());
            }
            other => return Err(malformed(format!("it has the extension {}", named(other)))),
        }
        Ok(())
    }
}

impl Names {
    fn read(names: SubjectAltName) -> Result<Self, Refused> {
        let mut found = Self::default();
        for name in names.0 {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => found.uris.push(uri.as_str().to_owned()),
                GeneralName::DnsName(dns) => found.dns.push(dns.as_str().to_owned()),
                _ => {
                    return Err(malformed("it has an alternative name that is neither a URI nor a DNS name"));
                }
            }
        }
        Ok(found)
    }
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
