//! Puts composites together once their members are there, and anew when a member changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use karat_rules::{aggregate, domain::ModelName, transform::Chain};

use super::{ModelLoader, digest::Digest, guarded};
use crate::{
    manifest::{self, Definition, Manifest},
    repository::{CompositeMember, Listed, LoadError, Model, ModelBody, ModelStatus, WrittenRules, expected, versions},
};

/// A composite whose manifest was read, and which needs its members.
pub(super) struct Candidate {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    /// The manifest's own words.
    pub(super) text: String,
    pub(super) members: Vec<ModelName>,
}

/// Whether a member's name means a model, or may mean it next.
fn means(member: &ModelName, model: &ModelName) -> bool {
    member == model || (member.label().is_none() && member.as_str() == model.base())
}

impl Candidate {
    /// Whether it is made of one of these models.
    pub(super) fn has_any(&self, models: &BTreeSet<ModelName>) -> bool {
        self.members.iter().any(|member| models.iter().any(|model| means(member, model)))
    }
}

/// Those of `changed`, and every composite that has one of them somewhere below it.
pub(super) fn awaiting(
    composites: &BTreeMap<ModelName, Candidate>,
    mut changed: BTreeSet<ModelName>,
) -> BTreeSet<ModelName> {
    loop {
        let next = composites.iter().find(|(name, candidate)| !changed.contains(*name) && candidate.has_any(&changed));
        let Some((name, _)) = next else { return changed };
        changed.insert(name.clone());
    }
}

impl ModelLoader<'_> {
    /// Loads composites as soon as all their members are there; what is left over is broken.
    pub(super) fn load_composites(&self, names: Vec<ModelName>) {
        let (ordered, circular) = self.in_order(names);
        for name in ordered {
            let models = self.repository.models();
            let loaded = guarded(|| self.composite(&name, &models));
            self.announce(&name, loaded);
        }
        for name in circular {
            self.announce(&name, Err(self.circle(&name)));
        }
    }

    /// Composites in an order in which each comes after its members, and those that are part of themselves.
    pub(super) fn in_order(&self, names: Vec<ModelName>) -> (Vec<ModelName>, BTreeSet<ModelName>) {
        let mut waiting: BTreeSet<ModelName> = names.into_iter().collect();
        let mut ordered = Vec::with_capacity(waiting.len());
        loop {
            let is_next =
                |name: &&ModelName| self.composites.get(*name).is_none_or(|candidate| !candidate.has_any(&waiting));
            let Some(name) = waiting.iter().find(is_next).cloned() else { return (ordered, waiting) };
            waiting.remove(&name);
            ordered.push(name);
        }
    }

    pub(super) fn circle(&self, name: &ModelName) -> LoadError {
        let candidate = self.composites.get(name);
        let members = candidate.iter().flat_map(|candidate| &candidate.members).map(ModelName::as_str);
        let members = members.collect::<Vec<_>>().join(", ");
        let path = candidate.map_or_else(PathBuf::new, |candidate| candidate.folder.join(manifest::FILE_NAME));
        LoadError::Circle { path, members }
    }

    /// Puts a composite together from the models that `models` lists.
    pub(super) fn composite(&self, name: &ModelName, models: &BTreeMap<ModelName, Listed>) -> Result<Model, LoadError> {
        let Some(candidate) = self.composites.get(name) else { return Err(self.circle(name)) };
        let Candidate { folder, manifest, text, .. } = candidate;
        let path = folder.join(manifest::FILE_NAME);
        let definition = match Definition::new(manifest.clone(), folder, &self.options.hub)? {
            Definition::Composite(definition) => definition,
            // It was one when it was read.
            Definition::Graph(_) => return Err(LoadError::Changed { path: folder.clone() }),
        };
        let mut members = Vec::with_capacity(definition.members.len());
        for member in definition.members {
            let model = match versions::find(models, &member.model) {
                Some((_, ModelStatus::Ready(model))) => Arc::clone(model),
                Some(_) => return Err(LoadError::BrokenMember { path, member: member.model }),
                None => {
                    let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
                    return Err(LoadError::NoMember { path, member: member.model, known: known.join(", ") });
                }
            };
            let rule =
                |reason: String| LoadError::MemberRule { path: path.clone(), member: member.model.clone(), reason };
            let aggregate = member.aggregate.as_ref().map(|choice| aggregate::CATALOGUE.build(choice)).transpose();
            let transforms =
                member.transforms.as_ref().map(|choices| Chain::build(choices, model.gives_steps())).transpose();
            members.push(CompositeMember {
                aggregate: aggregate.map_err(|error| rule(error.to_string()))?,
                transforms: transforms.map_err(|error| rule(error.to_string()))?,
                model,
            });
        }
        let mut digest = Digest::default();
        digest.text(manifest::FILE_NAME);
        digest.text(text);
        members.iter().for_each(|member| digest.text(member.model.version.as_str()));
        let model = Model {
            name: name.clone(),
            version: digest.version(),
            hub: Vec::new(),
            description: manifest.description.clone(),
            license: manifest.license.clone(),
            aggregate: definition.aggregate,
            transforms: definition.transforms,
            written: WrittenRules { aggregate: manifest.aggregate.clone(), transforms: manifest.transforms.clone() },
            references: None,
            body: ModelBody::Composite(members),
        };
        let references = expected::check(&model, folder, self.score)?;
        Ok(Model { references, ..model })
    }
}
