//! Adapters that can't be merged: what stands in the way is told by its name, all of it at once.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_checkpoint::{Checkpoint, CheckpointError, Origin};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of the recorded base and one of its adapters, beside each other.
struct Folders(TempDir);

impl Folders {
    fn of(adapter: &str) -> Self {
        let folders = Self(TempDir::new().unwrap());
        for (name, copy) in [("base", "base"), (adapter, "adapter")] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/adapters").join(name);
            fs::create_dir(folders.path(copy)).unwrap();
            for file in fs::read_dir(source).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), folders.path(copy).join(file.file_name())).unwrap();
            }
        }
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Changes keys of a JSON file.
    fn configure(self, file: &str, changes: &Value) -> Self {
        let mut config: Value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        fs::write(self.path(file), config.to_string()).unwrap();
        self
    }

    fn read(&self) -> Result<Checkpoint, CheckpointError> {
        let far = |name: &str, revision: Option<&str>| Err(format!("{name} at {revision:?} is far away"));
        Checkpoint::read(&Origin::of(&self.path("adapter"), &far)?)
    }

    fn error(&self) -> CheckpointError {
        self.read().err().unwrap()
    }

    /// Gives the saved head a name that is none of a head's.
    fn behead(self) -> Self {
        let weights = self.path("adapter/adapter_model.safetensors");
        let bytes = fs::read(&weights).unwrap();
        let name = b"base_model.model.score.weight";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        let renamed = [&bytes[..at], b"base_model.model.other.weight", &bytes[at + name.len()..]].concat();
        fs::write(&weights, renamed).unwrap();
        self
    }

    /// What stands in the way, all of which is to be named.
    fn refused(&self, names: &[&str]) {
        let error = self.error();
        assert_eq!(error.problems.len(), names.len(), "{error}");
        for name in names {
            assert!(error.to_string().contains(name), "{name} is not in {error}");
        }
    }
}

const CONFIG: &str = "adapter/adapter_config.json";

#[test]
fn settings_that_change_the_arithmetic_are_refused_by_name() {
    let folders = Folders::of("patterns").configure(
        CONFIG,
        &json!({
            "lora_bias": true, "layer_replication": [[0, 1]], "trainable_token_indices": [3], "new_in_peft": 2,
            "init_lora_weights": "pissa", "alpha_pattern": {"q_(proj": 3}, "peft_type": "IA3",
        }),
    );
    folders.refused(&[
        "lora_bias = true",
        "layer_replication",
        "trainable_token_indices",
        "new_in_peft",
        "\"pissa\" changes the base",
        "alpha_pattern: \"q_(proj\"",
        "\"IA3\"",
    ]);
    Folders::of("patterns").configure(CONFIG, &json!({"use_dora": true})).refused(&["use_dora is true"]);
}

#[test]
fn a_random_head_is_no_reward() {
    let error = Folders::of("patterns").behead().error().to_string();
    assert!(error.contains("no reward head"), "{error}");
}

#[test]
fn another_base_is_noticed() {
    let folders = Folders::of("dora");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints/internlm2");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(other.join(file), folders.path("base").join(file)).unwrap();
    }
    let error = folders.error().to_string();
    assert!(error.contains("changes model.layers.0.self_attn.q_proj.weight, which its base doesn't have"), "{error}");
}

#[test]
fn a_base_is_looked_for_at_its_path_then_beside_the_adapter_then_in_the_hub() {
    let beside = Folders::of("saved").configure(CONFIG, &json!({"base_model_name_or_path": "/home/train/run-3/base"}));
    assert!(beside.read().is_ok());
    let far = json!({"base_model_name_or_path": "org/llama", "revision": "v2"});
    Folders::of("saved").configure(CONFIG, &far).refused(&["org/llama at Some(\"v2\") is far away"]);
    Folders::of("saved").configure(CONFIG, &json!({"base_model_name_or_path": null})).refused(&["lacks base_model"]);
}

#[test]
fn half_an_adapter_is_refused() {
    let folders = Folders::of("dora");
    fs::remove_file(folders.path("adapter/adapter_model.safetensors")).unwrap();
    let error = folders.error().to_string();
    assert!(error.contains("there is no adapter_model.safetensors"), "{error}");
    fs::copy(folders.path("base/model.safetensors"), folders.path("adapter/model.safetensors")).unwrap();
    let error = folders.error().to_string();
    assert!(error.contains("both an adapter and the weights of a whole model"), "{error}");
}

#[test]
fn logits_from_a_table_that_an_adapter_changes_are_refused() {
    let language_model = json!({"task_type": "CAUSAL_LM"});
    let error = Folders::of("embeddings").configure(CONFIG, &language_model).behead().error().to_string();
    assert!(error.contains("changes model.embed_tokens.weight, and the logits are taken from the table"), "{error}");
}

/// An adapter of a language model with a value head beside it, as trainers save it, and a copy of it.
fn with_value_heads() -> Folders {
    let folders = Folders::of("patterns").configure(CONFIG, &json!({"task_type": "CAUSAL_LM"}));
    let file = folders.path("adapter/adapter_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let low_rank = tensors.tensors().into_iter().filter(|(name, _)| !name.ends_with("score.weight"));
    safetensors::serialize_to_file(low_rank, None, &file).unwrap();
    let zeros = [0; 64];
    let head = TensorView::new(Dtype::F32, vec![1, 16], &zeros).unwrap();
    let beside = folders.path("adapter/value_head.safetensors");
    safetensors::serialize_to_file([("v_head.summary.weight", head)], None, &beside).unwrap();
    fs::create_dir(folders.path("second")).unwrap();
    for entry in fs::read_dir(folders.path("adapter")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folders.path("second").join(entry.file_name())).unwrap();
    }
    folders
}

fn together(folders: &Folders) -> Result<Checkpoint, CheckpointError> {
    let far = |_: &str, _: Option<&str>| Err("it is far away".to_owned());
    let adapters = ["adapter", "second"].map(|name| Origin::of(&folders.path(name), &far).unwrap());
    Checkpoint::read(&Origin::ensemble(folders.0.path(), &adapters)?)
}

#[test]
fn members_have_heads_of_their_own_over_weights_that_are_there_once() {
    let checkpoint = together(&with_value_heads()).unwrap();
    let count = |name: &str| checkpoint.graph().tensors.iter().filter(|tensor| tensor.name == name).count();
    assert_eq!((count("0:v_head.summary.weight"), count("1:v_head.summary.weight")), (1, 1));
    // The one is trained on, the other isn't.
    assert_eq!((count("model.layers.0.mlp.down_proj.weight"), count("model.layers.0.mlp.gate_proj.weight")), (1, 1));
    assert!(checkpoint.reasons().iter().any(|reason| reason.contains("2 members, adapter, second")));
}

#[test]
fn members_read_the_same_tokens_and_were_trained_for_the_same_task() {
    let folders = with_value_heads();
    let base = fs::read_to_string(folders.path("base/tokenizer.json")).unwrap();
    fs::write(folders.path("second/tokenizer.json"), base.replace("<s>", "<t>")).unwrap();
    let folders = folders.configure("second/adapter_config.json", &json!({"task_type": "SEQ_CLS"}));
    let error = together(&folders).unwrap_err().to_string();
    assert!(error.contains("tokenizers that differ") && error.contains("another task_type"), "{error}");
    // The model's folder may say which tokenizer is meant.
    fs::write(folders.path("tokenizer.json"), base).unwrap();
    assert!(!together(&folders).unwrap_err().to_string().contains("tokenizers"));
}
