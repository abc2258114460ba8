//! `config.json`, read key by key.
//!
//! Every key that is read is noted. What is left over at the end and could change a score is refused by name: a key
//! that nobody looked at is arithmetic that nobody built.

use std::{cell::RefCell, collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value};

use crate::problems::Problems;

/// What changes no score of a trained model: training, generation, and what the library keeps for itself.
const HARMLESS: &str = "attention_dropout attention_probs_dropout_prob attn_implementation bad_words_ids \
    begin_suppress_tokens bos_token_id cache_implementation classifier_dropout cls_token_id decoder_start_token_id \
    diversity_penalty do_sample dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id \
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing \
    hidden_dropout hidden_dropout_prob initializer_range is_llama_config label2id length_penalty loss mask_token_id \
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions \
    output_hidden_states output_scores prefix pretraining_tp problem_type remove_invalid_values repetition_penalty \
    resid_pdrop return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature \
    tf_legacy_loss tie_weights_ tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version \
    typical_p unk_token_id unsloth_fixed unsloth_version unsloth_training_tokens use_bfloat16 use_cache";

/// No measure of a model is larger; what is written out for each of something has a bound.
const LARGEST_COUNT: usize = 1 << 24;
/// Each layer is some forty nodes of a graph.
pub(crate) const MOST_LAYERS: usize = 1 << 10;

/// Keys that would change the arithmetic of every trunk here unless they hold one of these values.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("chunk_size_feed_forward", &["0"]),
    ("embedding_multiplier", &["1", "1.0"]),
    ("is_causal", &["true"]),
    ("logits_scaling", &["1", "1.0"]),
    ("partial_rotary_factor", &["1", "1.0"]),
    ("residual_multiplier", &["1", "1.0"]),
];

