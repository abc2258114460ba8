//! Weights are in memory once, and what nobody reads any more goes back to the system, without a score's changing.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Repository, Server};

/// Numbers one after another, whoever says them.
const TEXT: &str = "[text]\nrender = { jinja = \"{% for m in messages %}{{ m['content'] }} {% endfor %}\" }\n\
                    special_tokens = false\npad_token = \"[PAD]\"\nmax_tokens = 200\n";

fn manifest(reduce: &str) -> String {
    let head = format!("head = {{ log_probability = {{ reduce = \"{reduce}\" }} }}");
    format!("{head}\n[graph]\ncheckpoint = \"tiny_decoder_lm\"\nform = \"rows\"\n{TEXT}")
}

/// `mean` and `sum` on links to one checkpoint, and `copy` on one of its own.
fn repository() -> Repository {
    let repository = Repository::empty();
    let folder = "tiny_decoder_lm";
    for (name, reduce) in [("mean", "mean"), ("copy", "sum")] {
        repository.add_checkpoints(name, &manifest(reduce), &[folder]);
    }
    repository.add("sum", &manifest("sum"), &[]);
    fs::create_dir(repository.path().join("sum").join(folder)).unwrap();
    for file in fs::read_dir(repository.path().join("mean").join(folder)).unwrap() {
        let file = file.unwrap();
        fs::hard_link(file.path(), repository.path().join("sum").join(folder).join(file.file_name())).unwrap();
    }
    repository
}

async fn memory(server: &Server, model: &str) -> Value {
    server.get(&format!("/v1/models/{model}")).await.body["graphs"][0]["memory"].clone()
}

#[tokio::test]
async fn models_on_links_to_one_file_share_its_weights_and_score_as_on_their_own() {
    let server = Server::of(&repository()).await;
    let bytes = memory(&server, "copy").await["weight_bytes"].as_u64().unwrap();
    assert!(bytes > 0);
    assert_eq!(memory(&server, "copy").await["shared_by"], 1);
    server.get("/metrics").await;
    for model in ["mean", "sum"] {
        let memory = memory(&server, model).await;
        assert_eq!((&memory["weight_bytes"], &memory["shared_by"]), (&json!(bytes), &json!(2)), "{model}");
        assert_eq!(memory["share_bytes"], bytes / 2, "{model}");
        assert_eq!(server.metric(&format!("karat_model_weight_bytes{{model=\"{model}\"}}")), bytes / 2);
    }
    let inputs = json!([
        {"prompt": "10 20 30", "response": "40 50 60"},
        {"prompt": "10 20 30", "response": "41 51 61 71 81"},
        {"prompt": "17", "response": "18"},
    ]);
    let rewards = async |model: &str| server.post(&json!({"model": model, "inputs": inputs})).await.rewards();
    let (sum, copy, mean) = (rewards("sum").await, rewards("copy").await, rewards("mean").await);
    assert_eq!(sum, copy, "the weights are the same, wherever they lie");
    let lengths = [3.0, 5.0, 1.0];
    for ((sum, mean), tokens) in sum.iter().zip(&mean).zip(lengths) {
        assert!((sum / tokens - mean).abs() < 1e-4, "{sum} over {tokens} tokens is not {mean}");
    }
}
