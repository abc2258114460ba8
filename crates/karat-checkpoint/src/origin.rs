//! Where a checkpoint's files lie: in one folder, of an adapter in two, and of an ensemble of adapters in several.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    adapter::{Adapter, BaseName, CONFIG},
    problems::{CheckpointError, Problems},
};

/// A checkpoint's folder, and the folder of the model that it changes where it is an adapter, or several that are served
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    folder: PathBuf,
    base: Option<PathBuf>,
    /// The adapters' folders, where the one that was named holds none itself.
    members: Vec<PathBuf>,
}

/// Finds the folder of a model of the Hugging Face Hub by its id and, where one is asked for, its revision; or says why
/// there is none.
pub type FindModel<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<PathBuf, String>;

impl Origin {
    /// Whether a folder looks like a checkpoint or an adapter.
    #[must_use]
    pub fn is_one(folder: &Path) -> bool {
        folder.join("config.json").is_file() || Adapter::is_one(folder)
    }

    /// Finds what belongs to a folder. The base of an adapter is looked for at its path (from the adapter's folder),
    /// beside the adapter under its last name, and then by `hub`.
    ///
    /// # Errors
    /// When an adapter's base isn't found.
    pub fn of(folder: &Path, hub: FindModel<'_>) -> Result<Self, CheckpointError> {
        if !Adapter::is_one(folder) {
            return Ok(Self::whole(folder));
        }
        let mut problems = Problems::default();
        let named = Adapter::read(folder).and_then(|adapter| adapter.base());
        let base = problems.take(named.and_then(|named| find(folder, &named, hub)));
        problems.finish(folder, base).map(|base| Self { base: Some(base), ..Self::whole(folder) })
    }

    /// A folder that holds a whole model.
    #[must_use]
    pub fn whole(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), base: None, members: Vec::new() }
    }

    /// Several adapters of one base as the members of an ensemble, in order. `folder` is the one that names them: its
    /// tokenizer is everybody's, where it has one.
    ///
    /// # Errors
    /// When one of them is no adapter, or they have different bases.
    pub fn ensemble(folder: &Path, adapters: &[Self]) -> Result<Self, CheckpointError> {
        let mut problems = Problems::default();
        for adapter in adapters.iter().filter(|adapter| adapter.base.is_none()) {
            problems.add::<()>(format!("{} holds no {CONFIG}: only adapters share a base", adapter.folder.display()));
        }
        let bases: BTreeSet<PathBuf> =
            adapters.iter().filter_map(|adapter| adapter.base.as_deref()).map(real).collect();
        if bases.len() > 1 {
            let found: Vec<String> = bases.iter().map(|base| base.display().to_string()).collect();
            problems.add::<()>(format!(
                "the adapters were trained on different models, {}; name adapters of one base",
                found.join(" and ")
            ));
        }
        let members = adapters.iter().map(|adapter| adapter.folder.clone()).collect();
        let base = adapters.first().and_then(|adapter| adapter.base.clone());
        problems.finish(folder, Some(Self { folder: folder.to_owned(), base, members }))
    }

    /// The folder that was named.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the model: the base's where the checkpoint is an adapter.
    #[must_use]
    pub fn model(&self) -> &Path {
        self.base.as_deref().unwrap_or(&self.folder)
    }

    /// Every folder, the nearest first.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        let named = std::iter::once(self.folder.as_path());
        named.chain(self.members.iter().map(PathBuf::as_path)).chain(self.base.as_deref())
    }

    /// The folders of the adapters, in order; none of a whole model.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = &Path> {
        let own = (self.base.is_some() && !self.is_ensemble()).then_some(self.folder.as_path());
        own.into_iter().chain(self.members.iter().map(PathBuf::as_path))
    }

    /// Whether several adapters are served together.
    pub(crate) fn is_ensemble(&self) -> bool {
        !self.members.is_empty()
    }
}

/// A path by which two ways to one folder are one.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn find(folder: &Path, base: &BaseName, hub: FindModel<'_>) -> Result<PathBuf, String> {
    let BaseName { name, revision } = base;
    let written = folder.join(name);
    let beside = Path::new(name).file_name().and_then(|last| Some(folder.parent()?.join(last)));
    let near = [Some(written), beside].into_iter().flatten();
    if let Some(found) = near.into_iter().find(|place| place != folder && place.join("config.json").is_file()) {
        return Ok(found);
    }
    hub(name, revision.as_deref()).map_err(|reason| {
        format!(
            "the adapter's base {name:?} is neither a folder with a config.json nor beside the adapter, and can't be had \
             from the Hub: {reason}"
        )
    })
}
