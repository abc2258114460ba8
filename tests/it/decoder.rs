//! Decoders over HTTP: candidates of one prompt get the scores that each gets alone, whatever they come with.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{RAW, Repository, Server, graph_manifest};

const GRAPH: &str = "tiny_decoder_scores";

/// What Transformers makes of the graph's weights.
#[derive(Deserialize)]
struct Golden {
    tiny_decoder_scores: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    ids: Vec<u32>,
    scores: Vec<[f64; 2]>,
}

fn golden() -> Vec<Case> {
    let golden: Golden = serde_json::from_str(include_str!("../graphs/tiny_decoders.json")).unwrap();
    golden.tiny_decoder_scores
}

fn manifest(rules: &str) -> String {
    graph_manifest(rules, GRAPH).replace("max_tokens = 64", "max_tokens = 2048")
}

fn repository(rules: &str) -> Repository {
    let repository = Repository::empty();
    repository.add("decoder", &manifest(rules), &[GRAPH]);
    repository
}

const ENSEMBLE: &str = "head = { multi = { members = 2 } }";

/// The text that the tests' tokenizer makes these ids of.
fn text(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn members(result: &Value) -> Vec<f64> {
    result["ensemble"]["members"].as_array().unwrap().iter().map(|member| member.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4);
    assert!(close && found.len() == expected.len(), "{found:?} is not {expected:?}");
}

/// The same model as a checkpoint.
fn checkpoint(rules: &str) -> Repository {
    let repository = Repository::empty();
    let file = format!("file = \"{GRAPH}.onnx\"");
    let manifest = manifest(rules).replace(&file, &format!("checkpoint = \"{GRAPH}\""));
    repository.add_checkpoints("decoder", &manifest, &[GRAPH]);
    repository
}

#[tokio::test]
async fn scores_are_the_reference_implementations_alone_and_together() {
    for repository in [repository(ENSEMBLE), checkpoint(ENSEMBLE)] {
        assert_reference(&Server::of(&repository).await).await;
    }
}

async fn assert_reference(server: &Server) {
    let cases = golden();
    let together = json!({"model": "decoder", "include": ["members"], "inputs": cases.iter().map(|case| json!({"text": text(&case.ids)})).collect::<Vec<_>>()});
    let reply = server.post(&together).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    for (result, case) in reply.body["results"].as_array().unwrap().iter().zip(&cases) {
        assert_close(&members(result), case.scores.last().unwrap());
    }
    // Every beginning of the longest text, each of which others begin with as well.
    let longest = cases.last().unwrap();
    let beginnings: Vec<usize> = (1..longest.ids.len()).step_by(7).collect();
    let inputs: Vec<Value> = beginnings.iter().map(|end| json!({"text": text(&longest.ids[..*end])})).collect();
    let reply = server.post(&json!({"model": "decoder", "include": ["members"], "inputs": inputs})).await;
    for (result, end) in reply.body["results"].as_array().unwrap().iter().zip(beginnings) {
        assert_close(&members(result), &longest.scores[end - 1]);
    }
}

#[tokio::test]
async fn a_prompt_with_candidates_is_computed_once_however_they_come() {
    let server = Server::of(&repository(ENSEMBLE)).await;
    assert_eq!(server.get("/v1/models/decoder").await.body["graphs"][0]["shares_prefixes"], true);
    let warm_up = server.metric("karat_prefix_computed_tokens_total{model=\"decoder\"}");
    let prompt: Vec<u32> = (0..64).map(|at| 10 + at * 13 % 200).collect();
    let candidate = |own: u32| text(&[prompt.clone(), vec![220 + own; 5]].concat());
    let inputs: Vec<Value> = (0..8).map(|own| json!({"text": candidate(own)})).collect();
    let group = server.post(&json!({"model": "decoder", "include": ["members"], "inputs": inputs})).await;
    let computed = server.metric("karat_prefix_computed_tokens_total{model=\"decoder\"}") - warm_up;
    assert_eq!(computed, 64 + 8 * 5);
    // Later ones, each in a request of its own, find the prompt.
    for own in 8..12 {
        let single = server
            .post(&json!({"model": "decoder", "include": ["members"], "inputs": [{"text": candidate(own)}]}))
            .await;
        assert_eq!(single.status, 200, "{}", single.text);
    }
    let computed = server.metric("karat_prefix_computed_tokens_total{model=\"decoder\"}") - warm_up;
    assert_eq!(computed, 64 + 12 * 5);
    assert_eq!(server.metric("karat_prefix_hits_total{model=\"decoder\"}"), 4);
    assert_eq!(server.metric("karat_padding_tokens_total{model=\"decoder\"}"), 0);

    // A fresh server gives each of the group alone the score that it had in company.
    let fresh = Server::of(&repository(ENSEMBLE)).await;
    for (own, together) in group.body["results"].as_array().unwrap().iter().enumerate() {
        let alone = fresh
            .post(&json!({"model": "decoder", "include": ["members"], "inputs": [{"text": candidate(own as u32)}]}))
            .await;
        assert_close(&members(&alone.body["results"][0]), &members(together));
    }
}

#[tokio::test]
async fn steps_are_read_in_one_pass() {
    // In this text 83 stands fourth and 256 last; it is marked by the former.
    let case = &golden()[2];
    assert_eq!(case.ids[3], 83);
    let rules = "head = { process = { read = { two_class = { positive = 1 } }, reduction = \"min\" } }";
    let repository = Repository::empty();
    repository.add("decoder", &format!("{}step_mark = \"83\"\n", manifest(rules)), &[GRAPH]);
    let server = Server::of(&repository).await;
    let marked =
        server.post(&json!({"model": "decoder", "include": ["members"], "inputs": [{"text": text(&case.ids)}]})).await;
    let [no, yes] = case.scores[3];
    assert_close(&marked.rewards(), &[1.0 / (1.0 + (no - yes).exp())]);
    let unmarked =
        server.post(&json!({"model": "decoder", "include": ["members"], "inputs": [{"text": "10 11 12"}]})).await;
    assert_eq!(unmarked.status, 422, "{}", unmarked.text);
}

#[tokio::test]
async fn what_can_not_be_scored_is_named_and_nobody_else_loses() {
    let server = Server::of(&repository(ENSEMBLE)).await;
    let long = json!({"model": "decoder", "include": ["members"], "inputs": [{"text": text(&[20; 2049])}]});
    let reply = server.post(&long).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    let none = server.post(&json!({"model": "decoder", "include": ["members"], "inputs": []})).await;
    assert_eq!(none.status, 422, "{}", none.text);
    let case = &golden()[2];
    let good =
        server.post(&json!({"model": "decoder", "include": ["members"], "inputs": [{"text": text(&case.ids)}]})).await;
    assert_close(&members(&good.body["results"][0]), &case.scores[6]);
}

#[tokio::test]
async fn a_dialogue_that_says_nothing_is_refused_beside_others_that_are_scored() {
    // A dialogue that begins with 77 isn't rendered at all, and one that begins with 78 is refused by the template.
    let template = "{% if messages[0]['content'] == '78' %}{{ raise_exception('78 is not known') }}{% endif %}\
                    {% if messages[0]['content'] != '77' %}{% for m in messages %}{{ m['content'] }} {% endfor %}{% endif %}";
    let templated = manifest(ENSEMBLE).replace("\"raw\"", &format!("{{ jinja = \"{template}\" }}"));
    let repository = Repository::empty();
    repository.add("decoder", &templated, &[GRAPH]);
    let server = Server::of(&repository).await;
    let body = |inputs: Value| json!({"model": "decoder", "include": ["members"], "inputs": inputs});
    let input = |prompt: &str, response: &str| json!({"prompt": prompt, "response": response});
    let cases = golden();
    let good = |case: &Case, response: usize| {
        let (prompt, response) = case.ids.split_at(case.ids.len() - response);
        input(&text(prompt), &text(response))
    };
    let bad = [
        (json!([good(&cases[2], 2), input("77", "20")]), "no tokens"),
        (json!([good(&cases[2], 2), input("78", "20")]), "78 is not known"),
        (json!([good(&cases[2], 2), input("20", "")]), "empty"),
        (json!([good(&cases[2], 2), input("20", " \n")]), "empty"),
        (json!([]), "at least one"),
    ];
    for (inputs, needle) in bad {
        // The same text however it is cut in two, one of them as a prompt that its response says once more.
        let neighbours = json!([good(&cases[2], 2), good(&cases[3], 1), good(&cases[2], 6), input("20 30", "20 30")]);
        let (bad, neighbours) = (body(inputs), body(neighbours));
        let (refused, scored) = tokio::join!(server.post(&bad), server.post(&neighbours));
        refused.assert_problem(422, "invalid-request", needle);
        assert_eq!(scored.status, 200, "{}", scored.text);
        let results = scored.body["results"].as_array().unwrap();
        for (result, case) in results.iter().zip([&cases[2], &cases[3], &cases[2]]) {
            assert_close(&members(result), case.scores.last().unwrap());
        }
        assert_eq!(members(&results[3]).len(), 2);
    }
}

#[tokio::test]
async fn a_manifest_that_does_not_fit_the_decoder_is_refused() {
    for (manifest, part) in [
        (manifest(ENSEMBLE).replace("2048", "2049"), "context is 2048"),
        (manifest("head = \"scalar\""), "scores"),
        (manifest(ENSEMBLE).replace("[text]", "output = \"logits\"\n[text]"), "no output \"logits\""),
        (
            format!("{ENSEMBLE}\n[graph]\nfile = \"{GRAPH}.onnx\"\n{RAW}")
                .replace("[graph]", "providers = [\"cpu\"]\n[graph]")
                .replace("members = 2", "members = 3"),
            "scores",
        ),
    ] {
        let repository = Repository::empty();
        repository.add("decoder", &manifest, &[GRAPH]);
        let server = Server::of(&repository).await;
        let reply = server.get("/v1/models/decoder").await;
        assert_eq!(reply.body["status"], "failed", "{}", reply.text);
        assert!(reply.body["reason"].as_str().unwrap().contains(part), "{part}: {}", reply.text);
    }
}
