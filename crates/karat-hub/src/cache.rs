//! What the cache holds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{ModelId, choice, id::is_commit};

/// The folder of a model's commit, if the revision was looked up before and the folder is there.
pub(crate) fn find(cache: &Path, id: &ModelId) -> Option<(PathBuf, String)> {
    let model = cache.join(id.folder());
    let commit = match id.commit() {
        Some(commit) => commit.to_owned(),
        None => fs::read_to_string(model.join("refs").join(id.revision())).ok()?.trim().to_owned(),
    };
    let folder = snapshot(cache, id, &commit);
    (is_commit(&commit) && folder.is_dir()).then_some((folder, commit))
}

/// Whether everything that the Hub has of a commit and that is needed was fetched, and held against its digests.
pub(crate) fn is_complete(cache: &Path, id: &ModelId, commit: &str) -> bool {
    mark(cache, id, commit).is_file()
}

/// Notes that a commit is complete: what was broken off before leaves files that look like all of it.
#[cfg(feature = "fetch")]
pub(crate) fn set_complete(cache: &Path, id: &ModelId, commit: &str) -> std::io::Result<()> {
    let mark = mark(cache, id, commit);
    mark.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(mark, b""))
}

/// In a folder that Python's library doesn't look at.
fn mark(cache: &Path, id: &ModelId, commit: &str) -> PathBuf {
    cache.join(id.folder()).join("karat").join(commit)
}

/// Where the files of a commit lie.
pub(crate) fn snapshot(cache: &Path, id: &ModelId, commit: &str) -> PathBuf {
    cache.join(id.folder()).join("snapshots").join(commit)
}

/// Whether a folder seems to hold all of a checkpoint: Python fetches single files too.
pub(crate) fn is_whole(folder: &Path) -> bool {
    let Ok(listed) = fs::read_dir(folder) else { return false };
    let names = listed.flatten().filter(|entry| entry.path().is_file());
    let names: BTreeSet<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let Some(needed) = choice::needed(names.iter().map(String::as_str)) else { return false };
    let indexes = needed.iter().filter(|name| name.ends_with(".index.json"));
    let tokenizer = names.contains("tokenizer.json") || names.contains("adapter_config.json");
    tokenizer
        && indexes.into_iter().all(|index| shards(&folder.join(index)).is_some_and(|shards| shards.is_subset(&names)))
}

/// The files that an index names.
fn shards(index: &Path) -> Option<BTreeSet<String>> {
    let parsed: serde_json::Value = serde_json::from_slice(&fs::read(index).ok()?).ok()?;
    Some(parsed["weight_map"].as_object()?.values().filter_map(|file| file.as_str().map(str::to_owned)).collect())
}
