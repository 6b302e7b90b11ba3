//! The handle that the rest of keyd holds.

use std::sync::Arc;
use std::time::Duration;

use keyd_core::{BoxFuture, Failure, Health, HealthState, Reason, Sealer, Secret};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tss_esapi::structures::{Data, EncryptedSecret, IdObject};

use crate::connection::Connection;
use crate::counter::{self, Counter};
use crate::ek::{self, Endorsement};
use crate::error::Error;
use crate::pcr::{self, PCR_MAX, PcrValue};
use crate::queue::{Full, Priority, Queue};
use crate::quote::{self, Quote};
use crate::seal::Standing;
use crate::worker::Worker;
use crate::{SealTo, TpmConfig, activate, health, on_behalf_of, seal, srk, user};

/// Longest secret that is sealed, in bytes.
pub const SECRET_LIMIT: usize = 64;
/// How long `health` waits, so that a status is prompt when a TPM is not.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// A TPM. Clones share one connection, which one OS thread owns; the thread ends with the last clone.
///
/// The connection is opened by the first call and again after it broke, so a TPM that is absent now may come later.
/// Every call fails with
/// - [`Reason::TpmAbsent`] where the TPM cannot be reached,
/// - [`Reason::TpmReplaced`] where it is not the one that was enrolled,
/// - [`Reason::TpmLockout`] in dictionary-attack lockout, where that touches keyd's keys,
/// - [`Reason::DeadlineExceeded`] after [`TpmConfig::call_deadline`]. The TPM may still be at it: a TPM command cannot
///   be cancelled, so its thread stays in it, later calls wait behind it, each to its own deadline, and calls whose
///   callers have left are skipped. The late result is wiped. Sealing leaves nothing in the TPM, so nothing is lost
///   by that;
/// - [`Reason::LimitExceeded`] where 64 calls of the same user wait already (see [`crate::on_behalf_of`]): users take turns,
/// - [`Reason::TpmFailed`] where it fails otherwise.
///
/// Unsealing fails also with [`Reason::PcrChanged`], naming the PCR, with [`Reason::PolicyOutdated`], and with
/// [`Reason::UnsealFailed`] for a blob that is damaged or another TPM's.
#[derive(Clone)]
pub struct Tpm {
    shared: Arc<Shared>,
    priority: Priority,
}

struct Shared {
    queue: Arc<Queue>,
    config: TpmConfig,
}