/// A configuration, and which of its keys were read.
#[derive(Debug)]
pub(crate) struct Config {
    text: String,
    values: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads the folder's `config.json`.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("config.json can't be read ({error}): name the folder of a checkpoint"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(values)) => Ok(Self { text, values, read: RefCell::default() }),
            Ok(_) => Err("config.json is no JSON object; save the checkpoint anew".to_owned()),
            Err(error) => Err(format!("config.json can't be read: {error}; save the checkpoint anew")),
        }
    }

    /// Takes the part that reads texts out of a model of several kinds of input: what `text_config` says counts, beside
    /// what the whole says of its class and its labels. Gives whether there is such a part.
    pub(crate) fn open_text(&mut self) -> bool {
        const OF_THE_WHOLE: &[&str] = &["architectures", "id2label", "label2id", "model_type", "num_labels"];
        let Some(Value::Object(text)) = self.values.remove("text_config") else { return false };
        self.values.remove("pad_token_id");
        let own = text.into_iter().filter(|(key, _)| !OF_THE_WHOLE.contains(&key.as_str()));
        self.values.extend(own);
        true
    }

    /// The configuration of a part, where an object of that name holds one.
    pub(crate) fn part(&self, key: &str) -> Option<Self> {
        let values = self.get(key)?.as_object()?.clone();
        Some(Self { text: String::new(), values, read: RefCell::default() })
    }

    /// Fills in what is missing; what is null stays so.
    pub(crate) fn fill_in(&mut self, defaults: &[(&str, u64)]) {
        for (key, value) in defaults {
            self.values.entry(*key).or_insert_with(|| Value::from(*value));
        }
    }

    /// The file, as it was read.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// A key's value; `None` where it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Says that keys are known although their values decide nothing.
    pub(crate) fn know(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// A whole number above 0 that has to be there.
    pub(crate) fn count(&self, key: &str, problems: &mut Problems) -> Option<usize> {
        match self.get(key) {
            None => problems.add(format!("config.json lacks {key}; write a whole number above 0")),
            Some(_) => self.count_or(key, 0, problems).filter(|count| *count > 0),
        }
    }

    /// A whole number above 0, `default` where the key is missing or null.
    pub(crate) fn count_or(&self, key: &str, default: usize, problems: &mut Problems) -> Option<usize> {
        let Some(value) = self.get(key) else { return Some(default) };
        match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count > LARGEST_COUNT => {
                problems.add(format!("config.json: {key} is {count}, and no model has more than {LARGEST_COUNT}"))
            }
            Some(count) if count > 0 => Some(count),
            _ => problems.add(format!("config.json: {key} is {value}; write a whole number above 0")),
        }
    }

    /// Whole numbers above 0, one for each part of a model; `default` where the key is missing or null.
    pub(crate) fn counts_or(&self, key: &str, default: &[usize], problems: &mut Problems) -> Option<Vec<usize>> {
        let Some(value) = self.get(key) else { return Some(default.to_vec()) };
        let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        let counts = value.as_array().map(|list| list.iter().map(count).collect::<Option<Vec<_>>>());
        match counts.flatten() {
            Some(counts) if counts.iter().all(|count| (1..=LARGEST_COUNT).contains(count)) && !counts.is_empty() => {
                Some(counts)
            }
            _ => problems
                .add(format!("config.json: {key} is {value}; write a list of whole numbers from 1 to {LARGEST_COUNT}")),
        }
    }

    /// How many layers there are.
    pub(crate) fn layers(&self, key: &str, problems: &mut Problems) -> Option<usize> {
        let layers = self.count(key, problems)?;
        if layers > MOST_LAYERS {
            return problems.add(format!("config.json: {key} is {layers}, and no model has more than {MOST_LAYERS}"));
        }
        Some(layers)
    }

    /// How many tokens a token sees; all, `None`, where the key is missing or null.
    #[expect(clippy::option_option, reason = "a wrong number is told from no window")]
    pub(crate) fn window(&self, key: &str, problems: &mut Problems) -> Option<Option<usize>> {
        match self.get(key) {
            None => Some(None),
            Some(_) => self.count(key, problems).map(Some),
        }
    }

    /// A number above 0, `default` where the key is missing or null.
    pub(crate) fn positive_or(&self, key: &str, default: f64, problems: &mut Problems) -> Option<f64> {
        let Some(value) = self.get(key) else { return Some(default) };
        positive(key, value, problems)
    }

    /// A number of any sign; `None` where the key is missing or null.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64)
    }

    /// Whether a switch is on; off where the key is missing or null.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A text; `None` where the key is missing or null.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// A token's id; `None` where there is none, which some write as -1.
    pub(crate) fn token(&self, key: &str) -> Option<u32> {
        self.get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
    }

    /// Refuses every key that nobody read and that could change a score.
    pub(crate) fn refuse_leftovers(&self, problems: &mut Problems) {
        let read = self.read.borrow();
        for (key, value) in &self.values {
            let known = read.contains(key) || HARMLESS.split_whitespace().any(|known| known == key);
            if known || key.starts_with('_') || computes_nothing(value) {
                continue;
            }
            match NEUTRAL.iter().find(|(neutral, _)| neutral == key) {
                Some((_, values)) if values.contains(&value.to_string().as_str()) => {}
                Some((_, values)) => {
                    let wanted = values.first().unwrap_or(&"null");
                    problems.add::<()>(format!(
                        "config.json: {key} is {value}, and this architecture takes {wanted} alone"
                    ));
                }
                None => {
                    problems.add::<()>(format!(
                        "config.json: {key} = {value} is not known; remove it if it changes nothing that the model computes"
                    ));
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn of(values: Value) -> Self {
        let Value::Object(values) = values else { panic!("{values} is no object") };
        Self { text: String::new(), values, read: RefCell::default() }
    }
}

/// A number above 0 of an object in the configuration.
pub(crate) fn positive(key: &str, value: &Value, problems: &mut Problems) -> Option<f64> {
    match value.as_f64() {
        Some(number) if number > 0.0 && number.is_finite() => Some(number),
        _ => problems.add(format!("config.json: {key} is {value}; write a number above 0")),
    }
}

/// What is switched off or empty computes nothing.
pub(crate) fn computes_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_nobody_read_are_refused_together() {
        let config = Config::of(json!({
            "hidden_size": 4, "dropout_of_mine": 0.1, "torch_dtype": "bfloat16", "another": [1], "off": false,
            "residual_multiplier": 2.0, "logits_scaling": 1.0, "_name_or_path": "x",
        }));
        let mut problems = Problems::default();
        assert_eq!(config.count("hidden_size", &mut problems), Some(4));
        config.refuse_leftovers(&mut problems);
        let error = problems.finish(Path::new("m"), Some(())).unwrap_err();
        assert_eq!(error.problems.len(), 3, "{error}");
        for key in ["dropout_of_mine", "another", "residual_multiplier"] {
            assert!(error.problems.iter().any(|problem| problem.contains(key)), "{key}: {error}");
        }
    }

    #[test]
    fn a_missing_count_and_a_wrong_one_are_told_apart() {
        let config = Config::of(json!({ "layers": -3 }));
        let mut problems = Problems::default();
        assert_eq!(config.count("layers", &mut problems), None);
        assert_eq!(config.count("heads", &mut problems), None);
        let error = problems.finish::<()>(Path::new("m"), None).unwrap_err().to_string();
        assert!(error.contains("layers is -3") && error.contains("lacks heads"), "{error}");
    }
}
