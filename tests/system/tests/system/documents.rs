//! What the documents say of keyd and its crates is held against them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyd_core::config::tables;
use serde_json::Value;
use system::binary;

/// A file or directory of this repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The table of crates in the architecture: their directories, each with the names of those that it uses.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let text = read("docs/architecture.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.filter_map(|row| {
        let (dir, rest) = row.split_once("` | ")?;
        let (_, uses) = rest.split_once(" |")?;
        let uses = uses.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        dir.contains('/').then(|| (dir.to_owned(), uses.collect()))
    })
    .collect()
}

/// What a newcomer types from one document must fit what another one says.
#[test]
fn the_readme_and_the_example_give_a_token_the_same_label_and_the_root_the_same_place() {
    for document in ["README.md", "docs/examples/keyd-server.toml"] {
        let text = read(document);
        for words in ["--label keyd ", "label = \"keyd\"", "--out /etc/spire/root.pem", "/etc/spire/enrolled"]
        {
            assert!(text.contains(words), "{document} does not say {words}");
        }
    }
}

#[test]
fn make_alone_lists_every_target() {
    // Under `make test` it would also say which directory it works in.
    let make = std::process::Command::new("make").arg("--no-print-directory").current_dir(path("")).output();
    let make = make.unwrap();
    let listed = String::from_utf8(make.stdout).unwrap();
    let makefile = read("Makefile");
    let targets = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    for target in targets.split(' ') {
        assert!(
            listed.lines().any(|line| line.starts_with(&format!("make {target} "))),
            "{target}: {listed}"
        );
    }
    assert_eq!(listed.lines().count(), targets.split(' ').count());
}

#[test]
fn the_architecture_names_each_crate_with_those_that_it_uses() {
    let root = path("").canonicalize().unwrap();
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

#[test]
fn the_reference_names_every_key_of_every_table() {
    let reference = read("docs/configuration.md");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("asked.toml");
    for (program, at_least) in [("keyd", 60), ("keyd-agent", 9), ("keyd-proxy", 9)] {
        let refuse = |text: &str| {
            fs::write(&file, text).unwrap();
            let mut check = std::process::Command::new(binary(program).unwrap());
            let said = check.args(["config", "check", "--config"]).arg(&file).output().unwrap().stderr;
            String::from_utf8(said).unwrap()
        };
        let part = reference.split("\n## ").find(|part| part.starts_with(&format!("{program}:"))).unwrap();
        let mut named = 0;
        for table in tables(refuse) {
            let within = table.path.split_once('.').map_or("", |(_, within)| within);
            for key in &table.keys {
                let whole = format!("{}.{key}", table.path);
                let written = [
                    format!("`{key}`"),
                    format!("`{within}.{key}`"),
                    format!("`{key}."),
                    format!("[{}]", whole.trim_start_matches('.')),
                ];
                assert!(written.iter().any(|written| part.contains(written)), "{program}: {whole}");
                named += 1;
            }
        }
        assert!(named >= at_least, "{program}: {named}");
    }
}

/// What is in the arguments of each `tracing` macro below a directory.
fn logged(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logged(&path, found);
        } else {
            let source = fs::read_to_string(&path).unwrap();
            let calls = source.split("tracing::").skip(1);
            found.extend(calls.filter_map(|call| call.split_once(");")).map(|(call, _)| call.to_owned()));
        }
    }
}

#[test]
fn every_line_that_the_guide_to_failures_explains_is_one_that_keyd_logs() {
    let failures = read("docs/failures.md");
    let (_, part) = failures.split_once("\n## What a start says\n").unwrap();
    let part = part.split("\n## ").next().unwrap();
    let lines: Vec<_> = part
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split_once("` |").map(|(line, _)| line))
        .collect();
    assert!(lines.len() >= 8, "{lines:?}");
    let mut calls = Vec::new();
    logged(&path("keyd/daemon/src"), &mut calls);
    for line in lines {
        assert!(calls.iter().any(|call| call.contains(line)), "keyd never logs {line:?}");
    }
}
