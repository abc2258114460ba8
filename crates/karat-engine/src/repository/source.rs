//! Models that are named one by one, beside those of the repository's folder.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use karat_hub::{Hub, HubError, ModelId, ModelIdError};
use karat_rules::domain::{ModelName, ModelNameError};

/// A model by its place: a folder, or a model of the Hugging Face Hub.
///
/// As text `[NAME=]PLACE`, where a place that is a folder is that folder, as in Transformers. Its name is the last part of
/// its place, unless another stands before it: names stand in paths of the API, where a slash would part them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    name: ModelName,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Hub(ModelId),
}

/// Why a text names no model's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelSourceError {
    /// It is neither a folder nor an id.
    #[error("there is no such folder, and {0}")]
    Place(#[from] ModelIdError),
    /// The name can't be one.
    #[error("{0}; write another before it, as NAME=PLACE")]
    Name(#[from] ModelNameError),
}

impl ModelSource {
    /// A folder under its own name.
    pub(super) fn folder(folder: PathBuf) -> Result<Self, ModelNameError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().parse()?;
        Ok(Self { name, place: Place::Folder(folder) })
    }

    /// A folder that holds one version of a model.
    pub(super) fn version(model: &ModelName, number: u64, folder: PathBuf) -> Result<Self, ModelNameError> {
        Ok(Self { name: model.labelled(&number.to_string())?, place: Place::Folder(folder) })
    }

    /// Its folder, of a model that doesn't come from the Hub, whose files never change.
    pub(super) fn local(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Hub(_) => None,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// Whether its files may have to be fetched.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self.place, Place::Hub(_))
    }

    /// Where its files lie; blocks while they are fetched.
    ///
    /// # Errors
    /// When the Hub or its cache doesn't have it.
    pub fn locate(&self, hub: &Hub) -> Result<PathBuf, HubError> {
        match &self.place {
            Place::Folder(folder) => Ok(folder.clone()),
            Place::Hub(id) => hub.find(id).map(|snapshot| snapshot.folder),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => write!(f, "{}={}", self.name, folder.display()),
            Place::Hub(id) => write!(f, "{}={id}", self.name),
        }
    }
}

impl FromStr for ModelSource {
    type Err = ModelSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !Path::new(text).is_dir() => (Some(name.parse()?), place),
            _ => (None, text),
        };
        // `.` and `..` have a name only once they are followed.
        let folder = Path::new(place).canonicalize().ok().filter(|folder| folder.is_dir());
        if let Some(folder) = folder {
            let source = Self::folder(folder.clone());
            return Ok(match name {
                Some(name) => Self { name, place: Place::Folder(folder) },
                None => source?,
            });
        }
        let id: ModelId = place.parse()?;
        let name = name.map_or_else(|| id.name().parse(), Ok)?;
        Ok(Self { name, place: Place::Hub(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_by_the_last_part_of_its_place_or_as_is_said() {
        let source: ModelSource = "org/a-model@v2".parse().unwrap();
        assert_eq!((source.name().as_str(), source.is_remote()), ("a-model", true));
        let source: ModelSource = "reward=org/a-model".parse().unwrap();
        assert_eq!(source.name().as_str(), "reward");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        std::fs::create_dir(&path).unwrap();
        let source: ModelSource = path.to_str().unwrap().parse().unwrap();
        assert_eq!((source.name().as_str(), source.is_remote()), ("mine", false));
    }

    #[test]
    fn what_is_neither_folder_nor_id_says_so() {
        let error = |text: &str| text.parse::<ModelSource>().unwrap_err().to_string();
        assert!(error("./nowhere/at/all").contains("no such folder"));
        assert!(error("a b=org/name").contains("NAME=PLACE"));
    }
}
