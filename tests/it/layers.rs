//! The layer rule: a module uses the layers below its own and `telemetry`, as the table in `src/lib.rs` says.
//!
//! Every path in every file is read, not only `use` lines: `crate::api::x()` in the middle of a function is as much a
//! breach. Tests inside `src` keep the rule as well.

use std::{collections::BTreeMap, fs, path::Path};

use super::support::{root, rust_files};

/// The libraries that stand behind one door each.
const DOORS: [(&str, &[&str]); 4] = [
    ("ort", &["runtime/ort/"]),
    ("axum", &["api/", "server/"]),
    ("tokenizers", &["text/"]),
    ("tonic", &["api/kserve/grpc/"]),
];

#[test]
fn every_layer_uses_only_those_below_it() {
    let rules = Rules::read();
    let source = root().join("src");
    let mut breaches = Vec::new();
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
        breaches.extend(rules.breaches(name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_table_knows_every_module() {
    let rules = Rules::read();
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10, "{modules:?}");
    for module in modules {
        assert!(rules.layers.contains_key(module), "src/lib.rs: {module} is missing in the table of layers");
    }
}

#[test]
fn a_planted_breach_is_caught() {
    let rules = Rules::read();
    for (file, source, needle) in [
        ("domain/reward.rs", "use crate::engine::Engine;", "domain uses engine"),
        (
            "head/scalar.rs",
            "use crate::{\n    domain::{Reward, Cut},\n    text::{self, Truncation},\n};",
            "head uses text",
        ),
        ("text/mod.rs", "use crate::runtime::TokenBatch;", "text uses runtime"),
        ("engine/mod.rs", "fn f() { crate::api::router(); }", "engine uses api"),
        ("schedule/job.rs", "use super::super::server;", "schedule uses server"),
        ("transform/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}", "transform uses engine"),
        ("telemetry/mod.rs", "pub(crate) use crate::engine as e;", "telemetry uses engine"),
        ("domain/mod.rs", "use crate::telemetry::Metrics;", ""),
        ("engine/mod.rs", "use ::ort::session::Session;", "engine/mod.rs:1: ort::"),
        ("engine/mod.rs", "fn f() -> ort::Error { g() }", "engine/mod.rs:1: ort::"),
        ("engine/mod.rs", "\nuse {axum::Router, std::fs};", "engine/mod.rs:2: axum::"),
        ("cli/serve.rs", "type T = tokenizers::Tokenizer;", "cli/serve.rs:1: tokenizers::"),
        ("runtime/ort/session.rs", "use ::ort::session::Session;", ""),
        ("runtime/fake.rs", "use ort::session::Session;", "runtime/fake.rs:1: ort::"),
        ("server/mod.rs", "use axum::Router;", ""),
        ("engine/mod.rs", "use crate::runtime::ort::Library; // not ort::Session\nconst S: &str = \"axum::x\";", ""),
        ("engine/mod.rs", "use crate::{runtime::{ort::Library, Provider}, schedule::Job, telemetry::Metrics};", ""),
        ("engine/load/mod.rs", "use super::{cache::ScoreCache, super::super::api};", "engine uses api"),
    ] {
        let found = rules.breaches(file, source).join("\n");
        assert!(if needle.is_empty() { found.is_empty() } else { found.contains(needle) }, "{source}: {found:?}");
    }
}

/// The number of each module's layer; `None` for `telemetry`, which every layer may use.
struct Rules {
    layers: BTreeMap<String, Option<u32>>,
}

impl Rules {
    /// Reads the table in the tour.
    fn read() -> Self {
        let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
        let rows = library.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "));
        let mut layers = BTreeMap::new();
        for (number, rest) in rows {
            let modules = rest.split(" | ").next().unwrap_or_default();
            for name in modules.split("[`").skip(1).filter_map(|link| link.split_once('`')) {
                layers.insert(name.0.to_owned(), number.parse().ok());
            }
        }
        assert_eq!(layers.get("telemetry"), Some(&None), "{layers:?}");
        assert_eq!(layers.get("domain"), Some(&Some(0)), "{layers:?}");
        Self { layers }
    }

    fn breaches(&self, file: &str, source: &str) -> Vec<String> {
        let mut found = Vec::new();
        let user = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        for (line, path) in paths(source) {
            let head = path.iter().find(|segment| !segment.is_empty()).map_or("", String::as_str);
            if let Some((_, homes)) = DOORS.iter().find(|(library, _)| *library == head)
                && path.len() > 1
                && !homes.iter().any(|home| file.starts_with(home))
            {
                found.push(format!("src/{file}:{line}: {head}:: belongs in src/{}", homes.join(" and src/")));
            }
            if let Some(used) = top_module(file, &path)
                && used != user
                && !self.may_use(user, used)
            {
                found.push(format!("src/{file}:{line}: {user} uses {used}"));
            }
        }
        found
    }

    /// Whether `user` is free to name `used`; what is no module of the table is no matter of layers.
    fn may_use(&self, user: &str, used: &str) -> bool {
        match (self.layers.get(user), self.layers.get(used)) {
            // main.rs and lib.rs stand above all layers.
            (None, _) | (_, None | Some(None)) => true,
            (Some(None), Some(Some(layer))) => *layer == 0,
            (Some(Some(user)), Some(Some(used))) => used < user,
        }
    }
}

/// The module right below the crate's root that a path leads to, if it can leave its own.
fn top_module<'a>(file: &str, path: &'a [String]) -> Option<&'a str> {
    if path.first()? == "crate" {
        return path.get(1).map(String::as_str);
    }
    let climbs = path.iter().take_while(|segment| *segment == "super").count();
    // `mod.rs` is its folder's own module, any other file is one below.
    let depth = Path::new(file).components().count() - usize::from(file.ends_with("/mod.rs"));
    (climbs > 0 && climbs >= depth).then(|| path.get(climbs).map(String::as_str))?
}

