//! Which models there are: those of the repository's folder, and those that are named one by one.

use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

use karat_rules::domain::ModelName;
use karat_runtime::FileIdentity;

use super::{LoadError, LoadOptions, ModelSource};
use crate::manifest::{self, GraphDefinition, GraphSource};

/// Smaller files aren't worth sharing.
const LARGE: u64 = 1 << 12;

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

/// The files that several graphs have among their weights: one file, or links to it.
pub(super) fn twins<'a>(definitions: impl Iterator<Item = &'a GraphDefinition>) -> BTreeSet<FileIdentity> {
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for folder in definitions.flat_map(|definition| &definition.graphs).flat_map(GraphSource::folders) {
        let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let files: BTreeSet<FileIdentity> = files.filter_map(|file| FileIdentity::of(&file.path())).collect();
        for file in files.into_iter().filter(|file| file.length() >= LARGE) {
            if !once.insert(file.clone()) {
                twice.insert(file);
            }
        }
    }
    twice
}

/// The model folders of the repository, by name. A folder without a model of its own may hold several versions of one, in
/// folders that are called by numbers.
fn folders(repository: &Path) -> Result<Vec<ModelSource>, LoadError> {
    let unreadable = |source| LoadError::Repository { path: repository.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(repository).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        let of_folder = match manifest::is_model(&folder) || is_closed(&folder) {
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

/// Whether it can't be told what lies in a folder: it may not be entered, or is a link that leads nowhere. It is listed as
/// a model that failed, lest one is missing without a word.
fn is_closed(folder: &Path) -> bool {
    let is_hidden = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    if is_hidden {
        return false;
    }
    match fs::metadata(folder) {
        Err(_) => true,
        Ok(found) if found.is_dir() => {
            fs::metadata(folder.join(manifest::FILE_NAME)).is_err_and(|error| error.kind() != ErrorKind::NotFound)
        }
        Ok(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use karat_hub::Hub;

    use super::*;
    use crate::manifest::Written;

    #[cfg(unix)]
    #[test]
    fn a_folder_that_can_not_be_entered_is_listed() {
        use std::os::unix::fs::symlink;
        let repository = tempfile::tempdir().unwrap();
        let path = |name: &str| repository.path().join(name);
        for name in ["whole", "empty"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("whole").join(manifest::FILE_NAME), "").unwrap();
        fs::write(path("notes.txt"), "").unwrap();
        // Nobody can follow these, whatever they may do.
        symlink("circle", path("circle")).unwrap();
        symlink("/nowhere/at/all", path("unmounted")).unwrap();
        symlink("/nowhere/at/all", path(".#lock")).unwrap();
        let found = folders(repository.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|source| source.name().as_str()).collect();
        assert_eq!(names, ["circle", "unmounted", "whole"]);
        let hub = Hub::new(karat_hub::HubSettings::from_env());
        let error = Written::read(&path("unmounted"), &hub).unwrap_err().to_string();
        assert!(error.contains("unmounted") && error.contains("can't be read"), "{error}");
    }
}
