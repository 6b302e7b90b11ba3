//! Sealing: a secret that only this TPM gives back.
//!
//! What is sealed is the secret followed by SHA-256 of its context, because a sealed object carries no associated
//! data of its own; unsealing compares. The object can neither leave this TPM nor this parent (fixedTPM,
//! fixedParent). It has no password: one stored beside the blob would protect nothing more, and one that a person
//! enters would hold up an unattended boot. Without a password there is nothing to guess, so it is exempt from
//! dictionary-attack lockout (noDA): else a program that guesses at another key's password would lock keyd out. With a
//! policy over PCRs it opens by that policy alone (userWithAuth clear).
//!
//! libtss2 and its binding leave copies of the secret on the stack and heap of the TPM's thread that cannot be wiped
//! from here; every copy of keyd's own is.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use keyd_core::{Failure, Secret};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters, SensitiveData,
};
use tss_esapi::traits::{Marshall, UnMarshall};

use crate::blob::Blob;
use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::error::{Doing, Error};
use crate::pcr::PcrValue;
use crate::release::Release;
use crate::{PolicySource, TpmConfig};

/// How often unsealing is tried while PCRs change under it.
const ATTEMPTS: u32 = 3;

/// How a sealed secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is sealed to what the configuration asks for now.
    pub current: bool,
    /// Why it does not open now, as far as that can be told without opening it.
    pub obstacle: Option<Failure>,
}

/// Seals `secret` into an encoded [`Blob`], to what the configuration asks for; see [`Release::for_now`].
pub(crate) fn seal(
    connection: &mut Connection,
    config: &TpmConfig,
    expected: &[PcrValue],
    secret: &Secret,
    context: &[u8],
) -> Result<Vec<u8>, Error> {
    let release = Release::for_now(connection, &config.seal_to, config.policy_source.as_ref(), expected)?;
    let template = template(&release)?;
    let mut content = Vec::with_capacity(secret.len() + SHA256_OUTPUT_LEN);
    content.extend_from_slice(secret.expose());
    content.extend_from_slice(digest(&SHA256, context).as_ref());
    // It takes the vector over and wipes it.
    let content = SensitiveData::try_from(content).doing("take a secret of this length")?;
    let created = connection.with_salted_session(|connection, srk, session| {
        connection
            .context
            .execute_with_session(Some(session), |c| c.create(srk, template, None, Some(content), None, None))
            .doing("seal a secret")
    })?;
    let public = created.out_public.marshall().doing("encode a sealed object")?;
    Blob { release, public, private: created.out_private.value().to_vec() }.encode()
}

/// Opens a blob of [`seal`].
pub(crate) fn unseal(
    connection: &mut Connection,
    source: Option<&PolicySource>,
    blob: &[u8],
    context: &[u8],
) -> Result<Secret, Error> {
    let (release, public, private) = read(blob)?;
    let mut attempts = 0;
    let content = loop {
        attempts += 1;
        match open(connection, source, &release, public.clone(), private.clone()) {
            Err(Error::Refused(refusal)) => match release.obstacle(connection, source)? {
                Some(obstacle) => return Err(obstacle),
                // The PCRs are as they should be: one changed and is back, or there was a policy session between.
                None if attempts < ATTEMPTS => {}
                None => return Err(Error::Refused(refusal)),
            },
            result => break result?,
        }
    };
    let (secret, bound) = content
        .value()
        .split_last_chunk::<SHA256_OUTPUT_LEN>()
        .ok_or(Error::Blob("what it holds is too short"))?;
    verify_slices_are_equal(bound, digest(&SHA256, context).as_ref()).map_err(|_| Error::OtherContext)?;
    Ok(Secret::new(secret.to_vec()))
}

