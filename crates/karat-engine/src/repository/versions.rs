//! Which model a name means, where a model has several versions.

use std::collections::BTreeMap;

use karat_rules::domain::ModelName;

use super::{Listed, Model, ModelStatus, NoModel};

/// The fewest digits of a digest that tell a version from others.
const DIGITS: usize = 6;

/// The model that a name means: the one of that name, the one whose version's digest begins like the name's label, or of
/// one without a label the version of the highest number, the highest that is ready before all others.
pub(super) fn find<'a>(
    models: &'a BTreeMap<ModelName, Listed>,
    name: &'a ModelName,
) -> Option<(&'a ModelName, &'a ModelStatus)> {
    if let Some(listed) = models.get(name) {
        return Some((name, &listed.status));
    }
    let mut versions: Vec<_> = versions(models, name).collect();
    if name.label().is_some() {
        return versions.into_iter().find(|(_, status)| match status {
            ModelStatus::Ready(model) => is_meant(name, model),
            _ => false,
        });
    }
    versions.sort_by_key(|(name, _)| number(name));
    let numbered = || versions.iter().rev().filter(|(name, _)| number(name).is_some());
    numbered().find(|(_, status)| matches!(status, ModelStatus::Ready(_))).or_else(|| numbered().next()).copied()
}

/// Whether a name means exactly this model.
pub(super) fn is_meant(name: &ModelName, model: &Model) -> bool {
    let same = |label: &str| label.len() >= DIGITS && model.version.as_str().starts_with(label);
    model.name.base() == name.base() && name.label().is_some_and(same)
}

/// Why a name means no model.
pub(super) fn none(models: &BTreeMap<ModelName, Listed>, name: &ModelName) -> NoModel {
    let versions = versions(models, name).map(|(found, status)| match status {
        ModelStatus::Ready(model) => format!("{found} ({})", model.version),
        _ => found.to_string(),
    });
    let versions: Vec<String> = versions.collect();
    if versions.is_empty() {
        let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
        return NoModel::Unknown { name: name.to_string(), known: known.join(", ") };
    }
    NoModel::OtherVersion { name: name.to_string(), versions: versions.join(", ") }
}

/// Every version of a model.
fn versions<'a>(
    models: &'a BTreeMap<ModelName, Listed>,
    name: &ModelName,
) -> impl Iterator<Item = (&'a ModelName, &'a ModelStatus)> {
    let base = name.base().to_owned();
    models.iter().filter(move |(found, _)| found.base() == base).map(|(found, listed)| (found, &listed.status))
}

/// The number of a version that has one.
fn number(name: &ModelName) -> Option<u64> {
    name.label()?.parse().ok()
}

impl ModelStatus {
    /// Why the model of that name takes no requests.
    pub(super) fn no_model(&self, name: &ModelName) -> NoModel {
        let model = name.clone();
        match self {
            // Nobody asks that of a model that is ready.
            Self::Loading | Self::Ready(_) => NoModel::Loading { model },
            Self::Building(_) => NoModel::Building { model },
            Self::Failed(_) => NoModel::Failed { model },
            Self::Unloaded => NoModel::Unloaded { model },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> BTreeMap<ModelName, Listed> {
        let entry = |name: &&str| (name.parse().unwrap(), Listed { status: ModelStatus::Loading, change: None });
        names.iter().map(entry).collect()
    }

    fn found(models: &BTreeMap<ModelName, Listed>, name: &str) -> Option<String> {
        find(models, &name.parse().unwrap()).map(|(name, _)| name.to_string())
    }

    #[test]
    fn a_plain_name_means_the_highest_number() {
        let models = listed(&["reward@2", "reward@10", "reward@9", "reward@candidate", "other"]);
        assert_eq!(found(&models, "reward").as_deref(), Some("reward@10"));
        assert_eq!(found(&models, "reward@9").as_deref(), Some("reward@9"));
        assert_eq!(found(&models, "reward@11"), None);
        assert_eq!(found(&models, "rewar"), None);
        let named = listed(&["reward", "reward@2"]);
        assert_eq!(found(&named, "reward").as_deref(), Some("reward"), "the folder of that very name goes first");
    }

    #[test]
    fn a_version_that_is_not_there_is_told_from_a_model_that_is_not_there() {
        let models = listed(&["reward@1", "reward@2"]);
        let none = |name: &str| none(&models, &name.parse().unwrap());
        assert!(matches!(none("reward@3"), NoModel::OtherVersion { versions, .. } if versions == "reward@1, reward@2"));
        assert!(matches!(none("reword"), NoModel::Unknown { .. }));
    }
}
