//! What a graph's first passes found out is kept for the next start, and nothing that failed.

use std::fs;

use crate::support::{Child, Repository, root};

/// A BERT with 64 positions, as optimum exported it, beside a graph that takes any text.
fn repository(max_tokens: usize) -> Repository {
    let repository = Repository::with_sum();
    let manifest = format!("[graph]\nfile = \"model.onnx\"\n[text]\nrender = \"raw\"\nmax_tokens = {max_tokens}\n");
    repository.write("bert", "model.toml", manifest);
    let folder = root().join("tests/graphs/exported");
    for (file, from) in [("tokenizer.json", "tokenizer.json"), ("model.onnx", "bert/model.onnx")] {
        repository.write("bert", file, fs::read(folder.join(from)).unwrap());
    }
    repository
}

/// Starts a server that keeps what it finds out.
async fn started(repository: &Repository) -> Child {
    let child = Child::serve(repository, &["--calibration-seconds", "0.01", "--cache-mb", "0"]).await;
    child.ready().await;
    child
}

/// How many tokens were computed since the start, outside of trials.
async fn tokens(child: &Child) -> u64 {
    let metrics = child.get("/metrics").await.text;
    let told = metrics.lines().find_map(|line| line.strip_prefix("karat_tokens_total{model=\"bert\"} "));
    told.unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_longest_sample_is_tried_once_for_the_same_files() {
    let repository = repository(60);
    let file = repository.path().join("bert/model.passes.calibration.json");
    assert!(tokens(&started(&repository).await).await >= 60);
    let kept = fs::read_to_string(&file).unwrap();
    assert!(tokens(&started(&repository).await).await < 60);
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    // Of other files nothing is known, nor of what can't be read.
    repository.append("bert", "tokenizer.json", b"\n");
    assert!(tokens(&started(&repository).await).await >= 60);
    for damaged in ["{", &kept.replace("digests", "others")] {
        fs::write(&file, damaged).unwrap();
        assert!(tokens(&started(&repository).await).await >= 60, "{damaged}");
    }
}

#[tokio::test]
async fn a_graph_that_takes_no_sample_as_long_as_promised_fails_at_every_start() {
    let repository = repository(100);
    for _ in 0..2 {
        let child = started(&repository).await;
        let card = child.get("/v1/models/bert").await.body;
        let reason = card["reason"].as_str().unwrap_or_default();
        assert!(card["status"] == "failed" && reason.contains("fails on a sample of 100 tokens"), "{card}");
    }
}
