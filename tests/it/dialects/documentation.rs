//! Every `curl` of the dialects' pages is answered.

use std::fs;

use karat::api::DialectSettings;

use super::{CHAT, PAIR, serve};
use crate::support::{Reply, Repository, root};

/// Each command's URL and body.
fn commands(page: &str) -> Vec<(String, Option<String>)> {
    let commands = page.split("\n    curl ").skip(1);
    commands
        .map(|command| {
            let command = command.split("\n\n").next().unwrap();
            let (url, rest) = command.split_once([' ', '\n']).unwrap_or((command, ""));
            let body = rest.split_once("-d '").map(|(_, body)| body.split('\'').next().unwrap().to_owned());
            (url.trim_matches('\'').to_owned(), body)
        })
        .collect()
}

#[tokio::test]
async fn every_documented_request_works() {
    let longer = |manifest: &str| manifest.replace("max_tokens = 16", "max_tokens = 64");
    let repository = Repository::empty();
    repository.add("harmless", &longer(CHAT), &["members"]);
    repository.add("relevance", &longer(PAIR), &["sum"]);
    let settings = DialectSettings { default_model: "harmless".parse().ok(), ..DialectSettings::default() };
    let server = serve(&repository, settings).await;
    let mut pages = 0;
    for page in fs::read_dir(root().join("docs/dialects")).unwrap() {
        let path = page.unwrap().path();
        let commands = commands(&fs::read_to_string(&path).unwrap());
        assert!(!commands.is_empty(), "{} shows no request", path.display());
        for (url, body) in commands {
            let route = url.strip_prefix("http://127.0.0.1:8080").unwrap_or_else(|| panic!("{url}"));
            let request = match body {
                Some(body) => server.client.post(server.url(route)).body(body),
                None => server.client.get(server.url(route)),
            };
            let reply = Reply::of(request).await;
            assert_eq!(reply.status, 200, "{}: {url}: {}", path.display(), reply.text);
        }
        pages += 1;
    }
    assert_eq!(pages, 13);
}
