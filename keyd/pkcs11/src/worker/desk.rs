//! One session thread's work: an operation in, an answer out.

use std::cell::Cell;
use std::sync::Arc;

use cryptoki::session::Session;
use keyd_core::Algorithm;

use super::decapsulate::decapsulate;
use super::module::Module;
use super::{inventory, keys, wrap};
use crate::error::Error;
use crate::wire::{Answer, Create, Decapsulate, Opened, Operation, Seal, Sign, Unseal};

/// Owns a session of its own.
pub(super) struct Desk {
    module: Arc<Module>,
    session: Option<Session>,
}

impl Desk {
    pub fn new(module: Arc<Module>) -> Self {
        Self { module, session: None }
    }

    /// Carries out an operation.
    pub fn handle(&mut self, operation: Operation) -> Answer {
        self.answer(operation).unwrap_or_else(|error| Answer::Failed(error.into_failed(&self.module.name())))
    }

    fn answer(&mut self, operation: Operation) -> Result<Answer, Error> {
        match operation {
            Operation::Sign(sign) => {
                let (algorithm, pss) = (parse(&sign.algorithm)?, sign.pss());
                let Sign { key, data, .. } = sign;
                self.with_session(|module, session| keys::sign(module, session, &key, algorithm, &data, pss))
                    .map(Answer::Bytes)
            }
            Operation::Decapsulate(Decapsulate { key, algorithm, ciphertext }) => {
                let algorithm = parse(&algorithm)?;
                self.with_session(|module, session| {
                    decapsulate(module, session, &key, algorithm, &ciphertext)
                })
                .map(|mut secret| Answer::Opened(Opened { secret: std::mem::take(&mut *secret) }))
            }
            Operation::Create(Create { key, label, algorithm, remains }) => {
                let algorithm = parse(&algorithm)?;
                let tried = Cell::new(false);
                self.with_session(|module, session| {
                    if tried.replace(true) {
                        // What a first try left in the token must not become a second key with this CKA_ID.
                        keys::delete(module, session, &key)?;
                    }
                    if !remains.is_empty() {
                        keys::delete(module, session, &remains)?;
                    }
                    keys::create(module, session, &key, &label, algorithm)
                })
                .map(Answer::Bytes)
            }
            Operation::Delete(key) => self
                .with_session(|module, session| keys::delete(module, session, &key))
                .map(|()| Answer::Done(())),
            Operation::Seal(Seal { ref secret, ref context }) => self
                .with_session(|module, session| wrap::seal(module, session, secret, context))
                .map(Answer::Bytes),
            Operation::Unseal(Unseal { blob, context }) => self
                .with_session(|module, session| wrap::unseal(module, session, &blob, &context))
                .map(|secret| Answer::Opened(Opened { secret })),
            Operation::List(list) => {
                self.with_session(|_, session| inventory::list(session, &list)).map(Answer::Objects)
            }
            Operation::Describe(()) => {
                self.with_session(|module, _| inventory::describe(module)).map(Answer::Description)
            }
        }
    }

    /// Runs `work` in this thread's session, and once more in a new one where that may help. A session in which anything
    /// failed is thrown away, because an operation may stay active in it.
    fn with_session<T>(&mut self, work: impl Fn(&Module, &Session) -> Result<T, Error>) -> Result<T, Error> {
        match self.attempt(&work) {
            Err(error) if error.is_worth_a_retry() => self.attempt(&work),
            result => result,
        }
    }

    fn attempt<T>(&mut self, work: impl Fn(&Module, &Session) -> Result<T, Error>) -> Result<T, Error> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.module.open()?,
        };
        let done = work(&self.module, &session)?;
        self.session = Some(session);
        Ok(done)
    }
}

fn parse(name: &str) -> Result<Algorithm, Error> {
    name.parse().map_err(|_| Error::Protocol { what: format!("algorithm {name:?}") })
}
