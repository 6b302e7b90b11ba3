//! `[[allow]]`: who may do what, with users and groups looked up.

use std::collections::BTreeSet;

use keyd_core::{Failure, Namespace, Operation, Reason, Rule};
use nix::unistd::{Group, User};
use serde::Deserialize;

/// `[[allow]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowTable {
    #[serde(default)]
    pub(super) users: Vec<Principal>,
    #[serde(default)]
    pub(super) groups: Vec<Principal>,
    #[serde(default)]
    pub(super) namespaces: BTreeSet<Namespace>,
    pub(super) operations: BTreeSet<Operation>,
}

/// A user or group, by name or number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Principal {
    Id(u32),
    Name(String),
}

impl AllowTable {
    /// The grant, with names looked up now.
    pub(super) fn rule(&self) -> Result<Rule, Failure> {
        let mut rule = Rule {
            namespaces: self.namespaces.clone(),
            operations: self.operations.clone(),
            ..Rule::default()
        };
        for user in &self.users {
            rule.uids.insert(match user {
                Principal::Id(uid) => *uid,
                Principal::Name(name) => uid(name)?,
            });
        }
        for group in &self.groups {
            let found = match group {
                Principal::Id(gid) => Group::from_gid((*gid).into()),
                Principal::Name(name) => Group::from_name(name),
            };
            match (found, group) {
                (Ok(Some(found)), _) => {
                    rule.gids.insert(found.gid.as_raw());
                    for member in &found.mem {
                        rule.uids.insert(uid(member)?);
                    }
                }
                (Ok(None), Principal::Id(gid)) => {
                    rule.gids.insert(*gid);
                }
                (Ok(None), Principal::Name(name)) => return Err(unknown("group", name, None)),
                (Err(e), Principal::Name(name)) => return Err(unknown("group", name, Some(e))),
                (Err(e), Principal::Id(gid)) => return Err(unknown("group", &gid.to_string(), Some(e))),
            }
        }
        Ok(rule)
    }
}

fn uid(name: &str) -> Result<u32, Failure> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(unknown("user", name, None)),
        Err(e) => Err(unknown("user", name, Some(e))),
    }
}

fn unknown(what: &str, name: &str, error: Option<nix::Error>) -> Failure {
    let why = error
        .map_or_else(|| "does not exist on this node".to_owned(), |e| format!("cannot be looked up: {e}"));
    Failure::new(Reason::BadConfig, format!("[[allow]] names {what} {name:?}, which {why}"))
}
