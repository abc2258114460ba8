//! Critiques over HTTP. The model is `tests/graphs/tiny_decoder_lm`, as a graph and as the checkpoint that it was made of,
//! and what it must say stands in `tests/graphs/tiny_decoders.json`, from Transformers.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Repository, Server, is_close, root, until};

const INVALID: &str = "invalid-request";

/// Numbers one after another, whoever says them; where the assistant speaks next, nothing is added.
const TEXT: &str = "[text]\nrender = { jinja = \"{% for m in messages %}{{ m['content'] }} {% endfor %}\" }\n\
                    special_tokens = false\npad_token = \"[PAD]\"\nmax_tokens = 200\n";

/// The user's question is the prompt and the response, one after the other.
const CRITIQUE: &str = "[critique]\nrequest = \"{prompt} {response}\"\nmax_tokens = 12\n";

fn golden() -> Vec<Value> {
    let text = fs::read_to_string(root().join("tests/graphs/tiny_decoders.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["tiny_decoder_lm"].as_array().unwrap().clone()
}

fn words(ids: &[Value]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn ids(case: &Value) -> &[Value] {
    case["ids"].as_array().unwrap()
}

/// A case's text as prompt and response, the response so many tokens long.
fn split(case: &Value, response: usize) -> (String, String) {
    let (prompt, rest) = ids(case).split_at(ids(case).len() - response);
    (words(prompt), words(rest))
}

fn add(repository: &Repository, name: &str, head: &str, critique: &str) {
    let graph = "tiny_decoder_lm";
    let manifest = format!("head = {head}\n[graph]\nfile = \"{graph}.onnx\"\n{TEXT}{critique}");
    repository.add(name, &manifest, &[graph]);
}

/// The models of [`server`] that write and score: a graph, and what a checkpoint becomes.
const WRITERS: [&str; 3] = ["likely", "rows", "packed"];

async fn server() -> Server {
    let repository = Repository::empty();
    for form in &WRITERS[1..] {
        let graph = format!("[graph]\ncheckpoint = \"tiny_decoder_lm\"\nform = \"{form}\"\n");
        let manifest = format!("head = \"log_probability\"\n{graph}{TEXT}{CRITIQUE}");
        repository.add_checkpoints(form, &manifest, &["tiny_decoder_lm"]);
    }
    add(&repository, "likely", "\"log_probability\"", CRITIQUE);
    add(&repository, "summed", "{ log_probability = { reduce = \"sum\" } }", "");
    let choices =
        "{ judge = { pair = { question = \"{prompt} {first} {second}\", first = [\"30\"], second = [\"40\"] } } }";
    add(&repository, "judge", choices, "");
    add(&repository, "embedding", "\"embedding\"", "");
    let short = TEXT.replace("max_tokens = 200", "max_tokens = 8");
    let graph = "[graph]\nfile = \"tiny_decoder_lm.onnx\"\n";
    repository.add("short", &format!("head = \"log_probability\"\n{graph}{short}"), &["tiny_decoder_lm"]);
    let rated = format!("{CRITIQUE}rating = '(\\d+) \\d+ \\d+$'\nrating_range = [0, 400]\n");
    add(&repository, "rated", "\"log_probability\"", &rated);
    Server::of(&repository).await
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn near(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() < 1e-4
}

/// What the model's own head makes of a response.
async fn likelihood(server: &Server, prompt: &str, response: &str) -> f64 {
    let body = json!({"model": "likely", "inputs": [{"prompt": prompt, "response": response}]});
    server.post(&body).await.rewards()[0]
}

/// What a stream sent: the events' names with their data.
fn events(text: &str) -> Vec<(String, Value)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let event = |event: &str| Some((field(event, "event")?, serde_json::from_str(&field(event, "data")?).unwrap()));
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn a_critique_is_what_an_independent_implementation_writes_whole_and_streamed() {
    let (server, golden) = (server().await, golden());
    let cases = golden.iter().filter(|case| ids(case).len() > 1);
    for (case, model) in cases.flat_map(|case| WRITERS.map(|model| (case, model))) {
        let (prompt, response) = split(case, 1);
        let greedy = case["greedy"].as_array().unwrap();
        // Numbers up to 299 are words of the tokenizer; what goes beyond is none.
        let known = greedy.iter().all(|id| (10..300).contains(&id.as_u64().unwrap()));
        let body = json!({"model": model, "prompt": prompt, "response": response});
        let whole = server.post_to("/v1/critique", &body).await;
        assert_eq!(whole.status, 200, "{}", whole.text);
        let critique = &whole.body["critiques"][0];
        assert_eq!((critique["tokens"].as_u64(), critique["finish"].as_str()), (Some(12), Some("length")));
        if known {
            assert_eq!(critique["text"], words(greedy));
        }
        // The score is that of the question with the critique as the answer.
        let question = format!("{prompt} {response}");
        let wanted = likelihood(&server, &question, critique["text"].as_str().unwrap()).await;
        assert!(near(whole.body["reward"].as_f64().unwrap(), wanted), "{}", whole.text);

        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let reply = server.post_to("/v1/critique", &streamed).await;
        assert_eq!(reply.header("content-type"), "text/event-stream");
        let events = events(&reply.text);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[names.len() - 3..], ["critique", "score", "done"], "{}", reply.text);
        let letters: String =
            events.iter().filter(|(name, _)| name == "token").filter_map(|(_, data)| data["text"].as_str()).collect();
        assert_eq!(letters, critique["text"].as_str().unwrap());
        let of = |name: &str| &events.iter().find(|(found, _)| found == name).unwrap().1;
        assert_eq!(of("critique"), critique);
        assert_eq!(of("score")["reward"], whole.body["reward"]);
        assert_eq!(of("done")["generated_tokens"], 12);
    }
    assert!(server.metric("karat_generated_tokens_total{model=\"likely\"}") >= 96);
}

#[tokio::test]
async fn several_critiques_are_averaged_and_a_seed_gives_the_same_whatever_runs_beside_it() {
    let server = server().await;
    let ask = |seed: u64, critiques: usize| {
        json!({"model": "likely", "prompt": "20 30", "response": "40", "critiques": critiques, "temperature": 1.5,
               "top_p": 0.9, "seed": seed, "max_tokens": 20})
    };
    let texts = |body: &Value| -> Vec<String> {
        body["critiques"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap().to_owned()).collect()
    };
    let alone = server.post_to("/v1/critique", &ask(7, 3)).await.body;
    let rewards: Vec<f64> =
        alone["scores"].as_array().unwrap().iter().map(|score| score["reward"].as_f64().unwrap()).collect();
    assert_eq!(rewards.len(), 3);
    assert!(is_close(alone["reward"].as_f64().unwrap(), mean(&rewards)));
    // Side by side with others, and as texts of their own.
    let bodies = [ask(7, 3), ask(8, 2), ask(9, 1), ask(100, 4)];
    let asked = bodies.iter().map(|body| server.post_to("/v1/critique", body));
    let replies = futures_util::future::join_all(asked).await;
    assert_eq!(texts(&replies[0].body), texts(&alone));
    assert_eq!(texts(&replies[1].body)[..2], texts(&alone)[1..]);
    assert_eq!(texts(&replies[2].body)[..], texts(&alone)[2..]);
    assert_ne!(texts(&replies[3].body)[..3], texts(&alone)[..]);
}

#[tokio::test]
async fn a_stop_string_ends_a_critique_and_a_rating_is_a_number_or_null() {
    let server = server().await;
    let body = json!({"model": "rated", "prompt": "20 30", "response": "40"});
    let whole = server.post_to("/v1/critique", &body).await.body;
    let text = whole["critiques"][0]["text"].as_str().unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let rating = words[words.len() - 3].parse::<f64>().unwrap();
    assert_eq!(whole["critiques"][0]["rating"].as_f64(), Some(rating), "{whole}");
    assert_eq!(whole["rating"].as_f64(), Some(rating));

    let mut stopped = body.clone();
    stopped["stop"] = json!([words[2]]);
    let reply = server.post_to("/v1/critique", &stopped).await.body;
    let critique = &reply["critiques"][0];
    assert_eq!(critique["finish"], "stop");
    let before = text.find(words[2]).unwrap();
    assert_eq!(critique["text"].as_str().unwrap(), &text[..before]);
    // Fewer than three words hold no rating, which is null and not 0.
    assert!(critique.as_object().unwrap().contains_key("rating") && critique["rating"].is_null(), "{reply}");
    assert!(reply["rating"].is_null());
    // Nothing at all can't be scored.
    stopped["stop"] = json!([words[0]]);
    let reply = server.post_to("/v1/critique", &stopped).await.body;
    assert_eq!(reply["critiques"][0]["text"], "");
    assert!(reply["reward"].is_null(), "{reply}");
    // Models without a rating have no such key.
    let plain = json!({"model": "likely", "prompt": "20 30", "response": "40", "score": false});
    let plain = server.post_to("/v1/critique", &plain).await.body;
    assert!(!plain.as_object().unwrap().contains_key("rating") && !plain.as_object().unwrap().contains_key("reward"));
}

#[tokio::test]
async fn what_can_not_be_written_is_refused_with_what_to_change() {
    let server = server().await;
    let base = json!({"model": "likely", "prompt": "20 30", "response": "40"});
    let written = || server.metric("karat_generated_tokens_total{model=\"likely\"}");
    let before = written();
    let with = |key: &str, value: Value| {
        let mut body = base.clone();
        body[key] = value;
        body
    };
    for (body, status, slug, needle) in [
        (with("max_tokens", json!(0)), 422, INVALID, "at least 1"),
        (with("max_tokens", json!(198)), 422, "too-long", "the critique 198, and the model takes"),
        (with("max_tokens", json!(1_000_000)), 422, "too-long", "lower max_tokens"),
        (with("stop", json!(["a", ""])), 422, INVALID, "stop string is empty"),
        (with("temperature", json!(-1)), 422, INVALID, "temperature"),
        (with("top_p", json!(0)), 422, INVALID, "top_p"),
        (with("critiques", json!(0)), 422, INVALID, "at least 1"),
        (with("critiques", json!(2)), 422, INVALID, "temperature"),
        (with("response", json!(" ")), 422, INVALID, "empty"),
        (with("messages", json!([])), 422, INVALID, "exactly one"),
        (with("response", json!("40 ".repeat(300))), 422, "too-long", "takes 200 of both"),
        (with("truncation", json!("prompt_start")), 422, INVALID, "never cut"),
        (with("truncation", json!("response_end")), 422, INVALID, "never cut"),
        (with("model", json!("summed")), 422, INVALID, "writes no critiques"),
        (with("model", json!("nobody")), 404, "unknown-model", "nobody"),
        (with("scorer", json!("nobody")), 404, "unknown-model", "scorer: there is no model \"nobody\""),
        (with("scorer", json!("judge")), 422, INVALID, "/v1/compare"),
        (with("scorer", json!("embedding")), 422, INVALID, "no rewards"),
        (with("transforms", json!(["nothing"])), 422, INVALID, "nothing"),
        (with("transforms", json!([{"delta": {}}])), 422, INVALID, "delta"),
        (with("aggregate", json!("nothing")), 422, INVALID, "nothing"),
        (with("timeout_ms", json!(0)), 422, INVALID, "timeout_ms"),
        (with("unknown", json!(1)), 422, INVALID, "unknown"),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = json!(stream);
            let reply = server.post_to("/v1/critique", &body).await;
            if let Err(found) = reply.is_problem(status, slug, needle) {
                panic!("{body}: {found}");
            }
        }
    }
    let many = json!({"model": "likely", "prompt": "20", "response": "40", "critiques": 17, "temperature": 1});
    server.post_to("/v1/critique", &many).await.assert_problem(422, INVALID, "at most 16");
    assert_eq!(written(), before, "something was written for nobody");
}

#[tokio::test]
async fn a_score_that_fails_ends_the_stream_with_a_problem() {
    let server = server().await;
    // How long the critique will be is known when it is written.
    let body = json!({"model": "likely", "prompt": "20", "response": "40", "scorer": "short", "stream": true});
    let reply = server.post_to("/v1/critique", &body).await;
    let events = events(&reply.text);
    let (name, problem) = events.last().unwrap();
    assert_eq!((name.as_str(), problem["status"].as_u64()), ("error", Some(422)), "{}", reply.text);
    assert!(problem["detail"].as_str().unwrap().contains("takes at most 8"), "{problem}");
}

#[tokio::test]
async fn generation_stops_when_its_client_leaves() {
    let server = server().await;
    let body = json!({"model": "likely", "prompt": "20", "response": "40", "max_tokens": 198, "stream": true});
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut response = server.client.post(server.url("/v1/critique")).json(&body).send().await.unwrap();
        assert!(response.chunk().await.unwrap().is_some());
        open.push(response);
    }
    drop(open);
    until("nothing is written any more", || server.metric("karat_generating_texts{model=\"likely\"}") == 0).await;
    // The server goes on for others.
    let body = json!({"model": "likely", "prompt": "20", "response": "40"});
    assert_eq!(server.post_to("/v1/critique", &body).await.status, 200);
}

#[tokio::test]
async fn a_manifest_that_can_not_work_says_why() {
    let bad = [
        ("rating = \"(\"", "critique.rating"),
        ("rating = \"no group\"", "has no group"),
        ("rating_range = [1, 10]", "critique.rating"),
        ("stop = [\"\"]", "critique.stop"),
        ("end_tokens = [\"<nothing>\"]", "critique.end_tokens"),
    ];
    let repository = Repository::with_sum();
    for (index, (line, _)) in bad.iter().enumerate() {
        add(&repository, &format!("bad-{index}"), "\"log_probability\"", &format!("[critique]\n{line}\n"));
    }
    add(&repository, "pattern", "\"log_probability\"", "[critique]\nrequest = \"{prompt}\"\n");
    let word = "{ judge = { single = { question = \"20\", yes = [\"30 40\"], no = [\"50\"] } } }";
    add(&repository, "word", word, "");
    let classic = "head = \"log_probability\"\n[graph]\nfile = \"tokens.onnx\"\n".to_owned() + TEXT;
    repository.add("classic", &classic, &["tokens"]);
    let server = Server::of(&repository).await;
    let reason = |name: String| {
        let server = &server;
        async move { server.get(&format!("/v1/models/{name}")).await.body["reason"].to_string() }
    };
    for (index, (_, needle)) in bad.iter().enumerate() {
        let found = reason(format!("bad-{index}")).await;
        assert!(found.contains(needle), "{needle}: {found}");
    }
    for (name, needle) in [("pattern", "{response}"), ("word", "is 2 tokens"), ("classic", "decoder")] {
        let found = reason(name.to_owned()).await;
        assert!(found.contains(needle), "{needle}: {found}");
    }
}
