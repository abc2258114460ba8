//! The console's files: built from the sources beside them, and served so that a browser runs nothing else.
//!
//! What the page does is tested in a browser, by `make console-check`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::support::{Reply, Repository, Server, root};

/// What the page may weigh, all files together, before compression.
const MOST_BYTES: usize = 300_000;
const FILES: [&str; 3] = ["/", "/console/console.js", "/console/console.css"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_built_files_are_those_of_the_sources() {
    let console = root().join("src/api/console");
    let digests = fs::read_to_string(console.join("built/digests.txt")).unwrap();
    let mut listed = BTreeSet::new();
    for line in digests.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        let found = Sha256::digest(fs::read(console.join(name)).unwrap());
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{name} has changed since the console was built; run `make console`");
        listed.insert(console.join(name));
    }
    let there = files(&console.join("page/src")).into_iter().chain(files(&console.join("built")));
    let unlisted: Vec<PathBuf> =
        there.filter(|file| !file.ends_with("digests.txt") && !listed.contains(file)).collect();
    assert!(unlisted.is_empty(), "{unlisted:?} came after the console was built; run `make console`");
    assert!(listed.len() > 20, "{listed:?}");
}

#[tokio::test]
async fn the_page_is_light_and_may_run_its_own_script_alone() {
    let server = Server::of(&Repository::with_sum()).await;
    let mut bytes = 0;
    for path in FILES {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        bytes += reply.text.len();
        let policy = reply.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    let page = server.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let scripts = page.text.matches("<script").count();
    assert_eq!(scripts, page.text.matches("<script type=\"module\" crossorigin src=\"/console/").count());
    assert!(!page.text.contains("<style") && !page.text.contains(" style="), "the policy forbids styles in the page");
}

#[tokio::test]
async fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let server = Server::of(&Repository::with_sum()).await;
    let ask = async |tag: &str| Reply::of(server.client.get(server.url(FILES[1])).header("if-none-match", tag)).await;
    let first = server.get(FILES[1]).await;
    let tag = first.header("etag").to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
        let again = ask(&known).await;
        assert_eq!((again.status, again.text.len()), (304, 0), "{known}");
        assert_eq!(again.header("etag"), tag);
    }
    assert_eq!(ask("\"other\"").await.text, first.text);
}
