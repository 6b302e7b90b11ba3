//! The endorsement key (EK) and its certificate: which TPM this is.

use tss_esapi::Context;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template_2;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, DefaultKey};
use tss_esapi::constants::PropertyTag;
use tss_esapi::handles::{KeyHandle, TpmHandle};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::Public;
use tss_esapi::traits::Marshall;

use crate::connection::{Connection, handles, persistent, public_area};
use crate::error::{Doing, Error};
use crate::nv;
use crate::primary::Primary;

/// Which TPM this is, and the keys it attests with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The endorsement key's X.509 certificate from its maker, DER; none where the TPM holds none.
    pub ek_certificate: Option<Vec<u8>>,
    /// The endorsement key, TPMT_PUBLIC.
    pub ek_public: Vec<u8>,
    /// The attestation key, TPMT_PUBLIC: P-256, ECDSA with SHA-256, restricted.
    pub ak_public: Vec<u8>,
    /// TPM_PT_MANUFACTURER, as `IBM`.
    pub manufacturer: String,
    /// TPM_PT_FIRMWARE_VERSION_1 and _2, 16 hexadecimal digits.
    pub firmware_version: String,
}

/// Where certificates are, best first, and the template that the certified key has where nobody persisted it (TCG EK
/// Credential Profile §2.2.1 and annex B): ECC P-384 (H-3), ECC P-256 (L-2), RSA-2048 (L-1).
const CERTIFICATES: [(u32, AsymmetricAlgorithmSelection); 3] = [
    (0x01c0_0016, AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384)),
    (0x01c0_000a, AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256)),
    (0x01c0_0002, RSA_2048),
];
/// What every TPM has; taken where none has a certificate.
const RSA_2048: AsymmetricAlgorithmSelection = AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);
/// First and last of the persistent handles for endorsement keys (TCG Registry of Reserved TPM 2.0 Handles §2.3.1).
const EK_HANDLES: std::ops::RangeInclusive<u32> = 0x8101_0000..=0x8101_ffff;

/// The endorsement key that keyd uses, and how to get at it.
pub(crate) struct EndorsementKey {
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) public: Public,
    place: Place,
}

enum Place {
    Persistent(KeyHandle),
    Derived(Primary),
}

/// Describes the TPM.
pub(crate) fn endorsement(connection: &mut Connection) -> Result<Endorsement, Error> {
    let ak = connection.with_ak(|connection, ak| public_area(&mut connection.context, ak))?;
    let (certificate, ek) = with_ek(connection, |_, ek, _| Ok((ek.certificate.clone(), ek.public.clone())))?;
    let context = &mut connection.context;
    let manufacturer = property(context, PropertyTag::Manufacturer)?.to_be_bytes();
    let version = [PropertyTag::FirmwareVersion1, PropertyTag::FirmwareVersion2]
        .map(|tag| property(context, tag).map(|value| format!("{value:08x}")));
    let [version_1, version_2] = version;
    Ok(Endorsement {
        ek_certificate: certificate,
        ek_public: ek.marshall().doing("encode the EK")?,
        ak_public: ak.marshall().doing("encode the AK")?,
        manufacturer: String::from_utf8_lossy(&manufacturer).trim_end_matches(['\0', ' ']).to_owned(),
        firmware_version: version_1? + &version_2?,
    })
}

/// A fixed property of the TPM.
pub(crate) fn property(context: &mut Context, tag: PropertyTag) -> Result<u32, Error> {
    context.get_tpm_property(tag).doing("read its properties")?.ok_or(Error::BadAnswer("no such property"))
}

/// Runs `f` with the endorsement key loaded; it is found at first use.
pub(crate) fn with_ek<T>(
    connection: &mut Connection,
    f: impl FnOnce(&mut Connection, &EndorsementKey, KeyHandle) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut ek = match connection.ek.take() {
        Some(ek) => ek,
        None => find(&mut connection.context)?,
    };
    let result = match &mut ek.place {
        Place::Persistent(handle) => {
            let handle = *handle;
            f(connection, &ek, handle)
        }
        Place::Derived(primary) => {
            let handle = primary.load(&mut connection.context)?;
            let result = f(connection, &ek, handle);
            connection.flush(handle.into(), result)
        }
    };
    connection.ek = Some(ek);
    result
}

fn find(context: &mut Context) -> Result<EndorsementKey, Error> {
    let mut stray = None;
    for (index, algorithm) in CERTIFICATES {
        let Some(certificate) = nv::certificate(context, index)? else { continue };
        if let Some((public, place)) = certified(context, &certificate, algorithm)? {
            return Ok(EndorsementKey { certificate: Some(certificate), public, place });
        }
        tracing::warn!(index = format!("{index:#x}"), "EK certificate of a key that the TPM does not have");
        stray.get_or_insert(Error::StrayCertificate { index });
    }
    if let Some(error) = stray {
        return Err(error);
    }
    let (public, primary) = derive(context, RSA_2048)?;
    Ok(EndorsementKey { certificate: None, public, place: Place::Derived(primary) })
}

/// The key that a certificate is for: one that somebody persisted, or else the one that the template gives.
fn certified(
    context: &mut Context,
    certificate: &[u8],
    algorithm: AsymmetricAlgorithmSelection,
) -> Result<Option<(Public, Place)>, Error> {
    for handle in handles(context, *EK_HANDLES.start())? {
        let TpmHandle::Persistent(handle) = handle else { continue };
        let handle = u32::from(handle);
        if !EK_HANDLES.contains(&handle) {
            continue;
        }
        let Some(key) = persistent(context, handle)? else { continue };
        let public = public_area(context, key)?;
        if is_for(certificate, &public) {
            return Ok(Some((public, Place::Persistent(key))));
        }
    }
    let (public, primary) = derive(context, algorithm)?;
    Ok(is_for(certificate, &public).then_some((public, Place::Derived(primary))))
}

fn derive(
    context: &mut Context,
    algorithm: AsymmetricAlgorithmSelection,
) -> Result<(Public, Primary), Error> {
    let template =
        create_ek_public_from_default_template_2(algorithm, DefaultKey).doing("state an EK's template")?;
    let mut primary = Primary::new(template);
    let key = primary.load(context)?;
    let public = public_area(context, key);
    context.flush_context(key.into()).doing("flush an EK")?;
    Ok((public?, primary))
}

/// Whether the certificate is for this key. A certificate holds a public key's bytes as they are (the RSA modulus, the
/// uncompressed point), so looking for them is enough to choose a key by; whoever trusts the certificate parses it.
fn is_for(certificate: &[u8], public: &Public) -> bool {
    let key = match public {
        Public::Rsa { unique, .. } => unique.value().to_vec(),
        Public::Ecc { unique, .. } => [unique.x().value(), unique.y().value()].concat(),
        _ => return false,
    };
    !key.is_empty() && certificate.windows(key.len()).any(|window| window == key)
}
