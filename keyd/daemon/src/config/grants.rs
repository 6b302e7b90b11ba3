//! `[[allow]]`: who may do what, with users and groups looked up.

use std::collections::BTreeSet;

use keyd_core::config::{Misfit, Spanned};
use keyd_core::{Namespace, Operation, Rule};
use nix::unistd::{Group, User};
use serde::Deserialize;

use super::undefined;

/// `[[allow]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowTable {
    #[serde(default)]
    users: Vec<Spanned<Principal>>,
    #[serde(default)]
    groups: Vec<Spanned<Principal>>,
    #[serde(default)]
    namespaces: Vec<Spanned<Namespace>>,
    operations: BTreeSet<Operation>,
}

/// A user or group, by name or number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Principal {
    Id(u32),
    Name(String),
}

impl AllowTable {
    /// The grant, with names looked up now.
    pub(super) fn rule(&self) -> Result<Rule, Misfit> {
        let mut rule = Rule {
            namespaces: self.namespaces.iter().map(|n| n.get_ref().clone()).collect(),
            operations: self.operations.clone(),
            ..Rule::default()
        };
        let at = |principal: &Spanned<Principal>| {
            let span = principal.span();
            move |why: String| Misfit::at(span.clone(), why)
        };
        for user in &self.users {
            rule.uids.insert(match user.get_ref() {
                Principal::Id(uid) => *uid,
                Principal::Name(name) => uid(name).map_err(at(user))?,
            });
        }
        for group in &self.groups {
            let (found, named) = match group.get_ref() {
                Principal::Id(gid) => (Group::from_gid((*gid).into()), gid.to_string()),
                Principal::Name(name) => (Group::from_name(name), name.clone()),
            };
            match (found, group.get_ref()) {
                (Ok(Some(found)), _) => {
                    rule.gids.insert(found.gid.as_raw());
                    for member in &found.mem {
                        rule.uids.insert(uid(member).map_err(at(group))?);
                    }
                }
                (Ok(None), Principal::Id(gid)) => {
                    rule.gids.insert(*gid);
                }
                (Ok(None), Principal::Name(_)) => return Err(at(group)(unknown("group", &named, None))),
                (Err(e), _) => return Err(at(group)(unknown("group", &named, Some(e)))),
            }
        }
        Ok(rule)
    }
}

/// Whether each table names somebody, and namespaces that there are where it grants what is about keys.
///
/// # Errors
/// The first table or namespace that does not fit.
pub(super) fn check(grants: &[Spanned<AllowTable>], namespaces: &BTreeSet<&Namespace>) -> Result<(), Misfit> {
    for table in grants {
        let grant = table.get_ref();
        if let Some(unknown) = grant.namespaces.iter().find(|n| !namespaces.contains(n.get_ref())) {
            let name = unknown.get_ref();
            let why = format!("[[allow]] names namespace {name}, but {}", undefined(name, namespaces));
            return Err(Misfit::at(unknown.span(), why));
        }
        if grant.users.is_empty() && grant.groups.is_empty() {
            let why = "an [[allow]] table names neither users nor groups";
            return Err(Misfit::at(table.span(), why.to_owned()));
        }
        let about_keys = grant.operations.iter().find(|o| o.is_about_keys());
        if let (Some(operation), true) = (about_keys, grant.namespaces.is_empty()) {
            let why = format!("an [[allow]] table grants {operation} but names no namespaces");
            return Err(Misfit::at(table.span(), why));
        }
    }
    Ok(())
}

fn uid(name: &str) -> Result<u32, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(unknown("user", name, None)),
        Err(e) => Err(unknown("user", name, Some(e))),
    }
}

fn unknown(what: &str, name: &str, error: Option<nix::Error>) -> String {
    let why = error
        .map_or_else(|| "does not exist on this node".to_owned(), |e| format!("cannot be looked up: {e}"));
    format!("[[allow]] names {what} {name:?}, which {why}")
}
