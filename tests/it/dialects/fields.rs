//! Every field that a dialect's official clients can send: honoured, harmless, or refused by its name.
//!
//! Sources: the request models of each client and server at the versions that the dialect's page names.

use serde_json::{Value, json};

use super::{answer, assert_near, native, post, server};

/// Per route: a body that is scored, fields beside it that are taken, and fields that are refused by name.
fn routes() -> Vec<(&'static str, Value, Value, Value)> {
    let text = "user 10 20 assistant 30 40";
    let response = json!({"output": [{"type": "message", "content": [{"type": "output_text", "text": "30"}]}]});
    vec![
        (
            "/get_reward",
            json!({"query": [text]}),
            json!({"prompts": [""], "labels": ["42"]}),
            json!({"reward_fn": "x"}),
        ),
        (
            "/classify",
            json!({"input": text}),
            json!({"model": "chat", "use_activation": false, "user": "u", "request_id": "r", "priority": 1,
                   "cache_salt": "s", "truncate_prompt_tokens": -1, "truncation_side": "left",
                   "add_special_tokens": true}),
            json!({"mm_processor_kwargs": {"a": 1}, "pad_to": 3, "dimensions": 1, "instruction": "x"}),
        ),
        (
            "/pooling",
            json!({"input": text}),
            json!({"task": "classify", "encoding_format": "float", "user": "u"}),
            json!({"dimensions": 2, "embed_dtype": "float16"}),
        ),
        (
            "/vllm/score",
            json!({"model": "pair", "queries": "10", "documents": ["20"]}),
            json!({"user": "u", "max_tokens_per_doc": 4, "use_activation": true}),
            json!({"chat_template_kwargs": {"enable_thinking": false}, "instruction": "x", "max_tokens_per_query": 3}),
        ),
        (
            "/rerank",
            json!({"model": "pair", "query": "10", "documents": ["20"]}),
            json!({"top_n": 1, "max_tokens_per_doc": 0, "request_id": "r"}),
            json!({"raw_scores": true, "instruct": "x", "chat_template": "y", "add_special_tokens": false}),
        ),
        (
            "/sglang/classify",
            json!({"text": text}),
            json!({"rid": "1", "priority": 1, "log_metrics": true, "sampling_params": {"n": 1}}),
            json!({"image_data": "x", "is_cross_encoder_request": true, "lora_path": "l", "dimensions": 1}),
        ),
        (
            "/v1/embeddings",
            json!({"input": text}),
            json!({"user": "u", "encoding_format": "float"}),
            json!({"dimensions": 8}),
        ),
        (
            "/v1/score/evaluation",
            json!({"messages": [text]}),
            json!({"model": "model", "max_length": 9}),
            json!({"system": "s"}),
        ),
        ("/slime/scalar", json!({"prompt": "10", "response": "20"}), json!({"label": "42"}), json!({"system": "s"})),
        (
            "/verify",
            json!({"responses_create_params": {"input": "10"}, "response": response}),
            json!({"verifier_metadata": {"answer": 3}}),
            json!({}),
        ),
        (
            "/compare",
            json!({"conversation_history": [], "response_objs": [response]}),
            json!({"principle": null}),
            json!({"rubric": "x"}),
        ),
        (
            "/predict",
            json!({"inputs": text}),
            json!({"raw_scores": true, "truncate": true, "truncation_direction": "left"}),
            json!({"parameters": {"top_k": 1}, "prompt_name": "query"}),
        ),
        (
            "/tei/rerank",
            json!({"query": "10", "texts": ["20"]}),
            json!({"return_text": true, "raw_scores": false, "truncate": false}),
            json!({"instruction": "x"}),
        ),
        (
            "/cohere/v2/rerank",
            json!({"model": "pair", "query": "10", "documents": ["20"]}),
            json!({"top_n": 1, "max_tokens_per_doc": 5, "priority": 0, "rank_fields": ["text"], "max_chunks_per_doc": 1,
                   "return_documents": true}),
            json!({"rank_fields": ["title"], "raw_scores": true}),
        ),
        (
            "/jina/v1/rerank",
            json!({"model": "pair", "query": "10", "documents": ["20"]}),
            json!({"top_n": 1, "return_documents": false, "user": "u"}),
            json!({"truncation": true, "max_doc_length": 3}),
        ),
        (
            "/v2/models/chat/infer",
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text],
                               "parameters": {"content_type": "str"}}]}),
            json!({"id": "1", "outputs": [{"name": "rewards", "parameters": {"binary_data": false}}],
                   "parameters": {"priority": 1, "timeout": 0, "sequence_id": 0, "binary_data_output": false,
                                  "add_special_tokens": false, "headers": {}}}),
            json!({"parameters": {"aggregate": "worst_case"}, "outputs": [{"name": "rewards", "parameters": {"classification": 2}}]}),
        ),
    ]
}

