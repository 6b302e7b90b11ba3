//! Who may do what with which namespace. Default deny.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Failure, Namespace, Reason};

/// A local process, as the kernel names it (SO_PEERCRED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id at the time of connect.
    pub uid: u32,
    /// Effective group id. What a user has by supplementary groups, a rule grants to the user: see [`Rule::uids`].
    pub gids: BTreeSet<u32>,
    /// Process id, for the log alone: it can be reused.
    pub pid: Option<i32>,
}

/// What a caller asks to do. Names as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Make a key.
    Create,
    /// List the keys of a namespace.
    List,
    /// See one key and its public key.
    Show,
    /// Sign.
    Sign,
    /// Recover a shared secret from a ciphertext.
    Decapsulate,
    /// Replace a key by a new version.
    Rotate,
    /// Destroy a key.
    Delete,
    /// Move a key to another protection.
    Migrate,
    /// Take keys into an escrow, or put them back from one.
    Escrow,
    /// Use the TPM's endorsement and attestation keys: activate a credential, quote.
    Attest,
    /// Record and check which key an attestation is bound to (the plugins of a SPIRE server).
    Bind,
    /// See the state of keyd and its devices.
    Status,
    /// Seal the keys that the TPM holds anew, to what it boots now or is to boot.
    Reseal,
    /// Remove what `keyd doctor` found in the token and no key uses.
    Repair,
    /// Read the audit log.
    Audit,
}

impl Operation {
    /// Whether the operation is about a namespace, or about the whole node.
    pub const fn is_about_keys(self) -> bool {
        match self {
            Self::Create
            | Self::List
            | Self::Show
            | Self::Sign
            | Self::Decapsulate
            | Self::Rotate
            | Self::Delete
            | Self::Migrate
            | Self::Escrow => true,
            Self::Attest | Self::Bind | Self::Status | Self::Repair | Self::Reseal | Self::Audit => false,
        }
    }

    /// The name that the configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Show => "show",
            Self::Sign => "sign",
            Self::Decapsulate => "decapsulate",
            Self::Rotate => "rotate",
            Self::Delete => "delete",
            Self::Migrate => "migrate",
            Self::Escrow => "escrow",
            Self::Attest => "attest",
            Self::Bind => "bind",
            Self::Status => "status",
            Self::Repair => "repair",
            Self::Reseal => "reseal",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One grant: these users and groups may do these operations with these namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// User ids, any of which the caller may have.
    pub uids: BTreeSet<u32>,
    /// Group ids, any of which the caller may be in.
    pub gids: BTreeSet<u32>,
    /// Namespaces that the grant is about.
    pub namespaces: BTreeSet<Namespace>,
    /// What is granted.
    pub operations: BTreeSet<Operation>,
}

/// All grants. A caller may do what at least one of them says, and nothing else: root has no rights by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// A policy of these grants; without any, everything is denied.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Whether `caller` may do `operation` with `namespace`.
    ///
    /// # Errors
    /// [`Reason::Denied`], naming the user, what was asked and where rights are given.
    pub fn check(&self, caller: &Caller, operation: Operation, namespace: &Namespace) -> Result<(), Failure> {
        self.grants(caller, |r| r.operations.contains(&operation) && r.namespaces.contains(namespace))
            .ok_or_else(|| denied(caller, &format!("{operation} in namespace {namespace}")))
    }

    /// Whether `caller` may do `operation`, which is about the node and no namespace.
    ///
    /// # Errors
    /// [`Reason::Denied`], naming the user, what was asked and where rights are given.
    pub fn check_node(&self, caller: &Caller, operation: Operation) -> Result<(), Failure> {
        self.grants(caller, |r| r.operations.contains(&operation))
            .ok_or_else(|| denied(caller, operation.name()))
    }

    fn grants(&self, caller: &Caller, what: impl Fn(&Rule) -> bool) -> Option<()> {
        let who = |r: &Rule| r.uids.contains(&caller.uid) || !r.gids.is_disjoint(&caller.gids);
        self.rules.iter().any(|r| who(r) && what(r)).then_some(())
    }
}

fn denied(caller: &Caller, what: &str) -> Failure {
    Failure::new(
        Reason::Denied,
        format!(
            "user {} has no right to {what}. An administrator can give it in an [[allow]] table of keyd.toml.",
            caller.uid
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        Caller { uid, gids: gids.iter().copied().collect(), pid: None }
    }

    fn policy() -> Policy {
        Policy::new(vec![Rule {
            uids: [100].into(),
            gids: [200].into(),
            namespaces: ["a".parse().unwrap()].into(),
            operations: [Operation::Sign].into(),
        }])
    }

    #[test]
    fn nothing_is_granted_by_default_not_even_to_root() {
        let ns = "a".parse().unwrap();
        assert!(Policy::default().check(&caller(0, &[0]), Operation::Show, &ns).is_err());
        assert!(policy().check(&caller(0, &[0]), Operation::Sign, &ns).is_err());
    }

    #[test]
    fn a_grant_is_no_wider_than_it_says() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(policy().check(&caller(100, &[]), Operation::Sign, &a).is_ok());
        assert!(policy().check(&caller(1, &[200]), Operation::Sign, &a).is_ok());
        assert!(policy().check(&caller(100, &[]), Operation::Delete, &a).is_err());
        assert!(policy().check(&caller(100, &[]), Operation::Sign, &b).is_err());
        assert_eq!(policy().check(&caller(1, &[1]), Operation::Sign, &a).unwrap_err().reason, Reason::Denied);
    }
}
