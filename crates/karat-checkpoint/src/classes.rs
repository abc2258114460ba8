//! What a checkpoint's class says: what it gives, and where its own code reads a score.
//!
//! Names of known classes are taken at their word. Code that lies beside them is never run.

use std::path::Path;

use crate::{
    config::Config,
    heads::Kind,
    problems::Problems,
    tokens::Tokens,
    trunks::{TRUNKS, Trunk},
};

/// Where a class reads the score of a whole sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// At the last token, whatever it is.
    Last,
    /// At the last token that isn't padding, as Transformers reads today.
    LastOther,
    /// At the token before the first padding token, as it read before.
    BeforeFirst,
}

/// A class and what it gives.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) pooling: Pooling,
}

/// How the names of classes end that are known of every family.
const OF_FAMILIES: &[(&str, Kind, Pooling)] = &[
    ("ForSequenceClassification", Kind::Sequence, Pooling::LastOther),
    ("ForRewardModel", Kind::Sequence, Pooling::Last),
    ("ForTokenClassification", Kind::Token, Pooling::Last),
    ("ForProcessRewardModel", Kind::Token, Pooling::Last),
    ("ForPrmModel", Kind::Token, Pooling::Last),
    ("ForCausalLM", Kind::LanguageModel, Pooling::Last),
    ("ForConditionalGeneration", Kind::LanguageModel, Pooling::Last),
    ("ForRewardModelWithGating", Kind::Sequence, Pooling::BeforeFirst),
    ("ForSequenceClassificationWithNormal_Weights", Kind::Sequence, Pooling::Last),
    ("ForClassification", Kind::Sequence, Pooling::Last),
    ("ForScore", Kind::Sequence, Pooling::Last),
    ("RewardModel", Kind::Sequence, Pooling::Last),
];

/// Classes that don't name their family, and its `model_type`.
const OTHERS: &[(&str, &str, Kind, Pooling)] = &[
    ("INFORMForSequenceClassification", "llama", Kind::Sequence, Pooling::BeforeFirst),
    ("EurusRewardModel", "mistral", Kind::Sequence, Pooling::Last),
];

/// Classes that can't be served, and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "DebertaV2PairRM",
        "it compares two answers in one text and reads three of its tokens, where karat reads one answer at a time",
    ),
    (
        "T5ForConditionalGeneration",
        "it is an encoder with a decoder (SteamSHP), which names the better of two answers that share one prompt",
    ),
];

/// The family that `model_type` names; of one whose classes have several names, the one that fits.
pub(crate) fn family(config: &Config, problems: &mut Problems) -> Option<&'static Trunk> {
    let (model_type, name) = (config.text("model_type").unwrap_or_default(), name(config));
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return problems.add(format!("config.json: the class {name} is not served: {reason}"));
    }
    let mut of_type = TRUNKS.iter().filter(|trunk| trunk.model_type == model_type);
    let family = of_type.clone().find(|trunk| name.starts_with(trunk.class)).or_else(|| of_type.next());
    if family.is_none()
        && let Some(what) = sees_and_reads(config, model_type)
    {
        return problems.add(format!(
            "config.json: model_type {model_type:?} is {what}, and karat serves models that rate images by themselves or \
             compare them with texts, as CLIP, SigLIP and ViT do"
        ));
    }
    family.or_else(|| {
        let mut known: Vec<&str> = TRUNKS.iter().map(|trunk| trunk.model_type).collect();
        known.dedup();
        problems.add(format!("config.json: model_type {model_type:?} is not known; known are {}", known.join(", ")))
    })
}

/// What a model of an unknown type is, where its configuration shows that it takes more than text.
fn sees_and_reads(config: &Config, model_type: &str) -> Option<&'static str> {
    const VIDEO: &[&str] = &["videomae", "vivit", "timesformer", "xclip", "vjepa"];
    if VIDEO.iter().any(|video| model_type.starts_with(video)) || model_type.contains("video") {
        return Some("a model of video");
    }
    let decoder = ["_vl", "llava", "idefics", "paligemma", "mllama", "internvl", "pixtral"];
    let sees = config.get("vision_config").is_some() || decoder.iter().any(|part| model_type.contains(part));
    sees.then_some("a vision-language decoder")
}

/// The class that made the checkpoint; empty where it isn't said.
fn name(config: &Config) -> &str {
    let classes = config.get("architectures").and_then(|classes| classes.as_array());
    classes.and_then(|classes| classes.first()?.as_str()).unwrap_or_default()
}

impl Class {
    /// The class that a configuration of this family names; `task` is what it ends with where an adapter chose one.
    pub(crate) fn read(trunk: &Trunk, config: &Config, task: Option<&str>, problems: &mut Problems) -> Option<Self> {
        let model_type = trunk.model_type;
        let name = task.map_or_else(|| name(config).to_owned(), |task| format!("{}{task}", trunk.class));
        config.know(&["auto_map"]);
        let of_family = OF_FAMILIES.iter().find(|(suffix, ..)| name.strip_suffix(suffix) == Some(trunk.class));
        let other = OTHERS.iter().find(|(other, family, ..)| *other == name && *family == model_type);
        let found = of_family.map(|(_, kind, pooling)| (*kind, *pooling));
        let Some((kind, pooling)) = found.or_else(|| other.map(|(_, _, kind, pooling)| (*kind, *pooling))) else {
            let of_family = OF_FAMILIES.iter().map(|(suffix, ..)| format!("{}{suffix}", trunk.class));
            let others = OTHERS.iter().filter(|(_, family, ..)| *family == model_type);
            let wanted: Vec<String> = of_family.chain(others.map(|(other, ..)| (*other).to_owned())).collect();
            return problems.add(format!(
                "config.json: the class {name:?} is not known, and code that comes with a checkpoint is never run; \
                 known are {}",
                wanted.join(", ")
            ));
        };
        Some(Self { name, kind, pooling })
    }
}

/// Refuses models whose class is a known one's and whose folder shows that they are others.
pub(crate) fn refuse_namesakes(folder: &Path, tokens: &Tokens, problems: &mut Problems) {
    if folder.join("regression_layer.pt").is_file() {
        problems.add::<()>(
            "the head lies in pickles (regression_layer.pt: an LDL reward model), which can run code and are not read",
        );
    }
    if tokens.knows("<|reward|>") {
        problems.add::<()>(
            "the tokenizer has the token <|reward|>: this is POLAR, which rates an answer by a reference answer, and \
             karat sends one answer at a time",
        );
    }
}
