//! Keys: who comes in, how the others are told, and that nothing of a key is ever written down.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use karat::api::Keys;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Child, Reply, Repository, Server, Unserved, client, graph_manifest, karat};

/// A folder with a file of keys.
struct KeyFile(TempDir);

impl KeyFile {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("keys.jsonl")
    }

    /// Adds the line of a new key and gives the key.
    fn add(&self, flags: &[&str]) -> String {
        let output = new_key(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let before = fs::read_to_string(self.path()).unwrap_or_default();
        fs::write(self.path(), before + str::from_utf8(&output.stdout).unwrap()).unwrap();
        String::from_utf8(output.stderr).unwrap().trim().to_owned()
    }
}

fn new_key(flags: &[&str]) -> Command {
    let mut command = karat(&["keys", "new"]);
    command.args(flags);
    command
}

async fn serve(repository: &Repository, keys: &KeyFile) -> Server {
    let unserved = Unserved { keys: Arc::new(Keys::load(keys.path()).unwrap()), ..Unserved::new() };
    unserved.load(repository).await.unwrap();
    unserved.serve().await
}

async fn post(server: &Server, path: &str, key: &str, body: &Value) -> Reply {
    let request = client().post(server.url(path)).json(body);
    Reply::of(if key.is_empty() { request } else { request.bearer_auth(key) }).await
}

#[tokio::test]
async fn every_route_but_health_wants_a_key_and_says_so_as_its_clients_expect() {
    let keys = KeyFile::new();
    let key = keys.add(&["trainer"]);
    let server = serve(&Repository::with_sum(), &keys).await;
    let body = json!({"model": "sum", "inputs": [{"text": "10 11"}]});

    let refused = post(&server, "/v1/score", "", &body).await;
    refused.assert_problem(401, "no-key", "Authorization: Bearer");
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    post(&server, "/v1/score", "karat_wrong", &body).await.assert_problem(401, "no-key", "doesn't know this key");
    assert_eq!(post(&server, "/v1/score", &key, &body).await.status, 200);
    let by_header = client().post(server.url("/v1/score")).header("x-api-key", &key).json(&body);
    assert_eq!(Reply::of(by_header).await.status, 200);

    for path in ["/v1/models", "/metrics", "/openapi.json", "/v2", "/tei/info", "/m/sum/info"] {
        assert_eq!(server.get(path).await.status, 401, "{path}");
    }
    for path in ["/health/live", "/health/ready", "/health", "/tei/health", "/v2/health/ready", "/v2/models/sum/ready"]
    {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for (path, place) in [
        ("/get_reward", "/detail"),
        ("/m/sum/get_reward", "/detail"),
        ("/classify", "/error/message"),
        ("/vllm/classify", "/error/message"),
        ("/predict", "/error"),
        ("/cohere/v2/rerank", "/message"),
        ("/v2/models/sum/infer", "/error"),
        ("/v2/repository/models/sum/load", "/error"),
    ] {
        let refused = post(&server, path, "", &json!({})).await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(
            refused.body.pointer(place).is_some_and(|told| told.as_str().unwrap().contains("send a key")),
            "{path}"
        );
    }
    let call = client().post(server.url("/inference.GRPCInferenceService/ModelInfer"));
    let refused = Reply::of(call.header("content-type", "application/grpc")).await;
    assert_eq!((refused.status, refused.header("grpc-status")), (200, "16"));
    let call = client().post(server.url("/inference.GRPCInferenceService/RepositoryModelLoad"));
    let refused = Reply::of(call.header("content-type", "application/grpc").bearer_auth(&key)).await;
    assert_eq!(refused.header("grpc-status"), "7");
    let load = post(&server, "/v2/repository/models/sum/load", &key, &json!({})).await;
    assert!(load.status == 403 && load.text.contains("admin"), "{}", load.text);
}

#[tokio::test]
async fn a_key_has_its_models_and_its_tokens() {
    let keys = KeyFile::new();
    let repository = Repository::with_sum();
    repository.add("other", &graph_manifest("", "sum"), &["sum"]);
    let confined = keys.add(&["confined", "--models", "other"]);
    let poor = keys.add(&["poor", "--tokens-per-minute", "1"]);
    let admin = keys.add(&["boss", "--admin"]);
    let server = serve(&repository, &keys).await;
    let body = json!({"model": "sum", "inputs": [{"text": "10 11"}]});
    let query = json!({"query": ["10"]});

    let refused = post(&server, "/v1/score", &confined, &body).await;
    refused.assert_problem(403, "key-forbids", "the key confined may not use the model sum");
    let refused = post(&server, "/m/sum/get_reward", &confined, &query).await;
    assert!(refused.status == 403 && refused.body["detail"].as_str().unwrap().contains("confined"), "{}", refused.text);
    let other = json!({"model": "other", "inputs": [{"text": "10 11"}]});
    assert_eq!(post(&server, "/v1/score", &confined, &other).await.status, 200);

    // What a request costs is known when it is done, so the first one comes through whole.
    assert_eq!(post(&server, "/v1/score", &poor, &body).await.status, 200);
    let refused = post(&server, "/v1/score", &poor, &body).await;
    refused.assert_problem(429, "out-of-tokens", "poor");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 60, "a debt of a token and more");
    // Trainers come back after a 503, and give up on a 429.
    let refused = post(&server, "/m/sum/get_reward", &poor, &query).await;
    assert!(refused.status == 503 && !refused.header("retry-after").is_empty(), "{}", refused.text);

    // This server follows no orders, which it says to whoever may give them.
    let load = post(&server, "/v2/repository/models/sum/load", &admin, &json!({})).await;
    assert!(load.status == 503 && !load.text.contains("key"), "{} {}", load.status, load.text);
}

