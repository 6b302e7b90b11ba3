//! What a strict configuration knows, found by what it says to a key that it does not know.

/// No configuration has it.
const UNKNOWN: &str = "no_such_key";

/// A table of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, as `issuance.leaf`; empty for what stands in no table.
    pub path: String,
    /// The lines before its keys: its own header, after those of the tables that it is in.
    pub header: String,
    /// Its keys, tables among them.
    pub keys: Vec<String>,
}

/// Every table, the outermost first. `refuse` gives the sentence that a text is refused with. So that documents and tests can be
/// held to what is really there.
pub fn tables(refuse: impl Fn(&str) -> String) -> Vec<Table> {
    let mut found: Vec<Table> = keys(&refuse, "").map(|keys| table("", "", keys)).into_iter().collect();
    let mut next = 0;
    while let Some(Table { path, header, keys: names }) = found.get(next).cloned() {
        for name in names {
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            for own in [format!("[{path}]\n"), format!("[[{path}]]\n")] {
                let header = format!("{header}{own}");
                found.extend(keys(&refuse, &header).map(|keys| table(&path, &header, keys)));
            }
        }
        next += 1;
    }
    found
}

fn table(path: &str, header: &str, keys: Vec<String>) -> Table {
    Table { path: path.to_owned(), header: header.to_owned(), keys }
}

/// The keys of the table that a header begins; none where it begins no table.
fn keys(refuse: impl Fn(&str) -> String, header: &str) -> Option<Vec<String>> {
    let said = refuse(&format!("{header}{UNKNOWN} = 1\n"));
    let (_, expected) = said.lines().next()?.split_once(&format!("unknown field `{UNKNOWN}`, expected "))?;
    Some(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Outer {
        name: Option<String>,
        #[serde(default)]
        rule: Vec<Rule>,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Rule {
        users: Vec<u32>,
        leaf: Option<Leaf>,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Leaf {
        ids: Vec<String>,
    }

    #[test]
    fn tables_within_tables_are_found() {
        let refuse =
            |text: &str| crate::config::parse::<Outer>("f", text).err().map_or(String::new(), |e| e.message);
        let expected = [
            ("", "", &["name", "rule"][..]),
            ("rule", "[[rule]]\n", &["users", "leaf"]),
            ("rule.leaf", "[[rule]]\n[rule.leaf]\n", &["ids"]),
        ];
        let expected = expected
            .map(|(path, header, keys)| table(path, header, keys.iter().map(ToString::to_string).collect()));
        assert_eq!(tables(refuse), expected);
    }
}
