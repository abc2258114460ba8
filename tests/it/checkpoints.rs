//! Hugging Face checkpoints as they lie on the disk: each gives the scores that Transformers recorded for it, alone and
//! in company (`tests/checkpoints/record.py`), and depends on no file once it is ready.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{Repository, Server, karat, root};

/// How far a score may be from the one that was recorded, in 32 bits.
const TOLERANCE: f64 = 1e-4;

/// The folders of recorded checkpoints.
fn recorded() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/checkpoints")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.retain(|folder| folder.join("expected.json").is_file());
    folders.sort();
    assert!(folders.len() > 20, "{folders:?}");
    folders
}

fn name(folder: &std::path::Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// A repository of checkpoints without a manifest.
fn repository(folders: &[PathBuf]) -> Repository {
    let repository = Repository::empty();
    for folder in folders {
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            repository.write(&name(folder), &name(&file), fs::read(&file).unwrap());
        }
    }
    repository
}

fn cases(folder: &std::path::Path) -> Vec<Value> {
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    expected["cases"].as_array().unwrap().clone()
}

fn input(case: &Value) -> Value {
    match case.get("messages") {
        Some(messages) => json!({ "messages": messages }),
        None => json!({ "prompt": case["prompt"], "response": case["response"] }),
    }
}

/// What was recorded of a case: a reward, or a probability for each step.
fn wanted(case: &Value) -> Vec<f64> {
    match case["steps"].as_array() {
        Some(steps) => steps.iter().map(|step| step.as_f64().unwrap()).collect(),
        None => vec![case["reward"].as_f64().unwrap()],
    }
}

fn found(result: &Value) -> Vec<f64> {
    match result["steps"]["scores"].as_array() {
        Some(steps) => steps.iter().map(|step| step.as_f64().unwrap()).collect(),
        None => vec![result["raw"].as_f64().unwrap()],
    }
}

async fn score(server: &Server, model: &str, cases: &[&Value]) -> Vec<Vec<f64>> {
    let inputs: Vec<Value> = cases.iter().map(|case| input(case)).collect();
    let reply = server.post(&json!({ "model": model, "inputs": inputs, "include": ["steps"] })).await;
    assert_eq!(reply.status, 200, "{model}: {}", reply.text);
    reply.body["results"].as_array().unwrap().iter().map(found).collect()
}

#[track_caller]
fn assert_close(model: &str, found: &[f64], wanted: &[f64]) {
    let close = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= TOLERANCE);
    assert!(close && found.len() == wanted.len(), "{model}: {found:?} is not {wanted:?}");
}

#[tokio::test]
async fn every_checkpoint_gives_the_scores_of_transformers_alone_and_in_company() {
    let folders = recorded();
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let (model, cases) = (name(folder), cases(folder));
        let alone = score(&server, &model, &[&cases[0]]).await;
        assert_close(&model, &alone[0], &wanted(&cases[0]));
        let backwards: Vec<&Value> = cases.iter().rev().collect();
        for (found, case) in score(&server, &model, &backwards).await.iter().zip(backwards) {
            assert_close(&model, found, &wanted(case));
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_rewritten_in_place_changes_no_score() {
    let folders: Vec<PathBuf> =
        recorded().into_iter().filter(|folder| ["qwen3", "bert"].contains(&&*name(folder))).collect();
    let repository = repository(&folders);
    let server = Server::of(&repository).await;
    for folder in &folders {
        let model = name(folder);
        let weights = repository.path().join(&model).join("model.safetensors");
        let length = fs::metadata(&weights).unwrap().len();
        fs::write(&weights, vec![0; usize::try_from(length).unwrap()]).unwrap();
        for case in cases(folder) {
            assert_close(&model, &score(&server, &model, &[&case]).await[0], &wanted(&case));
        }
    }
}

#[tokio::test]
async fn a_manifest_beside_a_checkpoint_says_what_its_numbers_mean() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "mistral").collect();
    let repository = repository(&folders);
    let manifest = "transforms = [{ affine = { scale = -1 } }]\n[graph]\ncheckpoint = \".\"\n[text]\n\
                    render = \"chat_template\"\nmax_tokens = 128\n";
    repository.write("mistral", "model.toml", manifest);
    let server = Server::of(&repository).await;
    let case = &cases(&folders[0])[1];
    let reply = server.post(&json!({ "model": "mistral", "inputs": [input(case)] })).await;
    assert_close("mistral", &reply.rewards(), &[-wanted(case)[0]]);
}

