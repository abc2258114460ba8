//! Packed rows over HTTP, on the processor: the scores are those of Transformers, whatever a sample comes with, before and
//! behind.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use karat_engine::engine::Engine;

use crate::support::{Repository, Server, Unserved, root};

/// How far a score may be from the one that was recorded, in 32 bits.
const TOLERANCE: f64 = 1e-4;

fn fixtures() -> PathBuf {
    root().join("tests/checkpoints")
}

fn copy(repository: &Repository, name: &str) {
    for file in fs::read_dir(fixtures().join(name)).unwrap() {
        let file = file.unwrap();
        repository.write(name, &file.file_name().to_string_lossy(), fs::read(file.path()).unwrap());
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes keys of a model's configuration.
fn configure(repository: &Repository, name: &str, changes: &Value) {
    let path = repository.path().join(name).join("config.json");
    let mut config = json_of(&path);
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
    // Another model's scores are not expected of it.
    let _ = fs::remove_file(repository.path().join(name).join("expected.json"));
}

/// Has karat write the manifest that a checkpoint gets, and asks for packed rows in it.
fn pack(repository: &Repository, name: &str, scheduling: &str) {
    repository.write_form(name, "packed");
    repository.append(name, "model.toml", format!("\n[scheduling]\n{scheduling}\n").as_bytes());
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], wanted: &[f64]) {
    let close = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= TOLERANCE);
    assert!(close && found.len() == wanted.len(), "{what}: {found:?} is not {wanted:?}");
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn input(case: &Value) -> Value {
    match case.get("messages") {
        Some(messages) => json!({ "messages": messages }),
        None => json!({ "prompt": case["prompt"], "response": case["response"] }),
    }
}

/// What was recorded of a case: a reward, or a probability for each step.
fn wanted(case: &Value) -> Vec<f64> {
    case.get("steps").map_or_else(|| vec![case["reward"].as_f64().unwrap()], numbers)
}

fn found(result: &Value) -> Vec<f64> {
    let steps = result["steps"].get("scores");
    steps.map_or_else(|| vec![result["raw"].as_f64().unwrap()], numbers)
}

#[tokio::test]
async fn every_checkpoint_that_packs_gives_the_scores_of_transformers_alone_and_in_company() {
    let repository = Repository::empty();
    let mut names: Vec<String> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").is_file())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in &names {
        copy(&repository, name);
        pack(&repository, name, "");
    }
    let server = Server::of(&repository).await;
    let mut packed = 0;
    for name in &names {
        let card = server.get(&format!("/v1/models/{name}")).await.body;
        if card["status"] == "failed" {
            assert!(card["reason"].as_str().unwrap().contains("no form of packed rows"), "{name}: {card}");
            continue;
        }
        packed += 1;
        assert_eq!(card["graphs"][0]["packed"], true, "{name}");
        let cases = json_of(&fixtures().join(name).join("expected.json"))["cases"].clone();
        let cases: Vec<&Value> = cases.as_array().unwrap().iter().rev().collect();
        // The last time every score is known.
        for cases in [&cases[..1], &cases[..], &cases[..]] {
            let inputs: Vec<Value> = cases.iter().map(|case| input(case)).collect();
            let reply = server.post(&json!({"model": name, "inputs": inputs, "include": ["steps"]})).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text);
            for (result, case) in reply.body["results"].as_array().unwrap().iter().zip(cases) {
                assert_close(name, &found(result), &wanted(case));
            }
        }
    }
    assert!(packed > 15, "{packed}");
}