/// Words that a path can follow without being part of it.
const KEYWORDS: [&str; 12] = ["use", "as", "dyn", "impl", "for", "in", "return", "mut", "match", "if", "else", "where"];

/// A piece of Rust with the line it stands in: an identifier, or punctuation that paths are made of.
type Token = (usize, String);

/// Every path of two segments or more with its line, the trees of `use` written out. A path from outside the crate's
/// own names (`::ort`) starts with an empty segment.
fn paths(source: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut position = 0;
    while position < tokens.len() {
        position = tree(&tokens, position, &[], &mut found).max(position + 1);
    }
    found
}

/// Reads the path that starts at `position` below `prefix`, with its braces; returns the position after it.
fn tree(tokens: &[Token], mut position: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let text = |position: usize| tokens.get(position).map_or("", |token| token.1.as_str());
    let is_name = |text: &str| {
        text.starts_with(|first: char| first.is_alphanumeric() || first == '_') && !KEYWORDS.contains(&text)
    };
    let start = position;
    let mut path = prefix.to_vec();
    if text(position) == "::" {
        path.push(String::new());
        position += 1;
    }
    loop {
        if is_name(text(position)) {
            path.push(text(position).to_owned());
            position += 1;
        } else if text(position) == "{" && matches!(text(position.wrapping_sub(1)), "::" | "use") {
            position += 1;
            while !matches!(text(position), "}" | "") {
                position = tree(tokens, position, &path, found).max(position + 1);
            }
            return position + 1;
        } else {
            break;
        }
        if text(position) != "::" {
            break;
        }
        position += 1;
    }
    if path.len() > 1 && path.len() > prefix.len() {
        found.push((tokens[start].0, path));
    }
    position
}

/// Splits Rust into names and the punctuation of paths; comments, strings and characters are left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && (rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'')) {
            quoted(rest, '\'')
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((line, rest[..end].to_owned()));
            end
        } else if rest.starts_with("::") {
            found.push((line, "::".to_owned()));
            2
        } else {
            if !first.is_whitespace() {
                found.push((line, first.to_string()));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// The length of the raw string that `rest` starts with.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let body = rest.get(1 + hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest.len() - body.len() + body.find(&end)? + end.len())
}

/// The length of the literal between quotes that `rest` starts with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (position, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return position + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}
