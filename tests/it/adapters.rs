//! Low-rank adapters over one base: each gives the scores that PEFT recorded for it (`tests/adapters/record_adapters.py`).

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{Repository, Server, root};

/// How far a score may be from the one that was recorded, in 32 bits.
const TOLERANCE: f64 = 1e-4;
const ADAPTERS: [&str; 5] = ["patterns", "dora", "embeddings", "saved", "stabilised"];
/// Those that can stand beside each other: of different ranks and targets, with biases, embeddings, norms and heads of
/// their own.
const MEMBERS: [&str; 4] = ["saved", "patterns", "embeddings", "stabilised"];

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

/// The manifest of an ensemble of adapters that lie beside it.
fn ensemble(adapters: &[&str], more: &str) -> String {
    let folders: Vec<String> = adapters.iter().map(|name| format!("../{name}")).collect();
    format!("ensemble = {{ adapters = {folders:?} }}\n{more}\n[text]\nrender = \"chat_template\"\nmax_tokens = 128\n")
}

#[tokio::test]
async fn members_over_one_base_give_the_scores_of_each_adapter() {
    let repository = repository();
    repository.write("rows", "model.toml", ensemble(&MEMBERS, ""));
    repository.write("packed", "model.toml", ensemble(&MEMBERS, "[graph]\nform = \"packed\""));
    let server = Server::of(&repository).await;
    let wanted: Vec<Vec<Value>> = MEMBERS.map(cases).into();
    let inputs: Vec<Value> = wanted[0].iter().map(|case| json!({ "messages": case["messages"] })).collect();
    for form in ["rows", "packed"] {
        let alone = inputs.iter().map(std::slice::from_ref).enumerate();
        // What was computed of a beginning is used again by the second of each.
        for (first, batch) in alone.chain([(0, &inputs[..]), (0, &inputs[..])]) {
            let reply = server.post(&json!({ "model": form, "inputs": batch, "include": ["members"] })).await;
            assert_eq!(reply.status, 200, "{form}: {}", reply.text);
            for (number, result) in reply.body["results"].as_array().unwrap().iter().enumerate() {
                let members = result["ensemble"]["members"].as_array().unwrap();
                assert_eq!(members.len(), MEMBERS.len(), "{result}");
                for ((name, cases), found) in MEMBERS.iter().zip(&wanted).zip(members) {
                    let (found, wanted) = (found.as_f64().unwrap(), cases[first + number]["reward"].as_f64().unwrap());
                    assert!((found - wanted).abs() <= TOLERANCE, "{form}, {name}: {found} is not {wanted}");
                }
            }
        }
    }
}

#[tokio::test]
async fn members_may_be_named_objectives() {
    let repository = repository();
    let head = "head = { multi = { objectives = [\"helpful\", \"harmless\"] } }";
    repository.write("both", "model.toml", ensemble(&["patterns", "saved"], head));
    let server = Server::of(&repository).await;
    let case = &cases("saved")[1];
    let request = json!({
        "model": "both", "inputs": [{ "messages": case["messages"] }], "include": ["objectives"],
        "aggregate": { "weighted": { "weights": { "helpful": 0.0, "harmless": 1.0 } } }
    });
    let reply = server.post(&request).await;
    assert!((reply.rewards()[0] - case["reward"].as_f64().unwrap()).abs() <= TOLERANCE, "{}", reply.text);
}

#[tokio::test]
async fn what_can_not_be_a_member_is_refused_by_its_name() {
    let repository = repository();
    let folder = |name: &str| fs::read(recorded("patterns").join(name)).unwrap();
    repository.write("far", "adapter_model.safetensors", folder("adapter_model.safetensors"));
    let config = String::from_utf8(folder("adapter_config.json")).unwrap();
    repository.write("far", "adapter_config.json", config.replace("../base", "../other"));
    for file in fs::read_dir(recorded("base")).unwrap() {
        let file = file.unwrap();
        repository.write("other", file.file_name().to_str().unwrap(), fs::read(file.path()).unwrap());
    }
    let manifests = [
        ("decomposed", ensemble(&["patterns", "dora"], ""), "dora: adapter_config.json: use_dora"),
        ("apart", ensemble(&["patterns", "far"], ""), "different models"),
        ("whole", ensemble(&["patterns", "base"], ""), "holds no adapter_config.json"),
        ("none", ensemble(&[], ""), "the list is empty"),
        ("wide", ensemble(&["patterns", "saved"], "head = \"gaussian\""), "one score each"),
        ("double", ensemble(&["patterns", "saved"], "[graph]\ncheckpoint = \"../base\""), "another one is named"),
    ];
    for (name, manifest, _) in &manifests {
        repository.write(name, "model.toml", manifest);
    }
    let server = Server::of(&repository).await;
    for (name, _, part) in manifests {
        let model = server.get(&format!("/v1/models/{name}")).await;
        assert!(model.text.contains(part), "{name}: {}", model.text);
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
