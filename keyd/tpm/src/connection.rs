//! One connection to the TPM: sessions, transient objects that never stay loaded, and the storage root key.

use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CapabilityData, Public, SymmetricDefinition};

use crate::TpmConfig;
use crate::code::{Meaning, meaning};
use crate::ek::EndorsementKey;
use crate::error::{Doing, Error};
use crate::primary::Primary;
use crate::srk::Srk;

/// Most handles asked for at once.
const HANDLES_LIMIT: u32 = 64;
/// First handles of the kinds that a dead client leaves behind (TPM 2.0 Part 2 §7.2): transient objects, and
/// sessions that are loaded.
const TRANSIENT_FIRST: u32 = 0x8000_0000;
const LOADED_SESSION_FIRST: u32 = 0x0200_0000;

/// A TPM has room for three transient objects; so what an operation loads, it flushes before it returns.
pub(crate) struct Connection {
    pub(crate) context: Context,
    pub(crate) srk: Srk,
    pub(crate) ak: Primary,
    /// Found at first use; stays what it is as long as the TPM does.
    pub(crate) ek: Option<EndorsementKey>,
}

impl Connection {
    /// Connects, and refuses a TPM whose storage root key is not the pinned one before anything is entrusted to it.
    pub(crate) fn open(config: &TpmConfig) -> Result<Self, Error> {
        let mut context = Context::new(config.tcti.conf()).map_err(Error::Connect)?;
        if config.tcti.is_exclusive() {
            flush_leftovers(&mut context)?;
        }
        let srk = Srk::find(&mut context, config.srk_handle, config.srk_name.as_deref())?;
        let ak = Primary::new(crate::ak::template()?);
        tracing::info!(tcti = %config.tcti, "TPM connected");
        Ok(Self { context, srk, ak, ek: None })
    }

    /// Runs `f` with a session that is salted to the storage root key (made first where there is none), so that the
    /// first parameter of each command and answer crosses the bus encrypted and no answer can be altered unseen.
    pub(crate) fn with_salted_session<T>(
        &mut self,
        f: impl FnOnce(&mut Self, KeyHandle, AuthSession) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let srk = self.srk.ensure(&mut self.context)?;
        let session =
            start_session(&mut self.context, Some(srk), SessionType::Hmac, HashingAlgorithm::Sha256)?;
        let (attributes, mask) =
            SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
        let prepared = self.context.tr_sess_set_attributes(session, attributes, mask);
        let result = prepared.doing("set up a session").and_then(|()| f(self, srk, session));
        self.flush(SessionHandle::from(session).into(), result)
    }

    /// Runs `f` with a policy session.
    pub(crate) fn with_policy_session<T>(
        &mut self,
        hash: HashingAlgorithm,
        f: impl FnOnce(&mut Self, AuthSession) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let session = start_session(&mut self.context, None, SessionType::Policy, hash)?;
        let result = f(self, session);
        self.flush(SessionHandle::from(session).into(), result)
    }

    /// Runs `f` with the attestation key loaded.
    pub(crate) fn with_ak<T>(
        &mut self,
        f: impl FnOnce(&mut Self, KeyHandle) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ak = self.ak.load(&mut self.context)?;
        let result = f(self, ak);
        self.flush(ak.into(), result)
    }

    /// Flushes `handle`, whatever the `result` of what was done with it.
    pub(crate) fn flush<T>(&mut self, handle: ObjectHandle, result: Result<T, Error>) -> Result<T, Error> {
        let flushed = self.context.flush_context(handle).doing("flush what it had loaded");
        result.and_then(|value| flushed.map(|()| value))
    }
}

/// The object at a persistent handle; none where there is nothing.
pub(crate) fn persistent(context: &mut Context, handle: u32) -> Result<Option<KeyHandle>, Error> {
    let handle = PersistentTpmHandle::new(handle).doing("use the persistent handle")?;
    let found = context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::Persistent(handle)));
    match found {
        Ok(object) => Ok(Some(object.into())),
        Err(error) if meaning(&error) == Meaning::NothingThere => Ok(None),
        Err(error) => Err(error).doing("read the key at a persistent handle"),
    }
}

/// The public area of a loaded key.
pub(crate) fn public_area(context: &mut Context, key: KeyHandle) -> Result<Public, Error> {
    let read = context.execute_without_session(|c| c.read_public(key));
    read.map(|(public, _, _)| public).doing("read a public key")
}

/// Handles in use from `first` on.
pub(crate) fn handles(context: &mut Context, first: u32) -> Result<Vec<TpmHandle>, Error> {
    let listed = context
        .execute_without_session(|c| c.get_capability(CapabilityType::Handles, first, HANDLES_LIMIT))
        .doing("list its handles")?;
    match listed {
        (CapabilityData::Handles(handles), _) => Ok(handles.into_inner()),
        _ => Err(Error::BadAnswer("another list than that of its handles")),
    }
}

fn start_session(
    context: &mut Context,
    salt_key: Option<KeyHandle>,
    kind: SessionType,
    hash: HashingAlgorithm,
) -> Result<AuthSession, Error> {
    context
        .execute_without_session(|c| {
            c.start_auth_session(salt_key, None, None, kind, SymmetricDefinition::AES_128_CFB, hash)
        })
        .doing("start a session")?
        .ok_or(Error::BadAnswer("no session"))
}

/// Flushes what an earlier client that died left loaded.
fn flush_leftovers(context: &mut Context) -> Result<(), Error> {
    for first in [TRANSIENT_FIRST, LOADED_SESSION_FIRST] {
        for handle in handles(context, first)? {
            let object = context
                .execute_without_session(|c| c.tr_from_tpm_public(handle))
                .doing("find what an earlier client left loaded")?;
            context.flush_context(object).doing("flush what an earlier client left loaded")?;
        }
    }
    Ok(())
}