fn with(body: &Value, name: &str, value: &Value) -> Value {
    let mut body = body.clone();
    body[name] = value.clone();
    body
}

#[tokio::test]
async fn no_field_of_a_client_is_passed_over_that_could_change_a_score() {
    let server = server().await;
    for (path, body, taken, refused) in routes() {
        answer(&server, path, &body).await;
        for (name, value) in taken.as_object().unwrap() {
            answer(&server, path, &with(&body, name, value)).await;
        }
        for (name, value) in refused.as_object().unwrap() {
            let reply = post(&server, path, &with(&body, name, value)).await;
            let inner = value.as_object().and_then(|map| map.keys().next()).filter(|_| path.contains("infer"));
            let named = inner.map_or(name.as_str(), String::as_str);
            assert!((400..=422).contains(&reply.status), "{path} {name}: {} {}", reply.status, reply.text);
            let told = reply.text.contains(named) || reply.text.contains("classification");
            assert!(told, "{path} {name}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn what_was_said_before_all_else_counts() {
    let server = server().await;
    let body = |parameters: Value| {
        json!({"responses_create_params": parameters,
               "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "30"}]}]}})
    };
    let guided =
        answer(&server, "/verify", &body(json!({"input": "10", "instructions": "50", "temperature": 1.0}))).await;
    let turns = json!([{"role": "system", "content": "50"}, {"role": "user", "content": "10"},
                       {"role": "assistant", "content": "30"}]);
    assert_near(&guided["reward"], native(&server, "chat", &json!({ "messages": turns })).await);
    for (field, value) in [("tools", json!([{"name": "f"}])), ("previous_response_id", json!("r_1"))] {
        let reply = post(&server, "/verify", &body(json!({"input": "10", field: value}))).await;
        assert!(reply.status == 422 && reply.text.contains(field), "{field}: {}", reply.text);
    }
    let thought = json!({"messages": [{"role": "user", "content": "10"},
        {"role": "assistant", "content": "30", "reasoning_content": "50", "name": "a"}]});
    let reply = post(&server, "/classify", &thought).await;
    assert!(reply.status == 400 && reply.text.contains("reasoning_content"), "{}", reply.text);
}

#[tokio::test]
async fn a_nan_harms_where_it_is_read_and_nowhere_else() {
    let server = server().await;
    let send = |path: &'static str, body: &'static str| {
        let request = server.client.post(server.url(path)).body(body);
        async { crate::support::Reply::of(request).await }
    };
    let scored = send("/get_reward", r#"{"query":["10"],"prompts":["NaN \" NaN"],"labels":[NaN, -Infinity]}"#).await;
    assert_eq!(scored.status, 200, "{}", scored.text);
    let slime = send("/slime/scalar", r#"{"prompt":"10","response":"20","label":NaN}"#).await;
    assert_eq!(slime.status, 200, "{}", slime.text);
    for (path, body) in [
        ("/get_reward", r#"{"query":[NaN]}"#),
        ("/get_reward", r#"{"query":["10"],"prompts":[NaN]}"#),
        ("/cohere/v2/rerank", r#"{"query":"10","documents":["1"],"top_n":NaN}"#),
        ("/cohere/v2/rerank", r#"{"query":"10","documents":["1"],"return_documents":NaN}"#),
        ("/cohere/v2/rerank", r#"{"query":"10","documents":[NaN]}"#),
        ("/v1/score", r#"{"model":"chat","inputs":[{"text":"10"}],"references":[NaN]}"#),
    ] {
        let reply = send(path, body).await;
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text);
    }
}

#[tokio::test]
async fn documents_are_cut_to_as_many_tokens_as_are_asked_for() {
    let server = server().await;
    let long = "20 ".repeat(800);
    let body = |path: &str| json!({"model": "pair", "query": "10", "documents": ["30", long], "max_tokens_per_doc": 3, "top_n": if path.contains("cohere") { json!(2) } else { json!(0) }});
    for path in ["/cohere/v2/rerank?activation=none", "/vllm/rerank?activation=none"] {
        let reply = answer(&server, path, &body(path)).await;
        let of = |index: u64| {
            let results = reply["results"].as_array().unwrap();
            results.iter().find(|result| result["index"] == index).unwrap()["relevance_score"].clone()
        };
        // [CLS] 10 [SEP] 20 20 20 [SEP]
        assert_near(&of(1), 0.075);
        assert_near(&of(0), 0.045);
        if path.contains("cohere") {
            let warnings = reply["meta"]["warnings"].as_array().unwrap();
            assert_eq!(warnings.len(), 1);
            assert!(warnings[0].as_str().unwrap().starts_with("documents[1] was cut by 797 tokens"), "{reply}");
        }
    }
}

#[tokio::test]
async fn one_bad_sample_costs_the_others_nothing_when_the_url_says_so() {
    let server = server().await;
    let queries = json!({"query": ["100", "", "200 100", "7 ".repeat(300)]});
    let refused = post(&server, "/get_reward", &queries).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let marked = post(&server, "/get_reward?on_refused=mark", &queries).await;
    assert!(marked.status == 422 && marked.text.contains("on_refused=-1"), "{}", marked.text);
    let reply = post(&server, "/get_reward?on_refused=-1", &queries).await;
    assert_eq!((reply.status, reply.header("x-karat-refused")), (200, "2"), "{}", reply.text);
    let alone = answer(&server, "/get_reward", &json!({"query": ["100", "200 100"]})).await;
    assert_eq!(reply.body["rewards"], json!([alone["rewards"][0], -1.0, alone["rewards"][1], -1.0]));
    assert_eq!(reply.body["extra_logs"]["refused"], json!([0.0, 1.0, 0.0, 1.0]));

    let blank = json!({"prompt": "10", "response": ""});
    assert_eq!(post(&server, "/slime/scalar", &blank).await.status, 422);
    assert_eq!(answer(&server, "/slime/scalar?on_refused=-2.5", &blank).await, json!(-2.5));
    let told = answer(&server, "/slime/dict?on_refused=-2.5", &blank).await;
    assert!(told["score"] == -2.5 && told["refused"].is_string(), "{told}");

    // The number that is stated passes through no activation, and goes last whatever it is.
    let ranked = json!({"model": "pair", "query": "10", "documents": ["", "30"]});
    let ranked = answer(&server, "/cohere/v2/rerank?on_refused=5", &ranked).await;
    assert_eq!(ranked["results"][1], json!({"index": 0, "relevance_score": 5.0}));
    assert!(ranked["meta"]["warnings"][0].as_str().unwrap().contains("documents[0] was not scored"), "{ranked}");
    for wrong in ["on_refused=skip", "on_refused=NaN", "on_refused=inf"] {
        assert_eq!(post(&server, &format!("/get_reward?{wrong}"), &queries).await.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn paths_that_others_clients_ask_for_are_there_and_errors_have_their_shape() {
    let server = server().await;
    for path in ["/ping", "/version", "/health"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let ranked = json!({"model": "pair", "query": "10", "documents": ["20"]});
    answer(&server, "/rerank/", &ranked).await;
    answer(&server, "/m/pair/get_reward/", &json!({"query": ["10"]})).await;
    let wrong = server.get("/classify").await;
    assert!(wrong.status == 405 && wrong.body["error"]["message"].is_string(), "{}", wrong.text);
    let broken = crate::support::Reply::of(server.client.post(server.url("/rerank")).body("{\"texts\": [")).await;
    assert!(broken.status == 422 && broken.body["error_type"] == "Validation", "{}", broken.text);
    for path in ["/m/%ff/get_reward", "/v1/models/%ff", "/v2/models/%ff/infer"] {
        let get = path.contains("v1");
        let request =
            if get { server.client.get(server.url(path)) } else { server.client.post(server.url(path)).body("{}") };
        let reply = crate::support::Reply::of(request).await;
        assert!(
            (400..=422).contains(&reply.status) && reply.body.is_object(),
            "{path}: {} {}",
            reply.status,
            reply.text
        );
    }
    let half = crate::support::Reply::of(
        server.client.post(server.url("/v1/score")).body(r#"{"model":"chat","inputs":[{"text":"\ud83d"}]}"#),
    )
    .await;
    half.assert_problem(400, "malformed-json", "surrogate");
}
