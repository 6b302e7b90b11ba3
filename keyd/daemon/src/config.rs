//! `keyd.toml`: strict, resolved, and checked before anything is opened.

mod deadline;
mod escrow;
mod grants;
mod issuance;
mod limits;
mod profile;
mod token;
mod tpm;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use keyd_core::config::{Misfit, Spanned};
use keyd_core::{Failure, KeyId, Namespace, Policy, Protection, nearest};
use keyd_unix::ConfigFile;
use serde::Deserialize;

pub use escrow::EscrowTable;
use grants::AllowTable;
pub use issuance::IssuanceTable;
pub use limits::Limits;
pub use profile::Profile;
pub use token::TokenTable;
pub use tpm::{SealTo, TpmTable};

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/keyd/keyd.toml";

/// keyd's own namespace; a configuration can neither define it nor grant anything in it.
pub const OWN_NAMESPACE: &str = "keyd";

/// `keyd.toml` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Unix socket. Under systemd socket activation the unit's socket is used and this one only names it.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Where the store lies; mode 0700, owned by the user that keyd runs as.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Which algorithms are made and used at all; every one without it.
    pub profile: Option<Profile>,
    /// The PKCS#11 token, for the protections `hsm` and `hsm-wrapped`.
    pub token: Option<TokenTable>,
    /// The TPM, for the protection `tpm-sealed` and for attestation.
    pub tpm: Option<TpmTable>,
    /// The audit log.
    #[serde(default)]
    audit: AuditTable,
    /// Whom an escrow is encrypted to. Without it nothing is exported.
    pub escrow: Option<EscrowTable>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The namespaces and what protects their keys.
    #[serde(default, rename = "namespace")]
    namespaces: Vec<Spanned<NamespaceTable>>,
    /// What CA keys may sign.
    #[serde(default, deserialize_with = "issuance::tables")]
    issuance: Vec<Spanned<IssuanceTable>>,
    /// The grants. Without any, everything is denied.
    #[serde(default, rename = "allow")]
    grants: Vec<Spanned<AllowTable>>,
    /// For what is found wrong once users and groups are looked up.
    #[serde(skip)]
    source: Source,
}

/// Where a configuration came from.
#[derive(Clone, Debug, Default)]
struct Source {
    file: Arc<str>,
    text: Arc<str>,
}

/// `[audit]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditTable {
    /// What the key that signs the log may be protected by, in order of preference.
    protections: Option<Vec<Protection>>,
}

/// `[[namespace]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceTable {
    /// Its name.
    pub name: Namespace,
    /// The protections that it accepts, in order of preference.
    pub protections: Vec<Protection>,
}

impl ConfigFile for Config {
    fn check(&self) -> Result<(), Misfit> {
        self.limits.check()?;
        let mut seen = BTreeSet::new();
        if self.audit.protections.as_ref().is_some_and(Vec::is_empty) {
            return Err("[audit] accepts no protection; name at least one".to_owned().into());
        }
        for protection in self.audit.protections.iter().flatten() {
            self.has_device(*protection)
                .map_err(|device| format!("[audit] accepts {protection}, but there is no {device}"))?;
        }
        for table in &self.namespaces {
            let NamespaceTable { name, protections } = table.get_ref();
            let misfit = |why: String| Misfit::at(table.span(), format!("namespace {name} {why}"));
            if name.as_str() == OWN_NAMESPACE {
                return Err(misfit("is keyd's own; give it another name".to_owned()));
            }
            if !seen.insert(name) {
                return Err(misfit("stands twice".to_owned()));
            }
            if protections.is_empty() {
                return Err(misfit("accepts no protection; name at least one".to_owned()));
            }
            for protection in protections {
                self.has_device(*protection)
                    .map_err(|device| misfit(format!("accepts {protection}, but there is no {device}")))?;
            }
        }
        issuance::check(&self.issuance, &seen, self.profile)?;
        grants::check(&self.grants, &seen)?;
        if let Some(tpm) = &self.tpm {
            tpm.check()?;
        }
        if let Some(token) = &self.token {
            token.check(self.tpm.is_some())?;
        }
        Ok(())
    }

