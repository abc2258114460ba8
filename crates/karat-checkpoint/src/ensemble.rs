//! The adapters of a checkpoint: none of a whole model, one that is merged into its base, or several that stand beside
//! each other over one base, whose weights are then held once.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{adapter::Adapter, origin::Origin, problems::Problems, weights::Weights};

/// The adapters of a checkpoint, each with what messages call it.
#[derive(Debug)]
pub(crate) struct Adapters {
    adapters: Vec<(String, Adapter)>,
    /// Whether they are members of an ensemble.
    together: bool,
}

impl Adapters {
    /// Reads their configurations.
    pub(crate) fn read(origin: &Origin, problems: &mut Problems) -> Option<Self> {
        let together = origin.is_ensemble();
        if together {
            refuse_other_tokenizers(origin, problems);
        }
        let mut adapters = Vec::new();
        for folder in origin.adapters() {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            adapters.push((name, problems.take(Adapter::read(folder))?));
        }
        Some(Self { adapters, together })
    }

    /// What classes of their task end with; `None` where the base's own class is meant.
    pub(crate) fn class_ending(&self, problems: &mut Problems) -> Option<&'static str> {
        let endings: Vec<_> = self.adapters.iter().map(|(_, adapter)| adapter.class_ending(problems)).collect();
        let first = endings.first().copied().flatten();
        if let Some(((name, _), _)) = self.adapters.iter().zip(&endings).find(|(_, ending)| **ending != first) {
            problems.add::<()>(format!(
                "the adapter {name} was trained for another task_type than the first one; name adapters of one task"
            ));
        }
        first
    }

    /// Makes their changes to the weights of the base, or puts them beside those.
    pub(crate) fn apply(&self, weights: &mut Weights, problems: &mut Problems) {
        for (name, adapter) in &self.adapters {
            if !self.together {
                if let Some(changes) = adapter.changes(weights, problems) {
                    weights.merge(changes);
                }
                continue;
            }
            let changes = problems.within(name, |problems| {
                if adapter.is_weight_decomposed() {
                    problems.add::<()>(
                        "adapter_config.json: use_dora scales whole rows of the base, which several adapters share; serve \
                         it as a model by itself",
                    );
                }
                adapter.changes(weights, problems)
            });
            if let Some(changes) = changes {
                weights.add_member(changes);
            }
        }
    }

    /// Their configurations, as text.
    pub(crate) fn written(&self) -> String {
        self.adapters.iter().map(|(_, adapter)| adapter.written()).collect()
    }

    /// Why several scores come out of it, where they do.
    pub(crate) fn reason(&self) -> Option<String> {
        let members = self.members();
        let all = members.join(", ");
        let count = members.len();
        (count > 0).then(|| format!("It has {count} members, {all}, over one base whose weights are in memory once."))
    }

    /// What the members of an ensemble are called: their folders' names, in order.
    pub(crate) fn members(&self) -> Vec<&str> {
        let names = self.adapters.iter().map(|(name, _)| name.as_str());
        names.filter(|_| self.together).collect()
    }
}

/// Members see the same tokens. Which tokenizer that is has to be said where their own differ.
fn refuse_other_tokenizers(origin: &Origin, problems: &mut Problems) {
    const FILE: &str = "tokenizer.json";
    if origin.folder().join(FILE).is_file() {
        return;
    }
    let of_base = || fs::read(origin.model().join(FILE)).ok();
    let own = |folder: &Path| fs::read(folder.join(FILE)).ok().or_else(of_base);
    let tokenizers: BTreeSet<_> = origin.adapters().map(own).collect();
    if tokenizers.len() > 1 {
        problems.add::<()>(format!(
            "the adapters have tokenizers that differ; put the {FILE} that all of them are to read with beside model.toml"
        ));
    }
}
