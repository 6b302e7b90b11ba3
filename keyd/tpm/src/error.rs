//! What goes wrong with the TPM, and how it is said to people.

use std::path::PathBuf;

use keyd_core::{Failure, Reason};

use crate::TpmConfig;
use crate::code::{self, Meaning};
use crate::counter::Counter;
use crate::release::MovedPcrs;

/// A fault on the TPM's thread.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect")]
    Connect(#[source] tss_esapi::Error),
    #[error("cannot {doing}")]
    Command {
        doing: &'static str,
        #[source]
        source: tss_esapi::Error,
    },
    #[error("the storage root key at {handle:#x} has another Name than the one pinned at enrolment")]
    OtherSrk { handle: u32 },
    #[error("there is no storage root key at {handle:#x}, and one was pinned at enrolment")]
    NoSrk { handle: u32 },
    #[error("the key at {handle:#x}, where the storage root key should be, is no storage key")]
    NotAStorageKey { handle: u32 },
    #[error("sealed blob: {0}")]
    Blob(&'static str),
    #[error("the TPM refused the sealed blob")]
    NotOurs(#[source] tss_esapi::Error),
    #[error("the blob was sealed for another context")]
    OtherContext,
    #[error("{0}")]
    PcrsMoved(MovedPcrs),
    #[error("{} approves no state with the present PCRs {}{}", .file.display(), list(.pcrs), and(.moved))]
    PolicyOutdated { file: PathBuf, pcrs: Vec<u8>, moved: MovedPcrs },
    #[error("the signed policy {}: {why}", .file.display())]
    Signatures { file: PathBuf, why: String },
    #[error("this was sealed to a signed policy of another key than keyd.toml names")]
    OtherPolicyKey,
    #[error("the TPM refused the policy")]
    Refused(#[source] tss_esapi::Error),
    #[error("the TPM is in dictionary-attack lockout")]
    Lockout {
        /// What was refused.
        #[source]
        source: tss_esapi::Error,
        /// After how many seconds the TPM forgets one failed try.
        interval: u32,
    },
    #[error("the counter at {handle:#x} {} where it was to count to {to}", at(*.found))]
    CounterMoved { handle: u32, found: Counter, to: u64 },
    #[error("the certificate in NV index {index:#x} is of no endorsement key that the TPM has")]
    StrayCertificate { index: u32 },
    #[error("the endorsement key has a policy that keyd does not know")]
    EkPolicy,
    #[error("the credential was made for another TPM or attestation key")]
    OtherCredential(#[source] tss_esapi::Error),
    #[error("the SHA-256 bank has no PCR {index}")]
    NoPcr { index: u8 },
    #[error("PCRs changed during each of several quotes")]
    PcrsMove,
    #[error("the TPM answered with {0}")]
    BadAnswer(&'static str),
}

/// Says which step of an operation a command was.
pub(crate) trait Doing<T> {
    /// `doing` completes "cannot ...".
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, tss_esapi::Error> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Command { doing, source })
    }
}

impl Error {
    /// Whether a new connection, which starts from nothing, may do better.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Command { source, .. } => {
                matches!(
                    code::meaning(source),
                    Meaning::Unreachable | Meaning::Unsettled | Meaning::NothingThere
                )
            }
            _ => false,
        }
    }

    /// Whether the library may be out of step with the TPM: after anything but an answer of the TPM's own.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Command { source, .. } => self.is_worth_retrying() || !code::is_answer(source),
            _ => false,
        }
    }

    /// Whether it says that nothing can be sealed to, or opened by, a policy as things stand.
    pub(crate) const fn is_about_policy(&self) -> bool {
        matches!(self, Self::PolicyOutdated { .. } | Self::Signatures { .. } | Self::OtherPolicyKey)
    }

    /// As the caller sees it: what is wrong with which TPM, and what to do.
    pub(crate) fn into_failure(self, config: &TpmConfig) -> Failure {
        let (reason, advice) = self.classify();
        let cause = self.cause().map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(reason, format!("TPM {}: {self}{cause}. {advice}", config.tcti))
    }

    fn classify(&self) -> (Reason, String) {
        let (reason, advice) = match self {
            Self::Connect(_) => (Reason::TpmAbsent, ABSENT),
            Self::Command { source, .. } => classify_code(code::meaning(source)),
            Self::OtherSrk { .. } | Self::NoSrk { .. } => (
                Reason::TpmReplaced,
                "The TPM was cleared or replaced (a changed mainboard). Put the enrolled TPM back; or, if the change \
                 was meant, enrol this node anew: keys sealed before are lost.",
            ),
            Self::NotAStorageKey { handle } => {
                let advice =
                    format!("Free it with `tpm2_evictcontrol -c {handle:#x}`, or give keyd another handle.");
                return (Reason::TpmFailed, advice);
            }
            Self::Blob(_) | Self::NotOurs(_) | Self::OtherContext => (
                Reason::UnsealFailed,
                "It is damaged, or was sealed by another TPM or for another key. Restore keyd's state of this very \
                 machine from a backup, or make the key anew.",
            ),
            Self::PcrsMoved(_) => (
                Reason::PcrChanged,
                "What boots is not what the key was sealed to. If nobody changed it (firmware, Secure Boot keys, boot \
                 loader, kernel), take the machine out of service. After a planned change: boot once more as before it, \
                 run `keyd reseal --pcr INDEX=VALUE` there with the values of the change, then change; while keyd still \
                 has the key in memory, `keyd reseal` is enough.",
            ),
            Self::PolicyOutdated { .. } | Self::Signatures { .. } => (
                Reason::PolicyOutdated,
                "Put the signed policy of the image that runs there (`systemd-measure sign`, or `keyd tpm sign-policy`); \
                 if no approved image should run here, take the machine out of service.",
            ),
            Self::OtherPolicyKey => (
                Reason::PolicyOutdated,
                "Name the former key and its file in policy_key and policy_signatures, start keyd, and change over with \
                 `keyd reseal`.",
            ),
            Self::Refused(_) => (
                Reason::TpmFailed,
                "If it stays so, PCRs change while keyd looks, or the TPM does not know keys of the policy key's size \
                 (RSA-2048 is the usual one).",
            ),
            Self::Lockout { interval, .. } => {
                let advice = format!(
                    "It forgets one failed try every {interval} s while it has power; then keyd goes on by itself. \
                     `tpm2_dictionarylockout --clear-lockout` ends it at once. Find out who guesses at its passwords."
                );
                return (Reason::TpmLockout, advice);
            }
            Self::CounterMoved { .. } => (
                Reason::StoreRolledBack,
                "Something else counts with it, or made it anew: two keyd with copies of one store, or a TPM that was \
                 restored. Stop keyd; `keyd accept-store` binds the store again if it is the right one.",
            ),
            Self::StrayCertificate { .. } => (
                Reason::TpmFailed,
                "Ask the TPM's maker for the certificate of this very TPM and write it there.",
            ),
            Self::OtherCredential(_) => (
                Reason::BadRequest,
                "Start the attestation again; if it stays so, the server's list of TPMs has another endorsement key \
                 for this node.",
            ),
            Self::EkPolicy => (Reason::TpmFailed, "Report it with the TPM's maker and model."),
            Self::NoPcr { .. } => (
                Reason::TpmFailed,
                "Activate the SHA-256 PCR bank in the firmware's settings (or with `tpm2_pcrallocate`), or choose \
                 other PCRs.",
            ),
            Self::PcrsMove => (Reason::TpmFailed, "Try again when the machine has settled."),
            Self::BadAnswer(_) => classify_code(Meaning::Other),
        };
        (reason, advice.to_owned())
    }

    /// The cause with the number that a search finds.
    fn cause(&self) -> Option<String> {
        let (Self::Connect(source)
        | Self::Command { source, .. }
        | Self::NotOurs(source)
        | Self::Refused(source)
        | Self::Lockout { source, .. }
        | Self::OtherCredential(source)) = self
        else {
            return None;
        };
        Some(match code::number(source) {
            Some(number) if code::is_answer(source) => format!("{source} ({number:#x})"),
            // The binding reads codes of the other layers as if they were the TPM's.
            Some(number) => format!("code {number:#x}"),
            None => source.to_string(),
        })
    }
}

