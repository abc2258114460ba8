//! Models of the Hugging Face Hub: fetched once into the cache that Python keeps, always one commit, and never code.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{Child, FakeHub, Repository, root, sha256};

const MODEL: &str = "org/model";
/// The file that a transfer takes longest for.
const WEIGHTS: &str = "model.safetensors";

async fn hub() -> FakeHub {
    let hub = FakeHub::of(&root().join("tests/checkpoints/qwen3")).await;
    let mut held = hub.held.lock().unwrap();
    held.files.insert("modeling_mine.py".to_owned(), b"raise SystemExit".to_vec());
    held.files.insert("README.md".to_owned(), b"# A model".to_vec());
    drop(held);
    hub
}

/// Runs a command to its end on a thread of its own, so that the Hub can answer it: whether it went well, and what it said.
async fn run(mut command: Command) -> (bool, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
    (output.status.success(), text)
}

async fn inspect(hub: &FakeHub, model: &str) -> (bool, String) {
    run(hub.karat(&["inspect", model])).await
}

async fn refused(hub: &FakeHub, model: &str, reason: &str) {
    let (well, error) = inspect(hub, model).await;
    assert!(!well && error.contains(reason), "{error}");
}

#[tokio::test]
async fn a_model_is_fetched_once_and_then_served_without_the_hub() {
    let hub = hub().await;
    let expected = fs::read(root().join("tests/checkpoints/qwen3/expected.json")).unwrap();
    let case = serde_json::from_slice::<Value>(&expected).unwrap()["cases"][1].clone();
    let commit = hub.held.lock().unwrap().commit.clone();
    let repository = Repository::empty();
    let manifest = "transforms = [{ affine = { scale = -1 } }]\n[graph]\ncheckpoint = \"hub:org/model\"\n[text]\n\
                    render = \"chat_template\"\nmax_tokens = 128\n";
    repository.write("negative", "model.toml", manifest);
    let flags = ["serve", "--listen", "127.0.0.1:0", "--models", repository.path().to_str().unwrap(), "--model", MODEL];
    let mut versions = Vec::new();
    for _ in 0..2 {
        let child = Child::start(hub.karat(&flags)).await;
        child.ready().await;
        for (model, sign) in [("model", 1.0), ("negative", -1.0)] {
            let body = json!({ "model": model, "inputs": [{ "messages": case["messages"] }] });
            let reply = child.post(&body).await;
            let reward = reply.body["results"][0]["reward"].as_f64().unwrap();
            assert!((reward - sign * case["reward"].as_f64().unwrap()).abs() < 1e-4, "{}", reply.text);
            let card = child.get(&format!("/v1/models/{model}")).await.body;
            assert_eq!(card["hub"], json!([format!("{MODEL}@{commit}")]), "{card}");
            versions.push(card["version"].clone());
        }
        // The second time nobody answers.
        hub.stop();
    }
    assert_eq!(versions[..2], versions[2..]);
    let asked = hub.asked();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("model.safetensors bytes=0-")).count(), 2, "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.contains(".py") || asked.contains("README")), "{asked:?}");
    assert_eq!(fs::read_to_string(hub.cached("refs/main")).unwrap(), commit);
    let weights = hub.cached(&format!("snapshots/{commit}/{WEIGHTS}"));
    let blob = fs::canonicalize(&weights).unwrap();
    assert_eq!(blob.file_name().unwrap().to_str().unwrap(), sha256(&fs::read(&weights).unwrap()));
    assert!(fs::read_link(&weights).unwrap().starts_with("../../blobs"));
}

#[tokio::test]
async fn a_commit_stays_what_it_is_while_a_branch_moves_on() {
    let hub = hub().await;
    let first = hub.held.lock().unwrap().commit.clone();
    assert!(inspect(&hub, MODEL).await.1.contains(&format!("{MODEL}@{first}")));
    let second = "2b".repeat(20);
    hub.held.lock().unwrap().commit.clone_from(&second);
    hub.asked();
    let (_, shown) = inspect(&hub, &format!("{MODEL}@{first}")).await;
    assert!(shown.contains(&format!("checkpoint = \"hub:{MODEL}@{first}\"")), "{shown}");
    assert!(hub.asked().is_empty(), "a commit that is there was asked for");
    assert!(inspect(&hub, MODEL).await.1.contains(&second));
    // The files are the same, and so nothing was fetched again.
    assert_eq!(hub.asked(), [format!("/api/models/{MODEL}/revision/main")]);
    refused(&hub, &format!("{MODEL}@v9"), "has no org/model@v9").await;
}