    fn keep_source(&mut self, file: &str, text: &str) {
        self.source = Source { file: file.into(), text: text.into() };
    }
}

impl Config {
    /// The keys and tables that say something else than in `running`, and take a restart.
    pub fn differences_that_wait(&self, running: &Self) -> Vec<&'static str> {
        [
            ("socket", self.socket != running.socket),
            ("state_dir", self.state_dir != running.state_dir),
            ("[token]", self.token != running.token),
            ("[tpm]", self.tpm != running.tpm),
            ("[limits]", self.limits != running.limits),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// This configuration with all that takes a restart as `running` has it.
    pub fn with_places_of(self, running: &Self) -> Self {
        let Self { socket, state_dir, token, tpm, limits, .. } = running.clone();
        Self { socket, state_dir, token, tpm, limits, ..self }
    }

    /// The namespaces, as they are written.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceTable> {
        self.namespaces.iter().map(Spanned::get_ref)
    }

    /// The protections that a namespace accepts, in order.
    pub fn protections(&self, namespace: &Namespace) -> Option<&[Protection]> {
        self.namespaces().find(|n| n.name == *namespace).map(|n| n.protections.as_slice())
    }

    /// What a CA key may sign, where a table names it.
    pub fn issuance_profile(&self, key: &KeyId) -> Option<&Arc<keyd_x509::issuance::Profile>> {
        let named = |table: &&IssuanceTable| table.keys.iter().any(|pattern| pattern.get_ref().names(key));
        self.issuance.iter().map(Spanned::get_ref).find(named).map(|table| &table.profile)
    }

    /// What the key that signs the audit log may be protected by, in order: what `[audit]` says, or all that this node can
    /// give, strongest first; `software` only where a namespace accepts it.
    pub fn audit_protections(&self) -> Vec<Protection> {
        let named = |p: &Protection| self.namespaces().any(|n| n.protections.contains(p));
        let usable = |p: &Protection| self.has_device(*p).is_ok() && (*p != Protection::Software || named(p));
        self.audit.protections.clone().unwrap_or_else(|| Protection::ALL.into_iter().filter(usable).collect())
    }

    /// Whether the device that a protection needs is configured, or the table that is missing.
    fn has_device(&self, protection: Protection) -> Result<(), &'static str> {
        match protection {
            Protection::Hsm | Protection::HsmWrapped if self.token.is_none() => Err("[token]"),
            Protection::TpmSealed if self.tpm.is_none() => Err("[tpm]"),
            _ => Ok(()),
        }
    }

    /// The policy, with users and groups looked up now. A group's members count by their user ids, so that no call
    /// ever waits for a directory service.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming a user or group that does not exist, and its line.
    pub fn policy(&self) -> Result<Policy, Failure> {
        let rules = self.grants.iter().map(|grant| grant.get_ref().rule()).collect::<Result<Vec<_>, _>>();
        rules.map(Policy::new).map_err(|misfit| misfit.in_file(&self.source.file, &self.source.text))
    }
}

/// What a name is that no table defines, and which one was probably meant.
fn undefined(namespace: &Namespace, defined: &BTreeSet<&Namespace>) -> String {
    let near = nearest(namespace.as_str(), defined.iter().map(|n| n.as_str()));
    let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
    format!("no [[namespace]] defines {namespace}{hint}")
}

