//! `GET /v1/catalogue`: everything that is announced is there and accepted.

use karat_rules::{aggregate, domain::catalogue::Choice, head, metrics, select, transform};
use serde_json::{Value, json};

use crate::support::{Repository, Server};

async fn sections(server: &Server) -> Vec<Value> {
    server.get("/v1/catalogue").await.body["sections"].as_array().unwrap().clone()
}

fn names(section: &Value) -> Vec<&str> {
    section["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_rule_is_listed() {
    let server = Server::of(&Repository::with_sum()).await;
    let sections = sections(&server).await;
    let lists: [Vec<&str>; 5] = [
        head::CATALOGUE.entries.iter().map(|entry| entry.name).collect(),
        aggregate::CATALOGUE.entries.iter().map(|entry| entry.name).collect(),
        transform::CATALOGUE.entries.iter().map(|entry| entry.name).collect(),
        select::CATALOGUE.entries.iter().map(|entry| entry.name).collect(),
        metrics::CATALOGUE.entries.iter().map(|entry| entry.name).collect(),
    ];
    assert_eq!(sections.iter().map(names).collect::<Vec<_>>(), lists);
    for entry in sections.iter().flat_map(|section| section["entries"].as_array().unwrap()) {
        for field in ["summary", "formula", "source"] {
            assert!(entry[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {entry}");
        }
        assert!(entry["parameters"].is_object(), "{entry}");
    }
}

#[tokio::test]
async fn every_example_is_accepted() {
    let server = Server::of(&Repository::with_sum()).await;
    for section in sections(&server).await {
        for entry in section["entries"].as_array().unwrap() {
            let (kind, name) = (entry["kind"].as_str().unwrap(), entry["name"].as_str().unwrap());
            let mut written: Vec<Value> =
                entry["examples"].as_array().unwrap().iter().map(|example| json!({name: example})).collect();
            assert!(!written.is_empty(), "{kind} {name} has no example");
            if entry["has_defaults"] == true {
                written.push(json!(name));
            }
            for choice in written {
                if let Err(reason) = build(kind, &choice) {
                    panic!("{kind} {choice}: {reason}");
                }
            }
            if kind == "metric" {
                for example in entry["examples"].as_array().unwrap() {
                    let reply = server.post_to(&format!("/v1/metrics/{name}"), example).await;
                    assert_eq!(reply.status, 200, "{example}: {}", reply.text);
                }
            }
        }
    }
}

/// Reads a rule as a manifest or request does.
fn build(kind: &str, written: &Value) -> Result<(), String> {
    let choice: Choice = serde_json::from_value(written.clone()).map_err(|error| error.to_string())?;
    let built = match kind {
        "head" => head::CATALOGUE.build(&choice).map(drop),
        "aggregation" => aggregate::CATALOGUE.build(&choice).map(drop),
        "transform" => transform::CATALOGUE.build(&choice).map(drop),
        "selection" => select::CATALOGUE.build(&choice).map(drop),
        "metric" => metrics::CATALOGUE.build(&choice).map(drop),
        other => return Err(format!("an unknown kind {other:?}")),
    };
    built.map_err(|error| error.to_string())
}
