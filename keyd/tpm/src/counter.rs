//! A monotonic counter in the TPM's NV memory (TPM 2.0 Part 1 §37.2.4), to which a store is bound.
//!
//! It opens by an authorization that the store alone holds, over a session that no one on the bus can answer for the
//! TPM. Who may use the Owner hierarchy can delete it, and even make another with the same authorization; but a TPM
//! starts every new counter above all that it ever had, so none goes back. It is not orderly: an orderly one is cheaper,
//! and jumps ahead when the TPM loses power, which could not be told from an older store.

use keyd_core::Secret;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, NvPublic, NvPublicBuilder};

use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::error::{Doing, Error};

/// Bytes of a counter.
const COUNTER_LEN: u16 = 8;
/// Bytes of an authorization.
const AUTHORIZATION_LEN: usize = 32;

/// What there is at a counter's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Nothing.
    Absent,
    /// Something that does not open with the authorization, or is no counter.
    Foreign,
    /// The counter, made and not yet counted.
    Unused,
    /// The counter, at this value.
    At(u64),
}

/// An authorization for a new counter, 32 random bytes.
pub(crate) fn authorization() -> Result<Secret, Error> {
    let mut bytes = vec![0; AUTHORIZATION_LEN];
    keyd_core::crypto::fill(&mut bytes).map_err(|_| Error::BadAnswer("no random bytes"))?;
    Ok(Secret::new(bytes))
}

/// Looks at the handle; without an authorization all that is there is foreign.
pub(crate) fn look(
    connection: &mut Connection,
    handle: u32,
    authorization: Option<&Secret>,
) -> Result<Counter, Error> {
    let Some(index) = open(connection, handle)? else { return Ok(Counter::Absent) };
    let result = match authorization {
        None => Ok(Counter::Foreign),
        Some(authorization) => read(connection, index, authorization),
    };
    close(connection, index);
    result
}

/// Makes the counter and counts once, so that it has a value, which it gives.
pub(crate) fn make(connection: &mut Connection, handle: u32, authorization: &Secret) -> Result<u64, Error> {
    // Whatever an earlier attempt got done.
    match look(connection, handle, Some(authorization))? {
        Counter::At(value) => return Ok(value),
        Counter::Unused => {}
        Counter::Absent | Counter::Foreign => define(connection, handle, authorization)?,
    }
    let index = open(connection, handle)?.ok_or(Error::BadAnswer("no counter, which it had just made"))?;
    let counted = count(connection, index, authorization);
    let value = counted.and_then(|()| read(connection, index, authorization));
    close(connection, index);
    match value? {
        Counter::At(value) => Ok(value),
        _ => Err(Error::BadAnswer("a new counter without a value")),
    }
}

/// Counts to `to`, which is the present value or the next one.
pub(crate) fn advance(
    connection: &mut Connection,
    handle: u32,
    authorization: &Secret,
    to: u64,
) -> Result<(), Error> {
    // It is looked at first, because the answer to an earlier count may have been lost on its way.
    let found = look(connection, handle, Some(authorization))?;
    let Some(before) = to.checked_sub(1) else { return Err(Error::CounterMoved { handle, found, to }) };
    if found == Counter::At(to) {
        return Ok(());
    }
    if found != Counter::At(before) {
        return Err(Error::CounterMoved { handle, found, to });
    }
    let index = open(connection, handle)?.ok_or(Error::BadAnswer("no counter, which it had just now"))?;
    // The TPM's answer is authenticated, so it has counted, and once.
    let counted = count(connection, index, authorization);
    close(connection, index);
    counted
}

/// Deletes what is at the handle.
pub(crate) fn remove(connection: &mut Connection, handle: u32) -> Result<(), Error> {
    let Some(index) = open(connection, handle)? else { return Ok(()) };
    connection.with_salted_session(|connection, _, session| {
        let removed = connection
            .context
            .execute_with_session(Some(session), |c| c.nv_undefine_space(Provision::Owner, index));
        removed.doing("delete an NV index")
    })
}

fn define(connection: &mut Connection, handle: u32, authorization: &Secret) -> Result<(), Error> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_auth_write(true)
        .with_auth_read(true)
        .with_no_da(true)
        .build();
    let build = |attributes| -> Result<(NvPublic, Auth), tss_esapi::Error> {
        let public = NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(handle)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(COUNTER_LEN.into())
            .build()?;
        Ok((public, Auth::try_from(authorization.expose())?))
    };
    let (public, authorization) = attributes.and_then(build).doing("state an NV counter")?;
    connection.with_salted_session(|connection, _, session| {
        let defined = connection.context.execute_with_session(Some(session), |c| {
            c.nv_define_space(Provision::Owner, Some(authorization), public)
        });
        defined.map(|index| close(connection, index)).doing("make an NV counter")
    })
}

fn count(connection: &mut Connection, index: NvIndexHandle, authorization: &Secret) -> Result<(), Error> {
    authorize(connection, index, authorization)?;
    connection.with_salted_session(|connection, _, session| {
        let counted = connection
            .context
            .execute_with_session(Some(session), |c| c.nv_increment(NvAuth::NvIndex(index), index));
        counted.doing("count in NV memory")
    })
}

fn read(connection: &mut Connection, index: NvIndexHandle, authorization: &Secret) -> Result<Counter, Error> {
    let public = connection.context.execute_without_session(|c| c.nv_read_public(index));
    let (public, _) = public.doing("look at an NV counter")?;
    let attributes = public.attributes();
    if !attributes.index_type().is_ok_and(|kind| kind == NvIndexType::Counter) || attributes.orderly() {
        return Ok(Counter::Foreign);
    }
    if !attributes.written() {
        return Ok(Counter::Unused);
    }
    authorize(connection, index, authorization)?;
    // The session's HMAC covers the index's Name, and so the attributes that were just looked at.
    let value = connection.with_salted_session(|connection, _, session| {
        let read = connection.context.execute_with_session(Some(session), |c| {
            c.nv_read(NvAuth::NvIndex(index), index, COUNTER_LEN, 0)
        });
        match read {
            Err(error) if matches!(meaning(&error), Meaning::BadAuth | Meaning::Lockout) => Ok(None),
            result => result.map(Some).doing("read an NV counter"),
        }
    })?;
    let Some(value) = value else { return Ok(Counter::Foreign) };
    let bytes = value.value().try_into().map_err(|_| Error::BadAnswer("a counter of another length"))?;
    Ok(Counter::At(u64::from_be_bytes(bytes)))
}

fn authorize(connection: &mut Connection, index: NvIndexHandle, authorization: &Secret) -> Result<(), Error> {
    let authorization = Auth::try_from(authorization.expose());
    authorization
        .and_then(|auth| connection.context.tr_set_auth(index.into(), auth))
        .doing("authorize for an NV counter")
}

fn open(connection: &mut Connection, handle: u32) -> Result<Option<NvIndexHandle>, Error> {
    let index = NvIndexTpmHandle::new(handle).doing("use the NV index")?;
    let found =
        connection.context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::NvIndex(index)));
    match found {
        Ok(object) => Ok(Some(object.into())),
        Err(error) if meaning(&error) == Meaning::NothingThere => Ok(None),
        Err(error) => Err(error).doing("look for an NV counter"),
    }
}

/// Frees the library's handle; where the library shares one, there is nothing left to free.
fn close(connection: &mut Connection, index: NvIndexHandle) {
    let _ = connection.context.tr_close(&mut index.into());
}
