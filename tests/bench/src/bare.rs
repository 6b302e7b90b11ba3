//! kryoptic by bare cryptoki, in a process of its own: the module reads its configuration from the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::object::{Attribute, MlDsaParameterSetType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use peers::token::Token;
use tokio::process::Command;

use crate::load::threads;
use crate::sign::{CLIENTS, message};

/// A token beside keyd's, so that two processes do not share one database.
pub struct Bare {
    dir: PathBuf,
    token: Token,
}

impl Bare {
    /// Makes the token.
    pub fn prepare(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), token: Token::kryoptic(dir)? })
    }

    /// Signatures a second with [`CLIENTS`] threads.
    pub async fn rate(&self, time: Duration) -> Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(&self.dir).arg(time.as_millis().to_string()).envs(&self.token.environment);
        let output = command.kill_on_drop(true).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// What the process of its own does.
pub fn measure(dir: &Path, time: Duration) -> Result<f64> {
    let token = Token::blank_kryoptic(dir)?;
    let module = Pkcs11::new(&token.module)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let sessions = (0..CLIENTS).map(|_| session(&module, &token)).collect::<Result<Vec<_>>>()?;
    let key = key(sessions.first().context("no session")?)?;
    let clients = sessions.into_iter().map(|session| (session, key)).collect();
    threads(clients, time, |(session, key), n| {
        let mechanism = Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None));
        session.sign(&mechanism, *key, &message(n))?;
        Ok(())
    })
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
    let id = Attribute::Id(b"bench".to_vec());
    let found = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), id.clone()])?;
    if let Some(key) = found.into_iter().next() {
        return Ok(key);
    }
    let parameters = Attribute::ParameterSet(MlDsaParameterSetType::ML_DSA_65.into());
    let public = [Attribute::Token(true), parameters, id.clone()];
    let private = [Attribute::Token(true), Attribute::Private(true), Attribute::Sign(true), id];
    Ok(session.generate_key_pair(&Mechanism::MlDsaKeyPairGen, &public, &private)?.1)
}
