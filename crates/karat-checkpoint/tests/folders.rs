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

    /// Renames tensors.
    fn rename(self, from: &str, to: &str) -> Self {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let (header, numbers) = bytes[8..].split_at(length);
        let header = String::from_utf8(header.to_vec()).unwrap().replace(from, to);
        let written = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), numbers].concat();
        fs::write(self.path("model.safetensors"), written).unwrap();
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
fn what_would_change_every_score_is_refused() {
    Folder::of("oasst-pythia").configure(&json!({"pooling": "mean"})).refused(&["pooling"]);
    Folder::of("gemma3").configure(&json!({"use_bidirectional_attention": true})).refused(&["looks ahead"]);
    Folder::of("llama3").configure(&json!({"partial_rotary_factor": 0.5})).refused(&["partial_rotary_factor is 0.5"]);
    let partial = json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}});
    Folder::of("llama3").configure(&partial).refused(&["turns 4 of 8 dimensions"]);
    let kinds = json!({"layer_types": ["linear_attention", "full_attention", "full_attention"]});
    Folder::of("gemma3").configure(&kinds).refused(&["linear_attention"]);
    let factors = json!({"rope_parameters": {"rope_type": "longrope", "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 2.0], "long_factor": [1.0, 2.0]}});
    Folder::of("phi3-longrope").configure(&factors).refused(&["2 factors for 6 dimensions"]);
    Folder::of("mixtral").configure(&json!({"num_experts_per_tok": 5})).refused(&["5 of 4 experts"]);
    let deberta = Folder::of("deberta-v2-convolution").configure(&json!({"conv_kernel_size": 4}));
    deberta.refused(&["conv_kernel_size 4 is even"]);
}

#[test]
fn tensors_of_another_size_or_that_are_missing_are_told_in_a_line() {
    let folder = Folder::of("mixtral").configure(&json!({"num_local_experts": 6}));
    folder.refused(&[
        "lacks 12 tensors, such as model.layers.0.block_sparse_moe.experts.4.w1.weight",
        "layers.0.block_sparse_moe.gate.weight is [4, 16]",
        "layers.1.block_sparse_moe.gate.weight is [4, 16]",
    ]);
    // A projection of several parts, and one whose rows are put in another order, have to fit as a whole too.
    let fewer = json!({"num_key_value_heads": 1});
    Folder::of("phi3").configure(&fewer).refused(&["0.self_attn.qkv_proj", "1.self_attn.qkv_proj"]);
    let fewer = Folder::of("glm4").configure(&json!({"num_attention_heads": 2, "num_key_value_heads": 2}));
    fewer.refused(&[
        "0.self_attn.o_proj",
        "1.self_attn.o_proj",
        "0.self_attn.q_proj.weight has 32 rows",
        "0.self_attn.q_proj.bias has 32 rows",
        "1.self_attn.q_proj.weight",
        "1.self_attn.q_proj.bias",
    ]);
}

#[test]
fn a_family_is_known_under_all_of_its_names() {
    let tensors = |folder: &Folder| Checkpoint::read(&Origin::whole(folder.0.path())).unwrap().graph().tensors.len();
    // Norms as the first files of BERT's time have them.
    let old =
        Folder::of("bert").rename("LayerNorm.weight", "LayerNorm.gamma").rename("LayerNorm.bias", "LayerNorm.beta");
    assert_eq!(tensors(&old), tensors(&Folder::of("bert")));
    // A language model's class beside a reward's, and both ways in which the part that reads texts is wrapped.
    let plain = Folder::of("gemma3").configure(&json!({"architectures": ["Gemma3ForCausalLM"]}));
    let wrapped = Folder::of("gemma3-wrapped").rename("model.language_model.", "language_model.model.");
    for folder in [plain, wrapped, Folder::of("gemma3-wrapped")] {
        assert_eq!(tensors(&folder), tensors(&Folder::of("gemma3")));
    }
}

#[test]
fn a_manifest_says_what_was_decided() {
    let manifest = |name: &str| read(Folder::of(name).0.path()).unwrap().manifest().unwrap().to_owned();
    let openrlhf = manifest("openrlhf");
    assert!(openrlhf.contains("[transforms.affine]") && openrlhf.contains("scale = 0.331"), "{openrlhf}");
    assert!(manifest("qwen2-math-prm").contains("step_mark = \"<extra_0>\""));
    assert!(manifest("mistral").contains("max_tokens = 256"));
    // A window is no bound, and what longer texts are turned by is.
    assert!(manifest("mistral-window").contains("max_tokens = 256"));
    assert!(manifest("phi3-longrope").contains("max_tokens = 128"));
}

#[test]
fn models_that_do_not_rate_one_answer_are_refused_by_name() {
    let class = |name: &str, class: &str| Folder::of(name).configure(&json!({ "architectures": [class] }));
    class("deberta-v3", "DebertaV2PairRM").refused(&["compares two answers"]);
    class("llama3", "T5ForConditionalGeneration").refused(&["SteamSHP"]);
    let ldl = Folder::of("gemma2");
    fs::write(ldl.path("regression_layer.pt"), b"").unwrap();
    ldl.refused(&["LDL"]);
    let polar = Folder::of("internlm2-reward");
    let path = polar.path("tokenizer.json");
    let written = fs::read_to_string(&path).unwrap();
    fs::write(&path, written.replace("<extra_0>", "<|reward|>")).unwrap();
    polar.refused(&["POLAR"]);
}

#[test]
fn a_token_that_has_to_be_last_must_be_the_tokenizers() {
    Folder::of("internlm2-reward").configure(&json!({"reward_token_id": 92527})).refused(&["reward_token_id is 92527"]);
}

#[test]
fn a_gated_head_must_be_what_the_configuration_says() {
    Folder::of("qrm").configure(&json!({"num_quantiles": null})).refused(&["regression_layer.weight is [15, 16]"]);
    let layers = ["the checkpoint lacks 6 tensors", "gating.layers.8.running_mean", "gating.layers.6.bias"];
    let error = Checkpoint::read(&Origin::whole(Folder::of("qrm").configure(&json!({"gating_n_hidden": 3})).0.path()))
        .unwrap_err();
    for layer in layers {
        assert!(error.to_string().contains(layer), "{layer} is not in {error}");
    }
    Folder::of("armorm")
        .configure(&json!({"gating_temperature": 0}))
        .refused(&["gating_temperature is 0", "no reward head"]);
}

#[test]
fn a_manifest_says_where_a_head_is_read() {
    let manifest = |name: &str| {
        let folder = Folder::of(name);
        let _ = fs::remove_file(folder.path("model.toml"));
        Checkpoint::read(&Origin::whole(folder.0.path()))
            .unwrap()
            .manifest()
            .map(str::to_owned)
            .map_err(|error| error.to_string())
    };
    assert!(manifest("internlm2-reward").unwrap().contains("last_token = \"[UNUSED_TOKEN_130]\""));
    for name in ["armorm", "qrm"] {
        let gated = manifest(name).unwrap();
        assert!(gated.contains("<|start_header_id|>assistant") && gated.contains("\"gates\""), "{gated}");
    }
    let urm = manifest("urm").unwrap();
    assert!(urm.contains("weights = \"gating\"") && !urm.contains("gate_mark"), "{urm}");
    assert!(manifest("skywork-o1-prm").unwrap().contains("steps = \"apart\""));
    // Two numbers a token mean steps to one trainer, and something else to others.
    assert!(manifest("trl-prm").unwrap_err().contains("2 numbers"));
}

#[test]
fn rewards_that_are_to_be_normalised_need_a_mean_and_a_deviation() {
    Folder::of("openrlhf").configure(&json!({"std": 0.0})).refused(&["a std above 0"]);
    Folder::of("openrlhf").configure(&json!({"mean": null})).refused(&["a mean and a std"]);
}

#[test]
fn measures_that_no_model_has_are_refused_before_anything_is_made_of_them() {
    let large = json!({"num_hidden_layers": 1_000_000_000, "max_position_embeddings": 1_u64 << 60});
    Folder::of("llama3").configure(&large).refused(&["num_hidden_layers is 1000000000", "max_position_embeddings is"]);
    Folder::of("llama3").configure(&json!({"num_hidden_layers": 5000})).refused(&["no model has more than 1024"]);
    Folder::of("bert").configure(&json!({"num_hidden_layers": 5000})).refused(&["no model has more than 1024"]);
}
