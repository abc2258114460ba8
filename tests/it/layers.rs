//! The layer rule within a crate: a folder uses those above it in the crate's list, never those below or beside.
//!
//! Between crates Cargo keeps the rule: a crate that isn't a dependency can't be named. Here stands what Cargo can't say,
//! and that the page about all of it names every folder.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::support::{root, rust_files};

/// A crate's folders in layers: each may use those of earlier layers, and what stands in no layer.
const LAYERS: [(&str, &[&[&str]]); 4] = [
    (
        "crates/karat-rules/src",
        &[&["domain", "numeric"], &["aggregate", "edit", "transform", "head", "select", "metrics"], &["catalogue"]],
    ),
    (
        "crates/karat-engine/src",
        &[
            &["image", "text", "workers"],
            &["input"],
            &["manifest", "schedule", "generate"],
            &["repository"],
            &["engine"],
        ],
    ),
    ("crates/karat-runs/src", &[&["statistics"], &["signals"], &["run"], &["registry"], &["store"]]),
    ("src", &[&["api", "server"], &["settings"], &["cli"]]),
];

/// Libraries that only some folders of a crate may name.
const DOORS: [(&str, &str, &[&str]); 3] = [
    ("crates/karat-engine/src", "tokenizers", &["text"]),
    ("src", "axum", &["api", "server"]),
    ("src", "tonic", &["api/dialects/kserve/grpc"]),
];

#[test]
fn a_folder_uses_only_those_of_the_layers_before_its_own() {
    let mut breaches = Vec::new();
    for (source, layers) in LAYERS {
        for (file, code) in files(source) {
            let Some(own) = layer(layers, &file) else { continue };
            let used = names_below_the_root(&code).into_iter();
            let breach = used.filter(|name| {
                !file.starts_with(name)
                    && file != Path::new(name).with_extension("rs")
                    && layer(layers, Path::new(name)).is_some_and(|other| other >= own)
            });
            breaches.extend(breach.map(|name| format!("{source}/{}: uses {name}", file.display())));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn each_library_stands_behind_its_door() {
    let mut breaches = Vec::new();
    for (source, library, homes) in DOORS {
        let path = format!("{library}::");
        for (file, code) in files(source) {
            let named = code
                .match_indices(&path)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)));
            if named && !homes.iter().any(|home| file.starts_with(home)) {
                breaches.push(format!("{source}/{}: {library} belongs in {}", file.display(), homes.join(" and ")));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_architecture_page_names_every_folder_and_no_other() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut named = BTreeSet::new();
    let mut section = None;
    for line in page.lines() {
        if line.starts_with('#') {
            section = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix("/`"));
            named.extend(section.map(|folder| root().join(folder)));
        } else if let (Some(section), Some((name, _))) =
            (section, line.strip_prefix("| `").and_then(|rest| rest.split_once("/`")))
        {
            named.insert(root().join(section).join(name));
        }
    }
    let crates = folders(&root().join("crates")).into_iter().map(|folder| folder.join("src"));
    let sources: Vec<PathBuf> = crates.chain([root().join("src")]).collect();
    let inside = sources.iter().flat_map(|source| folders(source));
    let unnamed: Vec<PathBuf> =
        sources.iter().cloned().chain(inside).filter(|folder| !named.contains(folder)).collect();
    let gone: Vec<&PathBuf> = named.iter().filter(|folder| !folder.is_dir()).collect();
    assert!(unnamed.is_empty() && gone.is_empty(), "ARCHITECTURE.md lacks {unnamed:?} and has {gone:?}");
}

#[test]
fn a_planted_breach_is_found() {
    let code =
        "use crate::{\n    engine::{Engine, load},\n    text::TextPipeline,\n};\nfn f() { crate::api::router() }";
    assert_eq!(names_below_the_root(code), ["engine", "text", "api"]);
    assert_eq!(layer(LAYERS[1].1, Path::new("text/mod.rs")), Some(0));
    assert_eq!(layer(LAYERS[1].1, Path::new("telemetry/mod.rs")), None);
}

/// The folders right inside of one.
fn folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// Every file below `source` with its code, comments left out.
fn files(source: &str) -> Vec<(PathBuf, String)> {
    let folder = root().join(source);
    let found = rust_files(&folder).into_iter().map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (file.strip_prefix(&folder).unwrap().to_owned(), code.join("\n"))
    });
    let found: Vec<_> = found.collect();
    assert!(found.len() > 10, "{source} moved");
    found
}

/// The layer of the folder or file that a path begins with.
fn layer(layers: &[&[&str]], path: &Path) -> Option<usize> {
    let first = Path::new(path.iter().next()?).with_extension("");
    layers.iter().position(|names| names.iter().any(|name| first == Path::new(name)))
}

/// The modules right below the crate's root that code names, in `use` lists as well.
fn names_below_the_root(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    names.push(word(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}
