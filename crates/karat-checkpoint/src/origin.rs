//! Where a checkpoint's files lie: in one folder, or, of an adapter, in two.

use std::path::{Path, PathBuf};

use crate::{
    adapter::{Adapter, BaseName},
    problems::{CheckpointError, Problems},
};

/// A checkpoint's folder, and the folder of the model that it changes where it is an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    folder: PathBuf,
    base: Option<PathBuf>,
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
        problems.finish(folder, base).map(|base| Self { folder: folder.to_owned(), base: Some(base) })
    }

    /// A folder that holds a whole model.
    #[must_use]
    pub fn whole(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), base: None }
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
        [Some(self.folder.as_path()), self.base.as_deref()].into_iter().flatten()
    }

    /// Whether it is an adapter.
    pub(crate) fn is_adapter(&self) -> bool {
        self.base.is_some()
    }
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
