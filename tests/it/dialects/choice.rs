//! Which dialect answers, with which model and by which rules; and what happens when something is refused.

use karat::api::DialectSettings;
use karat_engine::schedule::QueueLimits;
use serde_json::{Value, json};

use super::{answer, assert_near, post, repository, serve, server};
use crate::support::{FakeModel, Reply, Repository, Unserved, until};

#[tokio::test]
async fn the_path_names_the_model_before_the_query_and_the_body() {
    let server = server().await;
    let body = json!({"model": "chat", "input": "10", "use_activation": false});
    for (path, model) in [
        ("/m/pair/classify?model=chat", "pair"),
        ("/m/pair/vllm/classify", "pair"),
        ("/classify?model=pair", "pair"),
        ("/classify", "chat"),
    ] {
        assert_eq!(answer(&server, path, &body).await["model"], model, "{path}");
    }
    for path in ["/m/nobody/classify", "/classify?model=nobody"] {
        let reply = post(&server, path, &body).await;
        assert_eq!((reply.status, &reply.body["error"]["type"]), (404, &json!("NotFoundError")), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_name_in_the_body_becomes_the_default_model_if_there_is_one() {
    let unknown = json!({"model": "/checkpoints/some-model", "input": "10"});
    let server = server().await;
    assert_eq!(answer(&server, "/classify", &unknown).await["model"], "chat");
    assert_eq!(answer(&server, "/classify", &json!({"model": "org/pair", "input": "10"})).await["model"], "pair");

    let undecided = serve(&repository(), DialectSettings::default()).await;
    let reply = post(&undecided, "/classify", &unknown).await;
    assert_eq!(reply.status, 404);
    assert!(reply.body["error"]["message"].as_str().unwrap().contains("--default-model"), "{}", reply.text);
    let reply = post(&undecided, "/get_reward", &json!({"query": ["10"]})).await;
    assert_eq!(reply.status, 422);
    assert!(reply.body["detail"].as_str().unwrap().contains("/m/{model}/"), "{}", reply.text);

    let only = serve(&Repository::with_sum(), DialectSettings::default()).await;
    assert_near(&answer(&only, "/get_reward", &json!({"query": ["10"]})).await["rewards"][0], 0.01);
    let habitual = json!({"model": "model", "messages": ["10"]});
    assert_eq!(answer(&only, "/v1/score/evaluation", &habitual).await["model"], "sum");
}

#[tokio::test]
async fn the_url_chooses_rules_and_misspelled_ones_are_refused() {
    let server = server().await;
    let query = json!({"query": ["100"]});
    for (choice, expected) in [
        ("aggregate=worst_case", -0.1),
        (r#"aggregate={"uncertainty_weighted":{"lambda":0}}"#, 0.2 / 3.0),
        (r#"transforms=[{"clip":{"min":-1,"max":0.05}}]"#, 0.05),
        (r#"transforms=[{"log_sigmoid":{"reference":0}}]"#, -(1.0 + (-0.2_f64 / 3.0).exp()).ln()),
        ("activation=sigmoid", 0.2 / 3.0),
    ] {
        let (name, value) = choice.split_once('=').unwrap();
        let request = server.client.post(server.url("/m/chat/get_reward")).query(&[(name, value)]);
        let reply = Reply::of(request.json(&query)).await;
        assert_eq!(reply.status, 200, "{choice}: {}", reply.text);
        assert_near(&reply.body["rewards"][0], expected);
    }
    for wrong in ["agregate=mean", "truncation=sometimes", "aggregate=nothing", "timeout_ms=0", "transforms=[{]"] {
        let reply = post(&server, &format!("/get_reward?{wrong}"), &query).await;
        assert_eq!(reply.status, 422, "{wrong}: {}", reply.text);
    }
    let long = json!({"query": [vec!["10"; 20].join(" ")]});
    assert_eq!(post(&server, "/get_reward", &long).await.status, 422);
    let cut = answer(&server, "/get_reward?truncation=prompt_start", &long).await;
    assert_near(&cut["rewards"][0], 0.16 * 2.0 / 3.0);
}

#[tokio::test]
async fn bodies_tell_dialects_apart_where_paths_do_not() {
    let server = server().await;
    let classify = answer(&server, "/m/pair/classify", &json!({"text": "10"})).await;
    assert!(classify["embedding"].is_array(), "SGLang's: {classify}");
    let classify = answer(&server, "/m/pair/classify", &json!({"input": "10"})).await;
    assert!(classify["data"].is_array(), "vLLM's: {classify}");
    let rerank = answer(&server, "/m/pair/rerank", &json!({"query": "10", "texts": ["20"]})).await;
    assert!(rerank.is_array(), "TEI's: {rerank}");
    let rerank = answer(&server, "/m/pair/rerank", &json!({"query": "10", "documents": ["20"]})).await;
    assert!(rerank["results"].is_array(), "vLLM's: {rerank}");

    // karat's own score keeps its answers and its problems.
    let own = server.post(&json!({"model": "pair", "inputs": [{"text": "queries"}]})).await;
    assert_eq!(own.status, 200, "{}", own.text);
    server.post(&json!({"model": "pair", "inputs": [], "queries": "x"})).await.assert_problem(
        422,
        "invalid-request",
        "queries",
    );
    server.post_bytes("{").await.assert_problem(400, "malformed-json", "");
    for path in ["/classify", "/rerank", "/v1/classify"] {
        let reply = Reply::of(server.client.post(server.url(path)).body("{")).await;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (400, &json!(400)), "{path}");
    }
}

#[tokio::test]
async fn a_shared_path_tells_what_is_wrong_as_the_dialects_own_path_does() {
    let server = server().await;
    for (shared, own, body) in [
        ("/classify", "/sglang/classify", r#"{"text": 3}"#),
        (
            "/classify",
            "/vllm/classify",
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}"#,
        ),
        ("/rerank", "/tei/rerank", r#"{"query": ["10"], "texts": ["20"]}"#),
        ("/rerank", "/vllm/rerank", r#"{"query": "10", "texts": ["20"], "documents": 3}"#),
        ("/v1/score", "/vllm/v1/score", r#"{"queries": "10", "documents": 3}"#),
        ("/v1/score", "/vllm/v1/score", r#"{"queries": "10", "queries": "11", "documents": "20"}"#),
        ("/v1/score", "/vllm/v1/score", r#"{"text_1": "10", "documents": {"text": "20", "text": "30"}}"#),
    ] {
        let send = |path| Reply::of(server.client.post(server.url(path)).body(body));
        let (shared, own) = (send(shared).await, send(own).await);
        assert_eq!((shared.status, &shared.text), (own.status, &own.text), "{body}");
        assert!([400, 422].contains(&own.status), "{body}: {}", own.text);
    }
}

#[tokio::test]
async fn rendered_text_is_taken_out_of_the_policys_template() {
    let manifest = format!("{}retemplate = \"chatml\"\n", super::PAIR);
    let repository = Repository::empty();
    repository.add("pair", &manifest, &["sum"]);
    let server = serve(&repository, DialectSettings::default()).await;
    let text = "<|im_start|>user\n10<|im_end|>\n<|im_start|>assistant\n20<|im_end|>\n";
    assert_near(&answer(&server, "/get_reward", &json!({"query": [text]})).await["rewards"][0], 0.035);
    let reply = post(&server, "/get_reward", &json!({"query": ["10 20"]})).await;
    assert_eq!(reply.status, 422);
    assert!(reply.body["detail"].as_str().unwrap().contains("retemplate"), "{}", reply.text);
}

#[tokio::test]
async fn too_many_inputs_and_failing_models_are_told_in_the_dialects_shape() {
    let repository = Repository::empty();
    repository.add_graph("not_a_number", "");
    let server = serve(&repository, DialectSettings::default()).await;
    let failed = post(&server, "/get_reward", &json!({"query": ["13"]})).await;
    assert_eq!(failed.status, 500);
    assert!(failed.body["detail"].is_string(), "{}", failed.text);
    let many = post(&server, "/classify", &json!({"input": vec!["10"; 65]})).await;
    assert_eq!(many.status, 400);
    let large = post(&server, "/tei/predict", &json!({"inputs": "10 ".repeat(40_000)})).await;
    assert_eq!((large.status, &large.body["error_type"]), (413, &json!("Validation")));
}

/// One request runs, one waits and fills the queue, and a third is sent to `path`.
async fn third(shedding: &[&str], path: &'static str, body: Value) -> Option<u16> {
    let limits = QueueLimits { queued_tokens: 1, wait: None, tokens_per_second: None };
    let shedding = shedding.iter().map(|name| (*name).to_owned()).collect();
    let settings = DialectSettings { shedding, ..DialectSettings::default() };
    let fake = FakeModel::serve_with(limits, Unserved { dialects: settings, ..Unserved::new() }).await;
    fake.control.close();
    let server = std::sync::Arc::new(fake.server);
    let send = |path: &'static str, body: Value| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move { post(&server, path, &body).await.status })
    };
    let first = send("/get_reward", json!({"query": ["10"]}));
    until("the first runs", || server.metric("karat_forward_passes_running{model=\"fake\"}") == 1).await;
    let second = send("/get_reward", json!({"query": ["11"]}));
    until("the second waits", || server.metric("karat_queue_samples{model=\"fake\"}") == 1).await;
    let third = send(path, body);
    until("the third waits or was answered", || {
        third.is_finished() || server.metric("karat_queue_samples{model=\"fake\"}") == 2
    })
    .await;
    let refused = if third.is_finished() { Some(third.await.unwrap()) } else { None };
    fake.control.open();
    for waited in [first, second] {
        assert_eq!(waited.await.unwrap(), 200);
    }
    refused
}

#[tokio::test]
async fn a_trainer_waits_while_too_much_waits_unless_its_dialect_sheds() {
    let query = json!({"query": ["12"]});
    assert_eq!(third(&[], "/get_reward", query.clone()).await, None);
    assert_eq!(third(&["openrlhf"], "/get_reward", query.clone()).await, Some(503));
    assert_eq!(third(&["vllm"], "/get_reward", query).await, None);
    assert_eq!(third(&["tei"], "/tei/predict", json!({"inputs": "12"})).await, Some(429));
    let own = json!({"model": "fake", "inputs": [{"text": "12"}]});
    let limits = QueueLimits { queued_tokens: 1, wait: None, tokens_per_second: None };
    let fake = FakeModel::serve(limits).await;
    assert_eq!(fake.server.post(&own).await.status, 200, "an empty queue takes what is larger than it");
}