/// What a GPU's 16 bits make of a model can be seen without one: nearly the same scores, and not the same.
#[tokio::test]
async fn sixteen_bits_can_be_tried_on_a_processor() {
    const ROUNDED: f64 = 5e-2;
    // A state that is rounded may choose other experts; Transformers in bfloat16 is 0.08 from itself in 32 bits.
    const WITH_EXPERTS: f64 = 0.2;
    let experts = ["mixtral", "qwen3-moe"];
    let names = [&["llama3", "qwen3", "gemma2", "phi3-longrope", "pythia", "glm4"], &experts[..]].concat();
    let repository = Repository::empty();
    for name in names.iter().chain(&["bert"]) {
        copy(&repository, name);
        repository.write_form(name, "rounded");
        // It is held to 32 bits by that file.
        fs::remove_file(repository.path().join(name).join("expected.json")).unwrap();
    }
    let server = Server::of(&repository).await;
    for name in names {
        let expected = json_of(&fixtures().join(name).join("expected.json"));
        let cases = expected["cases"].as_array().unwrap();
        let inputs: Vec<Value> = cases.iter().map(input).collect();
        let reply = server.post(&json!({ "model": name, "inputs": inputs })).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        let gaps: Vec<f64> =
            reply.rewards().iter().zip(cases).map(|(found, case)| (found - wanted(case)[0]).abs()).collect();
        let tolerance = if experts.contains(&name) { WITH_EXPERTS } else { ROUNDED };
        assert!(gaps.iter().all(|gap| *gap <= tolerance), "{name}: {gaps:?}");
        assert!(gaps.iter().any(|gap| *gap > TOLERANCE), "{name} computes in 32 bits: {gaps:?}");
    }
    let card = server.get("/v1/models/bert").await;
    assert!(card.text.contains("encoders have no form of packed rows in 16 bits"), "{}", card.text);
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|at| 4 + (7 * at * at + 3 * at) % 256).collect()
}

fn candidate(number: u32, length: u32) -> Vec<u32> {
    (0..length).map(|at| 4 + (5 * at * at + at + 31 * number) % 256).collect()
}

/// A server that keeps no scores: whatever is asked is computed.
async fn forgetful(repository: &Repository) -> Server {
    let mut unserved = Unserved::new();
    unserved.engine = Arc::new(Engine::new(0));
    (unserved.limits.body_bytes, unserved.limits.buffered_bytes) = (1 << 20, 8 << 20);
    unserved.load(repository).await.unwrap();
    unserved.serve().await
}

/// A prompt's length, the samples that begin with it, and their rewards.
type Recorded = (usize, Vec<Vec<u32>>, Vec<f64>);

/// A server of one checkpoint with a longer context, and what was recorded of it.
async fn long(name: &str, scheduling: &str) -> (Server, Vec<Recorded>) {
    long_after(name, scheduling, |_| ()).await
}

/// The same of a checkpoint that was changed.
async fn long_after(name: &str, scheduling: &str, change: impl FnOnce(&Path)) -> (Server, Vec<Recorded>) {
    let recorded = json_of(&fixtures().join("long.json"));
    let lengths: Vec<u32> = numbers(&recorded["candidates"]).into_iter().map(|length| length as u32).collect();
    let checkpoint = &recorded["checkpoints"][name];
    let repository = Repository::empty();
    copy(&repository, name);
    change(&repository.path().join(name));
    configure(&repository, name, &checkpoint["config"]);
    pack(&repository, name, scheduling);
    let samples = |(length, recorded): (&String, &Value)| {
        let prompt = prompt(length.parse().unwrap());
        let candidates = (0..).zip(&lengths).map(|(number, own)| [&prompt[..], &candidate(number, *own)].concat());
        (prompt.len(), candidates.collect(), numbers(&recorded["candidates"]))
    };
    let samples = checkpoint["prompts"].as_object().unwrap().iter().map(samples).collect();
    (forgetful(&repository).await, samples)
}

