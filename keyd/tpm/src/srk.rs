//! The storage root key (SRK): the parent of everything sealed, and the key that sessions are salted to.

use tss_esapi::Context;
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    EccParameter, EccPoint, Public, PublicBuilder, PublicEccParametersBuilder, SymmetricDefinitionObject,
};

use crate::connection::{persistent, public_area};
use crate::error::{Doing, Error};
use crate::primary;

/// Bytes of a P-256 coordinate.
const COORDINATE: usize = 32;

/// The storage root key at its persistent handle, or that there is none yet.
///
/// Its Name is a digest of its public area, so whoever pinned the Name knows the public key. An interposer on the
/// bus that put its own key in the SRK's place could read what sessions encrypt; a pinned Name rules that out.
pub(crate) struct Srk {
    handle: u32,
    loaded: Option<KeyHandle>,
}

impl Srk {
    /// Looks at the handle; with a pinned Name nothing else is accepted there.
    pub(crate) fn find(context: &mut Context, handle: u32, pinned: Option<&[u8]>) -> Result<Self, Error> {
        let loaded = persistent(context, handle)?;
        match (loaded, pinned) {
            (None, Some(_)) => return Err(Error::NoSrk { handle }),
            (Some(key), Some(pinned)) if name(context, key)? != pinned => {
                return Err(Error::OtherSrk { handle });
            }
            _ => {}
        }
        if let Some(key) = loaded
            && !is_storage_key(&public_area(context, key)?)
        {
            return Err(Error::NotAStorageKey { handle });
        }
        Ok(Self { handle, loaded })
    }

    /// The key, where there is one.
    pub(crate) const fn loaded(&self) -> Option<KeyHandle> {
        self.loaded
    }

    /// Whether failed tries at other keys' passwords never keep it from being used (noDA, TPM 2.0 Part 1 §19.8). One that is
    /// still to be made is.
    pub(crate) fn is_exempt_from_lockout(&self, context: &mut Context) -> Result<bool, Error> {
        let Some(key) = self.loaded else { return Ok(true) };
        public_area(context, key).map(|public| attributes(&public).is_some_and(ObjectAttributes::no_da))
    }

    /// The key, made and persisted where there is none.
    pub(crate) fn ensure(&mut self, context: &mut Context) -> Result<KeyHandle, Error> {
        match self.loaded {
            Some(key) => Ok(key),
            None => {
                let key = create(context, self.handle)?;
                tracing::info!(handle = format!("{:#x}", self.handle), "storage root key made");
                Ok(*self.loaded.insert(key))
            }
        }
    }
}

/// The key's Name, computed by the library from the very public area that it salts sessions to (TPM 2.0 Part 1 §16).
pub(crate) fn name(context: &mut Context, key: KeyHandle) -> Result<Vec<u8>, Error> {
    context.tr_get_name(key.into()).map(|name| name.value().to_vec()).doing("read the SRK's Name")
}

fn create(context: &mut Context, handle: u32) -> Result<KeyHandle, Error> {
    let handle = PersistentTpmHandle::new(handle).doing("use the SRK's handle")?;
    let primary = primary::create(context, Hierarchy::Owner, &template()?)?;
    let persisted = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.evict_control(Provision::Owner, primary.into(), Persistent::Persistent(handle))
        })
        .doing("persist the SRK");
    let flushed = context.flush_context(primary.into()).doing("flush the SRK");
    persisted.and_then(|object| flushed.map(|()| object.into()))
}

/// The ECC SRK that systemd and tpm2-tools make too (TCG TPM v2.0 Provisioning Guidance §7.5.1): never subject to
/// dictionary-attack lockout, no password, so that whoever may use the TPM may use it.
fn template() -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build();
    let build = |attributes: ObjectAttributes| {
        let aes = SymmetricDefinitionObject::AES_128_CFB;
        let curve = EccCurve::NistP256;
        let zero = || EccParameter::try_from(vec![0; COORDINATE]);
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_ecc_parameters(
                PublicEccParametersBuilder::new_restricted_decryption_key(aes, curve).build()?,
            )
            .with_ecc_unique_identifier(EccPoint::new(zero()?, zero()?))
            .build()
    };
    attributes.and_then(build).doing("state the SRK's template")
}

/// Whether the key can be a parent that nobody outside the TPM knows.
fn is_storage_key(public: &Public) -> bool {
    attributes(public).is_some_and(|a| {
        a.restricted() && a.decrypt() && !a.sign_encrypt() && a.fixed_tpm() && a.fixed_parent()
    })
}

/// Those of an asymmetric key.
fn attributes(public: &Public) -> Option<&ObjectAttributes> {
    match public {
        Public::Rsa { object_attributes, .. } | Public::Ecc { object_attributes, .. } => {
            Some(object_attributes)
        }
        _ => None,
    }
}
