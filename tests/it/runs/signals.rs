//! Signals, second judges and outcomes, as they come over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::{score, texts};
use crate::support::{Reply, Repository, Server, is_close};

/// A signal of a run's only model.
async fn signal(server: &Server, run: &str, name: &str) -> Value {
    let told = server.get(&format!("/v1/runs/{run}")).await.body;
    let signals = told["models"][0]["signals"].as_array().unwrap().clone();
    signals.into_iter().find(|signal| signal["signal"] == name).unwrap()
}

#[tokio::test]
async fn signals_are_described_with_formula_and_source() {
    let server = Server::of(&Repository::with_sum()).await;
    let told = server.get("/v1/signals").await;
    let signals = told.body["signals"].as_array().unwrap();
    assert!(signals.len() >= 11, "{}", told.text);
    assert!(
        signals.iter().all(|signal| ["name", "summary", "formula", "source"].iter().all(|f| signal[f].is_string()))
    );
}

#[tokio::test]
async fn outcomes_find_the_rewards_of_their_requests() {
    let server = Server::of(&Repository::with_sum()).await;
    let id = score(&server, "sum", "a", 3, &texts(100, 4)).await;
    let outcome = |index: u32, value: Value| json!({"request": id, "index": index, "value": value});
    let body = json!({"outcomes": [
        outcome(0, json!(false)), outcome(1, json!(0)), outcome(2, json!(true)), outcome(3, json!(1)),
        outcome(4, json!(1)), {"request": "other", "value": 1},
    ]});
    let told = server.post_to("/v1/runs/a/outcomes", &body).await;
    assert_eq!(told.body, json!({"accepted": 4, "repeated": 0, "unknown": [4, 5]}), "{}", told.text);
    let again = server.post_to("/v1/runs/a/outcomes", &body).await;
    assert_eq!(again.body["repeated"], 4, "what is sent twice counts once");

    let model = &server.get("/v1/runs/a").await.body["models"][0];
    let outcomes = &model["outcomes"];
    // NumPy: np.corrcoef([100, 101, 102, 103], [0, 0, 1, 1]).
    assert!(is_close(outcomes["correlation"].as_f64().unwrap(), 0.894_427_19), "{outcomes}");
    assert_eq!((&outcomes["samples"], &outcomes["steps"][0]["first_step"]), (&json!(4), &json!(3)));
    assert_eq!(model["calibration"]["outcomes"], 4);
    let nothing = server.post_to("/v1/runs/a/outcomes", &json!({"outcomes": []})).await;
    nothing.assert_problem(422, "invalid-request", "at least one");
}

#[tokio::test]
async fn a_reward_that_rises_while_tests_go_on_failing_is_told_and_streamed() {
    let server = Server::of(&Repository::with_sum()).await;
    score(&server, "sum", "a", 0, &texts(100, 1)).await;
    let mut stream = server.client.get(server.url("/v1/runs/a/events")).send().await.unwrap();
    assert_eq!(stream.status(), 200, "a run is there once its first reply is");
    for step in 0..30 {
        let id = score(&server, "sum", "a", step, &texts(100 + u32::try_from(step).unwrap() * 3, 40)).await;
        let outcomes: Vec<Value> =
            (0..40).map(|index| json!({"request": id, "index": index, "value": index % 2})).collect();
        let told = server.post_to("/v1/runs/a/outcomes", &json!({ "outcomes": outcomes })).await;
        assert_eq!(told.body["accepted"], 40, "{}", told.text);
    }
    let fired = signal(&server, "a", "outcomes_part").await;
    assert_eq!(fired["firing"], true, "{fired}");
    let reading = &fired["reading"];
    assert!(reading["low"].as_f64() > reading["limit"].as_f64() && reading["samples"].as_u64() >= Some(64), "{fired}");
    assert_eq!(signal(&server, "a", "disagreement_rises").await["reading"], Value::Null, "one member");

    let mut told = String::new();
    while !told.contains("outcomes_part") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), stream.chunk()).await.unwrap().unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(told.contains("event: step") && told.contains("event: signal"), "{told}");
    let past = server.client.get(server.url("/v1/runs/a/events?after=0")).send().await.unwrap().chunk().await.unwrap();
    assert!(String::from_utf8_lossy(&past.unwrap()).contains("event: signal"), "who comes later hears of it too");
}

#[tokio::test]
async fn a_second_judge_scores_a_share_out_of_the_way() {
    let server = Server::of(&Repository::with_sum()).await;
    let configured =
        server.client.put(server.url("/v1/runs/a")).json(&json!({"judge": {"model": "sum", "share": 1.0}}));
    let configured = Reply::of(configured).await;
    assert_eq!(configured.status, 200, "{}", configured.text);
    let inputs: Vec<Value> = (100..110).map(|n| json!({"prompt": "", "response": n.to_string()})).collect();
    let scored = server.post(&json!({"model": "sum", "run": "a", "step": 1, "inputs": inputs})).await;
    assert_eq!(scored.status, 200, "{}", scored.text);
    let mut judged = Value::Null;
    for _ in 0..200 {
        judged = server.get("/v1/runs/a").await.body["models"][0]["judge"].clone();
        if judged["samples"] == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(judged["samples"], 10, "{judged}");
    // The judge is the same model here: it agrees.
    assert!(is_close(judged["correlation"].as_f64().unwrap(), 1.0), "{judged}");
    // Text is rendered for the model that scores it.
    score(&server, "sum", "a", 2, &texts(100, 3)).await;
    let mut unjudged = Value::Null;
    for _ in 0..200 {
        unjudged = server.get("/v1/runs/a").await.body["unjudged"].clone();
        if unjudged == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(unjudged, 3);
    for (config, needle) in [
        (json!({"judge": {"model": "sum", "share": 0}}), "share"),
        (json!({"reference": "nobody"}), "nobody"),
        (json!({"judges": {}}), "judges"),
    ] {
        let refused = server.client.put(server.url("/v1/runs/a")).json(&config);
        Reply::of(refused).await.assert_problem(422, "invalid-request", needle);
    }
}
