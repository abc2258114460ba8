//! A text has one score, whatever it is batched with: graphs are tried when they are loaded, and kept apart where it isn't so.

use std::fs;

use karat_engine::schedule::trial::Company;
use serde_json::{Value, json};

use crate::support::{Child, Repository, Server, graph_manifest, karat, root};

/// `RAW` without a token for padding, as somebody writes it who doesn't know of one: then token 0 pads.
fn without_padding(graph: &str) -> String {
    graph_manifest("", graph).replace("pad_token = \"[PAD]\"\n", "")
}

/// 64 texts of 8 to 14 numbers, no two alike.
fn texts() -> Vec<Vec<u32>> {
    let number = |text: u32, place: u32| 10 + (text * 37 + place * place * 11) % 180;
    (0..64).map(|text| (0..8 + text % 7).map(|place| number(text, place)).collect()).collect()
}

/// Scores all texts in one request, so that they share passes as far as they may.
async fn scored(server: &Server, model: &str) -> Vec<f64> {
    let texts: Vec<String> =
        texts().iter().map(|text| text.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")).collect();
    server.rewards(model, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn trial_of(server: &Server, model: &str) -> Value {
    let card = server.get(&format!("/v1/models/{model}")).await.body;
    assert_eq!(card["status"], "ready", "{card}");
    card["graphs"][0]["trial"].clone()
}

/// What a graph gives of a text, computed by hand.
type ScoreByHand = fn(&[u32]) -> f64;

fn last(text: &[u32]) -> f64 {
    f64::from(text[text.len() - 1]) / 1000.0
}

fn mean(text: &[u32]) -> f64 {
    text.iter().copied().map(f64::from).sum::<f64>() / text.len() as f64
}

fn half_sum(text: &[u32]) -> f64 {
    text.iter().copied().map(f64::from).sum::<f64>() / 2000.0
}

/// The kinds of graph that others exported and whose scores were wrong in a batch, without a word.
#[tokio::test]
async fn a_graph_whose_scores_move_is_kept_from_what_moves_them() {
    let repository = Repository::with_sum();
    for graph in ["last_place", "mean_of_places", "centred"] {
        repository.add(graph, &without_padding(graph), &[graph]);
    }
    // The same graph, with what its checkpoint says of padding beside it.
    for (name, file, content) in [
        ("by_map", "special_tokens_map.json", json!({"pad_token": "[PAD]"})),
        ("by_config", "config.json", json!({"pad_token_id": 9})),
    ] {
        repository.add(name, &without_padding("last_place"), &["last_place"]);
        repository.write(name, file, content.to_string());
    }
    // The tokenizer's own padding isn't what the model looks for.
    repository.write("by_config", "tokenizer_config.json", json!({"pad_token": "[UNK]"}).to_string());
    let server = Server::of(&repository).await;
    let cases: [(&str, ScoreByHand, Company, bool, &str); 5] = [
        ("last_place", last, Company::EqualLengths, true, "sees padding"),
        ("mean_of_places", mean, Company::EqualLengths, false, "attention_mask"),
        ("centred", half_sum, Company::Alone, true, "don't mix"),
        ("by_map", last, Company::Any, false, ""),
        ("by_config", last, Company::Any, false, ""),
    ];
    for (model, expected, company, broken, reason) in cases {
        let wrong: Vec<(usize, f64)> = scored(&server, model)
            .await
            .into_iter()
            .enumerate()
            .filter(|(index, score)| (score - expected(&texts()[*index])).abs() > 1e-4)
            .collect();
        assert!(wrong.is_empty(), "{model}: {wrong:?}");
        let trial = trial_of(&server, model).await;
        assert_eq!(trial["company"], json!(company), "{model}: {trial}");
        assert_eq!(trial["broken"], broken, "{model}: {trial}");
        assert!(trial["reason"].as_str().unwrap_or_default().contains(reason), "{model}: {trial}");
        assert_eq!(trial["reason"].is_null(), company == Company::Any, "{model}: {trial}");
    }
    let sum = trial_of(&server, "sum").await;
    assert_eq!((&sum["company"], &sum["largest_difference"]), (&json!("any"), &json!(0.0)), "{sum}");
    // Values that were found wrong in a batch of 64.
    let last = server.rewards("last_place", &["20 30 195", "10 11 12 13 14 15 16 17"]).await;
    assert!((last[0] - 0.195).abs() < 1e-6, "{last:?}");
    let mean = server.rewards("mean_of_places", &["150 151 152 153 154 155 156 146", "10"]).await;
    assert!((mean[0] - 152.125).abs() < 1e-4, "{mean:?}");
}

#[tokio::test]
async fn graphs_that_may_not_be_padded_still_share_passes() {
    let repository = Repository::empty();
    let alone = "[scheduling]\nsessions = 1\n";
    repository.add("mean_of_places", &(without_padding("mean_of_places") + alone), &["mean_of_places"]);
    let server = Server::of(&repository).await;
    let passes = || server.metric("karat_forward_pass_seconds_count{model=\"mean_of_places\"}");
    let before = passes();
    server.rewards("mean_of_places", &["20 21", "30 31", "40 41", "50 51 52"]).await;
    assert_eq!(passes() - before, 2, "three of one length, and one of another");
}

#[tokio::test]
async fn number_formats_are_told_from_faults() {
    let repository = Repository::empty();
    for graph in ["half", "dynamic_int8"] {
        repository.add_graph(graph, "");
    }
    let server = Server::of(&repository).await;
    let half = trial_of(&server, "half").await;
    assert_eq!((&half["company"], &half["broken"]), (&json!("any"), &json!(false)), "{half}");
    assert!(half["tolerance"].as_f64().unwrap() > 1e-3, "{half}");
    let int8 = trial_of(&server, "dynamic_int8").await;
    assert_eq!((&int8["company"], &int8["broken"]), (&json!("alone"), &json!(false)), "{int8}");
    assert!(int8["largest_difference"].as_f64().unwrap() > 1e-3, "{int8}");
    assert!(int8["reason"].as_str().unwrap().contains("quantises"), "{int8}");
}

#[tokio::test]
async fn a_graph_that_can_not_be_served_says_what_to_export() {
    let repository = Repository::with_sum();
    for graph in ["drawn", "small_table"] {
        repository.add_graph(graph, "");
    }
    let server = Server::of(&repository).await;
    let needles: [(&str, &[&str]); 2] = [
        ("drawn", &["one text two scores", "model.eval()"]),
        ("small_table", &["ids up to 299 (\"299\")", "a table of 200 embeddings", "tokenizer.json"]),
    ];
    for (model, needles) in needles {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        let reason = card["reason"].as_str().unwrap_or_default();
        assert!(card["status"] == "failed" && needles.iter().all(|needle| reason.contains(needle)), "{card}");
    }
    assert_eq!(trial_of(&server, "sum").await["company"], "any");
}

/// Recorded by `tests/graphs/export.py`: optimum's exports of random classifiers, and what Transformers makes of each text
/// alone.
#[tokio::test]
async fn what_optimum_exports_is_tried_and_gives_the_scores_of_transformers() {
    let folder = root().join("tests/graphs/exported");
    let recorded: Value = serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
    let repository = Repository::empty();
    let manifest = "[graph]\nfile = \"model.onnx\"\n[text]\nrender = \"raw\"\nmax_tokens = 60\n";
    let add = |name: &str, kind: &str, files: &[&str]| {
        repository.write(name, "model.toml", manifest);
        repository.write(name, "tokenizer.json", fs::read(folder.join("tokenizer.json")).unwrap());
        for file in files {
            repository.write(name, file, fs::read(folder.join(kind).join(file)).unwrap());
        }
    };
    let scores = recorded["scores"].as_object().unwrap();
    let all = ["model.onnx", "config.json", "special_tokens_map.json", "tokenizer_config.json"];
    for kind in scores.keys() {
        add(kind, kind, &all);
    }
    // Its end is where its padding begins, and only one file says what that is; or none.
    add("qwen3-map", "qwen3", &["model.onnx", "special_tokens_map.json"]);
    add("qwen3-bare", "qwen3", &["model.onnx"]);
    let server = Server::of(&repository).await;
    let texts: Vec<&str> = recorded["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let kinds = scores.keys().map(|kind| (kind.as_str(), kind.as_str(), "any", false));
    let bare = [("qwen3-map", "qwen3", "any", false), ("qwen3-bare", "qwen3", "equal_lengths", true)];
    for (model, kind, company, broken) in kinds.chain(bare) {
        let expected: Vec<f64> = scores[kind].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
        let found = server.rewards(model, &texts).await;
        let furthest = expected.iter().zip(&found).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
        assert!(furthest < 1e-4, "{model}: {found:?} where Transformers gives {expected:?}");
        let trial = trial_of(&server, model).await;
        assert_eq!((&trial["company"], &trial["broken"]), (&json!(company), &json!(broken)), "{model}: {trial}");
    }
}

#[tokio::test]
async fn strict_serves_no_graph_whose_scores_move() {
    let repository = Repository::with_sum();
    repository.add("last_place", &without_padding("last_place"), &["last_place"]);
    let child = Child::serve(&repository, &["--strict", "--calibration-seconds", "0"]).await;
    let ended = child.end().await;
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("last_place gives a text other scores in company"), "{}", ended.stderr);
    assert!(ended.stderr.contains("sees padding"), "{}", ended.stderr);
    // What is known to run alone, and does, is no reason to stop.
    let repository = Repository::with_sum();
    repository.add_graph("dynamic_int8", "");
    let child = Child::serve(&repository, &["--strict", "--calibration-seconds", "0"]).await;
    child.ready().await;
}

#[tokio::test]
async fn a_verdict_is_remembered_for_the_same_files() {
    let repository = Repository::with_sum();
    let company = async || {
        let child = Child::serve(&repository, &["--calibration-seconds", "0.01"]).await;
        child.ready().await;
        child.get("/v1/models/sum").await.body["graphs"][0]["trial"]["company"].clone()
    };
    assert_eq!(company().await, "any");
    let file = repository.path().join("sum/sum.trial.calibration.json");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("\"any\""), "{kept}");
    // Nothing else tells that it was read.
    let planted = kept.replace("\"any\"", "\"alone\"").replace("\"broken\"", "\"reason\": \"planted\", \"broken\"");
    fs::write(&file, &planted).unwrap();
    assert_eq!(company().await, "alone");
    // What a manifest says beside its passes makes no other graph of it, and other files do.
    repository.append("sum", "model.toml", b"# changed\n");
    assert_eq!(company().await, "alone");
    repository.append("sum", "tokenizer.json", b"\n");
    assert_eq!(company().await, "any");
    for damaged in ["{", &planted.replace("\"alone\"", "\"sometimes\"")] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(company().await, "any", "{damaged}");
    }
}

#[tokio::test]
async fn pinned_files_are_held_to_their_digests() {
    let repository = Repository::with_sum();
    let folder = repository.path().join("sum");
    let pin = || karat(&["inspect", folder.to_str().unwrap(), "--write"]).output().unwrap();
    let pinned = pin();
    assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stderr));
    let manifest = fs::read_to_string(folder.join("model.toml")).unwrap();
    assert!(manifest.starts_with(&graph_manifest("", "sum").trim_end()[..20]) && manifest.contains("[digests]"));
    assert!(manifest.contains("\"sum.onnx\" = \"sha256:") && manifest.contains("\"tokenizer.json\""), "{manifest}");
    assert!(String::from_utf8_lossy(&pin().stderr).contains("remove the table first"));
    let server = Server::of(&repository).await;
    assert_eq!(server.rewards("sum", &["10 11"]).await, [f64::from(0.021_f32)]);

    // One bit of a weight: the thousand that sums are divided by.
    let graph = fs::read(folder.join("sum.onnx")).unwrap();
    let thousand = 1000_f32.to_le_bytes();
    let at = graph.windows(4).position(|bytes| bytes == thousand).unwrap();
    let mut damaged = graph;
    damaged[at + 2] ^= 1 << 4;
    fs::write(folder.join("sum.onnx"), damaged).unwrap();
    let server = Server::of(&repository).await;
    let card = server.get("/v1/models/sum").await.body;
    let reason = card["reason"].as_str().unwrap_or_default();
    for needle in ["model.toml", "digests", "sum.onnx is sha256:", "is pinned", "karat inspect"] {
        assert!(card["status"] == "failed" && reason.contains(needle), "{needle} is not in {card}");
    }
}

