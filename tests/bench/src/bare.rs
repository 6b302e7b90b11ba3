//! kryoptic by bare cryptoki, in a process of its own: the module reads its configuration from the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::object::{Attribute, MlDsaParameterSetType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use peers::token::Token;
use tokio::process::Command;

use crate::load::{Load, threads};
use crate::sign::message;

/// A token beside keyd's, so that two processes do not share one database.
pub struct Bare {
    dir: PathBuf,
    token: Token,
}

/// What the process of its own does.
#[derive(Args)]
pub struct Task {
    /// Where the token lies
    dir: PathBuf,
    /// What to measure
    measure: Measure,
    /// How many threads
    clients: usize,
    /// How long, in ms
    millis: u64,
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub enum Measure {
    /// ML-DSA-65 signatures a second
    Sign,
    /// ML-DSA-65 keys made and destroyed a second
    Create,
}

impl Bare {
    /// Makes the token.
    pub fn prepare(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), token: Token::kryoptic(dir)? })
    }

    /// Measures in a process of its own.
    pub async fn measure(&self, what: Measure, clients: usize, time: Duration) -> Result<Load> {
        let what = what.to_possible_value().context("every measure has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(&self.dir).arg(what.get_name()).arg(clients.to_string());
        command.arg(time.as_millis().to_string()).envs(&self.token.environment).kill_on_drop(true);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Task {
    /// Measures, and prints what for [`Bare::measure`].
    pub fn run(self) -> Result<()> {
        let token = Token::blank_kryoptic(&self.dir)?;
        let module = Pkcs11::new(&token.module)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let sessions = (0..self.clients).map(|_| session(&module, &token)).collect::<Result<Vec<_>>>()?;
        let time = Duration::from_millis(self.millis);
        let load = match self.measure {
            Measure::Sign => {
                let key = key(sessions.first().context("no session")?)?;
                threads(sessions, time, move |session, n| {
                    let mechanism = Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None));
                    session.sign(&mechanism, key, &message(n))?;
                    Ok(())
                })?
            }
            Measure::Create => threads(sessions, time, |session, _| {
                let (public, private) = generate(session, b"made")?;
                session.destroy_object(public)?;
                Ok(session.destroy_object(private)?)
            })?,
        };
        Ok(serde_json::to_writer(std::io::stdout(), &load)?)
    }
}

fn session(module: &Pkcs11, token: &Token) -> Result<Session> {
    let slot = module.get_slots_with_token()?.into_iter().next().context("kryoptic shows no token")?;
    let session = module.open_rw_session(slot)?;
    match session.login(UserType::User, Some(&AuthPin::new(token.user_pin.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(error.into()),
    }
}

/// The token's key, made at first use: an object in the token, as keyd's is.
fn key(session: &Session) -> Result<ObjectHandle> {
    let id = b"bench";
    let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.to_vec())];
    match session.find_objects(&wanted)?.first() {
        Some(key) => Ok(*key),
        None => Ok(generate(session, id)?.1),
    }
}

fn generate(session: &Session, id: &[u8]) -> Result<(ObjectHandle, ObjectHandle)> {
    let id = Attribute::Id(id.to_vec());
    let parameters = Attribute::ParameterSet(MlDsaParameterSetType::ML_DSA_65.into());
    let public = [Attribute::Token(true), parameters, id.clone()];
    let private = [Attribute::Token(true), Attribute::Private(true), Attribute::Sign(true), id];
    Ok(session.generate_key_pair(&Mechanism::MlDsaKeyPairGen, &public, &private)?)
}
