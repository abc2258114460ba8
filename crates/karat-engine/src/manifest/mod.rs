//! `model.toml`: what a model is, checked first against itself and then against its real graph.
//!
//! A `Manifest` is the file as written. `Definition::new` builds its head, aggregation and transform chain and
//! refuses what could never work. `bind_graph` holds it against the graph's true inputs and outputs. A mistake shows
//! when a model is loaded, with the file, the key, what was found and what to write, not on the thousandth request.

mod bind;
mod critique;
mod definition;
mod digests;
mod document;
mod ensemble;
mod fit;
mod origins;
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_checkpoint::{Checkpoint, CheckpointError, Origin};
use karat_hub::{Hub, HubError};

pub(crate) use bind::{bind_decoder, bind_graph, bind_pixels};
pub use critique::CritiqueDefinition;
pub(crate) use definition::{Definition, GraphDefinition, GraphSource};
pub use digests::digests;
pub(crate) use document::{CheckpointForm, Manifest, SchedulingSection};
use document::{CritiqueSection, GraphInputs, GraphSection, OutputList};
pub use origins::origin;
pub use reference::{reference, schema};

use crate::{
    image::{ImageError, ImagePipeline},
    text::{TextError, TextPipeline},
};

/// The name of a manifest in a model's folder.
pub const FILE_NAME: &str = "model.toml";

/// The file beside it that holds what its reference scores.
pub const EXPECTED_FILE: &str = "expected.json";

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file can't be read.
    #[error("{path}: can't be read: {source}")]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A checkpoint without a manifest can't be served as it lies there.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model of the Hub that the manifest names can't be had.
    #[error("{path}: graph.checkpoint: {source}")]
    Hub {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: Box<HubError>,
    },
    /// The file is not TOML, or has unknown, missing or mistyped keys.
    #[error("{path}: {source}")]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// What and where, as the parser tells.
        source: Box<toml::de::Error>,
    },
    /// A key contradicts another key, a file or the graph.
    #[error("{path}: {key}: {found}; {wanted}")]
    Key {
        /// The manifest.
        path: PathBuf,
        /// The key, as a dotted path.
        key: String,
        /// What was found.
        found: String,
        /// What to write instead.
        wanted: String,
    },
}

/// Whether a folder holds a model: a manifest, or a checkpoint that one can be written for.
#[must_use]
pub fn is_model(folder: &Path) -> bool {
    folder.join(FILE_NAME).is_file() || Origin::is_one(folder)
}

/// Why a folder's texts can't be read as its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum TextCheckError {
    /// The manifest can't be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The tokenizer or the template can't be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The preprocessor can't be used.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Tries the tokenizer, the template and the preprocessor of the model in a folder, without its weights.
///
/// # Errors
/// What would keep the model from being served.
pub fn check_text(folder: &Path, hub: &Hub) -> Result<(), TextCheckError> {
    let written = Written::read(folder, hub)?;
    if let Definition::Graph(mut definition) = Definition::new(written.manifest, folder, hub)? {
        definition.locate_tokenizer(folder);
        if let Some(text) = &definition.text {
            TextPipeline::load(folder, text)?;
        }
        if let Some(image) = &definition.image {
            ImagePipeline::load(folder, image)?;
        }
    }
    Ok(())
}

/// The checkpoint that the model in a folder is built from, and its manifest as it is written, if one is.
///
/// # Errors
/// When the folder holds neither a checkpoint nor a manifest, or one that is built from no checkpoint.
pub fn checkpoint_of(folder: &Path, hub: &Hub) -> Result<(Origin, Option<String>), ManifestError> {
    if Origin::is_one(folder) && !folder.join(FILE_NAME).is_file() {
        return Ok((origin(folder, hub)?, None));
    }
    let Written { manifest, text, .. } = Written::read(folder, hub)?;
    let graphs = match Definition::new(manifest, folder, hub)? {
        Definition::Graph(definition) => definition.graphs,
        Definition::Composite(_) => Vec::new(),
    };
    let found = graphs.into_iter().find_map(|graph| match graph {
        GraphSource::Checkpoint(origin) => Some(origin),
        GraphSource::File(_) => None,
    });
    match found {
        Some(origin) => Ok((origin, Some(text))),
        None => Err(ManifestError::Key {
            path: folder.join(FILE_NAME),
            key: "graph".to_owned(),
            found: "the model is built from no checkpoint".to_owned(),
            wanted: "name the folder of a checkpoint or of an adapter".to_owned(),
        }),
    }
}

/// A manifest, and what it was read from.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) manifest: Manifest,
    /// The manifest's own words.
    pub(crate) text: String,
    /// The checkpoint that the words were written for, where its folder has no manifest.
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Written {
    /// Reads the manifest of the model in `folder`; of a checkpoint that has none, the one that karat would write.
    ///
    /// # Errors
    /// When the file can't be read or doesn't follow the format, or the checkpoint can't be served as it lies there.
    pub(crate) fn read(folder: &Path, hub: &Hub) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let (text, checkpoint) = if !path.is_file() && Origin::is_one(folder) {
            let checkpoint = Checkpoint::read(&origin(folder, hub)?)?;
            (checkpoint.manifest()?.to_owned(), Some(checkpoint))
        } else {
            let text = fs::read_to_string(&path);
            (text.map_err(|source| ManifestError::Unreadable { path: path.clone(), source })?, None)
        };
        match toml::from_str(&text) {
            Ok(manifest) => Ok(Self { manifest, text, checkpoint }),
            Err(source) => Err(ManifestError::Syntax { path, source: Box::new(source) }),
        }
    }
}

#[cfg(test)]
mod tests;
