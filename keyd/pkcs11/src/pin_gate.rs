//! Keeps a wrong PIN from being presented twice.
//!
//! Tokens lock after three to ten wrong PINs, so a PIN that the token has not accepted since keyd was started is presented
//! once: whatever came of that but an acceptance ends all use of the token until keyd is restarted, whatever happens to
//! workers meanwhile. An accepted PIN outlasts a token that goes away and workers that end.

use std::sync::{Mutex, OnceLock};

use keyd_core::{Failure, Reason};

use crate::error::Error;
use crate::lock;
use crate::wire::PinNews;

/// How many workers in a row may end between presenting a PIN that was accepted before and the token's answer.
const UNANSWERED_LIMIT: u32 = 2;

/// What is known of the PIN, over all workers of a token.
#[derive(Default)]
pub(crate) struct PinGate {
    refused: OnceLock<Failure>,
    tries: Mutex<Tries>,
}

#[derive(Default)]
struct Tries {
    /// Whether the token ever accepted the PIN.
    accepted: bool,
    /// How often it was presented since then without an answer.
    unanswered: u32,
}

impl PinGate {
    /// Before any call.
    ///
    /// # Errors
    /// [`Reason::TokenLockedOut`] once the token has refused the PIN, or may have.
    pub fn check(&self) -> Result<(), Failure> {
        self.refused.get().map_or(Ok(()), |refusal| Err(refusal.clone()))
    }

    /// Before a worker is started, while none runs. Tells whether the token has accepted the PIN.
    ///
    /// # Errors
    /// [`Reason::TokenLockedOut`] where the last workers ended while the PIN was being checked.
    pub fn check_start(&self, token: &str) -> Result<bool, Failure> {
        let Tries { accepted, unanswered } = *lock(&self.tries);
        match (accepted, unanswered) {
            (false, 1..) => self.close(Error::PinUnanswered { attempts: "once" }.into_failure(token)),
            (true, UNANSWERED_LIMIT..) => {
                self.close(Error::PinUnanswered { attempts: "twice in a row" }.into_failure(token));
            }
            _ => {}
        }
        self.check().map(|()| accepted)
    }

    /// Takes in what a worker says.
    pub fn note(&self, news: PinNews) {
        let mut tries = lock(&self.tries);
        match news {
            PinNews::Tried => tries.unanswered = tries.unanswered.saturating_add(1),
            PinNews::Accepted => *tries = Tries { accepted: true, unanswered: 0 },
            // Nobody's word is enough for one that was never accepted.
            PinNews::Untouched if tries.accepted => tries.unanswered = 0,
            PinNews::Untouched | PinNews::Unspecified => {}
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

    fn gate(news: &[PinNews]) -> PinGate {
        let gate = PinGate::default();
        news.iter().for_each(|news| gate.note(*news));
        gate
    }

    #[test]
    fn a_refusal_is_for_good() {
        let gate = gate(&[PinNews::Tried]);
        gate.note_failure(&Failure::new(Reason::TokenLockedOut, "refused"));
        gate.note(PinNews::Accepted);
        assert_eq!(gate.check().unwrap_err().message, "refused");
        assert_eq!(gate.check_start("t").unwrap_err().message, "refused");
    }

    #[test]
    fn a_pin_that_was_never_accepted_is_presented_once() {
        for news in [&[PinNews::Tried][..], &[PinNews::Tried, PinNews::Untouched]] {
            let gate = gate(news);
            assert_eq!(gate.check(), Ok(()), "it may still be accepted");
            assert_eq!(gate.check_start("t").unwrap_err().reason, Reason::TokenLockedOut);
            gate.note(PinNews::Accepted);
            assert_eq!(gate.check().unwrap_err().reason, Reason::TokenLockedOut, "never again");
        }
    }

    #[test]
    fn a_worker_that_did_not_come_to_the_pin_costs_no_try() {
        assert_eq!(gate(&[]).check_start("t"), Ok(false));
    }

    #[test]
    fn an_accepted_pin_outlasts_all_but_two_workers_in_a_row_that_end_over_it() {
        let gate = gate(&[PinNews::Tried, PinNews::Accepted]);
        for _ in 0..10 {
            gate.note(PinNews::Tried);
            assert_eq!(gate.check_start("t"), Ok(true), "one may be chance");
            gate.note(PinNews::Tried);
            gate.note(PinNews::Accepted);
            gate.note(PinNews::Tried);
            gate.note(PinNews::Untouched);
        }
        gate.note(PinNews::Tried);
        gate.note(PinNews::Tried);
        assert_eq!(gate.check_start("t").unwrap_err().reason, Reason::TokenLockedOut);
    }
}
