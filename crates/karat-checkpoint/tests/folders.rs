//! Checkpoint folders that are wrong or damaged: one message that names all that is wrong.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_checkpoint::{Checkpoint, CheckpointError, Origin};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A checkpoint on a machine without a network.
fn read(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::read(&Origin::of(folder, &|_, _| Err("it is far away".to_owned()))?)
}

/// A copy of one of the recorded checkpoints.
struct Folder(TempDir);

impl Folder {
    fn of(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints").join(name);
        let folder = TempDir::new().unwrap();
        for file in fs::read_dir(source).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Changes keys of `config.json`; null removes one.
    fn configure(self, changes: &Value) -> Self {
        let mut config: Value = serde_json::from_slice(&fs::read(self.path("config.json")).unwrap()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            if value.is_null() {
                config.as_object_mut().unwrap().remove(key);
            } else {
                config[key] = value.clone();
            }
        }
        fs::write(self.path("config.json"), config.to_string()).unwrap();
        self
    }

    /// What stands in the way, all of which is to be named.
    fn refused(&self, names: &[&str]) {
        let error = read(self.0.path()).unwrap_err();
        assert_eq!(error.problems.len(), names.len(), "{error}");
        for name in names {
            assert!(error.to_string().contains(name), "{name} is not in {error}");
        }
    }
}

#[test]
fn everything_that_stands_in_the_way_is_told_at_once() {
    let folder = Folder::of("llama3").configure(&json!({
        "hidden_act": "relu6", "my_own_gate": 3, "num_key_value_heads": null, "vocab_size": 100,
        "id2label": {"0": "a", "1": "b"},
    }));
    folder.refused(&["relu6", "my_own_gate"]);
    let folder = folder.configure(&json!({"hidden_act": "silu", "my_own_gate": null}));
    folder.refused(&[
        "k_proj.weight is [16, 16]",
        "v_proj.weight is [16, 16]",
        "layers.1.self_attn.k_proj",
        "layers.1.self_attn.v_proj",
        "embed_tokens.weight is [264, 16]",
        "names 2 labels, and the head has 1 rows",
        "has a token 259, and the embeddings end at 99",
    ]);
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let folder = Folder::of("qwen3");
    let weights = folder.path("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    folder.refused(&["model.safetensors is damaged", "no reward head"]);
    fs::write(&weights, b"tiny").unwrap();
    folder.refused(&["shorter than its own header", "no reward head"]);
    fs::remove_file(&weights).unwrap();
    folder.refused(&["there are no weights"]);
    fs::write(&weights, &bytes).unwrap();
    fs::remove_file(folder.path("tokenizer.json")).unwrap();
    folder.refused(&["tokenizer.json"]);
    fs::remove_file(folder.path("config.json")).unwrap();
    folder.refused(&["config.json can't be read", "tokenizer.json"]);
}

#[test]
fn shards_that_are_missing_are_named() {
    let folder = Folder::of("mistral");
    let index = json!({"weight_map": {"score.weight": "a.safetensors", "x": "b.safetensors"}});
    fs::write(folder.path("model.safetensors.index.json"), index.to_string()).unwrap();
    folder.refused(&["a.safetensors, b.safetensors"]);
    let index = json!({"weight_map": {"score.weight": "model.safetensors", "x": "model.safetensors"}});
    fs::write(folder.path("model.safetensors.index.json"), index.to_string()).unwrap();
    folder.refused(&["names 1 tensors that no file holds, such as x"]);
    fs::remove_file(folder.path("model.safetensors.index.json")).unwrap();
    fs::copy(folder.path("model.safetensors"), folder.path("more.safetensors")).unwrap();
    folder.refused(&["2 .safetensors files"]);
}

#[test]
fn a_second_head_is_not_chosen_from() {
    let folder = Folder::of("llama3");
    fs::copy(Folder::of("grm").path("model.safetensors"), folder.path("value_head.safetensors")).unwrap();
    let error = read(folder.0.path()).unwrap_err().to_string();
    assert!(error.contains("there are 2 heads (score, v_head.summary)"), "{error}");
    assert!(error.contains("is in two files"), "{error}");
}

#[test]
fn code_that_comes_with_a_checkpoint_is_never_needed_silently() {
    let folder = Folder::of("qwen2-math-rm").configure(&json!({"architectures": ["Qwen2ForSomethingElse"]}));
    folder.refused(&["Qwen2ForSomethingElse"]);
    Folder::of("llama3").configure(&json!({"model_type": "gpt_oss"})).refused(&["gpt_oss"]);
}

#[test]
fn a_base_model_has_no_reward() {
    let folder = Folder::of("gemma").configure(&json!({"architectures": ["GemmaForCausalLM"]}));
    // A value head in the file of a language model makes it a reward model, as its trainers save it.
    assert!(read(folder.0.path()).unwrap().manifest().unwrap().contains("scalar"));
}

#[test]
fn a_manifest_says_what_was_decided() {
    let manifest = |name: &str| read(Folder::of(name).0.path()).unwrap().manifest().unwrap().to_owned();
    let openrlhf = manifest("openrlhf");
    assert!(openrlhf.contains("[transforms.affine]") && openrlhf.contains("scale = 0.331"), "{openrlhf}");
    assert!(manifest("qwen2-math-prm").contains("step_mark = \"<extra_0>\""));
    assert!(manifest("mistral").contains("max_tokens = 256"));
}