#[tokio::test]
async fn a_commit_of_which_a_part_is_there_is_not_taken_for_the_whole() {
    let hub = hub().await;
    let commit = hub.held.lock().unwrap().commit.clone();
    let pinned = format!("{MODEL}@{commit}");
    assert!(inspect(&hub, &pinned).await.0);
    // As if it had been killed before these came.
    let settings = hub.cached(&format!("snapshots/{commit}/tokenizer_config.json"));
    fs::remove_file(&settings).unwrap();
    fs::remove_file(hub.cached(&format!("karat/{commit}"))).unwrap();
    let weights = hub.cached(&format!("snapshots/{commit}/{WEIGHTS}"));
    let mut damaged = fs::read(&weights).unwrap();
    damaged[2000] ^= 1;
    fs::write(&weights, damaged).unwrap();
    assert!(inspect(&hub, &pinned).await.0);
    assert!(settings.is_file());
    assert_eq!(sha256(&fs::read(&weights).unwrap()), sha256(&hub.held.lock().unwrap().files[WEIGHTS]));
    hub.asked();
    assert!(inspect(&hub, &pinned).await.0);
    assert!(hub.asked().is_empty(), "all of it is there");
}

#[tokio::test]
async fn a_transfer_that_broke_off_is_taken_up_and_held_against_its_digest() {
    let hub = hub().await;
    let bytes = hub.held.lock().unwrap().files[WEIGHTS].clone();
    let part = hub.cached(&format!("blobs/{}.part", sha256(&bytes)));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    // What came the first time is another file's.
    fs::write(&part, vec![0; 1000]).unwrap();
    refused(&hub, MODEL, "came damaged").await;
    assert!(!hub.cached(&format!("snapshots/{}/{WEIGHTS}", "1a".repeat(20))).exists());
    fs::write(&part, &bytes[..1000]).unwrap();
    hub.asked();
    let (well, said) = inspect(&hub, MODEL).await;
    assert!(well, "{said}");
    let asked = hub.asked();
    assert!(asked.contains(&format!("{WEIGHTS} bytes=1000-")), "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.starts_with("config.json")), "{asked:?}");
}

#[tokio::test]
async fn a_gated_model_needs_the_right_token() {
    let hub = hub().await;
    hub.held.lock().unwrap().token = Some("right".to_owned());
    refused(&hub, MODEL, "there is no token").await;
    let mut wrong = hub.karat(&["inspect", MODEL]);
    wrong.env("HF_TOKEN", "wrong");
    let (well, error) = run(wrong).await;
    assert!(!well && error.contains("401") && error.contains("the token in use doesn't open it"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    fs::write(hub.home.path().join("token"), "right\n").unwrap();
    assert!(inspect(&hub, MODEL).await.0);
}

#[tokio::test]
async fn what_can_not_be_had_is_told_before_anything_is_fetched() {
    let hub = hub().await;
    refused(&hub, "org/another", "has no org/another").await;
    refused(&hub, "./no/such/folder", "no such folder").await;
    hub.held.lock().unwrap().sizes.insert(WEIGHTS.to_owned(), 1 << 60);
    hub.asked();
    refused(&hub, MODEL, "make room").await;
    assert_eq!(hub.asked(), [format!("/api/models/{MODEL}/revision/main")]);
    hub.held.lock().unwrap().files.remove(WEIGHTS);
    refused(&hub, MODEL, "no checkpoint of Transformers").await;
    let mut offline = hub.karat(&["inspect", MODEL]);
    offline.env("HF_HUB_OFFLINE", "1");
    let (well, error) = run(offline).await;
    assert!(!well && error.contains("HF_HUB_OFFLINE is set"), "{error}");
    hub.stop();
    // Until the socket is closed, a connection may be taken and dropped.
    refused(&hub, MODEL, "can't be reached").await;
}

#[tokio::test]
async fn a_manifest_is_written_beside_the_cache_and_not_into_it() {
    let hub = hub().await;
    let place = tempfile::tempdir().unwrap();
    let mut write = hub.karat(&["inspect", &format!("mine={MODEL}"), "--write"]);
    write.current_dir(place.path());
    let (well, said) = run(write).await;
    assert!(well, "{said}");
    let written = fs::read_to_string(place.path().join("mine/model.toml")).unwrap();
    assert!(written.contains(&format!("checkpoint = \"hub:{MODEL}@{}\"", "1a".repeat(20))), "{written}");
}

#[cfg(feature = "offline")]
#[tokio::test]
async fn a_file_is_scored_by_a_model_of_the_hub() {
    let hub = hub().await;
    let expected = fs::read(root().join("tests/checkpoints/qwen3/expected.json")).unwrap();
    let case = serde_json::from_slice::<Value>(&expected).unwrap()["cases"][0].clone();
    let place = tempfile::tempdir().unwrap();
    let (input, output) = (place.path().join("in.jsonl"), place.path().join("out.jsonl"));
    fs::write(&input, json!({ "messages": case["messages"] }).to_string()).unwrap();
    let (from, to) = (input.to_str().unwrap(), output.to_str().unwrap());
    let (well, said) = run(hub.karat(&["score", from, "--output", to, "--model", MODEL])).await;
    assert!(well, "{said}");
    let scored: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
    let (found, wanted) = (scored["reward"].as_f64().unwrap(), case["reward"].as_f64().unwrap());
    assert!((found - wanted).abs() < 1e-4, "{scored}");
}
