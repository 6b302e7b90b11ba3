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
        let unknown = || io::Error::other("the kernel does not hand over its process");
        peer.process.as_deref().ok_or_else(unknown)
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

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::net::{UnixListener, UnixStream};
    use tokio::process::Command;

    use super::*;

    fn selector(text: &str) -> Selector {
        Selector { kind: "unix".to_owned(), value: text.to_owned() }
    }

    fn all() -> Vec<Selector> {
        Sort::ALL.iter().map(|sort| selector(&format!("{}:x", sort.name()))).collect()
    }

    fn own() -> Peer {
        let (stream, _other) = UnixStream::pair().unwrap();
        Peer::of(&stream).unwrap()
    }

    #[tokio::test]
    async fn this_process_has_its_own_selectors() {
        let found = attest(&own(), all().iter()).await;
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(&program).unwrap());
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let mut wanted = vec![
            format!("uid:{uid}"),
            format!("gid:{gid}"),
            format!("path:{}", program.display()),
            format!("sha256:{}", hex::encode(hash)),
        ];
        wanted.extend(User::from_uid(uid).unwrap().map(|user| format!("user:{}", user.name)));
        wanted.extend(Group::from_gid(gid).unwrap().map(|group| format!("group:{}", group.name)));
        for gid in nix::unistd::getgroups().unwrap() {
            wanted.push(format!("supplementary_gid:{gid}"));
            let group = Group::from_gid(gid).unwrap();
            wanted.extend(group.map(|group| format!("supplementary_group:{}", group.name)));
        }
        assert_eq!(found, wanted.iter().map(|text| selector(text)).collect());
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_found_out() {
        let other = Selector { kind: "k8s".to_owned(), value: "uid:1".to_owned() };
        let asked = [selector("uid:4711"), selector("nonsense:1"), selector(""), other];
        let found = attest(&own(), asked.iter()).await;
        assert_eq!(found, [selector(&format!("uid:{}", nix::unistd::geteuid()))].into());
    }

    #[tokio::test]
    async fn a_process_that_has_ended_keeps_nothing_but_what_the_kernel_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = "socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, pack_sockaddr_un($ARGV[0])) or die $!";
        let mut perl = Command::new("perl");
        perl.args(["-MSocket", "-e", script]).arg(&socket).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = perl.spawn().unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let peer = Peer::of(&stream).unwrap();
        child.wait().await.unwrap();
        let found = attest(&peer, all().iter()).await;
        assert!(found.contains(&selector(&format!("uid:{}", peer.uid))));
        let of_the_process =
            |s: &&Selector| ["supplementary", "path", "sha256"].iter().any(|p| s.value.starts_with(p));
        assert_eq!(found.iter().find(of_the_process), None);
    }

    #[tokio::test]
    async fn without_certainty_about_the_process_only_user_and_group_count() {
        let peer = Peer { process: None, ..own() };
        let found = attest(&peer, [selector("path:/bin/sh"), selector("gid:0")].iter()).await;
        assert_eq!(found, [selector(&format!("gid:{}", peer.gid))].into());
    }
}
