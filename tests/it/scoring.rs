//! Scores over HTTP equal those computed by hand, whatever the path, and say where they come from.
//!
//! `sum` gives the sum of a text's numbers over 1000; `members` gives that times 1, 2 and -1.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{RAW, Reply, Repository, Server, Unserved, graph_manifest, is_close};

#[track_caller]
fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?} is not {expected:?}");
    let close = actual.iter().zip(expected).all(|(actual, expected)| is_close(*actual, *expected));
    assert!(close, "{actual:?} is not {expected:?}");
}

/// Texts of one to forty numbers, no two alike.
fn texts(count: u32) -> Vec<String> {
    let word = |text: u32, position: u32| (10 + (text * 37 + position * position * 11) % 290).to_string();
    (0..count)
        .map(|text| (0..=text * 7 % 40).map(|position| word(text, position)).collect::<Vec<_>>().join(" "))
        .collect()
}

fn sum(text: &str) -> f64 {
    text.split(' ').map(|word| word.parse::<f64>().unwrap()).sum::<f64>() / 1000.0
}

#[tokio::test]
async fn scores_are_those_computed_by_hand() {
    let server = Server::of(&Repository::with_sum()).await;
    assert_close(&server.rewards("sum", &["10 11 12", "299", "20 word"]).await, &[0.033, 0.299, 0.023]);
    let texts = texts(60);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected: Vec<f64> = texts.iter().map(|text| sum(text)).collect();
    assert_close(&server.rewards("sum", &texts).await, &expected);
}

#[tokio::test]
async fn texts_that_are_read_on_all_cores_keep_their_order() {
    let mut unserved = Unserved::new();
    unserved.limits.inputs = 400;
    unserved.load(&Repository::with_sum()).await.unwrap();
    let server = unserved.serve().await;
    let mut texts = texts(400);
    let bytes: usize = texts.iter().map(String::len).sum();
    assert!(bytes > 24 << 10, "{bytes} bytes are too few to be divided");
    let expected: Vec<f64> = texts.iter().map(|text| sum(text)).collect();
    assert_close(&server.rewards("sum", &texts.iter().map(String::as_str).collect::<Vec<_>>()).await, &expected);
    // Of two that are too long the first is told of.
    for long in [390, 210] {
        texts[long] = format!("{} {}", texts[long], vec!["11"; 70].join(" "));
    }
    let inputs: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    server.post(&json!({"model": "sum", "inputs": inputs})).await.assert_problem(422, "too-long", "sample 210");
}

