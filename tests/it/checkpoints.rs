//! Hugging Face checkpoints as they lie on the disk: each gives the scores that Transformers recorded for it, alone and
//! in company (`tests/checkpoints/record*.py`), and depends on no file once it is ready.

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

/// Objectives that a model's own code reports beside its reward.
#[tokio::test]
async fn heads_that_weigh_objectives_report_them() {
    let folders: Vec<PathBuf> =
        recorded().into_iter().filter(|folder| ["armorm", "qrm", "urm"].contains(&&*name(folder))).collect();
    assert_eq!(folders.len(), 3);
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let (model, cases) = (name(folder), cases(folder));
        let inputs: Vec<Value> = cases.iter().map(input).collect();
        let reply = server.post(&json!({ "model": model, "inputs": inputs, "include": ["objectives"] })).await;
        for (result, case) in reply.body["results"].as_array().unwrap().iter().zip(&cases) {
            let wanted: Vec<f64> =
                case["objectives"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
            let found: Vec<f64> = (1..=wanted.len())
                .map(|number| result["objectives"][format!("objective-{number}")].as_f64().unwrap())
                .collect();
            assert_close(&model, &found, &wanted);
        }
    }
}

/// The distribution that a quantile model's own code reports, with a level of it as the reward.
#[tokio::test]
async fn quantiles_of_the_reward_are_weighed_like_the_reward() {
    let folder = root().join("tests/checkpoints/qrm");
    let repository = repository(std::slice::from_ref(&folder));
    let manifest = |reward: &str| {
        format!(
            "head = {{ quantile = {{ levels = [0.1, 0.3, 0.5, 0.7, 0.9], reward = {reward}, objectives = 3 }} }}\n[graph]\n\
             checkpoint = \"../qrm\"\noutput = [\"quantiles\", \"gates\"]\n[text]\nrender = \"chat_template\"\nmax_tokens = 256\n\
             gate_mark = \"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n\"\n"
        )
    };
    repository.write("mean", "model.toml", manifest("\"mean\""));
    repository.write("cautious", "model.toml", manifest("{ level = 0.1 }"));
    let server = Server::of(&repository).await;
    let cases = cases(&folder);
    let recorded: Vec<Vec<f64>> = serde_json::from_slice(&fs::read(folder.join("quantiles.json")).unwrap()).unwrap();
    let inputs: Vec<Value> = cases.iter().map(input).collect();
    for model in ["mean", "cautious"] {
        let reply = server.post(&json!({ "model": model, "inputs": inputs, "include": ["quantiles"] })).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for ((result, case), recorded) in reply.body["results"].as_array().unwrap().iter().zip(&cases).zip(&recorded) {
            let quantiles = result["quantiles"].as_array().unwrap();
            let values: Vec<f64> = quantiles.iter().map(|quantile| quantile["reward"].as_f64().unwrap()).collect();
            assert_close(model, &values, recorded);
            assert_eq!((&quantiles[0]["level"], quantiles.len()), (&json!(0.1), 5));
            let reward = if model == "mean" { wanted(case) } else { vec![recorded[0]] };
            assert_close(model, &[result["reward"].as_f64().unwrap()], &reward);
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
    assert!(manifest.contains("MB of memory for weights") && manifest.contains("On an NVIDIA GPU"), "{manifest}");
    assert!(
        manifest.contains("its head is value_head") && manifest.contains("divided by their deviation"),
        "{manifest}"
    );
    assert!(manifest.contains("4 of 4 references within 0.0001"), "{manifest}");
    let written = fs::read_to_string(folder.join("model.toml")).unwrap();
    assert!(manifest.ends_with(&written) && written.contains("checkpoint = \".\""), "{written}");
    let (again, error) = inspect(&["--write"]);
    assert!(!again && error.contains("pins digests already"), "{error}");
    assert!(written.contains("[digests]\n\"config.json\" = \"sha256:"), "{written}");
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

#[test]
fn inspect_says_that_a_template_keeps_a_model_from_being_served() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "mistral").collect();
    let repository = repository(&folders);
    let folder = repository.path().join("mistral");
    fs::remove_file(folder.join("expected.json")).unwrap();
    let template = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}";
    repository.write("mistral", "chat_template.jinja", template);
    let inspect = |folder: &str| {
        let mut command = karat(&["inspect", folder]);
        let told = command.current_dir(repository.path()).output().unwrap();
        let (shown, said) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
        (told.status.success(), shown, said)
    };
    let (served, shown, said) = inspect("./mistral");
    assert!(!served && shown.contains("chat_template") && said.contains("date"), "{shown} {said}");
    fs::remove_file(folder.join("chat_template.jinja")).unwrap();
    assert!(inspect("./mistral").0);
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