#[tokio::test]
async fn checkpoints_are_tried_in_the_form_that_they_are_run_in() {
    let repository = Repository::empty();
    let copied = |checkpoint: &str, name: &str| {
        for file in fs::read_dir(root().join("tests/checkpoints").join(checkpoint)).unwrap() {
            let file = file.unwrap();
            repository.write(name, &file.file_name().to_string_lossy(), fs::read(file.path()).unwrap());
        }
    };
    for (checkpoint, name) in [("bert", "padded"), ("qwen3", "rows"), ("qwen3", "packed")] {
        copied(checkpoint, name);
    }
    let folder = repository.path().join("packed");
    let written = karat(&["inspect", folder.to_str().unwrap(), "--write"]).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let manifest = fs::read_to_string(folder.join("model.toml")).unwrap();
    repository.write("packed", "model.toml", manifest.replace("[graph]\n", "[graph]\nform = \"packed\"\n"));
    let server = Server::of(&repository).await;
    for name in ["padded", "rows", "packed"] {
        let trial = trial_of(&server, name).await;
        assert_eq!((&trial["company"], &trial["broken"]), (&json!("any"), &json!(false)), "{name}: {trial}");
        assert!(trial["largest_difference"].as_f64().unwrap() < 1e-5, "{name}: {trial}");
    }
}