impl Tpm {
    /// Starts the thread. Touches no TPM yet.
    ///
    /// # Errors
    /// [`Reason::Internal`] where no thread can be started.
    pub fn open(config: TpmConfig) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::default());
        let (its_queue, its_config) = (Arc::clone(&queue), config.clone());
        std::thread::Builder::new()
            .name("tpm".into())
            .spawn(move || Worker::run(&its_queue, its_config))
            .map_err(|error| {
                Failure::new(Reason::Internal, format!("cannot start the TPM's thread: {error}"))
            })?;
        Ok(Self { shared: Arc::new(Shared { queue, config }), priority: Priority::Interactive })
    }

    /// The same TPM for work that nobody waits for: its calls are done when no other ones wait.
    pub fn in_background(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), priority: Priority::Background }
    }

    /// Makes the storage root key where there is none, and gives its Name (TPM 2.0 Part 1 §16): to be pinned at
    /// enrolment. Doing it twice does no harm.
    ///
    /// # Errors
    /// As every call; [`Reason::TpmFailed`] also where the handle is taken by another kind of key.
    pub async fn ensure_srk(&self) -> Result<Vec<u8>, Failure> {
        self.call(|connection| {
            let key = connection.srk.ensure(&mut connection.context)?;
            srk::name(&mut connection.context, key)
        })
        .await
    }

    /// The Name of the storage root key; none where there is no key yet.
    ///
    /// # Errors
    /// As [`Tpm::ensure_srk`].
    pub async fn srk_name(&self) -> Result<Option<Vec<u8>>, Failure> {
        self.call(|connection| {
            let key = connection.srk.loaded();
            key.map(|key| srk::name(&mut connection.context, key)).transpose()
        })
        .await
    }

    /// Which TPM this is, with the keys it attests with. An ECC endorsement key with a certificate is taken before an
    /// RSA one, and RSA-2048 where neither has one.
    ///
    /// # Errors
    /// As every call.
    pub async fn endorsement(&self) -> Result<Endorsement, Failure> {
        self.call(ek::endorsement).await
    }

    /// Takes the secret out of a credential (TPM 2.0 Part 1 §24) that was made for this TPM's endorsement key and its
    /// attestation key: `id_object` is the contents of TPM2B_ID_OBJECT, `encrypted_secret` those of
    /// TPM2B_ENCRYPTED_SECRET.
    ///
    /// # Errors
    /// As every call; [`Reason::BadRequest`] for a credential that was made for other keys.
    pub async fn activate_credential(
        &self,
        id_object: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Secret, Failure> {
        let long = |what| Failure::new(Reason::BadRequest, format!("the credential's {what} is too long"));
        let id_object = IdObject::try_from(id_object).map_err(|_| long("id object"))?;
        let encrypted_secret =
            EncryptedSecret::try_from(encrypted_secret).map_err(|_| long("encrypted secret"))?;
        self.call(move |connection| activate::activate_credential(connection, &id_object, &encrypted_secret))
            .await
    }

    /// Quotes PCRs of the SHA-256 bank, from 0 to 23, in any order, with at most 64 bytes of `qualifying_data`.
    ///
    /// # Errors
    /// As every call; [`Reason::BadRequest`] for no PCR, one above 23, or too much data.
    pub async fn quote(&self, pcrs: &[u8], qualifying_data: &[u8]) -> Result<Quote, Failure> {
        let pcrs = ascending(pcrs)?;
        let qualifying_data = Data::try_from(qualifying_data).map_err(|_| {
            let limit = Data::MAX_SIZE;
            Failure::new(
                Reason::BadRequest,
                format!("a quote takes at most {limit} bytes of qualifying data"),
            )
        })?;
        self.call(move |connection| quote::quote(connection, &pcrs, &qualifying_data)).await
    }

    /// The present values of PCRs of the SHA-256 bank, ascending. Not attested.
    ///
    /// # Errors
    /// As [`Tpm::quote`].
    pub async fn read_pcrs(&self, pcrs: &[u8]) -> Result<Vec<PcrValue>, Failure> {
        let pcrs = ascending(pcrs)?;
        self.call(move |connection| pcr::read_pcrs(connection, &pcrs)).await
    }

    /// As [`Sealer::seal`], where `expected` are values that PCRs are to have after a planned change: what is sealed
    /// opens with the present values and with those.
    ///
    /// # Errors
    /// As every call; [`Reason::BadRequest`] for a secret that is too long, and for expected values of PCRs that
    /// nothing is sealed to; [`Reason::PolicyOutdated`] where a signed policy does not approve the present state.
    pub async fn seal_expecting(
        &self,
        secret: &Secret,
        context: &[u8],
        expected: &[PcrValue],
    ) -> Result<Vec<u8>, Failure> {
        if secret.is_empty() || secret.len() > SECRET_LIMIT {
            let say = format!("the TPM seals 1 to {SECRET_LIMIT} bytes, not {}", secret.len());
            return Err(Failure::new(Reason::BadRequest, say));
        }
        self.check_expected(expected)?;
        let (config, expected) = (self.shared.config.clone(), expected.to_vec());
        let (secret, context) = (secret.clone(), context.to_vec());
        self.call(move |connection| seal::seal(connection, &config, &expected, &secret, &context)).await
    }

    /// How sealed secrets stand: whether each is sealed as a new one would be now, and whether it would open. It opens
    /// none.
    ///
    /// # Errors
    /// As every call; [`Reason::BadRequest`] as [`Tpm::seal_expecting`].
    pub async fn examine(
        &self,
        blobs: Vec<Vec<u8>>,
        expected: &[PcrValue],
    ) -> Result<Vec<Standing>, Failure> {
        self.check_expected(expected)?;
        let (config, expected) = (self.shared.config.clone(), expected.to_vec());
        self.call(move |connection| seal::examine(connection, &config, &expected, &blobs)).await
    }

    /// What there is at a counter's handle, in the range that TPMs leave to owners (0x01800000 to 0x01bfffff).
    /// Without an authorization everything is foreign.
    ///
    /// # Errors
    /// As every call.
    pub async fn counter(&self, handle: u32, authorization: Option<&Secret>) -> Result<Counter, Failure> {
        let authorization = authorization.cloned();
        self.call_as_keyd(move |connection| counter::look(connection, handle, authorization.as_ref())).await
    }

    /// Makes a counter with an authorization of [`Tpm::counter_authorization`], and gives its first value.
    ///
    /// # Errors
    /// As every call; [`Reason::TpmFailed`] also where the handle is taken, or the TPM has no room.
    pub async fn make_counter(&self, handle: u32, authorization: &Secret) -> Result<u64, Failure> {
        let authorization = authorization.clone();
        self.call_as_keyd(move |connection| counter::make(connection, handle, &authorization)).await
    }

    /// Counts to `to`, the present value or the next one.
    ///
    /// # Errors
    /// As every call; [`Reason::StoreRolledBack`] where the counter is elsewhere.
    pub async fn advance_counter(&self, handle: u32, authorization: &Secret, to: u64) -> Result<(), Failure> {
        let authorization = authorization.clone();
        self.call_as_keyd(move |connection| counter::advance(connection, handle, &authorization, to)).await
    }

    /// Deletes the counter, or whatever else is at its handle.
    ///
    /// # Errors
    /// As every call.
    pub async fn remove_counter(&self, handle: u32) -> Result<(), Failure> {
        self.call_as_keyd(move |connection| counter::remove(connection, handle)).await
    }

    /// A new counter's authorization: 32 random bytes.
    ///
    /// # Errors
    /// [`Reason::TpmFailed`] when there are no random bytes.
    pub fn counter_authorization(&self) -> Result<Secret, Failure> {
        counter::authorization().map_err(|error| error.into_failure(&self.shared.config))
    }

    fn check_expected(&self, expected: &[PcrValue]) -> Result<(), Failure> {
        let sealed_to: &[u8] = match &self.shared.config.seal_to {
            SealTo::Pcrs(pcrs) => pcrs,
            SealTo::ThisTpm | SealTo::SignedPolicy => &[],
        };
        let strange = expected.iter().find(|pcr| !sealed_to.contains(&pcr.index));
        strange.map_or(Ok(()), |pcr| {
            let say = format!(
                "keys are not sealed to PCR {}, so its value cannot be expected; [tpm] pcrs in keyd.toml names those \
                 that they are sealed to",
                pcr.index
            );
            Err(Failure::new(Reason::BadRequest, say))
        })
    }

    /// As [`Tpm::call`], for nobody in particular: changes of keys are counted one after the other, so no count may wait
    /// behind one user's other calls.
    async fn call_as_keyd<T: Send + 'static>(
        &self,
        operation: impl Fn(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        on_behalf_of(None, self.call(operation)).await
    }

    /// Has the thread run `operation` and waits for it, for [`TpmConfig::call_deadline`].
    async fn call<T: Send + 'static>(
        &self,
        operation: impl Fn(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let config = &self.shared.config;
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move |worker: &mut Worker| {
            // The caller has left.
            if !sender.is_closed() {
                let _ = sender.send(worker.perform(operation));
            }
        });
        self.shared.queue.push(self.priority, user(), job).map_err(|Full| {
            let say = format!("TPM {}: too many of your calls wait already; try again later", config.tcti);
            Failure::new(Reason::LimitExceeded, say)
        })?;
        match timeout(config.call_deadline, receiver).await {
            Ok(Ok(result)) => result.map_err(|error| error.into_failure(config)),
            Ok(Err(_)) => {
                let say = format!("TPM {}: its thread has ended; restart keyd", config.tcti);
                Err(Failure::new(Reason::Internal, say))
            }
            Err(_) => {
                let say = format!(
                    "TPM {}: no answer within {:?}; it is slow or hangs, `keyd status` tells which",
                    config.tcti, config.call_deadline
                );
                Err(Failure::new(Reason::DeadlineExceeded, say))
            }
        }
    }

    async fn check_health(&self) -> Health {
        let config = &self.shared.config;
        let pinned = config.srk_name.is_some();
        let asked =
            timeout(HEALTH_LIMIT, self.call(move |connection| health::describe(connection, pinned))).await;
        let (state, detail) = match asked {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) if failure.reason == Reason::TpmLockout => {
                (HealthState::LockedOut, failure.message)
            }
            Ok(Err(failure)) if failure.reason == Reason::TpmReplaced => {
                (HealthState::Replaced, failure.message)
            }
            Ok(Err(failure)) => (HealthState::Absent, failure.message),
            Err(_) => match self.shared.queue.busy_for() {
                Some(busy) if busy >= config.call_deadline => {
                    (HealthState::Absent, format!("It has not answered for {} s.", busy.as_secs()))
                }
                _ => (HealthState::Ok, "It is busy.".to_owned()),
            },
        };
        Health { device: format!("TPM {}", config.tcti), state, detail }
    }
}

// === impl Sealer for Tpm ===

impl Sealer for Tpm {
    fn seal<'a>(&'a self, secret: &'a Secret, context: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(self.seal_expecting(secret, context, &[]))
    }

    fn unseal<'a>(&'a self, blob: &'a [u8], context: &'a [u8]) -> BoxFuture<'a, Result<Secret, Failure>> {
        let (source, blob, context) =
            (self.shared.config.policy_source.clone(), blob.to_vec(), context.to_vec());
        Box::pin(self.call(move |connection| seal::unseal(connection, source.as_ref(), &blob, &context)))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(self.check_health())
    }
}

// === impl Shared ===

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn ascending(pcrs: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut pcrs = pcrs.to_vec();
    pcrs.sort_unstable();
    pcrs.dedup();
    match pcrs.last() {
        Some(last) if *last <= PCR_MAX => Ok(pcrs),
        _ => Err(Failure::new(Reason::BadRequest, format!("name PCRs from 0 to {PCR_MAX}, at least one"))),
    }
}
