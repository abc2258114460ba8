//! Hugging Face checkpoints as they lie on the disk: each gives the scores that Transformers recorded for it, alone and
//! in company (`tests/checkpoints/record*.py`), and depends on no file once it is ready.

mod half;
mod inspect;
mod logits;
mod objectives;
mod references;

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

/// What a trainer saves beside a head to normalise its scores is applied where the configuration says so.
#[tokio::test]
async fn scores_are_normalised_as_the_configuration_says() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder).starts_with("beaver")).collect();
    assert_eq!(folders.len(), 2);
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let cases = cases(folder);
        let inputs: Vec<Value> = cases.iter().map(input).collect();
        let reply = server.post(&json!({ "model": name(folder), "inputs": inputs })).await;
        let wanted: Vec<f64> = serde_json::from_slice(&fs::read(folder.join("normalised.json")).unwrap()).unwrap();
        assert_close(&name(folder), &reply.rewards(), &wanted);
    }
}

#[tokio::test]
async fn a_model_of_pairs_is_asked_in_both_orders() {
    let folder = root().join("tests/checkpoints/pair-preference");
    let server = Server::of(&repository(std::slice::from_ref(&folder))).await;
    let recorded: Value = serde_json::from_slice(&fs::read(folder.join("pairs.json")).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    let content = |case: &Value, turn: usize| case["messages"][turn]["content"].clone();
    let pair = |case| json!({ "prompt": content(case, 0), "chosen": content(case, 1), "rejected": content(case, 2) });
    let pairs: Vec<Value> = cases.iter().map(pair).collect();
    let reply = server.post_to("/v1/compare", &json!({ "model": "pair-preference", "pairs": pairs })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    for (result, case) in reply.body["results"].as_array().unwrap().iter().zip(cases) {
        let numbers = |list: &Value| -> Vec<f64> {
            list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        assert_close("pair-preference", &numbers(&result["orders"]), &numbers(&case["orders"]));
        assert_close("pair-preference", &[result["judged"]["reward"].as_f64().unwrap()], &wanted(case));
    }
}

/// The prompt is known when a second candidate comes, and the gate stands in it.
#[tokio::test]
async fn a_gate_in_a_prompt_that_is_known_is_read_again() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "armorm").collect();
    let server = Server::of(&repository(&folders)).await;
    let case = &cases(&folders[0])[2];
    let mut other = case.clone();
    other["messages"][3]["content"] = json!("103");
    score(&server, "armorm", &[&other]).await;
    assert_close("armorm", &score(&server, "armorm", &[case]).await[0], &wanted(case));
}

#[tokio::test]
async fn a_text_without_the_mark_of_its_gate_is_refused_and_others_are_not() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "qrm").collect();
    let server = Server::of(&repository(&folders)).await;
    let reply = server.post(&json!({ "model": "qrm", "inputs": [{ "text": "Hello!" }] })).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    assert!(reply.text.contains("gate_mark") && reply.text.contains("<|start_header_id|>assistant"), "{}", reply.text);
    let case = &cases(&folders[0])[0];
    assert_close("qrm", &score(&server, "qrm", &[case]).await[0], &wanted(case));
}

/// A token that has to be last counts, and stays whatever is cut.
#[tokio::test]
async fn a_token_that_every_sample_ends_with_is_counted_and_never_cut() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "internlm2-reward").collect();
    let repository = repository(&folders);
    let manifest = |most: usize| {
        format!(
            "[graph]\ncheckpoint = \".\"\n[text]\nrender = \"chat_template\"\nlast_token = \
             \"[UNUSED_TOKEN_130]\"\ntruncation = \"response_end\"\nmax_tokens = {most}\n"
        )
    };
    let short = &cases(&folders[0])[4];
    let tokens = short["tokens"].as_array().unwrap().len();
    repository.write("internlm2-reward", "model.toml", manifest(tokens));
    fs::remove_file(repository.path().join("internlm2-reward/expected.json")).unwrap();
    let server = Server::of(&repository).await;
    // The same dialogue with one more letter is cut to the one that was recorded.
    let mut long = short.clone();
    long["messages"][1]["content"] = json!("Hello!");
    let reply = server.post(&json!({ "model": "internlm2-reward", "inputs": [input(&long), input(short)] })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_close("internlm2-reward", &reply.rewards(), &[wanted(short)[0], wanted(short)[0]]);
}

/// Numbers that are read elsewhere look right and mean nothing.
#[tokio::test]
async fn a_manifest_that_leaves_out_what_a_model_needs_is_refused() {
    let needs = [("armorm", "gate_mark"), ("internlm2-reward", "last_token")];
    let wanted = ["armorm", "internlm2-reward", "ultrarm"];
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| wanted.contains(&&*name(folder))).collect();
    let repository = repository(&folders);
    let text = "[text]\nrender = \"chat_template\"\nmax_tokens = 128\n";
    let gated = "head = { attributes = { names = [\"a\", \"b\", \"c\"], weights = \"gating\" } }\n[graph]\n\
                 checkpoint = \".\"\noutput = [\"scores\", \"gates\"]\n";
    repository.write("armorm", "model.toml", format!("{gated}{text}"));
    repository.write("internlm2-reward", "model.toml", format!("[graph]\ncheckpoint = \".\"\n{text}"));
    let server = Server::of(&repository).await;
    for (model, key) in needs {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert!(card["reason"].as_str().is_some_and(|reason| reason.contains(key)), "{card}");
    }
}