/// How each blob stands, where `expected` are values that PCRs are to have after a planned change.
pub(crate) fn examine(
    connection: &mut Connection,
    config: &TpmConfig,
    expected: &[PcrValue],
    blobs: &[Vec<u8>],
) -> Result<Vec<Standing>, Error> {
    let source = config.policy_source.as_ref();
    let wanted = match Release::for_now(connection, &config.seal_to, source, expected) {
        Ok(wanted) => Some(wanted),
        // Then nothing can be sealed now, and nothing is as it should be.
        Err(error) if error.is_about_policy() => None,
        Err(error) => return Err(error),
    };
    let mut standings = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let standing = match Blob::decode(blob) {
            Ok(Blob { release, .. }) => Standing {
                current: wanted.as_ref().is_some_and(|wanted| release.is_as(wanted)),
                obstacle: release.obstacle(connection, source)?.map(|error| error.into_failure(config)),
            },
            Err(error) => Standing { current: false, obstacle: Some(error.into_failure(config)) },
        };
        standings.push(standing);
    }
    Ok(standings)
}

/// The condition and the two areas of a blob, as TPM2_Load takes them.
pub(crate) fn read(blob: &[u8]) -> Result<(Release, Public, Private), Error> {
    let Blob { release, public, private } = Blob::decode(blob)?;
    let public = Public::unmarshall(&public).map_err(Error::NotOurs)?;
    let private = Private::try_from(private).map_err(Error::NotOurs)?;
    let demanded = match &public {
        Public::KeyedHash { auth_policy, .. } => auth_policy.value(),
        _ => return Err(Error::Blob("it is no sealed object")),
    };
    if demanded != release.policy().as_ref().map_or(&[][..], |p| p.as_slice()) {
        return Err(Error::Blob("its policy is another one than the sealed object's"));
    }
    Ok((release, public, private))
}

fn open(
    connection: &mut Connection,
    source: Option<&PolicySource>,
    release: &Release,
    public: Public,
    private: Private,
) -> Result<SensitiveData, Error> {
    connection.with_salted_session(|connection, srk, session| {
        if *release == Release::ThisTpm {
            return with_loaded(connection, srk, session, public, private, |connection, object| {
                let unsealed = connection.context.execute_with_session(Some(session), |c| c.unseal(object));
                unsealed.doing("unseal a secret")
            });
        }
        connection.with_policy_session(HashingAlgorithm::Sha256, |connection, authorization| {
            release.satisfy(connection, authorization, source)?;
            with_loaded(connection, srk, session, public, private, |connection, object| {
                let sessions = (Some(authorization), Some(session), None);
                connection.context.execute_with_sessions(sessions, |c| c.unseal(object)).map_err(|source| {
                    match meaning(&source) {
                        Meaning::PolicyRefused => Error::Refused(source),
                        _ => Error::Command { doing: "unseal a secret", source },
                    }
                })
            })
        })
    })
}

/// Runs `f` with the sealed object loaded.
fn with_loaded<T>(
    connection: &mut Connection,
    srk: KeyHandle,
    session: AuthSession,
    public: Public,
    private: Private,
    f: impl FnOnce(&mut Connection, ObjectHandle) -> Result<T, Error>,
) -> Result<T, Error> {
    let loaded = connection.context.execute_with_session(Some(session), |c| c.load(srk, private, public));
    let object = loaded.map_err(|source| match meaning(&source) {
        Meaning::BadParameter => Error::NotOurs(source),
        _ => Error::Command { doing: "load a sealed object", source },
    })?;
    let result = f(connection, object.into());
    connection.flush(object.into(), result)
}

/// The sealed object's public area.
fn template(release: &Release) -> Result<Public, Error> {
    let policy = release.policy();
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_no_da(true)
        .with_user_with_auth(policy.is_none())
        .build();
    let build = |attributes: ObjectAttributes| {
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::KeyedHash)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_auth_policy(Digest::try_from(policy.as_ref().map_or(&[][..], |p| p.as_slice()))?)
            .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
            .with_keyed_hash_unique_identifier(Digest::default())
            .build()
    };
    attributes.and_then(build).doing("state the template of a sealed object")
}
