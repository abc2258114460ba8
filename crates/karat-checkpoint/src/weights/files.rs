//! Which files of a folder hold its weights.
//!
//! safetensors are preferred where both formats are there: nothing can hide in them, and their headers are read faster.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Format, file_name};
use crate::problems::Problems;

/// The formats, the preferred one first.
const FORMATS: [Format; 2] = [Format::Safetensors, Format::Pickle];
/// What trainers leave beside a model and that holds no weights of it.
const NO_WEIGHTS: &[&str] = &["training_args", "optimizer", "scheduler", "scaler", "rng_state", "trainer_state"];
/// What trainers call a value head that lies beside the model.
const SIDE_HEAD: &str = "value_head";
/// Weights of an adapter, which are read with its configuration.
const ADAPTER: &str = "adapter_model";

/// The weight files of a folder.
pub(super) struct Files {
    pub(super) paths: Vec<(PathBuf, Format)>,
    /// The index, and the tensors that it promises.
    pub(super) promised: Option<(&'static str, Vec<String>)>,
}

impl Files {
    /// Finds those of a model.
    pub(super) fn find(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let names = names(folder, problems)?;
        let Some(format) = FORMATS.into_iter().find(|format| format.is_in(&names)) else {
            return problems.add(
                "there are no weights (*.safetensors, or *.bin and *.pt as torch.save writes them); fetch them, or load \
                 the checkpoint in Transformers and call save_pretrained(folder)",
            );
        };
        let (mut whole, promised) = match names.get(format.index()) {
            Some(_) => {
                let (shards, tensors) = problems.take(index(folder, format.index()))?;
                let missing: Vec<&str> = shards.difference(&names).map(String::as_str).collect();
                if !missing.is_empty() {
                    return problems.add(format!(
                        "{} names files that are missing: {}; fetch them",
                        format.index(),
                        missing.join(", ")
                    ));
                }
                (shards.into_iter().collect(), Some((format.index(), tensors)))
            }
            None => (format.only(&names, problems)?, None),
        };
        whole.extend(preferred(SIDE_HEAD, &names));
        Some(Self { paths: in_folder(folder, &whole), promised })
    }

    /// Finds those of an adapter, and of a value head that was trained with it.
    pub(super) fn of_adapter(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let names = names(folder, problems)?;
        if let Some(whole) = FORMATS.into_iter().find(|format| format.is_in(&names)) {
            return problems.add(format!(
                "there are both an adapter and the weights of a whole model ({}); remove adapter_config.json, or the \
                 weights",
                whole.ending()
            ));
        }
        let Some(adapter) = preferred(ADAPTER, &names) else {
            return problems.add("there is no adapter_model.safetensors; fetch it, or save the adapter anew");
        };
        let whole: Vec<String> = [Some(adapter), preferred(SIDE_HEAD, &names)].into_iter().flatten().collect();
        Some(Self { paths: in_folder(folder, &whole), promised: None })
    }
}

impl Format {
    /// By the ending of a file's name; `None` for what holds no weights.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending {
            "safetensors" => Some(Self::Safetensors),
            "bin" | "pt" | "pth" => Some(Self::Pickle),
            _ => None,
        }
    }

    /// Names the shards of a large checkpoint.
    fn index(self) -> &'static str {
        match self {
            Self::Safetensors => "model.safetensors.index.json",
            Self::Pickle => "pytorch_model.bin.index.json",
        }
    }

    /// Whether a name is one of this format's weights of a whole model.
    fn holds(self, name: &str) -> bool {
        let others = [SIDE_HEAD, ADAPTER];
        Self::of(name) == Some(self) && !others.iter().chain(NO_WEIGHTS).any(|other| name.starts_with(*other))
    }

    fn is_in(self, names: &BTreeSet<String>) -> bool {
        names.contains(self.index()) || names.iter().any(|name| self.holds(name))
    }

    /// The one file of a checkpoint without an index.
    fn only(self, names: &BTreeSet<String>, problems: &mut Problems) -> Option<Vec<String>> {
        let found: Vec<String> = names.iter().filter(|name| self.holds(name)).cloned().collect();
        if found.len() > 1 {
            return problems.add(format!(
                "there are {} {} files ({}) and no {}; keep the one that belongs, or add the index",
                found.len(),
                self.ending(),
                found.join(", "),
                self.index()
            ));
        }
        Some(found)
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Safetensors => ".safetensors",
            Self::Pickle => ".bin and .pt",
        }
    }
}

/// The names of what lies in a folder.
fn names(folder: &Path, problems: &mut Problems) -> Option<BTreeSet<String>> {
    let listed = fs::read_dir(folder).map_err(|error| format!("the folder can't be read: {error}"));
    Some(problems.take(listed)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn in_folder(folder: &Path, names: &[String]) -> Vec<(PathBuf, Format)> {
    names.iter().filter_map(|name| Some((folder.join(name), Format::of(name)?))).collect()
}

/// The file of that name without its ending, in the preferred format that is there.
fn preferred(stem: &str, names: &BTreeSet<String>) -> Option<String> {
    let of = |format: Format| {
        names.iter().find(|name| {
            Format::of(name) == Some(format) && name.rsplit_once('.').is_some_and(|(found, _)| found == stem)
        })
    };
    FORMATS.into_iter().find_map(of).cloned()
}

/// The shards that an index names, and the tensors that it promises.
fn index(folder: &Path, name: &str) -> Result<(BTreeSet<String>, Vec<String>), String> {
    let bytes = fs::read(folder.join(name)).map_err(|error| format!("{name} can't be read: {error}"))?;
    let parsed: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{name} can't be read: {error}"))?;
    let map = parsed["weight_map"].as_object();
    let map = map.ok_or_else(|| format!("{name} has no weight_map; fetch the checkpoint anew"))?;
    let shards: BTreeSet<String> = map.values().filter_map(Value::as_str).map(str::to_owned).collect();
    // A checkpoint must not reach files outside its folder.
    match shards.iter().find(|shard| file_name(Path::new(shard)) != **shard) {
        Some(outside) => {
            Err(format!("{name} names {outside:?}, which is no file of the folder; fetch the checkpoint anew"))
        }
        None => Ok((shards, map.keys().cloned().collect())),
    }
}