#[tokio::test]
async fn steps_that_are_no_part_of_one_text_have_to_come_as_turns() {
    let steps = ["rlhflow-prm", "trl-prm"];
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| steps.contains(&&*name(folder))).collect();
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let reply = server.post(&json!({ "model": name(folder), "inputs": [{ "text": "1 + 1 = 2." }] })).await;
        assert_eq!(reply.status, 422, "{}", reply.text);
        assert!(reply.text.contains("steps that are written one by one"), "{}", reply.text);
        let case = &cases(folder)[0];
        let question = &case["messages"][0]["content"];
        let list = json!({ "prompt": question, "steps": ["3 + 4 = 7.", "7 - 2 = 5.", "The answer is 5."] });
        let reply = server.post_to("/v1/process", &json!({ "model": name(folder), "inputs": [list] })).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let scores = reply.body["results"][0]["scores"].as_array().unwrap();
        let found: Vec<f64> = scores.iter().map(|score| score.as_f64().unwrap()).collect();
        assert_close(&name(folder), &found, &wanted(case));
    }
}

#[tokio::test]
async fn a_window_ends_where_it_should_behind_a_beginning_that_is_shared_or_cached() {
    let windowed = ["mistral-window", "gemma2-window", "gemma3", "olmo3", "phi3-window", "smollm3-window"];
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| windowed.contains(&&*name(folder))).collect();
    assert_eq!(folders.len(), windowed.len());
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let (model, cases) = (name(folder), cases(folder));
        // The last three are answers to one question, which is longer than the window.
        let [first, others @ ..] = &cases[cases.len() - 3..] else { panic!("{model} has three cases") };
        assert_close(&model, &score(&server, &model, &[first]).await[0], &wanted(first));
        for (found, case) in score(&server, &model, &others.iter().collect::<Vec<_>>()).await.iter().zip(others) {
            assert_close(&model, found, &wanted(case));
        }
        let cached = server.metric(&format!("karat_prefix_cached_tokens_total{{model=\"{model}\"}}"));
        assert!(cached >= 2 * 64, "{model} took {cached} tokens from the cache");
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
async fn several_sessions_share_a_checkpoint_and_change_no_score() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "qwen2-math-rm").collect();
    let repository = repository(&folders);
    let manifest = "[graph]\ncheckpoint = \".\"\noutput = \"scores\"\n[text]\nrender = \"chat_template\"\n\
                    max_tokens = 128\n[scheduling]\nsessions = 2\nthreads = 1\n";
    repository.write("qwen2-math-rm", "model.toml", manifest);
    let server = Server::of(&repository).await;
    let cases = cases(&folders[0]);
    for _ in 0..3 {
        for (found, case) in score(&server, "qwen2-math-rm", &cases.iter().collect::<Vec<_>>()).await.iter().zip(&cases)
        {
            assert_close("qwen2-math-rm", found, &wanted(case));
        }
    }
}

#[tokio::test]
async fn an_encoder_of_one_session_scores_like_one_of_several() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "bert").collect();
    let cases = cases(&folders[0]);
    for scheduling in ["sessions = 1", "sessions = 1\nthreads = 2", "sessions = 2", "threads = 64"] {
        let repository = repository(&folders);
        let manifest = format!(
            "[graph]\ncheckpoint = \".\"\n[text]\nrender = \"pair\"\nmax_tokens = 258\n[scheduling]\n{scheduling}\n"
        );
        repository.write("bert", "model.toml", manifest);
        let server = Server::of(&repository).await;
        for (found, case) in score(&server, "bert", &cases.iter().collect::<Vec<_>>()).await.iter().zip(&cases) {
            assert_close(scheduling, found, &wanted(case));
        }
    }
}

#[tokio::test]
async fn a_version_tells_which_weights_were_read() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "qwen3").collect();
    let repository = repository(&folders);
    let version = async || Server::of(&repository).await.get("/v1/models/qwen3").await.body["version"].clone();
    let before = version().await;
    assert!(before.is_string() && before == version().await);
    let weights = repository.path().join("qwen3/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The lowest bit of the last number.
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(before, version().await);
}

#[tokio::test]
async fn samples_beyond_a_checkpoints_positions_are_refused_without_a_trial() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "bert").collect();
    let repository = repository(&folders);
    let manifest = "[graph]\ncheckpoint = \".\"\noutput = \"logits\"\n[text]\nrender = \"pair\"\nmax_tokens = 131072\n";
    repository.write("bert", "model.toml", manifest);
    let server = Server::of(&repository).await;
    let card = server.get("/v1/models/bert").await.body;
    let reason = card["reason"].as_str().unwrap();
    assert!(reason.contains("text.max_tokens") && reason.contains("positions for"), "{reason}");
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

/// What a manifest names from its own folder is found wherever the server was started.
#[cfg(feature = "offline")]
#[test]
fn a_repository_may_be_named_from_where_the_server_is_started() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "mistral").collect();
    let repository = repository(&folders);
    repository.write(
        "other",
        "model.toml",
        "[graph]\ncheckpoint = \"../mistral\"\n[text]\nrender = \"chat_template\"\nmax_tokens = 128\n",
    );
    let line = json!({"prompt": "Hi", "response": "Hello!"});
    repository.write("samples", "in.jsonl", format!("{line}\n"));
    let score = |models: &str, output: &str| {
        let told = karat(&["score", "samples/in.jsonl", "--output", output, "--models", models, "--model", "other"])
            .current_dir(repository.path())
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        fs::read_to_string(repository.path().join(output)).unwrap()
    };
    let whole = repository.path().to_str().unwrap().to_owned();
    assert_eq!(score(".", "one.jsonl"), score(&whole, "two.jsonl"));
}
