//! What of the configuration counts now. SIGHUP puts another in its place, whole or not at all.

use std::sync::{Arc, PoisonError, RwLock};

use keyd_core::{Caller, Failure, Namespace, Operation, Policy, Reason};
use keyd_unix::ConfigFile;

use crate::config::{Config, EscrowTable};

/// The rules in force; every clone sees the same.
#[derive(Clone)]
pub struct InForce {
    rules: Arc<RwLock<Arc<Rules>>>,
}

/// A configuration, and its policy with users and groups looked up.
pub struct Rules {
    /// As the file says, but for what takes a restart.
    pub config: Config,
    /// Its grants.
    pub policy: Policy,
}

/// What a reload did, and what it could not do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Namespaces that are new.
    pub added: Vec<Namespace>,
    /// Namespaces that the file no longer names. Their keys stay in the store, for nobody's use.
    pub gone: Vec<Namespace>,
    /// What says something else than when keyd started, and takes a restart.
    pub waiting: Vec<&'static str>,
}

impl InForce {
    /// Puts a first configuration in force.
    ///
    /// # Errors
    /// As [`Rules::of`].
    pub fn new(config: Config) -> Result<Self, Failure> {
        Ok(Self { rules: Arc::new(RwLock::new(Arc::new(Rules::of(config)?))) })
    }

    /// The rules as they stand; a later reload does not change them.
    pub fn now(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What another configuration would put in force: its namespaces and grants. The rest stays as it was when keyd started.
    /// Nothing is changed yet.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] for one that does not go together with what takes a restart; those of [`Rules::of`].
    pub fn prepare(&self, new: Config) -> Result<(Rules, Reloaded), Failure> {
        let old = self.now();
        let waiting = new.differences_that_wait(&old.config);
        let config = new.with_places_of(&old.config);
        config.check().map_err(|why| {
            let all = waiting.join(", ");
            Failure::new(
                Reason::BadConfig,
                format!("{why}; keyd has not taken over {all} yet, which takes a restart"),
            )
        })?;
        let reloaded = Reloaded {
            added: missing_in(&old.config, &config),
            gone: missing_in(&config, &old.config),
            waiting,
        };
        Ok((Rules::of(config)?, reloaded))
    }

    /// Puts rules in force for every call from now on.
    pub fn put(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

impl Rules {
    /// Looks up the users and groups of a configuration, and whether an escrow could be made as it says. Blocks on the disk
    /// and on directory services.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming a user or group that does not exist, or a file.
    fn of(config: Config) -> Result<Self, Failure> {
        config.escrow.as_ref().map(EscrowTable::recipient).transpose()?;
        let policy = config.policy()?;
        Ok(Self { config, policy })
    }

    /// The namespaces with which a caller may do `operation`.
    pub fn open_to(&self, caller: &Caller, operation: Operation) -> impl Iterator<Item = &Namespace> {
        let all = self.config.namespaces().map(|n| &n.name);
        all.filter(move |n| self.policy.check(caller, operation, n).is_ok())
    }
}

/// The namespaces of `other` that `config` does not name.
fn missing_in(config: &Config, other: &Config) -> Vec<Namespace> {
    let names = other.namespaces().map(|n| &n.name);
    names.filter(|name| config.protections(name).is_none()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reload(rules: &InForce, new: Config) -> Result<Reloaded, Failure> {
        let (new, reloaded) = rules.prepare(new)?;
        rules.put(new);
        Ok(reloaded)
    }

    fn config(text: &str) -> Config {
        Config::parse("keyd.toml", text).unwrap()
    }

    fn soft(name: &str) -> String {
        format!("[[namespace]]\nname = \"{name}\"\nprotections = [\"software\"]\n")
    }

    #[test]
    fn namespaces_come_and_go_with_a_reload() {
        let rules = InForce::new(config(&(soft("a") + &soft("b")))).unwrap();
        let before = rules.now();
        let done = reload(&rules, config(&(soft("b") + &soft("c")))).unwrap();
        let (a, c) = ("a".parse().unwrap(), "c".parse().unwrap());
        assert_eq!(done, Reloaded { added: vec![c], gone: vec![a], waiting: vec![] });
        let names = |rules: &Rules| rules.config.namespaces().map(|n| n.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&rules.now()), ["b", "c"]);
        assert_eq!(names(&before), ["a", "b"], "a call under way goes on by the rules that it began with");
    }

    #[test]
    fn what_takes_a_restart_is_named_and_stays_as_it_was() {
        let rules = InForce::new(config("socket = \"/a\"\n")).unwrap();
        let new = "socket = \"/b\"\nstate_dir = \"/c\"\ntpm.tcti = \"device:/dev/tpmrm0\"\nlimits.keys = 7\n";
        assert_eq!(
            reload(&rules, config(new)).unwrap().waiting,
            ["socket", "state_dir", "[tpm]", "[limits]"]
        );
        let now = rules.now();
        assert_eq!(now.config.socket.to_str(), Some("/a"));
        assert!(now.config.tpm.is_none() && now.config.limits.keys != 7);
    }

    #[test]
    fn a_namespace_on_a_device_that_takes_a_restart_is_refused_whole() {
        let rules = InForce::new(config(&soft("a"))).unwrap();
        let sealed = "tpm.tcti = \"device:/dev/tpmrm0\"\n[[namespace]]\nname = \"n\"\nprotections = [\"tpm-sealed\"]\n";
        let refusal = reload(&rules, config(sealed)).unwrap_err();
        for words in ["namespace n accepts tpm-sealed", "[tpm]", "restart"] {
            assert!(refusal.message.contains(words), "{refusal}");
        }
        assert!(rules.now().config.protections(&"a".parse().unwrap()).is_some());
    }
}