#[tokio::test]
async fn keys_are_read_anew_and_never_written_into_the_log() {
    let keys = KeyFile::new();
    let first = keys.add(&["first"]);
    let file = keys.path();
    let flags = ["--keys", file.to_str().unwrap(), "--log", "trace"];
    let repository = Repository::with_sum();
    let child = Child::serve(&repository, &flags).await;
    child.ready().await;
    let body = json!({"model": "sum", "inputs": [{"text": "10 11"}]});
    let come = async |key: &str| {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = client().post(child.url("/v1/score")).bearer_auth(key).header("traceparent", trace);
        Reply::of(request.header("x-request-id", "mine").json(&body)).await.status
    };
    assert_eq!(come(&first).await, 200);

    let second = keys.add(&["second"]);
    child.signal("HUP");
    child.logged("keys were read anew").await;
    assert_eq!((come(&first).await, come(&second).await), (200, 200));
    fs::write(&file, "no keys").unwrap();
    child.signal("HUP");
    child.logged("keys can't be read anew").await;
    assert_eq!(come(&second).await, 200, "those from before hold");

    child.signal("TERM");
    let log = child.end().await.stderr;
    for secret in [&first, &second] {
        assert!(!log.contains(secret.trim_start_matches("karat_")), "a key is in the log");
    }
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests: Vec<Value> = lines.filter(|line| line["message"] == "request" && line["level"] == "INFO").collect();
    let names: Vec<&str> = requests.iter().filter_map(|line| line["key"].as_str()).collect();
    assert_eq!(names, ["first", "first", "second", "second"]);
    let line = &requests[0];
    assert_eq!(
        (&line["method"], &line["route"], &line["models"]),
        (&json!("POST"), &json!("/v1/score"), &json!("sum"))
    );
    assert_eq!((&line["status"], &line["tokens"]), (&json!(200), &json!(2)));
    assert_eq!(line["span"]["id"], "mine");
    assert_eq!(line["span"]["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!log.contains("10 11"), "texts are never logged");
}

#[tokio::test]
async fn what_is_scored_later_is_scored_with_its_key() {
    let keys = KeyFile::new();
    let repository = Repository::with_sum();
    repository.add("other", &graph_manifest("", "sum"), &["sum"]);
    let confined = keys.add(&["confined", "--models", "other"]);
    let any = keys.add(&["any"]);
    let admin = keys.add(&["boss", "--admin"]);
    let server = serve(&repository, &keys).await;
    for path in ["/v1/runs", "/v1/jobs", "/v1/signals"] {
        assert_eq!(server.get(path).await.status, 401, "{path}");
    }
    let frozen = client().put(server.url("/v1/models/sum/normaliser")).bearer_auth(&any).json(&json!({"frozen": true}));
    Reply::of(frozen).await.assert_problem(403, "key-forbids", "admin");

    let body = |model: &str| json!({"model": model, "run": "a", "inputs": [{"prompt": "", "response": "10 11"}]});
    for path in ["/v1/score", "/v1/probe", "/v1/jobs"] {
        post(&server, path, &confined, &body("sum")).await.assert_problem(403, "key-forbids", "confined");
    }
    let mut unwaited = body("sum");
    unwaited["wait"] = json!(false);
    post(&server, "/v1/score", &confined, &unwaited).await.assert_problem(403, "key-forbids", "confined");
    let asked = async |path: &str| Reply::of(client().get(server.url(path)).bearer_auth(&admin)).await.body;
    assert_eq!(asked("/v1/runs").await["runs"], json!([]), "what isn't let in is no run's sample");

    // A judge whom the key may not use says nothing, and one whom it may does.
    let judged = client().put(server.url("/v1/runs/a")).bearer_auth(&confined);
    let judged = Reply::of(judged.json(&json!({"judge": {"model": "sum", "share": 1}}))).await;
    assert_eq!(judged.status, 200, "{}", judged.text);
    let accepted = post(&server, "/v1/jobs", &confined, &body("other")).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let job = format!("/v1/jobs/{}", accepted.body["id"].as_str().unwrap());
    until(async || asked(&job).await["state"] == "done").await;
    assert_eq!(asked(&job).await["failed"], 0);
    until(async || asked("/v1/runs/a").await["unjudged"] == 1).await;
}

#[tokio::test]
async fn runs_and_jobs_are_the_keys_that_made_them() {
    let keys = KeyFile::new();
    let [own, other] = ["own", "other"].map(|name| keys.add(&[name]));
    let admin = keys.add(&["boss", "--admin"]);
    let server = serve(&Repository::with_sum(), &keys).await;
    let as_key = async |method: Method, path: &str, key: &str| {
        Reply::of(client().request(method, server.url(path)).bearer_auth(key)).await
    };
    let body = json!({"model": "sum", "run": "mine", "step": 1, "inputs": [{"text": "10 11"}]});
    let scored = post(&server, "/v1/score", &own, &body).await;
    assert_eq!(scored.status, 200, "{}", scored.text);
    let accepted = post(&server, "/v1/jobs", &own, &body).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let job = format!("/v1/jobs/{}", accepted.body["id"].as_str().unwrap());
    until(async || as_key(Method::GET, &job, &own).await.body["state"] == "done").await;

    let results = format!("{job}/results");
    for (method, path, slug) in [
        (Method::GET, "/v1/runs/mine", "unknown-run"),
        (Method::GET, "/v1/runs/mine/events", "unknown-run"),
        (Method::DELETE, "/v1/runs/mine", "unknown-run"),
        (Method::GET, &*job, "unknown-job"),
        (Method::GET, &*results, "unknown-job"),
        (Method::DELETE, &*job, "unknown-job"),
    ] {
        as_key(method, path, &other).await.assert_problem(404, slug, "GET /v1/");
    }
    let outcomes = json!({"outcomes": [{"request": scored.body["id"], "value": 1}]});
    post(&server, "/v1/runs/mine/outcomes", &other, &outcomes).await.assert_problem(404, "unknown-run", "mine");
    for path in ["/v1/score", "/v1/jobs"] {
        post(&server, path, &other, &body).await.assert_problem(403, "key-forbids", "the run mine is another key's");
    }
    let configured = |run: &str, config: Value| {
        Reply::of(client().put(server.url(&format!("/v1/runs/{run}"))).bearer_auth(&other).json(&config))
    };
    configured("mine", json!({})).await.assert_problem(403, "key-forbids", "the run mine is another key's");
    configured("theirs", json!({"reference": "mine"})).await.assert_problem(422, "invalid-request", "mine");

    for (key, sees) in [(&own, true), (&other, false), (&admin, true)] {
        let (runs, jobs) = (as_key(Method::GET, "/v1/runs", key).await, as_key(Method::GET, "/v1/jobs", key).await);
        assert_eq!(runs.body["runs"].as_array().unwrap().len(), usize::from(sees), "{}", runs.text);
        assert_eq!(jobs.body["jobs"].as_array().unwrap().len(), usize::from(sees), "{}", jobs.text);
        let metrics = as_key(Method::GET, "/metrics", key).await.text;
        assert_eq!(metrics.contains("run=\"mine\""), sees, "{metrics}");
    }
    assert_eq!(as_key(Method::GET, "/v1/runs/mine", &admin).await.body["samples"], 2);
    assert_eq!(post(&server, "/v1/runs/mine/outcomes", &own, &outcomes).await.body["accepted"], 1);
    assert_eq!(as_key(Method::DELETE, &job, &admin).await.status, 200);
    assert_eq!(as_key(Method::DELETE, "/v1/runs/mine", &own).await.status, 200);
    // The name is free again.
    assert_eq!(post(&server, "/v1/score", &other, &body).await.status, 200);
}

#[tokio::test]
async fn a_job_that_waits_for_its_keys_tokens_holds_no_other_up() {
    let keys = KeyFile::new();
    let poor = keys.add(&["poor", "--tokens-per-minute", "1"]);
    let rich = keys.add(&["rich"]);
    let server = serve(&Repository::with_sum(), &keys).await;
    let rows: String = (0..100).map(|row| format!("{{\"text\": \"{}\"}}\n", 100 + row)).collect();
    let submit = async |key: &str| {
        let request = client().post(server.url("/v1/jobs")).bearer_auth(key);
        let accepted = Reply::of(request.body(format!("{{\"model\": \"sum\"}}\n{rows}"))).await;
        format!("/v1/jobs/{}", accepted.body["id"].as_str().unwrap())
    };
    let (waiting, other) = (submit(&poor).await, submit(&rich).await);
    let job = async |path: &str, key: &str| Reply::of(client().get(server.url(path)).bearer_auth(key)).await.body;
    until(async || job(&other, &rich).await["state"] == "done").await;
    let waiting = job(&waiting, &poor).await;
    assert_eq!((&waiting["state"], &waiting["failed"]), (&json!("running"), &json!(0)), "{waiting}");
}

/// Waits until something is so, which it must be before long.
async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never was")
}

#[test]
fn a_faulty_file_of_keys_keeps_the_server_from_starting() {
    let keys = KeyFile::new();
    fs::write(keys.path(), "{\"name\": \"a\"}\n").unwrap();
    let repository = Repository::with_sum();
    let mut command = karat(&["serve", "--listen", "127.0.0.1:0", "--keys"]);
    let output = command.arg(keys.path()).arg("--models").arg(repository.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("line 1: missing field `sha256`"), "{stderr}");
}
