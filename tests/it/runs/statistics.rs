//! What is kept of a run, and by which ways a request belongs to one.

use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use super::{score, texts};
use crate::support::{Reply, Repository, Server, is_close};

#[tokio::test]
async fn rewards_of_a_step_are_told_by_their_statistics() {
    let server = Server::of(&Repository::with_sum()).await;
    score(&server, "sum", "a", 3, &texts(100, 5)).await;
    score(&server, "sum", "a", 4, &["200".to_owned(), "200".to_owned()]).await;
    let run = server.get("/v1/runs/a").await;
    assert_eq!(run.status, 200, "{}", run.text);
    let model = &run.body["models"][0];
    let step = &model["steps"][0];
    for (field, expected) in [
        ("first_step", 3.0),
        ("samples", 5.0),
        ("mean", 0.102),
        // NumPy: np.std([0.100, 0.101, 0.102, 0.103, 0.104], ddof=1).
        ("deviation", 0.001_581_138_83),
        ("minimum", 0.1),
        ("maximum", 0.104),
        ("disagreement", 0.0),
        ("duplicates", 0.0),
        ("length", 3.0),
        ("unscored", 0.0),
    ] {
        assert!(is_close(step[field].as_f64().unwrap(), expected), "{field}: {step}");
    }
    assert!(step["preference"].is_null() && step["length_correlation"].is_null(), "{step}");
    let later = &model["steps"][1];
    assert!(is_close(later["duplicates"].as_f64().unwrap(), 0.5), "{later}");
    assert!(is_close(later["preference"]["wins"].as_f64().unwrap(), 1.0), "{later}");

    let list = server.get("/v1/runs").await;
    let summary = &list.body["runs"][0];
    assert_eq!((&summary["run"], &summary["samples"], &summary["last_step"]), (&json!("a"), &json!(7), &json!(4)));
    assert_eq!(list.body["dropped"], 0);
}

