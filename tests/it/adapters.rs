//! Low-rank adapters over one base: each gives the scores that PEFT recorded for it (`tests/adapters/record_adapters.py`).

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{Repository, Server, root};

/// How far a score may be from the one that was recorded, in 32 bits.
const TOLERANCE: f64 = 1e-4;
const ADAPTERS: [&str; 4] = ["patterns", "dora", "embeddings", "saved"];

fn recorded(name: &str) -> PathBuf {
    root().join("tests/adapters").join(name)
}

/// A repository of the base and its adapters, beside each other.
fn repository() -> Repository {
    let repository = Repository::empty();
    for name in ["base"].iter().chain(&ADAPTERS) {
        for file in fs::read_dir(recorded(name)).unwrap() {
            let file = file.unwrap();
            repository.write(name, file.file_name().to_str().unwrap(), fs::read(file.path()).unwrap());
        }
    }
    repository
}

fn cases(name: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_slice(&fs::read(recorded(name).join("expected.json")).unwrap()).unwrap();
    expected["cases"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_adapter_gives_the_scores_of_peft() {
    let server = Server::of(&repository()).await;
    for name in ADAPTERS {
        let cases = cases(name);
        let inputs: Vec<Value> = cases.iter().map(|case| json!({ "messages": case["messages"] })).collect();
        let reply = server.post(&json!({ "model": name, "inputs": inputs })).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        for (found, case) in reply.rewards().iter().zip(&cases) {
            let wanted = case["reward"].as_f64().unwrap();
            assert!((found - wanted).abs() <= TOLERANCE, "{name}: {found} is not {wanted}");
        }
    }
}

#[tokio::test]
async fn a_manifest_beside_an_adapter_takes_the_tokenizer_of_its_base() {
    let repository = repository();
    let manifest = "transforms = [{ affine = { scale = -1 } }]\n[graph]\ncheckpoint = \".\"\n[text]\n\
                    render = \"chat_template\"\nmax_tokens = 128\n";
    repository.write("dora", "model.toml", manifest);
    let server = Server::of(&repository).await;
    let case = &cases("dora")[2];
    let reply = server.post(&json!({ "model": "dora", "inputs": [{ "messages": case["messages"] }] })).await;
    assert!((reply.rewards()[0] + case["reward"].as_f64().unwrap()).abs() <= TOLERANCE, "{}", reply.text);
}

#[tokio::test]
async fn the_version_of_an_adapter_tells_its_base() {
    let repository = repository();
    let version = async |model: &str| {
        let server = Server::of(&repository).await;
        server.get(&format!("/v1/models/{model}")).await.body["version"].clone()
    };
    let before = version("patterns").await;
    let weights = repository.path().join("base/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(version("patterns").await, before);
}
