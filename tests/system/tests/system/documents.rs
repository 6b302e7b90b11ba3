//! What the documents say of the crates.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The table of crates in the architecture: their directories, each with the names of those that it uses.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
    let text = fs::read_to_string(text).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.filter_map(|row| {
        let (dir, rest) = row.split_once("` | ")?;
        let (_, uses) = rest.split_once(" |")?;
        let uses = uses.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        dir.contains('/').then(|| (dir.to_owned(), uses.collect()))
    })
    .collect()
}

#[test]
fn the_architecture_names_each_crate_with_those_that_it_uses() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().unwrap();
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(&root)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let dir_of = |manifest: &Value| {
        let dir = Path::new(manifest.as_str().unwrap()).parent().unwrap();
        dir.strip_prefix(&root).unwrap().display().to_string()
    };
    let documented = documented();
    for package in packages {
        let dir = dir_of(&package["manifest_path"]);
        let used = package["dependencies"].as_array().unwrap().iter();
        let used = used.filter(|d| d["kind"].is_null() && !d["path"].is_null());
        let used: BTreeSet<_> =
            used.map(|d| d["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect();
        let row = documented.iter().find(|(named, _)| *named == dir);
        let (_, said) = row.unwrap_or_else(|| panic!("docs/architecture.md does not name {dir}"));
        if said.contains("the five above") {
            assert_eq!(used.len(), 5, "{dir}");
            continue;
        }
        assert_eq!(*said, used, "{dir} in docs/architecture.md");
    }
    assert_eq!(documented.len(), packages.len(), "docs/architecture.md names crates that there are not");
}