/// The rewards of token ids, asked in one request.
async fn rewards(server: &Server, model: &str, ids: &[Vec<u32>]) -> Vec<f64> {
    let reply = server.post_to("/classify", &json!({"model": model, "input_ids": ids})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.body.as_array().unwrap().iter().map(|result| result["embedding"][0].as_f64().unwrap()).collect()
}

fn computed(server: &Server, model: &str) -> u64 {
    server.metric(&format!("karat_prefix_computed_tokens_total{{model=\"{model}\"}}"))
}

#[tokio::test]
async fn best_of_n_shares_a_prompt_of_any_length() {
    for name in ["llama3", "qwen3", "mistral", "gemma2"] {
        let (server, prompts) = long(name, "").await;
        for (length, samples, wanted) in &prompts {
            let before = computed(&server, name);
            assert_close(&format!("{name} {length}"), &rewards(&server, name, samples).await, wanted);
            let all: usize = samples.iter().map(Vec::len).sum();
            let once = all - (samples.len() - 1) * length;
            let added = usize::try_from(computed(&server, name) - before).unwrap();
            assert!(added <= once, "{name} {length}: {added} tokens were computed, and {once} are enough");
        }
        // Everything at once, in passes of at most 2,048 rows.
        let all: Vec<Vec<u32>> = prompts.iter().flat_map(|(_, samples, _)| samples.clone()).collect();
        let shifted: Vec<Vec<u32>> = all.iter().map(|ids| ids.iter().map(|id| 4 + (id + 1) % 256).collect()).collect();
        rewards(&server, name, &shifted).await;
        let wanted: Vec<f64> = prompts.iter().flat_map(|(_, _, wanted)| wanted.clone()).collect();
        assert_close(name, &rewards(&server, name, &all).await, &wanted);
    }
}

#[tokio::test]
async fn blocks_that_hold_one_long_sample_are_enough() {
    // 32 blocks of 32 KiB, and passes that a single sample is too long for.
    let (server, prompts) = long("llama3", "block_memory_mb = 1\nmax_batch_tokens = 300").await;
    let all: Vec<Vec<u32>> = prompts.iter().rev().flat_map(|(_, samples, _)| samples.clone()).collect();
    let wanted: Vec<f64> = prompts.iter().rev().flat_map(|(_, _, wanted)| wanted.clone()).collect();
    for _ in 0..2 {
        assert_close("llama3", &rewards(&server, "llama3", &all).await, &wanted);
    }
}

#[tokio::test]
async fn single_requests_of_one_prompt_share_it_whatever_else_comes() {
    let (server, prompts) = long("qwen3", "").await;
    let samples = prompts.iter().flat_map(|(_, samples, wanted)| samples.iter().zip(wanted));
    let asked = samples.map(|(ids, wanted)| {
        let server = &server;
        async move {
            let found = rewards(server, "qwen3", std::slice::from_ref(ids)).await;
            assert_close("qwen3", &found, &[*wanted]);
        }
    });
    futures_util::future::join_all(asked).await;
    let cached = server.metric("karat_prefix_cached_tokens_total{model=\"qwen3\"}");
    let asked = server.metric("karat_prefix_tokens_total{model=\"qwen3\"}");
    assert!(computed(&server, "qwen3") + cached <= asked);
}

#[tokio::test]
async fn of_several_replicas_the_one_that_knows_a_prompt_scores_its_candidates() {
    let (server, prompts) = long("qwen3", "sessions = 2").await;
    for (length, samples, wanted) in &prompts {
        for (number, (ids, wanted)) in samples.iter().zip(wanted).enumerate() {
            let before = computed(&server, "qwen3");
            assert_close("qwen3", &rewards(&server, "qwen3", std::slice::from_ref(ids)).await, &[*wanted]);
            let known = if number == 0 { 0 } else { length / 256 * 256 };
            let added = usize::try_from(computed(&server, "qwen3") - before).unwrap();
            assert!(added <= ids.len() - known, "{added} of {} tokens were computed anew", ids.len());
        }
    }
}

/// Makes a token's embedding so large that it overflows where the model scales it.
fn overflow(folder: &Path, token: usize) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
    let header: Value = serde_json::from_slice(&rest[..length]).unwrap();
    let table = &header["model.embed_tokens.weight"];
    let [start, end] = [0, 1].map(|at| usize::try_from(table["data_offsets"][at].as_u64().unwrap()).unwrap());
    let row = (end - start) / usize::try_from(table["shape"][0].as_u64().unwrap()).unwrap();
    let first = 8 + length + start + token * row;
    // In 32 bits and in bfloat16 about 3.4e38, which is a number still.
    bytes[first..first + row].fill(0x7f);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_sample_that_overflows_is_told_and_those_beside_it_have_their_scores() {
    const OVERFLOWS: u32 = 3;
    let (server, prompts) = long_after("gemma2", "", |folder| overflow(folder, OVERFLOWS as usize)).await;
    let (_, samples, wanted) = prompts.iter().find(|(length, ..)| *length == 300).unwrap();
    let bad = [&prompt(300)[..], &[OVERFLOWS, 9]].concat();
    let good = samples.iter().zip(wanted).map(|(ids, wanted)| (ids, Some(*wanted)));
    let all: Vec<(&Vec<u32>, Option<f64>)> = good.chain([(&bad, None)]).collect();
    for _ in 0..2 {
        let asked = all.iter().map(|(ids, wanted)| {
            let server = &server;
            async move {
                if let Some(wanted) = wanted {
                    assert_close("beside", &rewards(server, "gemma2", std::slice::from_ref(*ids)).await, &[*wanted]);
                    return;
                }
                let body = json!({"model": "gemma2", "input_ids": [[9, 9], ids]});
                let reply = server.post_to("/classify", &body).await;
                assert!(reply.status == 500 && reply.text.contains("sample 1"), "{}: {}", reply.status, reply.text);
            }
        });
        futures_util::future::join_all(asked).await;
    }
    assert!(server.metric("karat_forward_passes_failed_total{model=\"gemma2\"}") > 0);
    assert_eq!(server.get("/v1/models/gemma2").await.body["status"], "ready", "it serves everything else");
}

/// Makes a sequence classifier a language model: its logits are those of its embeddings, and its score goes unused.
fn as_language_model(repository: &Repository, name: &str) {
    configure(repository, name, &json!({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true}));
    let path = repository.path().join(name).join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, numbers) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header = String::from_utf8(header.to_vec()).unwrap().replace("\"score.weight\"", "\"lm_head.weight\"");
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), numbers].concat()).unwrap();
}

