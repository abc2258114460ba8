//! Low-rank adapters, as PEFT saves them: what one changes in the model that it was trained on.
//!
//! An adapter is merged while the weights are read, in 32 bits, so that the graph is that of a whole model. Its
//! configuration is read as strictly as a model's: a key that nobody looked at is arithmetic that nobody built.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::{Map, Value};

use crate::{
    config::computes_nothing,
    problems::Problems,
    weights::{Changes, Place, Update, Weights},
};

/// The configuration of an adapter.
pub(crate) const CONFIG: &str = "adapter_config.json";

/// What changes nothing once the tensors are there: how they were chosen and trained, and what PEFT keeps for itself.
/// Ranks, biases and saved modules are told by the tensors. `fan_in_fan_out` is for a layer that no trunk here has.
const HARMLESS: &str = "auto_mapping base_model_class bias corda_config ensure_weight_tying eva_config exclude_modules \
    fan_in_fan_out inference_mode layers_pattern layers_to_transform loftq_config lora_dropout megatron_config \
    megatron_core modules_to_save peft_version qalora_group_size r rank_pattern runtime_config target_modules";
/// Where training began, of those that leave the base as it is. Others change it before they start.
const BEGINNINGS: &[&str] = &["true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""];
/// What PEFT puts before every tensor's name.
const WRAPPER: &str = "base_model.model.";
/// Where a tensor's part begins within its name, and what the part is.
const PARTS: &[(&str, Part)] = &[
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_embedding_A", Part::TableDown),
    (".lora_embedding_B", Part::TableUp),
    (".lora_magnitude_vector.weight", Part::Magnitudes),
    (".lora_magnitude_vector", Part::Magnitudes),
];

/// A part of what an adapter adds to one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Down,
    Up,
    TableDown,
    TableUp,
    Magnitudes,
}

/// The name of the model that an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseName {
    /// A path or an id of the Hugging Face Hub.
    pub(crate) name: String,
    /// The id's revision.
    pub(crate) revision: Option<String>,
}

/// An adapter's configuration.
#[derive(Debug)]
pub(crate) struct Adapter {
    folder: PathBuf,
    values: Map<String, Value>,
}

impl Adapter {
    /// Whether a folder holds an adapter.
    pub(crate) fn is_one(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    /// Reads a folder's configuration.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let text =
            fs::read_to_string(folder.join(CONFIG)).map_err(|error| format!("{CONFIG} can't be read: {error}"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(values)) => Ok(Self { folder: folder.to_owned(), values }),
            Ok(_) => Err(format!("{CONFIG} is no JSON object; save the adapter anew")),
            Err(error) => Err(format!("{CONFIG} can't be read: {error}; save the adapter anew")),
        }
    }

    /// What it was trained on.
    pub(crate) fn base(&self) -> Result<BaseName, String> {
        let name = self.text("base_model_name_or_path").filter(|name| !name.is_empty()).ok_or_else(|| {
            format!("{CONFIG} lacks base_model_name_or_path; write the folder or the id of the model it was trained on")
        })?;
        Ok(BaseName { name: name.to_owned(), revision: self.text("revision").map(str::to_owned) })
    }