fn at(found: Counter) -> String {
    match found {
        Counter::Absent => "is gone".to_owned(),
        Counter::Foreign => "is another one".to_owned(),
        Counter::Unused => "is new".to_owned(),
        Counter::At(value) => format!("is at {value}"),
    }
}

fn list(pcrs: &[u8]) -> String {
    pcrs.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}

fn and(moved: &MovedPcrs) -> String {
    if moved.0.is_empty() { String::new() } else { format!("; {moved}") }
}

const ABSENT: &str = "Check that the device exists and that keyd may open it (group tss), or that the TPM is switched \
                      on in the firmware's settings; keyd goes on by itself once it is there.";

fn classify_code(meaning: Meaning) -> (Reason, &'static str) {
    match meaning {
        Meaning::Unreachable => (Reason::TpmAbsent, ABSENT),
        Meaning::Lockout => (
            Reason::TpmLockout,
            "The TPM is in dictionary-attack lockout. Wait for its recovery time, or end it with \
             `tpm2_dictionarylockout --clear-lockout`; then find out who guesses at its passwords.",
        ),
        Meaning::BadAuth => (
            Reason::TpmFailed,
            "A TPM hierarchy or key has a password. keyd expects none: clear it with `tpm2_changeauth`, or create the \
             storage key at its handle yourself.",
        ),
        Meaning::Forged => (
            Reason::TpmFailed,
            "Something between keyd and the TPM altered the answer. Take the machine out of service and look at its \
             TPM bus.",
        ),
        Meaning::Unsettled => (
            Reason::TpmFailed,
            "The TPM was not started or is full of what other programs left loaded. `tpm2_flushcontext -t` frees \
             room; a reboot settles both.",
        ),
        Meaning::PolicyRefused | Meaning::NothingThere | Meaning::BadParameter | Meaning::Other => (
            Reason::TpmFailed,
            "If it stays so after a reboot, `tpm2_getcap properties-variable` shows its state.",
        ),
    }
}
