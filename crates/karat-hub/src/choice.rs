//! Which files of a model are needed: what decides its scores and what says its licence, and never code.

use std::collections::BTreeSet;

/// The one file in a folder of its own that is read.
const TEMPLATE: &str = "additional_chat_templates/default.jinja";
/// What is needed wherever it is there.
const ALWAYS: &[&str] = &[
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "adapter_config.json",
    TEMPLATE,
    "chat_template.jinja",
    "config.json",
    "expected.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A format of weights, and what its files are called.
struct Format {
    ending: &'static str,
    whole: &'static str,
    index: &'static str,
}

/// The formats, the preferred one first.
const FORMATS: &[Format] = &[
    Format { ending: "safetensors", whole: "model.safetensors", index: "model.safetensors.index.json" },
    Format { ending: "bin", whole: "pytorch_model.bin", index: "pytorch_model.bin.index.json" },
];

/// The needed files among those of a model that aren't in a folder of it; `None` when there is nothing to serve.
pub(crate) fn needed<'a>(names: impl Iterator<Item = &'a str>) -> Option<Vec<&'a str>> {
    let names: BTreeSet<&str> = names.filter(|name| !name.contains('/') || *name == TEMPLATE).collect();
    let mut needed: Vec<&str> = names.iter().copied().filter(|name| ALWAYS.contains(name)).collect();
    let is_adapter = names.contains("adapter_config.json");
    if !is_adapter && !names.contains("config.json") {
        return None;
    }
    let weights = FORMATS.iter().map(|format| format.weights(&names, is_adapter)).find(|found| !found.is_empty())?;
    needed.extend(weights);
    let head = FORMATS.iter().find_map(|format| names.get(format!("value_head.{}", format.ending).as_str()));
    needed.extend(head);
    needed.sort_unstable();
    needed.dedup();
    Some(needed)
}

impl Format {
    fn weights<'a>(&self, names: &BTreeSet<&'a str>, is_adapter: bool) -> Vec<&'a str> {
        let named = |name: &str| names.get(name).copied();
        if is_adapter {
            return named(&format!("adapter_model.{}", self.ending)).into_iter().collect();
        }
        if let Some(index) = named(self.index) {
            // Shards are called after the whole: model-00001-of-00002.safetensors.
            let stem = self.whole.strip_suffix(self.ending).unwrap_or(self.whole).trim_end_matches('.');
            let is_shard = |name: &&str| {
                name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('-') && rest.ends_with(self.ending))
            };
            return names.iter().copied().filter(is_shard).chain([index]).collect();
        }
        named(self.whole).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> String {
        needed(names.iter().copied()).map_or_else(|| "nothing".to_owned(), |names| names.join(" "))
    }

    #[test]
    fn only_what_decides_scores_is_needed() {
        assert_eq!(
            chosen(&[
                "README.md",
                "config.json",
                "modeling_mine.py",
                "model.safetensors",
                "pytorch_model.bin",
                "tokenizer.json",
                "onnx/model.onnx",
                "training_args.bin",
                "tf_model.h5",
                "1_Pooling/config.json",
            ]),
            "config.json model.safetensors tokenizer.json"
        );
        assert_eq!(
            chosen(&["config.json", "pytorch_model.bin", "value_head.bin"]),
            "config.json pytorch_model.bin value_head.bin"
        );
        // Without it nobody knows how images become pixels.
        assert_eq!(
            chosen(&["config.json", "model.safetensors", "preprocessor_config.json"]),
            "config.json model.safetensors preprocessor_config.json"
        );
    }

    #[test]
    fn shards_come_with_their_index() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let names = ["config.json", shards[0], shards[1], "model.safetensors.index.json", "consolidated.safetensors"];
        assert_eq!(chosen(&names), format!("config.json {} {} model.safetensors.index.json", shards[0], shards[1]));
    }

    #[test]
    fn an_adapter_needs_no_model() {
        assert_eq!(
            chosen(&["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "config.json"]),
            "adapter_config.json adapter_model.safetensors config.json"
        );
        assert_eq!(chosen(&["README.md", "weights.gguf"]), "nothing");
        assert_eq!(chosen(&["config.json", "model.gguf"]), "nothing");
    }
}
