//! Text Embeddings Inference, Cohere and Jina, and vLLM's rerank.

use karat::api::DialectSettings;
use serde_json::{Value, json};

use super::{PAIR, answer, assert_near, logistic, post, serve, server};
use crate::support::{Reply, Repository, Server};

/// The places of the ranked documents.
fn order(results: &Value) -> Vec<u64> {
    results.as_array().unwrap().iter().map(|result| result["index"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn vllm_cohere_and_jina_rank_alike_each_in_its_shape() {
    let server = server().await;
    let body = json!({"model": "pair", "query": "10", "documents": ["20", "40", {"text": "40"}, "30"], "top_n": 3});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank", "/cohere/v2/rerank", "/cohere/v1/rerank", "/jina/v1/rerank"] {
        let reply = answer(&server, path, &body).await;
        // Equal documents keep the request's order.
        assert_eq!(order(&reply["results"]), [1, 2, 3], "{path}");
        assert_near(&reply["results"][0]["relevance_score"], logistic(0.055));
        assert_eq!(reply["results"][0].get("document").is_some(), !path.starts_with("/cohere"), "{path}");
    }
    let vllm = answer(&server, "/rerank", &body).await;
    assert_eq!(vllm["results"][1]["document"], json!({"text": "40"}));
    let jina = answer(&server, "/jina/v1/rerank", &body).await;
    assert_eq!(jina["usage"], json!({"total_tokens": 20, "prompt_tokens": 20}));
    let mut returned = body.clone();
    returned["return_documents"] = json!(true);
    let cohere = answer(&server, "/cohere/v2/rerank", &returned).await;
    assert_eq!(cohere["results"][2]["document"], json!({"text": "30"}));
    assert_eq!(cohere["meta"]["billed_units"], json!({"search_units": 1}));
    let everything = json!({"model": "pair", "query": "10", "documents": ["20", "30"], "top_n": 0});
    assert_eq!(order(&answer(&server, "/rerank", &everything).await["results"]), [1, 0]);
}

#[tokio::test]
async fn tei_predicts_texts_pairs_and_batches() {
    let server = server().await;
    let path = "/m/pair/tei/predict";
    for (inputs, expected) in
        [(json!("10 20"), vec![0.033]), (json!(["10 20"]), vec![0.033]), (json!(["10", "20"]), vec![0.035])]
    {
        let reply = answer(&server, path, &json!({"inputs": inputs, "raw_scores": true})).await;
        assert_near(&reply[0]["score"], expected[0]);
        assert_eq!(reply[0]["label"], "LABEL_0");
    }
    let batch = answer(&server, path, &json!({"inputs": [["10"], ["10", "20"]]})).await;
    assert_near(&batch[0][0]["score"], logistic(0.013));
    assert_near(&batch[1][0]["score"], logistic(0.035));
    for (inputs, status, kind) in
        [(json!([]), 400, "Empty"), (json!([["1", "2", "3"]]), 422, "Validation"), (json!(3), 422, "Validation")]
    {
        let reply = post(&server, path, &json!({"inputs": inputs})).await;
        assert_eq!((reply.status, &reply.body["error_type"]), (status, &json!(kind)), "{inputs}");
    }
}

#[tokio::test]
async fn tei_ranks_and_times() {
    let server = server().await;
    let body = json!({"query": "10", "texts": ["20", "30"], "raw_scores": true, "return_text": true});
    let reply: Reply = post(&server, "/m/pair/rerank", &body).await;
    assert_eq!(order(&reply.body), [1, 0]);
    assert_near(&reply.body[0]["score"], 0.045);
    assert_eq!(reply.body[0]["text"], "30");
    assert_eq!((reply.header("x-compute-type"), reply.header("x-karat-model")), ("cpu", "pair"));
    for header in ["x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time", "x-compute-tokens"] {
        assert!(reply.header(header).parse::<u64>().is_ok(), "{header}");
    }
    let words = vec!["10"; 20].join(" ");
    let long =
        |direction: &str| json!({"query": "10", "texts": [words], "truncate": true, "truncation_direction": direction});
    assert_eq!(post(&server, "/m/pair/rerank", &long("right")).await.status, 200);
    // The response alone doesn't fit, and the prompt's side is the left.
    let refused = post(&server, "/m/pair/rerank", &long("Left")).await;
    assert_eq!((refused.status, &refused.body["error_type"]), (422, &json!("Validation")));
}

#[tokio::test]
async fn tei_describes_the_server() {
    let server = server().await;
    let info = server.get("/m/pair/info").await;
    assert_eq!((&info.body["model_id"], &info.body["max_input_length"]), (&json!("pair"), &json!(16)));
    assert_eq!(info.body["model_type"]["reranker"]["id2label"], json!({"0": "LABEL_0"}));
    assert_eq!(server.get("/info").await.body["model_id"], "chat");
    assert_eq!(server.get("/m/nobody/tei/info").await.body["error_type"], "Validation");
    let health = server.get("/health").await;
    assert_eq!((health.status, health.text.as_str()), (200, ""));
}

/// A classifier of three labels that gives the probability of the first, a plain model of pairs, and one of steps.
async fn likely() -> Server {
    let repository = Repository::empty();
    let head = "head = { classifier = { labels = [\"a\", \"b\", \"c\"], label = \"a\", gives = \"probability\" } }\n";
    repository.add("likely", &format!("{head}{}", PAIR.replace("sum.onnx", "members.onnx")), &["members"]);
    repository.add("pair", PAIR, &["sum"]);
    // A step is read at its mark, 83: a logit of the number before it, less 100, over 100.
    let head = "head = { process = { read = { two_class = { positive = 1 } }, reduction = \"min\" } }\n";
    let steps = PAIR.replace("sum.onnx", "steps.onnx") + "step_mark = \"83\"\n";
    repository.add("steps", &format!("{head}{steps}"), &["steps"]);
    serve(&repository, DialectSettings::default()).await
}

#[tokio::test]
async fn a_probability_is_not_made_one_again() {
    let server = likely().await;
    // The tokens' sum is 35: logits of .035, .070 and -.035.
    let [first, second, third] = [0.035_f64, 0.07, -0.035].map(f64::exp);
    let probability = first / (first + second + third);
    let squeezed_once = 1.0 / (1.0 + (-0.035_f64).exp());
    let query = "10";
    let worst_step = 1.0 / (1.0 + (-0.5_f64).exp());
    for (model, document, choices, wanted) in [
        ("likely", "20", "", probability),
        ("pair", "20", "?transforms=sigmoid", squeezed_once),
        ("steps", "150 83", "", worst_step),
    ] {
        for (path, body, pointer) in [
            ("rerank", json!({"query": query, "texts": [document]}), "/0/score"),
            ("predict", json!({"inputs": [query, document]}), "/0/score"),
            ("vllm/rerank", json!({"query": query, "documents": [document]}), "/results/0/relevance_score"),
            ("vllm/score", json!({"text_1": query, "text_2": document}), "/data/0/score"),
            ("cohere/v2/rerank", json!({"query": query, "documents": [document]}), "/results/0/relevance_score"),
            ("jina/v1/rerank", json!({"query": query, "documents": [document]}), "/results/0/relevance_score"),
        ] {
            let path = format!("/m/{model}/{path}{choices}");
            let reply = server.post_to(&path, &body).await;
            let found = reply.body.pointer(pointer).and_then(Value::as_f64);
            assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-6), "{path}: {} is not {wanted}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_field_that_could_change_a_score_is_never_passed_over() {
    let server = server().await;
    let documents = json!({"query": "10", "documents": ["20"]});
    let texts = json!({"query": "10", "texts": ["20"]});
    let pairs = json!({"text_1": "10", "text_2": "20"});
    let with = |body: &Value, field: &str, value: Value| {
        let mut body = body.clone();
        body[field] = value;
        body
    };
    for (path, body, field, value) in [
        ("vllm/rerank", &documents, "raw_scores", json!(true)),
        ("vllm/rerank", &documents, "instruction", json!("Find recipes")),
        ("vllm/rerank", &documents, "add_special_tokens", json!(false)),
        ("vllm/score", &pairs, "chat_template_kwargs", json!({"enable_thinking": false})),
        ("tei/rerank", &texts, "instruct", json!("Find recipes")),
        ("cohere/v1/rerank", &documents, "rank_fields", json!(["title"])),
        ("jina/v1/rerank", &documents, "max_doc_length", json!(50)),
    ] {
        let path = format!("/m/pair/{path}");
        let refused = server.post_to(&path, &with(body, field, value)).await;
        assert!((400..423).contains(&refused.status) && refused.text.contains(field), "{path}: {}", refused.text);
        // What asks for nothing changes nothing.
        assert_eq!(server.post_to(&path, &with(body, field, Value::Null)).await.status, 200, "{path} {field}");
    }
    for (path, body, field) in [("vllm/rerank", &documents, "user"), ("vllm/score", &pairs, "request_id")] {
        let path = format!("/m/pair/{path}");
        assert_eq!(server.post_to(&path, &with(body, field, json!("x"))).await.status, 200, "{path} {field}");
    }
}
