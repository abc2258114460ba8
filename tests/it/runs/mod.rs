//! Training runs: statistics, signals, outcomes, and what lasts.

mod jobs;
mod lasting;
mod signals;
mod statistics;

use serde_json::{Value, json};

use crate::support::Server;

/// `POST /v1/score` of texts by `model` for a step of a run; the request's id.
async fn score(server: &Server, model: &str, run: &str, step: u64, texts: &[String]) -> String {
    let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    let reply = server.post(&json!({ "model": model, "run": run, "step": step, "inputs": inputs })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.body["id"].as_str().unwrap().to_owned()
}

/// Texts of one number each, from `first` on.
fn texts(first: u32, count: u32) -> Vec<String> {
    (first..first + count).map(|number| number.to_string()).collect()
}