#[tokio::test]
async fn a_table_is_given_to_who_asks_for_one() {
    let server = Server::of(&Repository::with_sum()).await;
    score(&server, "sum", "a", 1, &texts(100, 2)).await;
    let by_query = server.get("/v1/runs/a?format=csv").await;
    let by_header = Reply::of(server.client.get(server.url("/v1/runs/a")).header(ACCEPT, "text/csv")).await;
    assert_eq!(by_query.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(by_query.text, by_header.text);
    assert!(by_query.text.lines().nth(1).unwrap().starts_with("sum,1,1,2,0.1005"), "{}", by_query.text);
    server.get("/v1/runs/a?format=xml").await;
}

/// How many samples a run has.
async fn samples(server: &Server, run: &str) -> Value {
    server.get(&format!("/v1/runs/{run}")).await.body["samples"].clone()
}

#[tokio::test]
async fn every_dialect_may_name_a_run_in_its_body_its_url_or_its_headers() {
    let server = Server::of(&Repository::with_sum()).await;
    let named = |path: &str, body: Value| server.client.post(server.url(path)).json(&body);
    let header = |request: reqwest::RequestBuilder| request.header("X-Karat-Run", "header").header("X-Karat-Step", "2");
    let openrlhf = json!({"query": ["100", "101"]});
    let requests = [
        header(named("/get_reward", openrlhf.clone())),
        named("/m/sum/get_reward?run=url&step=1", openrlhf.clone()),
        named("/get_reward", json!({"query": ["100", "101"], "run": "body", "step": 1})),
        header(named("/predict", json!({"inputs": ["100"], "raw_scores": true}))),
        named("/v1/score?run=url&step=1", json!({"model": "sum", "inputs": [{"text": "100"}]})),
        header(named("/v1/score", json!({"model": "sum", "inputs": [{"text": "100"}]}))),
        header(named(
            "/v2/models/sum/infer",
            json!({"inputs": [
                {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["100"]}
            ]}),
        )),
    ];
    for request in requests {
        let reply = Reply::of(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let logged = Reply::of(named("/m/sum/get_reward?run=logged", openrlhf)).await;
    assert_eq!(logged.body["extra_logs"]["run_signals_firing"], json!([0.0, 0.0]), "{}", logged.text);
    assert_eq!(samples(&server, "header").await, 5);
    assert_eq!(samples(&server, "url").await, 3);
    assert_eq!(samples(&server, "body").await, 2);
}

#[tokio::test]
async fn what_can_not_name_a_run_is_refused_and_changes_nothing() {
    let server = Server::of(&Repository::with_sum()).await;
    for (name, value) in
        [("run", json!("a/b")), ("run", json!("")), ("run", json!("x".repeat(129))), ("step", json!(1))]
    {
        let mut body = json!({"model": "sum", "inputs": [{"text": "100"}]});
        body[name] = value;
        server.post(&body).await.assert_problem(422, "invalid-request", name);
    }
    let hostile =
        server.client.post(server.url("/get_reward")).header("X-Karat-Run", "a b").json(&json!({"query": ["1"]}));
    assert_eq!(Reply::of(hostile).await.status, 422);
    server.get("/v1/runs/..%2fetc").await.assert_problem(404, "unknown-run", "can't name a run");
    server.get("/v1/runs/other").await.assert_problem(404, "unknown-run", "GET /v1/runs");
    assert_eq!(server.get("/v1/runs").await.body["runs"], json!([]));
}

#[tokio::test]
async fn requests_that_fail_are_counted_and_a_run_can_be_forgotten() {
    let repository = Repository::with_sum();
    repository.add_graph("not_a_number", "");
    let server = Server::of(&repository).await;
    let body = json!({"model": "not_a_number", "run": "a", "step": 1, "inputs": [{"text": "13"}, {"text": "14"}]});
    assert_eq!(server.post(&body).await.status, 500);
    let run = server.get("/v1/runs/a").await;
    assert_eq!((&run.body["samples"], &run.body["models"][0]["steps"][0]["unscored"]), (&json!(0), &json!(2)));
    let gone = Reply::of(server.client.delete(server.url("/v1/runs/a"))).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    assert_eq!(server.get("/v1/runs/a").await.status, 404);
}

#[tokio::test]
async fn rewards_at_a_clips_bound_are_counted() {
    let repository = Repository::empty();
    repository.add_graph("sum", "transforms = [{ clip = { max = 0.15 } }]");
    let server = Server::of(&repository).await;
    score(&server, "sum", "a", 1, &["100".to_owned(), "200".to_owned(), "250".to_owned(), "110".to_owned()]).await;
    let run = server.get("/v1/runs/a").await;
    assert!(is_close(run.body["models"][0]["steps"][0]["at_bound"].as_f64().unwrap(), 0.5), "{}", run.text);
}

#[tokio::test]
async fn novelty_decay_reads_the_counts_that_a_run_keeps() {
    let server = Server::of(&Repository::with_sum()).await;
    let body = json!({"model": "sum", "run": "a", "transforms": [{"novelty_decay": {"beta": 1}}],
                      "inputs": [{"text": "100"}, {"text": "200"}, {"text": "200"}]});
    let first = server.post(&body).await;
    assert_eq!(first.status, 200, "{}", first.text);
    for (found, expected) in first.rewards().into_iter().zip([0.1, 0.2, 0.1]) {
        assert!(is_close(found, expected), "{}", first.text);
    }
    for (found, expected) in server.post(&body).await.rewards().into_iter().zip([0.05, 0.2 / 3.0, 0.05]) {
        assert!(is_close(found, expected));
    }
    let mut nameless = body.clone();
    nameless.as_object_mut().unwrap().remove("run");
    server.post(&nameless).await.assert_problem(422, "invalid-request", "how often each response was seen");
}

#[tokio::test]
async fn what_is_refused_keeps_the_others_in_their_places() {
    let server = Server::of(&Repository::with_sum()).await;
    score(&server, "sum", "a", 1, &["150".to_owned(), "250".to_owned()]).await;
    // Whoever asks is told of all that was scored before.
    assert_eq!(samples(&server, "a").await, 2);
    let long = "7 ".repeat(3000);
    // One that is no sample, one that is too long, and one that was counted before.
    let texts = ["", "100", &long, "250", "200", "200"];
    let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    let body = json!({"model": "sum", "run": "a", "step": 2, "on_refused": "mark", "include": ["percentile"],
                      "transforms": [{"novelty_decay": {"beta": 1}}], "inputs": inputs});
    let reply = server.post(&body).await;
    assert_eq!((reply.status, &reply.body["refused"]), (200, &json!(2)), "{}", reply.text);
    let results = reply.body["results"].as_array().unwrap();
    assert!(results[0]["reward"].is_null() && results[2]["reward"].is_null(), "{}", reply.text);
    for (place, reward) in [(1, 0.1), (3, 0.125), (4, 0.2), (5, 0.1)] {
        assert!(is_close(results[place]["reward"].as_f64().unwrap(), reward), "{place}: {}", reply.text);
        assert!(results[place]["percentile"].is_number(), "{place}: {}", reply.text);
    }

    let id = &reply.body["id"];
    let outcomes: Vec<Value> = (0..6).map(|index| json!({"request": id, "index": index, "value": index})).collect();
    let told = server.post_to("/v1/runs/a/outcomes", &json!({ "outcomes": outcomes })).await;
    assert_eq!((&told.body["accepted"], &told.body["unknown"]), (&json!(4), &json!([0, 2])), "{}", told.text);
    let run = server.get("/v1/runs/a").await;
    let model = &run.body["models"][0];
    let step = &model["steps"][1];
    assert_eq!((&step["samples"], &step["unscored"]), (&json!(4), &json!(2)), "{step}");
    // NumPy: np.corrcoef([0.1, 0.125, 0.2, 0.1], [1, 3, 4, 5]).
    assert!(is_close(model["outcomes"]["correlation"].as_f64().unwrap(), 0.283_546_594), "{model}");
}

#[tokio::test]
async fn what_is_not_known_is_null_and_known_later() {
    let server = Server::of(&Repository::with_sum()).await;
    let ask = |texts: &[&str]| {
        let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
        json!({"model": "sum", "wait": false, "run": "a", "step": 1, "inputs": inputs})
    };
    score(&server, "sum", "b", 1, &["100".to_owned()]).await;
    let first = server.post(&ask(&["200", "100", "300"])).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let results = &first.body["results"];
    assert_eq!(results[0], json!({"index": 0, "reward": null, "raw": null, "pending": true}));
    assert!(is_close(results[1]["reward"].as_f64().unwrap(), 0.1) && results[1]["index"] == 1, "{}", first.text);
    let outcomes = json!({"outcomes": [{"request": first.body["id"], "index": 1, "value": 1},
                                       {"request": first.body["id"], "index": 0, "value": 1}]});
    let told = server.post_to("/v1/runs/a/outcomes", &outcomes).await;
    assert_eq!(told.body, json!({"accepted": 1, "repeated": 0, "unknown": [1]}), "only rewards have outcomes");

    let mut later = Value::Null;
    for _ in 0..500 {
        later = server.post(&ask(&["200", "100", "250"])).await.body;
        if later["results"].as_array().unwrap().iter().all(|result| !result["reward"].is_null()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(is_close(later["results"][0]["reward"].as_f64().unwrap(), 0.2), "{later}");
    let mut grouped = ask(&["100", "110"]);
    grouped["group"] = json!(true);
    let grouped = server.post(&grouped).await;
    assert!(grouped.body["results"].as_array().unwrap().iter().all(|result| result["reward"].is_null()));
    let long = vec!["100"; 65].join(" ");
    assert_eq!(server.post(&ask(&[&long])).await.status, 422, "what never will be known is told at once");
}

#[tokio::test]
async fn percentiles_put_tasks_on_one_scale() {
    let server = Server::of(&Repository::with_sum()).await;
    for (task, first) in [("easy", 200), ("hard", 100)] {
        let inputs: Vec<Value> = texts(first, 50).into_iter().map(|text| json!({ "text": text })).collect();
        server.post(&json!({"model": "sum", "run": "a", "task": task, "inputs": inputs})).await;
    }
    server.get("/v1/runs").await;
    for (task, text) in [("easy", "225"), ("hard", "125")] {
        let body =
            json!({"model": "sum", "run": "a", "task": task, "include": ["percentile"], "inputs": [{"text": text}]});
        let reply = server.post(&body).await;
        let percentile = reply.body["results"][0]["percentile"].as_f64().unwrap();
        assert!((percentile - 0.5).abs() < 0.04, "{task}: {percentile}");
    }
    let nameless = json!({"model": "sum", "include": ["percentile"], "inputs": [{"text": "100"}]});
    server.post(&nameless).await.assert_problem(422, "invalid-request", "name the run");
    let tasks = server.get("/v1/runs/a").await.body["tasks"].clone();
    assert_eq!((&tasks[0]["task"], &tasks[1]["task"]), (&json!("easy"), &json!("hard")));
}
