//! Models come, change and go while the server runs, and no request ends on anything but the version that it began with.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Child, Reply, Repository, client, graph_manifest, root};

/// A manifest under which the scores of `sum` are cut at `high`.
fn cut_at(high: f64) -> String {
    graph_manifest(&format!("transforms = [{{ clip = {{ min = 0, max = {high} }} }}]"), "sum")
}

/// A request whose raw score is .29 of 1000ths.
fn body(model: &str) -> Value {
    json!({"model": model, "inputs": [{"text": "290"}]})
}

async fn reward(server: &Child, model: &str) -> Value {
    let reply = server.post(&body(model)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.body["results"][0]["reward"].clone()
}

async fn order(server: &Child, model: &str, order: &str) -> Reply {
    Reply::of(client().post(server.url(&format!("/v1/models/{model}/{order}")))).await
}

async fn card(server: &Child, model: &str) -> Value {
    server.get(&format!("/v1/models/{model}")).await.body
}

async fn ready(repository: &Repository, flags: &[&str]) -> Child {
    let server = Child::serve(repository, &[flags, &["--calibration-seconds", "0"]].concat()).await;
    server.ready().await;
    server
}

#[tokio::test]
async fn what_lies_in_the_folder_takes_over_and_is_told_from_what_was_there() {
    let repository = Repository::empty();
    repository.add("sum", &cut_at(0.1), &["sum"]);
    repository.add("both", "[[ensemble]]\nmodel = \"sum\"\n", &[]);
    let server = ready(&repository, &[]).await;
    assert_eq!((reward(&server, "sum").await, reward(&server, "both").await), (json!(0.1), json!(0.1)));
    let (first, composite) =
        (card(&server, "sum").await["version"].clone(), card(&server, "both").await["version"].clone());

    repository.write("sum", "model.toml", cut_at(0.2));
    let loaded = order(&server, "sum", "load").await;
    assert_eq!((loaded.status, &loaded.body["replaced"]), (200, &first), "{}", loaded.text);
    let second = loaded.body["version"].clone();
    assert_ne!(second, first);
    assert_eq!(
        (reward(&server, "sum").await, reward(&server, "both").await),
        (json!(0.2), json!(0.2)),
        "the composite follows"
    );
    assert_ne!(card(&server, "both").await["version"], composite);
    assert_eq!(server.post(&body("sum")).await.body["model_version"], second);

    let again = order(&server, "sum", "load").await.body;
    assert_eq!((&again["version"], &again["replaced"]), (&second, &second), "nothing changed");

    // Pinned by the name or by the header; what is gone is never answered by another.
    let of = |version: &Value| format!("sum@{}", version.as_str().unwrap());
    assert_eq!(reward(&server, &of(&second)).await, 0.2);
    server.post(&body(&of(&first))).await.assert_problem(412, "other-version", second.as_str().unwrap());
    let if_match = async |path: &str, body: Value, version: &Value| {
        let tag = format!("\"{}\"", version.as_str().unwrap());
        Reply::of(client().post(server.url(path)).header("if-match", tag).json(&body)).await
    };
    assert_eq!(if_match("/v1/score", body("sum"), &second).await.status, 200);
    if_match("/v1/score", body("sum"), &first).await.assert_problem(412, "other-version", "sum");
    let pooled = json!({"model": "sum", "input": "290"});
    assert_eq!(if_match("/vllm/pooling", pooled.clone(), &second).await.status, 200);
    assert_eq!(if_match("/vllm/pooling", pooled, &first).await.status, 412);
    let many = Reply::of(client().post(server.url("/v1/score")).header("if-match", "\"a\", \"b\"").json(&body("sum")));
    many.await.assert_problem(422, "invalid-request", "If-Match");
}

#[tokio::test]
async fn rules_alone_try_no_graph_again_and_other_weights_do() {
    let repository = Repository::empty();
    repository.add("sum", &cut_at(0.1), &["sum"]);
    let server = Child::serve(&repository, &["--calibration-seconds", "0.1"]).await;
    server.ready().await;
    // No trial of this graph comes to such a difference: who tells of it has read it here.
    const READ: f64 = 1.5e-5;
    let file = repository.path().join("sum/sum.trial.calibration.json");
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["found"]["largest_difference"] = json!(READ);
    fs::write(&file, kept.to_string()).unwrap();
    let difference = async || card(&server, "sum").await["graphs"][0]["trial"]["largest_difference"].clone();

    repository.write("sum", "model.toml", cut_at(0.2));
    assert_eq!(order(&server, "sum", "load").await.status, 200);
    assert_eq!((reward(&server, "sum").await, difference().await), (json!(0.2), json!(READ)));
    fs::copy(root().join("tests/graphs/last_place.onnx"), repository.path().join("sum/sum.onnx")).unwrap();
    assert_eq!(order(&server, "sum", "load").await.status, 200);
    assert_ne!(difference().await, READ);
}

#[tokio::test]
async fn a_load_that_fails_changes_nothing() {
    let repository = Repository::empty();
    repository.add("sum", &cut_at(0.1), &["sum"]);
    let server = ready(&repository, &[]).await;
    let version = card(&server, "sum").await["version"].clone();
    repository.write("sum", "model.toml", "head = ");
    order(&server, "sum", "load").await.assert_problem(422, "not-loaded", "model.toml");
    let told = card(&server, "sum").await;
    assert_eq!(
        (&told["status"], &told["version"], &told["change"]["status"]),
        (&json!("ready"), &version, &json!("failed"))
    );
    assert!(told["change"]["reason"].as_str().unwrap().contains("line 1"), "{told}");
    assert_eq!(reward(&server, "sum").await, 0.1);

    // Other scores than the reference's are a failure like any other.
    repository.write("sum", "model.toml", cut_at(0.2));
    let expected = json!({"tolerance": 1e-4, "cases": [{"text": "290", "reward": 5.0}]});
    repository.write("sum", "expected.json", expected.to_string());
    order(&server, "sum", "load").await.assert_problem(422, "not-loaded", "expected.json");
    assert_eq!(reward(&server, "sum").await, 0.1);
    fs::remove_file(repository.path().join("sum/expected.json")).unwrap();
    assert_eq!(order(&server, "sum", "load").await.status, 200);
    assert_eq!(card(&server, "sum").await["change"], Value::Null);
}

#[tokio::test]
async fn models_come_and_go() {
    let repository = Repository::with_sum();
    let server = ready(&repository, &[]).await;
    order(&server, "late", "load").await.assert_problem(404, "unknown-model", "late");
    repository.add("late", &cut_at(0.2), &["sum"]);
    repository.add("both", "[[ensemble]]\nmodel = \"late\"\n", &[]);
    for model in ["late", "both"] {
        assert_eq!(order(&server, model, "load").await.body["replaced"], Value::Null);
    }
    assert_eq!(reward(&server, "both").await, 0.2);

    // What is loaded is served on, and nobody is told that it was loaded again.
    fs::rename(repository.path().join("late/model.toml"), repository.path().join("late/away")).unwrap();
    order(&server, "late", "load").await.assert_problem(404, "unknown-model", "late");
    assert_eq!(reward(&server, "late").await, 0.2);
    fs::rename(repository.path().join("late/away"), repository.path().join("late/model.toml")).unwrap();

    order(&server, "late", "unload").await.assert_problem(409, "in-use", "both");
    for model in ["both", "late"] {
        assert_eq!(order(&server, model, "unload").await.body["status"], "unloaded");
        server.post(&body(model)).await.assert_problem(503, "model-unavailable", "/load");
    }
    assert_eq!(server.get("/health/ready").await.status, 200, "the others take requests");
    // As Triton's clients ask.
    let kserve = async |model: &str, order: &str| {
        Reply::of(client().post(server.url(&format!("/v2/repository/models/{model}/{order}"))).json(&json!({}))).await
    };
    assert_eq!(kserve("late", "load").await.body, json!({}));
    assert_eq!(reward(&server, "late").await, 0.2);
    assert_eq!(kserve("late", "unload").await.body, json!({}));
    assert_eq!(kserve("nobody", "load").await.status, 404);
    order(&server, "nobody", "unload").await.assert_problem(404, "unknown-model", "nobody");
}

#[tokio::test]
async fn several_versions_stand_side_by_side() {
    let repository = Repository::empty();
    repository.add("reward/9", &cut_at(0.1), &["sum"]);
    repository.add("reward/10", &cut_at(0.2), &["sum"]);
    let server = ready(&repository, &[]).await;
    assert_eq!(reward(&server, "reward@9").await, 0.1);
    assert_eq!(server.post(&body("reward")).await.body["model"], "reward@10", "the highest number");
    assert_eq!(reward(&server, "reward").await, 0.2);
    server.post(&body("reward@11")).await.assert_problem(412, "other-version", "reward@9");

    repository.add("reward/11", &cut_at(0.25), &["sum"]);
    assert_eq!(order(&server, "reward", "load").await.status, 200);
    assert_eq!(reward(&server, "reward").await, 0.25);
    let infer = json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["290"]}],
                       "outputs": [{"name": "rewards"}]});
    for (version, expected) in [("9", 0.1), ("11", 0.25)] {
        let path = format!("/v2/models/reward/versions/{version}/infer");
        let reply = Reply::of(client().post(server.url(&path)).json(&infer)).await;
        let score = reply.body["outputs"][0]["data"][0].as_f64().unwrap();
        assert!((score - expected).abs() < 1e-6, "{}", reply.text);
    }
    let absent = Reply::of(client().post(server.url("/v2/models/reward/versions/12/infer")).json(&infer)).await;
    assert_eq!(absent.status, 404, "{}", absent.text);
}