fn default_socket() -> PathBuf {
    keyd_api::DEFAULT_SOCKET.into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/keyd".into()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use keyd_core::Operation;
    use keyd_core::config::{Table, tables};
    use proptest::prelude::*;

    use super::*;

    const SOFTWARE: &str = r#"
        [[namespace]]
        name = "dev"
        protections = ["software"]
        [[allow]]
        users = ["root", 4711]
        namespaces = ["dev"]
        operations = ["create", "sign"]
    "#;

    fn refused(text: &str) -> String {
        Config::parse("keyd.toml", text).unwrap_err().message
    }

    #[test]
    fn users_are_resolved_by_name_and_number() {
        let config = Config::parse("keyd.toml", SOFTWARE).unwrap();
        let ns = "dev".parse().unwrap();
        for uid in [0, 4711] {
            let caller = keyd_core::Caller { uid, gids: BTreeSet::new(), pid: None };
            assert!(config.policy().unwrap().check(&caller, Operation::Sign, &ns).is_ok());
            assert!(config.policy().unwrap().check(&caller, Operation::Delete, &ns).is_err());
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_opened() {
        assert!(refused("sokcet = \"a\"").contains("keyd.toml:1:1: unknown field `sokcet`"));
        assert!(
            refused("[[namespace]]\nname = \"a\"\nprotections = [\"hsm\"]").contains("there is no [token]")
        );
        assert!(
            refused("[[namespace]]\nname = \"a\"\nprotections = [\"tpm-sealed\"]")
                .contains("there is no [tpm]")
        );
        assert!(
            refused("[[namespace]]\nname = \"a\"\nprotections = [\"hms\"]").contains("Did you mean hsm?")
        );
        assert!(refused("[[namespace]]\nname = \"a\"\nprotections = []").contains("no protection"));
        assert!(refused("[[allow]]\noperations=[\"status\"]").contains("neither users nor groups"));
        assert!(refused("[[allow]]\nusers=[0]\noperations=[\"sgin\"]").contains("Did you mean \"sign\"?"));
        assert!(refused("[token]\nmodule=\"m\"\nlabel=\"l\"").contains("one of pin_file"));
        assert!(
            refused("[token]\nmodule=\"m\"\nlabel=\"l\"\npin_file=\"f\"\npin_sealed=\"s\"")
                .contains("one of pin_file")
        );
        assert!(refused("[token]\nmodule=\"m\"\nlabel=\"l\"\npin_sealed=\"s\"").contains("needs the [tpm]"));
        assert!(refused("[[namespace]]\nname = \"keyd\"\nprotections = [\"software\"]").contains("own"));
        assert!(refused("audit.protections = []").contains("[audit] accepts no protection"));
        assert!(refused("audit.protections = [\"tpm-sealed\"]").contains("there is no [tpm]"));
    }

    #[test]
    fn tables_that_do_not_go_together_are_named_with_their_line_and_the_name_that_was_meant() {
        let site = "[[namespace]]\nname = \"site\"\nprotections = [\"software\"]\n";
        for (rest, place, words) in [
            (
                "[[allow]]\nusers = [0]\nnamespaces = [\"site\",\n\"siet\"]\noperations = [\"sign\"]",
                "7:1",
                "defines siet. Did you mean site?",
            ),
            (
                "[[allow]]\nusers = [0]\nnamespaces = [\"x\"]\noperations = [\"sign\"]",
                "6:15",
                "no [[namespace]] defines x",
            ),
            ("[[allow]]\noperations = [\"status\"]", "4:1", "neither users nor groups"),
            ("[[allow]]\nusers = [0]\noperations = [\"sign\"]", "4:1", "sign but names no namespaces"),
            (site, "4:1", "namespace site stands twice"),
            ("[[namespace]]\nname = \"a\"\nprotections = [\"hsm\"]", "4:1", "there is no [token]"),
            ("[[namespace]]\nname = \"a\"\nprotections = []", "4:1", "no protection"),
            ("[[namespace]]\nname = \"keyd\"\nprotections = [\"software\"]", "4:1", "keyd's own"),
        ] {
            let said = refused(&format!("{site}{rest}"));
            assert!(said.starts_with(&format!("keyd.toml:{place}: ")) && said.contains(words), "{said}");
        }
    }

    #[test]
    fn users_and_groups_that_do_not_exist_are_named_with_their_line() {
        for (names, place) in [
            ("users = [\"root\", \"no-such-user\"]", "2:18"),
            ("users = [0]\ngroups = [\n  \"no-such-group\"]", "4:3"),
        ] {
            let text = format!("[[allow]]\n{names}\noperations = [\"status\"]\n");
            let said = Config::parse("keyd.toml", &text).unwrap().policy().unwrap_err();
            assert_eq!(said.reason, keyd_core::Reason::BadConfig);
            assert!(said.message.starts_with(&format!("keyd.toml:{place}: [[allow]] names ")), "{said}");
            assert!(said.message.contains("does not exist on this node"), "{said}");
        }
    }

    #[test]
    fn limits_that_let_nobody_in_are_refused() {
        assert!(refused("limits.calls_per_user = 0").contains("calls_per_user"));
        assert!(refused("limits.connections_per_user = 0").contains("connections_per_user"));
        assert!(refused("limits.message_bytes = 0").contains("message_bytes is 0"));
        assert!(refused("limits.message_bytes = 1048577").contains("1 to 1048576"));
    }

    #[test]
    fn an_unknown_profile_is_refused_with_its_line() {
        let e = refused("\nprofile = \"cnsa\"");
        assert!(e.contains("keyd.toml:2:") && e.contains("Did you mean \"cnsa2\"?"), "{e}");
    }

    #[test]
    fn the_audit_key_is_protected_as_strongly_as_the_node_can() {
        let of = |text: &str| Config::parse("keyd.toml", text).unwrap().audit_protections();
        assert_eq!(of(""), []);
        assert_eq!(of(SOFTWARE), [Protection::Software]);
        let tpm = format!("tpm.tcti = \"device:/dev/null\"\n{SOFTWARE}");
        assert_eq!(of(&tpm), [Protection::TpmSealed, Protection::Software]);
        assert_eq!(of("tpm.tcti = \"device:/dev/null\""), [Protection::TpmSealed]);
        let chosen = format!("audit.protections = [\"software\"]\n{tpm}");
        assert_eq!(of(&chosen), [Protection::Software]);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let text = SOFTWARE.replace("root", "nobody-of-this-name");
        let e = Config::parse("keyd.toml", &text).unwrap().policy().unwrap_err();
        assert!(e.message.contains("nobody-of-this-name"), "{e}");
    }

    static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| tables(refused));

    #[test]
    fn every_table_is_known() {
        let paths: Vec<_> = TABLES.iter().map(|table| table.path.as_str()).collect();
        for path in ["", "token", "tpm", "audit", "escrow", "limits", "namespace", "issuance", "allow"]
            .into_iter()
            .chain(["token.mechanisms.ml_dsa", "token.mechanisms.ml_kem"])
            .chain(["issuance.own", "issuance.ca", "issuance.leaf"])
        {
            assert!(paths.contains(&path), "{path:?} is not in {paths:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_with_a_letter_too_many_is_named_with_its_line_and_the_key_that_was_meant(
            table in 0..TABLES.len(), key: prop::sample::Index, at: prop::sample::Index, lines in 0..20usize,
        ) {
            let Table { header, keys, .. } = &TABLES[table];
            let meant = &keys[key.index(keys.len())];
            let mut typed = meant.clone();
            typed.insert(at.index(meant.len() + 1), 'q');
            let text = format!("{}{header}{typed} = 1\n", "\n".repeat(lines));
            let said = refused(&text);
            let line = lines + header.matches('\n').count() + 1;
            prop_assert!(said.starts_with(&format!("keyd.toml:{line}:1: unknown field `{typed}`")), "{}", said);
            prop_assert!(said.ends_with(&format!("Did you mean {meant:?}?")), "{}", said);
        }

        #[test]
        fn a_namespace_is_refused_for_what_it_lacks_and_never_taken_in_part(
            names in prop::collection::vec("[a-z0-9-]{0,6}", 0..5), token: bool,
        ) {
            let token = if token { "[token]\nmodule = \"m\"\nlabel = \"l\"\npin_file = \"/p\"\n" } else { "" };
            let tables = names.iter().map(|n| format!("[[namespace]]\nname = {n:?}\nprotections = [\"hsm\"]\n"));
            let text: String = std::iter::once(token.to_owned()).chain(tables).collect();
            let well_named = names.iter().all(|n| n.parse::<Namespace>().is_ok());
            let distinct = names.iter().collect::<BTreeSet<_>>().len() == names.len();
            let good = well_named && distinct && (names.is_empty() || !token.is_empty());
            let read = Config::parse("keyd.toml", &text);
            prop_assert_eq!(read.is_ok(), good, "{:?}", read.err());
            if let Ok(config) = read {
                prop_assert_eq!(config.namespaces.len(), names.len());
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = Config::parse("keyd.toml", &text);
        }
    }
}