#[tokio::test]
async fn scores_that_lie_beside_a_model_are_compared_when_it_is_loaded() {
    let folders: Vec<PathBuf> = recorded()
        .into_iter()
        .filter(|folder| ["bert", "mistral", "qwen2-math-prm"].contains(&&*name(folder)))
        .collect();
    let repository = repository(&folders);
    let mistral = &folders[1];
    let expected: Value = serde_json::from_slice(&fs::read(mistral.join("expected.json")).unwrap()).unwrap();
    let copy = |model: &str, expected: Option<&Value>| {
        for file in fs::read_dir(mistral).unwrap().map(|entry| entry.unwrap().path()) {
            if name(&file) != "expected.json" {
                repository.write(model, &name(&file), fs::read(&file).unwrap());
            }
        }
        if let Some(expected) = expected {
            repository.write(model, "expected.json", expected.to_string());
        }
    };
    copy("unknown", None);
    let reward = expected["cases"][1]["reward"].as_f64().unwrap();
    let mut wrong = expected.clone();
    wrong["cases"][1]["reward"] = json!(reward + 0.01);
    copy("wrong", Some(&wrong));
    wrong["cases"][1]["tokens"][3] = json!(7);
    copy("wrong-text", Some(&wrong));
    wrong["tolerance"] = json!(0.02);
    copy("tolerated", Some(&wrong));
    copy("empty", Some(&json!({"tolerance": 1e-4, "cases": []})));
    copy("stepless", Some(&json!({"tolerance": 1e-4, "cases": [{"response": "Yes.", "steps": [0.5]}]})));
    copy("shapeless", Some(&json!({"tolerance": 1e-4, "cases": [{"prompt": "Why?", "reward": 0.5}]})));
    copy("misspelt", Some(&json!({"tolerance": 1e-4, "cases": [{"response": "Yes.", "score": 0.5}]})));
    repository.write("composite", "model.toml", "[[ensemble]]\nmodel = \"mistral\"\n");
    repository.write("composite", "expected.json", expected.to_string());

    let server = Server::of(&repository).await;
    for (model, count) in [("bert", 4), ("mistral", 4), ("qwen2-math-prm", 4), ("composite", 4), ("tolerated", 4)] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert_eq!(card["references"]["count"], count, "{card}");
        let difference = card["references"]["largest_difference"].as_f64().unwrap();
        assert!(
            if model == "tolerated" { (difference - 0.01).abs() < TOLERANCE } else { difference < TOLERANCE },
            "{card}"
        );
    }
    assert_eq!(server.get("/v1/models/unknown").await.body["references"], Value::Null);
    for (model, parts) in [
        ("wrong", &["1 of 4 scores", "case 2 by 1.000e-2", "the tokens are the same"][..]),
        ("wrong-text", &["first the one after 3", "where the reference has 7"]),
        ("empty", &["keep 1 to 64"]),
        ("stepless", &["case 1", "write \"reward\""]),
        ("shapeless", &["case 1", "\"response\""]),
        ("misspelt", &["expected.json", "score"]),
    ] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert_eq!(card["status"], "failed", "{card}");
        for part in parts {
            assert!(card["reason"].as_str().unwrap().contains(part), "{part:?} is not in {card}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_can_not_be_served_says_all_that_is_wrong_and_harms_no_other() {
    let repository = repository(&recorded()[..1]);
    let config =
        json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "hidden_act": "odd"});
    repository.write("broken", "config.json", config.to_string());
    let server = Server::of(&repository).await;
    let card = server.get("/v1/models/broken").await.body;
    let reason = card["reason"].as_str().unwrap();
    for part in ["hidden_size", "\"odd\"", ".safetensors", "tokenizer.json"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[test]
fn inspect_shows_the_manifest_that_a_checkpoint_gets_and_writes_it_once() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "openrlhf").collect();
    let repository = repository(&folders);
    let folder = repository.path().join("openrlhf");
    let inspect = |flags: &[&str]| {
        let output = karat(&[&["inspect", folder.to_str().unwrap()], flags].concat()).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (shown, manifest) = inspect(&["--write"]);
    assert!(shown && manifest.contains("[transforms.affine]") && manifest.contains("stored as BF16"), "{manifest}");
    assert!(manifest.contains("4 of 4 references within 0.0001"), "{manifest}");
    let written = fs::read_to_string(folder.join("model.toml")).unwrap();
    assert!(manifest.ends_with(&written) && written.contains("checkpoint = \".\""), "{written}");
    let (again, error) = inspect(&["--write"]);
    assert!(!again && error.contains("model.toml exists"), "{error}");
    repository.write(
        "openrlhf",
        "expected.json",
        "{\"tolerance\": 0, \"cases\": [{\"response\": \"a\", \"reward\": 9}]}",
    );
    let (held, error) = inspect(&[]);
    assert!(!held && error.contains("1 of 1 scores"), "{error}");
    fs::remove_file(folder.join("expected.json")).unwrap();
    let (shown, manifest) = inspect(&[]);
    assert!(shown && manifest.contains("nobody has compared"), "{manifest}");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let (served, error) = inspect(&[]);
    assert!(!served && error.contains("tokenizer.json"), "{error}");
}