#[tokio::test]
async fn folders_are_followed_where_that_is_wanted_and_told_of_where_not() {
    let repository = Repository::empty();
    repository.add("sum", &cut_at(0.1), &["sum"]);
    let follows = ready(&repository, &["--watch", "--watch-seconds", "0.02"]).await;
    let tells = ready(&repository, &["--watch-seconds", "0.02"]).await;
    let first = card(&follows, "sum").await["version"].clone();
    repository.write("sum", "model.toml", cut_at(0.2));
    repository.add("new", &cut_at(0.25), &["sum"]);
    follows.asked_until("/v1/models/sum", |reply| reply.body["version"] != first).await;
    follows.asked_until("/v1/models/new", |reply| reply.body["status"] == "ready").await;
    assert_eq!((reward(&follows, "sum").await, reward(&follows, "new").await), (json!(0.2), json!(0.25)));
    fs::remove_dir_all(repository.path().join("new")).unwrap();
    follows.asked_until("/v1/models/new", |reply| reply.status == 404).await;

    tells.asked_until("/v1/models/sum", |reply| reply.body["change"]["status"] == "noticed").await;
    assert_eq!(card(&tells, "sum").await["version"], first);
    assert_eq!(reward(&tells, "sum").await, 0.1);
}

#[tokio::test]
async fn a_server_without_a_model_that_it_requires_is_not_ready() {
    let repository = Repository::with_sum();
    repository.add("broken", "head = ", &[]);
    let server = Child::serve(&repository, &["--require", "broken", "--calibration-seconds", "0"]).await;
    server.asked_until("/v1/models/sum", |reply| reply.body["status"] == "ready").await;
    server.asked_until("/v1/models/broken", |reply| reply.body["status"] == "failed").await;
    assert_eq!(server.get("/health/ready").await.status, 503);
    repository.add("broken", &cut_at(0.2), &["sum"]);
    assert_eq!(order(&server, "broken", "load").await.status, 200);
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_share_of_the_requests_tries_another_version() {
    let repository = Repository::empty();
    repository.add("reward/1", &cut_at(0.1), &["sum"]);
    repository.add("reward/2", &cut_at(0.2), &["sum"]);
    let server = ready(&repository, &[]).await;
    let set = async |model: &str, body: Value| {
        Reply::of(client().put(server.url(&format!("/v1/models/{model}/traffic"))).json(&body)).await
    };
    let branch = |share: f64| json!({"model": "reward@2", "share": share});
    assert_eq!(set("reward@1", json!({"canary": branch(1.0)})).await.status, 200);
    assert_eq!(reward(&server, "reward@1").await, 0.2);
    assert_eq!(server.post(&body("reward@1")).await.body["model"], "reward@2", "the reply says who answered");
    let told = server.get("/v1/models/reward@1/traffic").await.body;
    assert_eq!((&told["requests"], &told["canary_requests"]), (&json!(2), &json!(2)));

    assert_eq!(set("reward@1", json!({"shadow": branch(1.0)})).await.status, 200);
    assert_eq!(reward(&server, "reward@1").await, 0.1, "a shadow answers nobody");
    server.asked_until("/v1/models/reward@1/traffic", |reply| reply.body["differences"]["samples"] == 1).await;
    let mean = server.get("/v1/models/reward@1/traffic").await.body["differences"]["mean"].as_f64().unwrap();
    assert!((mean - 0.1).abs() < 1e-6, "{mean}");

    set("reward@1", json!({"canary": branch(1.5)})).await.assert_problem(422, "invalid-request", "canary.share: 1.5");
    let absent = json!({"canary": {"model": "reward@3", "share": 0.5}});
    set("reward@1", absent).await.assert_problem(412, "other-version", "reward@3");
    assert_eq!(set("reward@1", json!({})).await.body["shadow"], Value::Null);
    assert_eq!(reward(&server, "reward@1").await, 0.1);
}