#[tokio::test]
async fn a_prompt_and_its_response_are_rendered_as_the_model_wants_them() {
    let repository = Repository::empty();
    let manifest = "[graph]\nfile = \"sum.onnx\"\n[text]\nrender = \"pair\"\nmax_tokens = 9\npad_token = \"[PAD]\"";
    repository.add("pair", manifest, &["sum"]);
    let jinja = "[graph]\nfile = \"sum.onnx\"\n[text]\nmax_tokens = 9\n\
                 render = { jinja = \"{% for m in messages %}20 {{ m.content }} {% endfor %}\" }";
    repository.add("template", jinja, &["sum"]);
    let server = Server::of(&repository).await;
    let messages = json!([{"role": "user", "content": "10 11"}, {"role": "assistant", "content": "12"}]);
    let inputs = json!([{"prompt": "10 11", "response": "12"}, {"messages": messages}, {"text": "12"}]);

    // [CLS] 10 11 [SEP] 12 [SEP], and for bare text [CLS] 12 [SEP].
    let pair = server.post(&json!({"model": "pair", "inputs": inputs})).await;
    assert_close(&pair.rewards(), &[0.038, 0.038, 0.015]);
    assert_eq!(pair.body["results"][0]["tokens"], 6);
    assert_eq!(pair.body["results"][2]["tokens"], 3);

    // 20 10 11 20 12; bare text goes round the template.
    let template = server.post(&json!({"model": "template", "inputs": inputs})).await;
    assert_close(&template.rewards(), &[0.073, 0.073, 0.012]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_is_the_same_alone_in_a_batch_shuffled_and_under_load() {
    let repository = Repository::with_sum();
    let texts = texts(32);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // Each way gets a server of its own, so that none is answered out of another's cache.
    let server = Server::of(&repository).await;
    let batch = server.rewards("sum", &texts).await;

    let server = Server::of(&repository).await;
    let mut alone = Vec::new();
    for text in &texts {
        alone.extend(server.rewards("sum", &[text]).await);
    }
    assert_eq!(alone, batch);

    let server = Server::of(&repository).await;
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|index| index * 13 % texts.len());
    let shuffled: Vec<&str> = order.iter().map(|index| texts[*index]).collect();
    let expected: Vec<f64> = order.iter().map(|index| batch[*index]).collect();
    assert_ne!(order[1], 1);
    assert_eq!(server.rewards("sum", &shuffled).await, expected);

    // 32 clients at once, each with a window of its own over the texts.
    let server = Server::of(&repository).await;
    let client = async |client: usize| {
        let window: Vec<&str> = (0..8).map(|offset| texts[(client + offset * 5) % texts.len()]).collect();
        let expected: Vec<f64> = (0..8).map(|offset| batch[(client + offset * 5) % texts.len()]).collect();
        assert_eq!(server.rewards("sum", &window).await, expected, "client {client}");
    };
    futures_util::future::join_all((0..32).map(client)).await;
}

#[tokio::test]
async fn members_are_reported_when_they_are_asked_for() {
    let repository = Repository::empty();
    repository.add_graph("members", "head = { multi = { members = 3 } }");
    let server = Server::of(&repository).await;
    let inputs = json!([{"text": "100 200"}]);
    let reply = server.post(&json!({"model": "members", "inputs": inputs, "include": ["members"]})).await;
    // Mean (0.3 + 0.6 - 0.3) / 3 = 0.2, population variance (0.01 + 0.16 + 0.25) / 3 = 0.14.
    let ensemble = &reply.body["results"][0]["ensemble"];
    let members: Vec<f64> = serde_json::from_value(ensemble["members"].clone()).unwrap();
    assert_close(&members, &[0.3, 0.6, -0.3]);
    let statistics = ["mean", "worst_case", "variance"].map(|key| ensemble[key].as_f64().unwrap());
    assert_close(&statistics, &[0.2, -0.3, 0.14]);
    let without = server.post(&json!({"model": "members", "inputs": inputs})).await;
    assert_eq!(without.body["results"][0]["ensemble"].get("members"), None);
}

#[tokio::test]
async fn aggregation_follows_the_manifest_unless_the_request_says_otherwise() {
    let repository = Repository::empty();
    repository.add_graph("members", "head = { multi = { members = 3 } }\naggregate = \"worst_case\"");
    let server = Server::of(&repository).await;
    let score = async |aggregate: Value| {
        let mut body = json!({"model": "members", "inputs": [{"text": "100 200"}]});
        if !aggregate.is_null() {
            body["aggregate"] = aggregate;
        }
        let reply = server.post(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.rewards()[0]
    };
    assert_close(&[score(Value::Null).await], &[-0.3]);
    let mean = score(json!("mean")).await;
    assert_close(&[mean], &[0.2]);
    assert_close(&[score(json!("sum")).await], &[0.6]);
    assert_close(&[score(json!({"uncertainty_weighted": {"lambda": 0.5}})).await], &[0.13]);
    let indifferent = score(json!({"uncertainty_weighted": {"lambda": 0}})).await;
    assert_eq!(indifferent.to_bits(), mean.to_bits(), "lambda = 0 is the mean");
}

#[tokio::test]
async fn transforms_apply_in_the_order_of_the_request() {
    let repository = Repository::empty();
    repository.add_graph("sum", "transforms = [{ affine = { scale = 10 } }]");
    let server = Server::of(&repository).await;
    let score = async |transforms: Value| {
        let mut body = json!({"model": "sum", "inputs": [{"text": "200"}]});
        if !transforms.is_null() {
            body["transforms"] = transforms;
        }
        let reply = server.post(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(is_close(reply.body["results"][0]["raw"].as_f64().unwrap(), 0.2), "{}", reply.text);
        reply.rewards()[0]
    };
    let (clip, double) = (json!({"clip": {"min": -0.25, "max": 0.25}}), json!({"affine": {"scale": 2}}));
    assert_close(&[score(Value::Null).await], &[2.0]);
    assert_close(&[score(json!([])).await], &[0.2]);
    assert_close(&[score(json!([clip, double])).await], &[0.4]);
    assert_close(&[score(json!([double, clip])).await], &[0.25]);
    // log sigmoid(0.2 - 0.3) = -ln(1 + e^0.1)
    assert_close(&[score(json!([{"log_sigmoid": {"reference": 0.3}}])).await], &[-0.744397]);
}

#[tokio::test]
async fn a_composite_is_the_sum_of_its_log_sigmoids() {
    let repository = Repository::with_sum();
    repository.add_graph("members", "head = { multi = { members = 3 } }");
    let manifest = "aggregate = \"sum\"\n\
        [[ensemble]]\nmodel = \"sum\"\ntransforms = [{ log_sigmoid = { reference = 0.1 } }]\n\
        [[ensemble]]\nmodel = \"members\"\naggregate = \"worst_case\"\n\
        transforms = [{ log_sigmoid = { reference = -1.0 } }]\n";
    repository.add("both", manifest, &[]);
    let server = Server::of(&repository).await;
    let inputs = json!([{"text": "100 200"}, {"text": "50"}]);
    let reply = server.post(&json!({"model": "both", "inputs": inputs, "include": ["members"]})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // log sigmoid(0.3 - 0.1) = -0.598139, log sigmoid(-0.3 + 1.0) = -0.403186
    let first: Vec<f64> = serde_json::from_value(reply.body["results"][0]["ensemble"]["members"].clone()).unwrap();
    assert_close(&first, &[-0.598139, -0.403186]);
    // log sigmoid(0.05 - 0.1) = -0.718459, log sigmoid(-0.05 + 1.0) = -0.326956
    assert_close(&reply.rewards(), &[-1.001325, -1.045416]);
    assert_eq!(reply.body["results"][0]["tokens"], 4, "two tokens in each of the two models");
    // The models of a composite still answer by themselves, out of the same cache.
    let part = server.post(&json!({"model": "sum", "inputs": inputs})).await;
    assert_close(&part.rewards(), &[0.3, 0.05]);
    assert_eq!(part.body["usage"], json!({"tokens": 3, "cached_tokens": 3}));
}

#[tokio::test]
async fn several_graph_files_make_an_ensemble() {
    let repository = Repository::empty();
    let manifest = format!("[graph]\nfile = [\"sum.onnx\", \"not_a_number.onnx\"]\n{RAW}");
    repository.add("files", &manifest, &["sum", "not_a_number"]);
    repository.add(
        "margin",
        &graph_manifest("", "two_outputs").replace("[text]", "output = \"margin\"\n[text]"),
        &["two_outputs"],
    );
    let server = Server::of(&repository).await;
    let reply = server.post(&json!({"model": "files", "inputs": [{"text": "100 200"}], "include": ["members"]})).await;
    let members: Vec<f64> = serde_json::from_value(reply.body["results"][0]["ensemble"]["members"].clone()).unwrap();
    assert_close(&members, &[0.3, 0.3]);
    // The second graph answers this token with NaN.
    let poisoned = server.post(&json!({"model": "files", "inputs": [{"text": "20"}, {"text": "13"}]})).await;
    poisoned.assert_problem(500, "model-failed", "sample 1: the model files gave no usable score by its graph 2");
    let shown = server.get("/v1/models/files").await;
    assert_eq!(shown.body["graphs"].as_array().unwrap().len(), 2, "{}", shown.text);
    assert_close(&server.rewards("margin", &["100 200"]).await, &[3.0]);
}

#[tokio::test]
async fn truncation_is_the_callers_choice_and_says_what_it_cut() {
    let repository = Repository::empty();
    let manifest = "[graph]\nfile = \"sum.onnx\"\n[text]\nrender = \"pair\"\nmax_tokens = 7\n";
    repository.add("refuse", manifest, &["sum"]);
    repository.add("cut", &format!("{manifest}truncation = \"prompt_start\"\n"), &["sum"]);
    let server = Server::of(&repository).await;
    // Nine tokens with [CLS] = 1 and two [SEP] = 2, two more than fit.
    let inputs = json!([{"prompt": "10 11 12", "response": "20 21 22"}, {"prompt": "10", "response": "20"}]);
    let score = async |model: &str, truncation: Value| {
        let mut body = json!({"model": model, "inputs": inputs});
        if !truncation.is_null() {
            body["truncation"] = truncation;
        }
        server.post(&body).await
    };
    for (model, truncation) in [("refuse", Value::Null), ("cut", json!("refuse"))] {
        let refused = score(model, truncation).await;
        refused.assert_problem(422, "too-long", "9 tokens");
        assert_eq!(refused.body["index"], 0);
    }
    let cases = [
        ("refuse", json!("prompt_start"), 0.080, json!({"prompt_tokens": 2, "response_tokens": 0})),
        ("cut", Value::Null, 0.080, json!({"prompt_tokens": 2, "response_tokens": 0})),
        ("cut", json!("response_end"), 0.058, json!({"prompt_tokens": 0, "response_tokens": 2})),
    ];
    for (model, truncation, reward, cut) in cases {
        let reply = score(model, truncation.clone()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_close(&reply.rewards(), &[reward, 0.035]);
        let [long, short] = [0, 1].map(|index| &reply.body["results"][index]);
        assert_eq!((&long["truncated"], &long["cut"], &long["tokens"]), (&json!(true), &cut, &json!(7)));
        assert_eq!((&short["truncated"], short.get("cut"), &short["tokens"]), (&json!(false), None, &json!(5)));
    }
}

#[tokio::test]
async fn what_was_computed_is_not_computed_again() {
    let server = Server::of(&Repository::with_sum()).await;
    let [passes, hits, misses] =
        ["karat_forward_pass_seconds_count", "karat_cache_hits_total", "karat_cache_misses_total"]
            .map(|name| format!("{name}{{model=\"sum\"}}"));
    let tokens = "karat_tokens_total{model=\"sum\"}";
    let warm = server.metric(tokens);

    let inputs = json!([{"text": "10 11"}, {"text": "12 13"}, {"text": "10 11"}, {"text": "10  11"}]);
    let reply = server.post(&json!({"model": "sum", "inputs": inputs})).await;
    // Duplicates keep their own place; the fourth differs in white space alone, which the tokenizer drops.
    assert_close(&reply.rewards(), &[0.021, 0.025, 0.021, 0.021]);
    assert_eq!(reply.body["usage"], json!({"tokens": 8, "cached_tokens": 4}));
    assert_eq!(server.metric(tokens) - warm, 4, "two texts of two tokens were computed");
    assert_eq!((server.metric(&hits), server.metric(&misses)), (2, 2));

    let before = server.metric(&passes);
    let body = json!({"model": "sum", "inputs": inputs, "transforms": [{"affine": {"offset": 1}}]});
    let again = server.post(&body).await;
    assert_close(&again.rewards(), &[1.021, 1.025, 1.021, 1.021]);
    assert_eq!(again.body["usage"], json!({"tokens": 8, "cached_tokens": 8}));
    assert_eq!(server.metric(&passes), before, "another transform costs no forward pass");
    assert_eq!((server.metric(&hits), server.metric(&misses)), (6, 2));
}

#[tokio::test]
async fn a_version_names_every_byte_that_decides_a_score() {
    let repository = Repository::with_sum();
    repository.add("alias", "[[ensemble]]\nmodel = \"sum\"\n", &[]);
    let versions = async || {
        let server = Server::of(&repository).await;
        let mut versions = Vec::new();
        for model in ["sum", "alias"] {
            let reply = server.post(&json!({"model": model, "inputs": [{"text": "10"}]})).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let shown = server.get(&format!("/v1/models/{model}")).await;
            assert_eq!(reply.body["model_version"], shown.body["version"]);
            versions.push(reply.body["model_version"].as_str().unwrap().to_owned());
        }
        versions
    };
    let first = versions().await;
    assert_eq!(versions().await, first, "a restart changes nothing");

    let mut seen: HashSet<String> = first.into_iter().collect();
    assert_eq!(seen.len(), 2);
    // A comment, white space, and an unknown field of the ONNX file (number 100, a varint) that readers skip.
    for (file, addition) in
        [("model.toml", &b"# revised\n"[..]), ("tokenizer.json", b"\n"), ("sum.onnx", &[0xa0, 0x06, 0x01])]
    {
        repository.append("sum", file, addition);
        for version in versions().await {
            assert!(seen.insert(version), "a change of {file} went unnoticed");
        }
    }
}

#[tokio::test]
async fn replies_carry_their_timing_and_id() {
    let server = Server::of(&Repository::with_sum()).await;
    let body = json!({"model": "sum", "inputs": [{"text": "10"}]});
    let reply = server.post(&body).await;
    let parts: Vec<(&str, f64)> = reply
        .header("server-timing")
        .split(", ")
        .map(|part| part.split_once(";dur=").unwrap())
        .map(|(name, duration)| (name, duration.parse().unwrap()))
        .collect();
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["tokenise", "queue", "infer", "total"]);
    assert!(parts.iter().all(|(_, duration)| *duration >= 0.0) && parts[3].1 > 0.0, "{parts:?}");

    let generated = reply.header("x-request-id");
    assert!(generated.len() > 10, "{generated:?}");
    assert_eq!(reply.body["id"], generated);
    assert_ne!(server.post(&body).await.header("x-request-id"), generated);

    let request = server.client.post(server.url("/v1/score")).header("X-Request-Id", "caller-7").json(&body);
    let reply = Reply::of(request).await;
    assert_eq!((reply.header("x-request-id"), &reply.body["id"]), ("caller-7", &json!("caller-7")));
    let failed = server.client.post(server.url("/v1/score")).header("X-Request-Id", "caller-8").body("{");
    assert_eq!(Reply::of(failed).await.header("x-request-id"), "caller-8");
}
