//! Keeps a PIN from being presented again after the token refused it.
//!
//! Tokens lock after three to ten wrong PINs, so one refusal ends all use of the token until keyd is restarted,
//! whatever happens to workers meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use keyd_core::{Failure, Reason};

use crate::error::Error;
use crate::wire::PinNews;

/// How many workers in a row may end between presenting the PIN and the token's answer.
const UNANSWERED_LIMIT: u32 = 2;

/// What is known of the PIN, over all workers of a token.
#[derive(Default)]
pub(crate) struct PinGate {
    refused: OnceLock<Failure>,
    unanswered: AtomicU32,
}

impl PinGate {
    /// Before any call.
    ///
    /// # Errors
    /// [`Reason::TokenLockedOut`] once the token has refused the PIN.
    pub fn check(&self) -> Result<(), Failure> {
        self.refused.get().map_or(Ok(()), |refusal| Err(refusal.clone()))
    }

    /// Before a worker is started, while none runs.
    ///
    /// # Errors
    /// [`Reason::TokenLockedOut`] where the last workers ended while the PIN was being checked.
    pub fn check_start(&self, token: &str) -> Result<(), Failure> {
        let attempts = self.unanswered.load(Ordering::Acquire);
        if attempts >= UNANSWERED_LIMIT {
            self.close(Error::PinUnanswered { attempts }.into_failure(token));
        }
        self.check()
    }

    /// Takes in what a worker says.
    pub fn note(&self, news: PinNews) {
        match news {
            PinNews::Tried => {
                self.unanswered.fetch_add(1, Ordering::AcqRel);
            }
            PinNews::Accepted | PinNews::Untouched => self.unanswered.store(0, Ordering::Release),
            PinNews::Unspecified => {}
        }
    }

    /// Takes in a failure that a call met: a refusal of the PIN is for good.
    pub fn note_failure(&self, failure: &Failure) {
        if failure.reason == Reason::TokenLockedOut {
            self.close(failure.clone());
        }
    }

    fn close(&self, failure: Failure) {
        // The first refusal is the one that tells.
        let _ = self.refused.set(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_for_good() {
        let gate = PinGate::default();
        gate.note(PinNews::Tried);
        gate.note_failure(&Failure::new(Reason::TokenLockedOut, "refused"));
        gate.note(PinNews::Accepted);
        assert_eq!(gate.check().unwrap_err().message, "refused");
    }

    #[test]
    fn workers_that_end_during_the_check_use_up_the_tries() {
        let gate = PinGate::default();
        gate.note(PinNews::Tried);
        assert_eq!(gate.check_start("t"), Ok(()), "one may be chance");
        gate.note(PinNews::Tried);
        assert_eq!(gate.check(), Ok(()), "the second may still be accepted");
        assert_eq!(gate.check_start("t").unwrap_err().reason, Reason::TokenLockedOut);
        gate.note(PinNews::Accepted);
        assert_eq!(gate.check().unwrap_err().reason, Reason::TokenLockedOut, "never again");
    }

    #[test]
    fn an_accepted_pin_clears_the_count() {
        let gate = PinGate::default();
        for _ in 0..10 {
            gate.note(PinNews::Tried);
            gate.note(PinNews::Accepted);
        }
        assert_eq!(gate.check_start("t"), Ok(()));
    }
}