#[tokio::test]
async fn critiques_are_those_that_rows_give_while_samples_are_scored() {
    let repository = Repository::empty();
    let critique = "\n[critique]\nrequest = \"{prompt} {response}\"\nmax_tokens = 24\n";
    for form in ["packed", "rows"] {
        copy(&repository, "llama3");
        as_language_model(&repository, "llama3");
        configure(&repository, "llama3", &json!({"max_position_embeddings": 2048}));
        pack(&repository, "llama3", "");
        let folder = repository.path().join("llama3");
        let manifest = fs::read_to_string(folder.join("model.toml")).unwrap();
        let manifest = manifest.replace("form = \"packed\"", &format!("form = \"{form}\""));
        fs::write(folder.join("model.toml"), manifest + critique).unwrap();
        fs::rename(folder, repository.path().join(form)).unwrap();
    }
    let server = forgetful(&repository).await;
    let cases = json_of(&fixtures().join("llama3/expected.json"))["cases"].clone();
    let inputs: Vec<Value> = cases.as_array().unwrap().iter().map(input).collect();
    // A prompt that fills no block, and one that fills more than one: byte by byte, as the tokenizer reads it.
    for (length, critiques) in [(1, 1), (20, 3), (40, 2)] {
        let ask = |model: &str, temperature: f64| {
            let prompt = "How many bees? ".repeat(length);
            json!({"model": model, "prompt": prompt, "response": "Seven", "critiques": critiques, "seed": 7,
                   "temperature": temperature})
        };
        for temperature in if critiques == 1 { [0.0, 0.9] } else { [0.7, 1.2] } {
            let (rows, packed) = (ask("rows", temperature), ask("packed", temperature));
            let scored = json!({"model": "packed", "inputs": inputs});
            let (rows, packed, beside) = tokio::join!(
                server.post_to("/v1/critique", &rows),
                server.post_to("/v1/critique", &packed),
                server.post(&scored)
            );
            assert_eq!((rows.status, packed.status), (200, 200), "{} {}", rows.text, packed.text);
            assert_eq!(beside.status, 200, "{}", beside.text);
            let texts = |reply: &Value| -> Vec<Value> {
                reply["critiques"].as_array().unwrap().iter().map(|critique| critique["text"].clone()).collect()
            };
            assert_eq!(texts(&packed.body), texts(&rows.body));
            let reward = |reply: &Value| vec![reply["reward"].as_f64().unwrap()];
            assert_close("critique", &reward(&packed.body), &reward(&rows.body));
        }
    }
    assert!(server.metric("karat_prefix_hits_total{model=\"packed\"}") > 0, "the question's blocks are known");
}
