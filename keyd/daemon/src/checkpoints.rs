//! Checkpoints: the log so far, signed by the audit key, and its last record remembered in the store.

use std::sync::Arc;
use std::time::Duration;

use keyd_audit::{Base64, Draft, Event, Head, Origin, checkpoint_message};
use keyd_core::{Failure, Reason, SignInput};
use keyd_unix::off_worker;
use tokio::sync::Mutex;

use crate::journal::{Journal, State};
use crate::keyring::Keyring;
use crate::store::Store;

/// How many records may be unsigned before the next checkpoint is due.
const RECORDS: u64 = 1000;
/// How long a record may be unsigned.
const AGE: Duration = Duration::from_secs(60 * 60);
/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(10);

/// Who makes checkpoints.
#[derive(Clone)]
pub struct Checkpoints {
    journal: Journal,
    keyring: Keyring,
    store: Store,
    /// One at a time; holds why the last one failed.
    making: Arc<Mutex<Option<Failure>>>,
}

/// How the log stands.
pub struct Standing {
    /// How far it is.
    pub state: State,
    /// Why it is not signed to its end.
    pub unsigned: Option<Failure>,
}

impl Checkpoints {
    /// Over these parts.
    pub fn new(journal: Journal, keyring: Keyring, store: Store) -> Self {
        Self { journal, keyring, store, making: Arc::default() }
    }

    /// Signs the log to its end, where that is not so yet, and says how it stands.
    pub async fn sign(&self) -> Standing {
        let mut making = self.making.lock().await;
        *making = self.make().await.err();
        if let Some(failure) = making.as_ref() {
            tracing::warn!(%failure, "the audit log is not signed");
        }
        Standing { state: self.journal.state(), unsigned: making.clone() }
    }

    /// How the log stands. The audit key is asked only where something failed before: that may be over.
    pub async fn standing(&self) -> Standing {
        let failed = self.making.lock().await.is_some() || self.journal.state().trouble.is_some();
        if failed { self.sign().await } else { Standing { state: self.journal.state(), unsigned: None } }
    }

    /// Signs at once, and then whenever it is due; records counted repetitions as their time ends.
    pub async fn keep(self) {
        self.sign().await;
        let mut age = Duration::ZERO;
        loop {
            tokio::time::sleep(LOOK).await;
            self.journal.flush(false).await;
            let state = self.journal.state();
            // The checkpoint itself is always unsigned.
            let unsigned = state.head.seq.saturating_sub(state.signed_through) > 1;
            age = if unsigned { age + LOOK } else { Duration::ZERO };
            let first = state.audit_key.is_none() && !self.is_blank();
            if first || age >= AGE || state.head.seq.saturating_sub(state.signed_through) > RECORDS {
                self.sign().await;
                age = Duration::ZERO;
            }
        }
    }

    /// Whether there is nothing to sign yet. A keyd that only started and stopped makes no key.
    fn is_blank(&self) -> bool {
        let State { audit_key, blank, .. } = self.journal.state();
        audit_key.is_none() && blank
    }

    async fn make(&self) -> Result<(), Failure> {
        if self.is_blank() {
            return Ok(());
        }
        let key = self.keyring.audit_key().await?;
        let spki = key.record.public_key.spki();
        match self.journal.state().audit_key {
            Some(named) if named == spki => {}
            Some(_) => {
                return Err(Failure::new(
                    Reason::Integrity,
                    "the audit log names another audit key than this keyd has; `keyd audit restart` begins a new log",
                ));
            }
            None => {
                let (audit_key, protection) = (Base64(spki.to_vec()), key.record.protection);
                let event = Event::AuditKey { audit_key, protection };
                self.journal.append(vec![Draft::done(Origin::KEYD, event)]).await?;
            }
        }
        let State { head, signed_through, .. } = self.journal.state();
        if head.seq <= signed_through.saturating_add(1) {
            return Ok(());
        }
        let signature = self.keyring.sign_with(&key, SignInput::Message(&checkpoint_message(&head))).await?;
        let event = Event::Checkpoint { through: head.seq, hash: head.hash, signature: Base64(signature) };
        self.journal.append(vec![Draft::done(Origin::KEYD, event)]).await?;
        self.remember(head).await
    }

    /// A log that is shorter at the next start was cut.
    async fn remember(&self, head: Head) -> Result<(), Failure> {
        let store = self.store.clone();
        off_worker(move || store.set_audit_anchor(head)).await
    }
}
