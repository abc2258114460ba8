//! Puts composites together once their members are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use karat_rules::{aggregate, domain::ModelName, transform::Chain};

use super::{announce, digest::Digest, guarded};
use crate::{
    manifest::{self, CompositeDefinition, Manifest},
    repository::{
        CompositeMember, LoadError, Model, ModelBody, ModelStatus, Repository, Score, WrittenRules, expected,
    },
};

/// A composite whose manifest was read, and which waits for its members.
pub(super) struct Candidate {
    pub(super) definition: CompositeDefinition,
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
}

impl Candidate {
    fn members(&self) -> impl Iterator<Item = &ModelName> {
        self.definition.members.iter().map(|member| &member.model)
    }
}

/// Those of `late`, and every composite that has one of them somewhere below it.
pub(super) fn awaiting(
    composites: &BTreeMap<ModelName, Candidate>,
    mut late: BTreeSet<ModelName>,
) -> BTreeSet<ModelName> {
    loop {
        let waits = |candidate: &Candidate| candidate.members().any(|member| late.contains(member));
        let next = composites.iter().find(|(name, candidate)| !late.contains(*name) && waits(candidate));
        let Some((name, _)) = next else { return late };
        late.insert(name.clone());
    }
}

/// Loads composites as soon as all their members are there; what is left over is broken.
pub(super) fn load(repository: &Repository, mut waiting: BTreeMap<ModelName, Candidate>, score: Score) {
    loop {
        let names: BTreeSet<ModelName> = waiting.keys().cloned().collect();
        let next = waiting.iter().find(|(_, candidate)| candidate.members().all(|member| !names.contains(member)));
        let Some(name) = next.map(|(name, _)| name.clone()) else { break };
        if let Some(candidate) = waiting.remove(&name) {
            let loaded = guarded(|| composite(repository, &name, candidate, score));
            announce(repository, &name, loaded);
        }
    }
    for (name, candidate) in waiting {
        let members: Vec<&str> = candidate.members().map(ModelName::as_str).collect();
        let path = candidate.folder.join(manifest::FILE_NAME);
        announce(repository, &name, Err(LoadError::Circle { path, members: members.join(", ") }));
    }
}

fn composite(
    repository: &Repository,
    name: &ModelName,
    candidate: Candidate,
    score: Score,
) -> Result<Model, LoadError> {
    let Candidate { definition, folder, manifest } = candidate;
    let path = folder.join(manifest::FILE_NAME);
    let models = repository.models();
    let mut members = Vec::with_capacity(definition.members.len());
    for member in definition.members {
        let model = match models.get(&member.model) {
            Some(ModelStatus::Ready(model)) => Arc::clone(model),
            Some(_) => return Err(LoadError::BrokenMember { path, member: member.model }),
            None => {
                let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
                return Err(LoadError::NoMember { path, member: member.model, known: known.join(", ") });
            }
        };
        let rule = |reason: String| LoadError::MemberRule { path: path.clone(), member: member.model.clone(), reason };
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
    digest.file(&folder, Path::new(manifest::FILE_NAME))?;
    members.iter().for_each(|member| digest.text(member.model.version.as_str()));
    let model = Model {
        name: name.clone(),
        version: digest.version(),
        hub: Vec::new(),
        description: manifest.description,
        license: manifest.license,
        aggregate: definition.aggregate,
        transforms: definition.transforms,
        written: WrittenRules { aggregate: manifest.aggregate, transforms: manifest.transforms },
        references: None,
        body: ModelBody::Composite(members),
    };
    let references = expected::check(&model, &folder, score)?;
    Ok(Model { references, ..model })
}
