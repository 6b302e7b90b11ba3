//! Sealing: a secret that only this TPM gives back.
//!
//! What is sealed is the secret followed by SHA-256 of its context, because a sealed object carries no associated
//! data of its own; unsealing compares. The object can neither leave this TPM nor this parent (fixedTPM,
//! fixedParent). It has no password: one stored beside the blob would protect nothing more, and one that a person
//! enters would hold up an unattended boot. Without a password there is nothing to guess, so it is exempt from
//! dictionary-attack lockout (noDA): else a program that guesses at another key's password would lock keyd out.
//!
//! libtss2 and its binding leave copies of the secret on the stack and heap of the TPM's thread that cannot be wiped
//! from here; every copy of keyd's own is.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use keyd_core::Secret;
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::structures::{
    Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters, SensitiveData,
};
use tss_esapi::traits::{Marshall, UnMarshall};

use crate::blob::{Blob, Release};
use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::error::{Doing, Error};

/// Seals `secret` into an encoded [`Blob`].
pub(crate) fn seal(connection: &mut Connection, secret: &Secret, context: &[u8]) -> Result<Vec<u8>, Error> {
    let release = Release::ThisTpm;
    let template = template(release)?;
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
pub(crate) fn unseal(connection: &mut Connection, blob: &[u8], context: &[u8]) -> Result<Secret, Error> {
    let (public, private) = read(blob)?;
    let content = connection.with_salted_session(|connection, srk, session| {
        let loaded = connection.context.execute_with_session(Some(session), |c| c.load(srk, private, public));
        let object = loaded.map_err(|source| match meaning(&source) {
            Meaning::BadParameter => Error::NotOurs(source),
            _ => Error::Command { doing: "load a sealed object", source },
        })?;
        let unsealed = connection.context.execute_with_session(Some(session), |c| c.unseal(object.into()));
        connection.flush(object.into(), unsealed.doing("unseal a secret"))
    })?;
    let (secret, bound) = content
        .value()
        .split_last_chunk::<SHA256_OUTPUT_LEN>()
        .ok_or(Error::Blob("what it holds is too short"))?;
    verify_slices_are_equal(bound, digest(&SHA256, context).as_ref()).map_err(|_| Error::OtherContext)?;
    Ok(Secret::new(secret.to_vec()))
}

/// The two areas of a blob, as TPM2_Load takes them.
pub(crate) fn read(blob: &[u8]) -> Result<(Public, Private), Error> {
    let Blob { release: Release::ThisTpm, public, private } = Blob::decode(blob)?;
    let public = Public::unmarshall(&public).map_err(Error::NotOurs)?;
    let private = Private::try_from(private).map_err(Error::NotOurs)?;
    Ok((public, private))
}

/// The sealed object's public area. A policy over PCRs will take the place of userWithAuth here.
fn template(release: Release) -> Result<Public, Error> {
    let attributes = match release {
        Release::ThisTpm => ObjectAttributesBuilder::new()
            .with_fixed_tpm(true)
            .with_fixed_parent(true)
            .with_no_da(true)
            .with_user_with_auth(true)
            .build(),
    };
    let build = |attributes: ObjectAttributes| {
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::KeyedHash)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
            .with_keyed_hash_unique_identifier(Digest::default())
            .build()
    };
    attributes.and_then(build).doing("state the template of a sealed object")
}
