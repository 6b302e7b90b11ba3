//! The selectors of SPIRE's `unix` workload attestor.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};

use crate::entry::Selector;
use crate::workload::{Peer, files};

/// What SPIRE calls the attestor.
const KIND: &str = "unix";
/// How long names may take to be looked up and a program to be hashed.
const LIMIT: Duration = Duration::from_secs(10);

/// A sort of selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Uid,
    User,
    Gid,
    Group,
    SupplementaryGid,
    SupplementaryGroup,
    Path,
    Sha256,
}

impl Sort {
    const ALL: [Self; 8] = [
        Self::Uid,
        Self::User,
        Self::Gid,
        Self::Group,
        Self::SupplementaryGid,
        Self::SupplementaryGroup,
        Self::Path,
        Self::Sha256,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::User => "user",
            Self::Gid => "gid",
            Self::Group => "group",
            Self::SupplementaryGid => "supplementary_gid",
            Self::SupplementaryGroup => "supplementary_group",
            Self::Path => "path",
            Self::Sha256 => "sha256",
        }
    }

    fn of(selector: &Selector) -> Option<Self> {
        let name = selector.value.split(':').next().filter(|_| selector.kind == KIND)?;
        Self::ALL.into_iter().find(|sort| sort.name() == name)
    }

    /// Whether it follows from what the kernel said at connect, without any file.
    const fn is_immediate(self) -> bool {
        matches!(self, Self::Uid | Self::Gid)
    }
}

/// The caller's selectors, of the sorts that `asked` names. What cannot be found out is left out, so that no entry
/// which asks for it matches.
pub async fn attest<'a>(peer: &Peer, asked: impl Iterator<Item = &'a Selector>) -> BTreeSet<Selector> {
    let sorts: BTreeSet<Sort> = asked.filter_map(Sort::of).collect();
    let (immediate, rest): (Vec<_>, Vec<_>) = sorts.into_iter().partition(|sort| sort.is_immediate());
    let mut found: BTreeSet<_> = immediate.into_iter().flat_map(|sort| find(peer, sort)).collect();
    if !rest.is_empty() {
        let of = peer.clone();
        let find_rest = move || rest.into_iter().flat_map(|sort| find(&of, sort)).collect();
        let work = tokio::task::spawn_blocking(find_rest);
        match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok::<Vec<_>, _>(more)) => found.extend(more),
            _ => tracing::warn!(uid = peer.uid, "what a caller is could not be found out in time"),
        }
    }
    found
}

fn find(peer: &Peer, sort: Sort) -> Vec<Selector> {
    let values = values(peer, sort).unwrap_or_else(|error| {
        let pid = peer.process.as_ref().map(|process| process.pid());
        tracing::debug!(uid = peer.uid, pid, selector = sort.name(), %error, "cannot be found out");
        Vec::new()
    });
    let selector = |value| Selector { kind: KIND.to_owned(), value: format!("{}:{value}", sort.name()) };
    values.into_iter().map(selector).collect()
}

fn values(peer: &Peer, sort: Sort) -> io::Result<Vec<String>> {
    let process = || {
        peer.process.as_deref().ok_or_else(|| {
            io::Error::other(
                "the kernel is older than Linux 6.5 and cannot say for certain which process calls",
            )
        })
    };
    let one = |value: Option<String>| value.into_iter().collect();
    Ok(match sort {
        Sort::Uid => vec![peer.uid.to_string()],
        Sort::Gid => vec![peer.gid.to_string()],
        Sort::User => one(User::from_uid(Uid::from_raw(peer.uid))?.map(|user| user.name)),
        Sort::Group => one(group_name(peer.gid)?),
        Sort::SupplementaryGid => {
            let groups = process()?.look(files::supplementary_groups)?;
            groups.into_iter().map(|gid| gid.to_string()).collect()
        }
        Sort::SupplementaryGroup => {
            let groups = process()?.look(files::supplementary_groups)?;
            let names = groups.into_iter().map(group_name).collect::<io::Result<Vec<_>>>()?;
            names.into_iter().flatten().collect()
        }
        Sort::Path => vec![process()?.look(files::program_path)?],
        Sort::Sha256 => vec![process()?.look(files::program_sha256)?],
    })
}

fn group_name(gid: u32) -> io::Result<Option<String>> {
    Ok(Group::from_gid(Gid::from_raw(gid))?.map(|group| group.name))
}
