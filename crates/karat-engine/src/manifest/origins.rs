//! Where the checkpoints lie that a manifest names.

use std::path::{Path, PathBuf};

use karat_checkpoint::{CheckpointError, Origin};
use karat_hub::{Hub, ModelId};

use super::{FILE_NAME, ManifestError};

/// The adapters that a manifest in `folder` names, as the members of an ensemble.
pub(super) fn together(places: &[PathBuf], folder: &Path, hub: &Hub) -> Result<Origin, ManifestError> {
    let adapters = places.iter().map(|place| checkpoint(place, folder, hub)).collect::<Result<Vec<_>, _>>()?;
    Ok(Origin::ensemble(folder, &adapters)?)
}

/// What a manifest's models of the Hub begin with.
const HUB: &str = "hub:";

/// The checkpoint that a manifest in `folder` names: a path, or a model of the Hub.
pub(super) fn checkpoint(place: &Path, folder: &Path, hub: &Hub) -> Result<Origin, ManifestError> {
    let Some(id) = place.to_str().and_then(|place| place.strip_prefix(HUB)) else {
        return Ok(origin(&folder.join(place), hub)?);
    };
    let found = id.parse::<ModelId>().map_err(Into::into).and_then(|id| hub.find(&id));
    let found =
        found.map_err(|source| ManifestError::Hub { path: folder.join(FILE_NAME), source: Box::new(source) })?;
    Ok(origin(&found.folder, hub)?)
}

/// A checkpoint's folder and, of an adapter, the one of its base, which may be a model of the Hub.
///
/// # Errors
/// When an adapter's base can't be found or fetched.
pub fn origin(folder: &Path, hub: &Hub) -> Result<Origin, CheckpointError> {
    Origin::of(folder, &|name, revision| {
        let id = ModelId::new(name, revision).map_err(|error| error.to_string())?;
        hub.find(&id).map(|snapshot| snapshot.folder).map_err(|error| error.to_string())
    })
}
