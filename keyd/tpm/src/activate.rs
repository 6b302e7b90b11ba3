//! Credential activation: proof that the attestation key lives in the TPM of the endorsement key.

use keyd_core::Secret;
use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList, EncryptedSecret, IdObject, Nonce, Public};

use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::ek::with_ek;
use crate::error::{Doing, Error};

/// PolicyC for SHA-384 (TCG EK Credential Profile annex B.6.4): the branch of a high-range EK's policy that keyd does
/// not take, PolicyAuthorizeNV.
const POLICY_C_SHA384: [u8; 48] = [
    0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b,
    0x6a, 0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, 0xb4, 0x94,
    0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
];

/// TPM2_ActivateCredential for the AK by the EK.
pub(crate) fn activate_credential(
    connection: &mut Connection,
    id_object: &IdObject,
    encrypted_secret: &EncryptedSecret,
) -> Result<Secret, Error> {
    connection.with_salted_session(|connection, _, session| {
        connection.with_ak(|connection, ak| {
            with_ek(connection, |connection, ek, ek_handle| {
                with_ek_authorization(connection, &ek.public, |connection, authorization| {
                    let sessions = (Some(session), Some(authorization), None);
                    connection
                        .context
                        .execute_with_sessions(sessions, |c| {
                            c.activate_credential(ak, ek_handle, id_object.clone(), encrypted_secret.clone())
                        })
                        .map(|secret| Secret::new(secret.value().to_vec()))
                        .map_err(|source| match meaning(&source) {
                            Meaning::BadParameter => Error::OtherCredential(source),
                            _ => Error::Command { doing: "activate a credential", source },
                        })
                })
            })
        })
    })
}

/// Runs `f` with a session that satisfies the EK's policy. An EK of the high range could be used with its empty
/// password too, but is subject to lockout then (its template has noDA clear).
fn with_ek_authorization<T>(
    connection: &mut Connection,
    ek: &Public,
    f: impl FnOnce(&mut Connection, AuthSession) -> Result<T, Error>,
) -> Result<T, Error> {
    let (Public::Rsa { name_hashing_algorithm: hash, auth_policy: policy, .. }
    | Public::Ecc { name_hashing_algorithm: hash, auth_policy: policy, .. }) = ek
    else {
        return Err(Error::EkPolicy);
    };
    connection.with_policy_session(*hash, |connection, session| {
        let policy_session = PolicySession::try_from(session).doing("use a policy session")?;
        let context = &mut connection.context;
        context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.policy_secret(
                    policy_session,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
            .doing("use the Endorsement hierarchy")?;
        let policy_a = context
            .execute_without_session(|c| c.policy_get_digest(policy_session))
            .doing("read a policy digest")?;
        if policy_a != *policy {
            if *hash != HashingAlgorithm::Sha384 {
                return Err(Error::EkPolicy);
            }
            let branches = either(policy_a).doing("state the EK's policy")?;
            context
                .execute_without_session(|c| c.policy_or(policy_session, branches))
                .doing("satisfy the EK's policy")?;
        }
        f(connection, session)
    })
}

fn either(policy_a: Digest) -> Result<DigestList, tss_esapi::Error> {
    let mut branches = DigestList::new();
    branches.add(policy_a)?;
    branches.add(Digest::try_from(POLICY_C_SHA384.as_slice())?)?;
    Ok(branches)
}
