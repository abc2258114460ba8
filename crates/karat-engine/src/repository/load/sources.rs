//! Which models there are: those of the repository's folder, and those that are named one by one.

use std::{collections::BTreeSet, fs, path::Path};

use karat_rules::domain::ModelName;

use super::{LoadError, LoadOptions, ModelSource};
use crate::manifest;

/// Every model by its place: those of the repository, then those that are named; what may have to be fetched last.
pub(super) fn all(options: &LoadOptions) -> Result<Vec<ModelSource>, LoadError> {
    let mut sources = options.repository.as_deref().map(folders).transpose()?.unwrap_or_default();
    if let (true, Some(path), false) = (sources.is_empty(), &options.repository, options.watch.follows) {
        return Err(LoadError::Empty { path: path.clone() });
    }
    sources.extend(options.models.iter().cloned());
    let mut names = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !names.insert(source.name())) {
        return Err(LoadError::Twice { name: twice.name().clone() });
    }
    sources.sort_by_key(ModelSource::is_remote);
    Ok(sources)
}

/// The model folders of the repository, by name. A folder without a model of its own may hold several versions of one, in
/// folders that are called by numbers.
fn folders(repository: &Path) -> Result<Vec<ModelSource>, LoadError> {
    let unreadable = |source| LoadError::Repository { path: repository.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(repository).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        let of_folder = match manifest::is_model(&folder) {
            true => ModelSource::folder(folder.clone()).map(|source| vec![source]),
            false => versions(&folder),
        };
        match of_folder {
            Ok(sources) => found.extend(sources),
            Err(error) => tracing::error!(folder = %folder.display(), %error, "model folder skipped: rename it"),
        }
    }
    found.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(found)
}

/// The versions of one model: folders called by numbers that hold a model each.
fn versions(folder: &Path) -> Result<Vec<ModelSource>, karat_rules::domain::ModelNameError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let numbered = entries.filter_map(Result::ok).filter_map(|entry| {
        let number: u64 = entry.file_name().to_str()?.parse().ok()?;
        manifest::is_model(&entry.path()).then(|| (number, entry.path()))
    });
    let numbered: Vec<_> = numbered.collect();
    if numbered.is_empty() {
        return Ok(Vec::new());
    }
    let base: ModelName = folder.file_name().unwrap_or_default().to_string_lossy().parse()?;
    numbered.into_iter().map(|(number, path)| ModelSource::version(&base, number, path)).collect()
}