    /// What classes of the task end with; `None` where the base's own class is meant.
    pub(crate) fn class_ending(&self, problems: &mut Problems) -> Option<&'static str> {
        match self.text("task_type") {
            Some("SEQ_CLS") => Some("ForSequenceClassification"),
            Some("TOKEN_CLS") => Some("ForTokenClassification"),
            None | Some("CAUSAL_LM") => None,
            Some(other) => problems.add(format!(
                "{CONFIG}: task_type {other:?} gives no rewards; known are SEQ_CLS, TOKEN_CLS and CAUSAL_LM"
            )),
        }
    }

    /// Its configuration, as text.
    pub(crate) fn written(&self) -> String {
        Value::Object(self.values.clone()).to_string()
    }

    /// What it changes in the weights of its base.
    pub(crate) fn changes(&self, weights: &Weights, problems: &mut Problems) -> Option<Changes> {
        self.refuse_unknown(problems);
        let alphas = self.alphas(problems);
        let found = Weights::beside(&self.folder, problems)?;
        let mut changes = Changes::default();
        let mut parts: BTreeMap<String, BTreeMap<Part, Place>> = BTreeMap::new();
        for (name, place) in found {
            // A base's own tensor keeps its name below the layer that wraps it.
            let name = name.strip_prefix(WRAPPER).unwrap_or(&name).replace(".base_layer.", ".");
            let name = name.replace(".modules_to_save.", ".");
            match PARTS.iter().find_map(|(ending, part)| Some((name.strip_suffix(ending)?, *part))) {
                Some((module, part)) => {
                    parts.entry(module.to_owned()).or_default().insert(part, place);
                }
                None if name.contains("lora_") => {
                    problems.add::<()>(format!("the adapter's {name} is of a kind that isn't known"));
                }
                None => changes.replaced.push((weights.name_here(&name), place)),
            }
        }
        for (module, mut parts) in parts {
            let table = parts.contains_key(&Part::TableDown);
            let (down, up) = if table { (Part::TableDown, Part::TableUp) } else { (Part::Down, Part::Up) };
            let (Some(down), Some(up)) = (parts.remove(&down), parts.remove(&up)) else {
                problems.add::<()>(format!("the adapter has one half of {module} alone; save it anew"));
                continue;
            };
            let magnitudes = parts.remove(&Part::Magnitudes);
            if magnitudes.is_some() != self.is_on("use_dora") {
                problems.add::<()>(format!(
                    "{CONFIG}: use_dora is {}, and the adapter's tensors say otherwise; save it anew",
                    self.is_on("use_dora")
                ));
            }
            let mut update = Update { down, up, scale: 0.0, magnitudes, table };
            update.scale = self.scale(&alphas, &module, update.rank());
            let name = weights.name_here(&format!("{module}.weight"));
            let found = changes.shape(&name).or_else(|| weights.shape(&name));
            match (found, update.shape()) {
                (None, _) => {
                    problems.add::<()>(format!("the adapter changes {name}, which its base doesn't have"));
                }
                (Some(found), Some(wanted)) if found == wanted => changes.updates.push((name, update)),
                (Some(found), _) => {
                    problems.add::<()>(format!(
                        "the adapter changes {name} by {:?} times {:?}, and its base has it as {found:?}: it was trained \
                         on another model",
                        update.up.shape, update.down.shape
                    ));
                }
            }
        }
        Some(changes)
    }

    /// `α/r`, or `α/√r` where ranks are stabilised (Kalajdzievski 2023, "rsLoRA").
    fn scale(&self, alphas: &[(Regex, f64)], module: &str, rank: usize) -> f32 {
        let own = alphas.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, alpha)| *alpha);
        let alpha = own.or_else(|| self.values.get("lora_alpha").and_then(Value::as_f64)).unwrap_or(0.0);
        let rank = rank as f64;
        let divisor = if self.is_on("use_rslora") { rank.sqrt() } else { rank };
        #[expect(clippy::cast_possible_truncation, reason = "the graph computes in 32 bits")]
        let scale = (alpha / divisor) as f32;
        scale
    }

    /// The modules that have an α of their own, by patterns of which the first that fits decides.
    fn alphas(&self, problems: &mut Problems) -> Vec<(Regex, f64)> {
        if !self.values.get("lora_alpha").is_some_and(Value::is_number) {
            problems.add::<()>(format!("{CONFIG} lacks lora_alpha; write the number that it was trained with"));
        }
        let written = self.values.get("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        let read = written.filter_map(|(key, alpha)| {
            // As PEFT compares them: a pattern stands for the end of a name, from a dot on.
            let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).ok();
            match pattern.zip(alpha.as_f64()) {
                Some(read) => Some(read),
                None => problems.add(format!("{CONFIG}: alpha_pattern: {key:?} = {alpha} can't be read")),
            }
        });
        read.collect()
    }

    fn refuse_unknown(&self, problems: &mut Problems) {
        let kind = self.text("peft_type").unwrap_or_default();
        if kind != "LORA" {
            problems.add::<()>(format!("{CONFIG}: peft_type {kind:?} is not known; known is LORA"));
        }
        for (key, value) in &self.values {
            let read = [
                "alpha_pattern",
                "base_model_name_or_path",
                "lora_alpha",
                "peft_type",
                "revision",
                "task_type",
                "use_dora",
                "use_rslora",
            ];
            let harmless = HARMLESS.split_whitespace().any(|known| known == key) || read.contains(&key.as_str());
            if harmless || computes_nothing(value) {
                continue;
            }
            if key == "init_lora_weights" {
                if !BEGINNINGS.contains(&value.to_string().as_str()) {
                    problems.add::<()>(format!(
                        "{CONFIG}: init_lora_weights = {value} changes the base before training: save the adapter with \
                         path_initial_model_for_weight_conversion, or merge it in PEFT"
                    ));
                }
                continue;
            }
            problems
                .add::<()>(format!("{CONFIG}: {key} = {value} is not known; merge the adapter in PEFT and serve that"));
        }
    }

    /// Whether rows of matrices are scaled after the sum (DoRA).
    pub(crate) fn is_weight_decomposed(&self) -> bool {
        self.is_on("use_dora")
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).and_then(Value::as_str)
    }

    fn is_on(&self, key: &str) -> bool {
        self.values.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
}
