//! What is there after a server was killed.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Child, Reply, Repository, Server, client, graph_manifest, is_close};

/// A server with that state. It is killed when the value is dropped.
async fn started(repository: &Repository, state: &TempDir) -> Child {
    let child =
        Child::serve(repository, &["--state", state.path().to_str().unwrap(), "--calibration-seconds", "0"]).await;
    child.ready().await;
    child
}

/// The model `sum`, and `running`, which normalises its rewards by those it saw.
fn with_running() -> Repository {
    let repository = Repository::with_sum();
    repository.add("running", &graph_manifest("transforms = [\"running_normalise\"]", "sum"), &["sum"]);
    repository
}

async fn post(server: &Child, path: &str, body: impl Into<reqwest::Body>) -> Reply {
    Reply::of(client().post(server.url(path)).body(body)).await
}

async fn post_json(server: &Child, path: &str, body: &Value) -> Reply {
    post(server, path, body.to_string()).await
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let (repository, state) = (with_running(), TempDir::new().unwrap());
    let server = started(&repository, &state).await;
    let of_run = json!({"model": "sum", "run": "a", "step": 1, "inputs": [{"text": "100"}]});
    let scored = post_json(&server, "/v1/score", &of_run).await;
    let outcomes = json!({"outcomes": [{"request": scored.body["id"], "index": 0, "value": true}]});
    assert_eq!(post_json(&server, "/v1/runs/a/outcomes", &outcomes).await.body["accepted"], 1);
    post_json(&server, "/v1/score", &json!({"model": "running", "inputs": [{"text": "100"}, {"text": "200"}]})).await;
    let learned = server.get("/v1/models/running/normaliser").await.body;
    assert_eq!((&learned["links"][0]["count"], &learned["lasts"]), (&json!(2), &json!(true)), "{learned}");
    let rows: String = (0..5000).map(|row| format!("{{\"text\": \"{}\"}}\n", 100 + row % 100)).collect();
    let job = post(&server, "/v1/jobs", format!("{{\"model\": \"sum\"}}\n{rows}")).await;
    assert_eq!(job.status, 202, "{}", job.text);
    drop(server);

    let server = started(&repository, &state).await;
    let run = server.get("/v1/runs/a").await.body;
    assert_eq!(run["models"][0]["outcomes"]["samples"], 1, "{run}");
    let again = server.get("/v1/models/running/normaliser").await.body;
    assert_eq!(again["links"], learned["links"]);
    let scored = post_json(&server, "/v1/score", &json!({"model": "running", "inputs": [{"text": "200"}]})).await;
    let reward = scored.body["results"][0]["reward"].as_f64().unwrap();
    assert!(reward > 0.5, "it goes on with what it learned: {}", scored.text);
    let path = format!("/v1/jobs/{}", job.body["id"].as_str().unwrap());
    server.asked_until(&path, |reply| !reply.body["ended"].is_null()).await;
    let done = server.get(&path).await.body;
    let results = server.get(&format!("{path}/results?limit=10000")).await.text;
    let error = results.lines().find(|line| line.contains("\"error\""));
    assert_eq!((&done["done"], &done["failed"], error), (&json!(5000), &json!(0), None));
    let last = server.get(&format!("{path}/results?offset=4999")).await;
    assert!(is_close(last.body["reward"].as_f64().unwrap(), 0.199), "{}", last.text);
}

#[tokio::test]
async fn a_normaliser_can_be_frozen_and_given_a_state() {
    let server = Server::of(&with_running()).await;
    let put = |model: &str, body: Value| {
        Reply::of(server.client.put(server.url(&format!("/v1/models/{model}/normaliser"))).json(&body))
    };
    let state = json!({"count": 10, "mean": 0.1, "variance": 0.01});
    let set = put("running", json!({"state": state, "frozen": true})).await;
    assert_eq!((set.status, &set.body["links"][0]["frozen"]), (200, &json!(true)), "{}", set.text);
    for _ in 0..2 {
        let rewards = server.rewards("running", &["200"]).await;
        assert!((rewards[0] - 1.0).abs() < 1e-5, "{rewards:?}");
    }
    let bad = json!({"state": {"count": 1, "mean": 0, "variance": -1}});
    put("running", bad).await.assert_problem(422, "invalid-request", "variance");
    put("sum", json!({"frozen": true})).await.assert_problem(422, "invalid-request", "running_normalise");
}
