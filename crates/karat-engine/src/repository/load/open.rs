//! Opens the graphs of a model, and adds to its digest what scores depend on: texts and graphs alike.

use std::{collections::BTreeSet, path::Path};

use karat_checkpoint::Checkpoint;
use karat_runtime::ort::{Graph, ModelFile, Sessions};

use super::{checkpoint::Opening, decoder, digest::Digest, graph::Loader};
use crate::{
    manifest::{GraphDefinition, GraphSource},
    repository::LoadError,
    text::TextConfig,
};

/// The graphs of one model, in the manifest's order.
pub(super) struct Opened {
    pub(super) graphs: Vec<Graph>,
    /// Those that take images, beside them.
    pub(super) images: Vec<Graph>,
}

impl Loader<'_> {
    /// Opens all graphs. `checkpoint` is the one of the model's folder, where it was read already; of a language model the
    /// logits of `tokens` are read, or all.
    pub(super) fn open_all(
        &self,
        definition: &GraphDefinition,
        tokens: &BTreeSet<u32>,
        mut checkpoint: Option<Checkpoint>,
        digest: &mut Digest,
    ) -> Result<Opened, LoadError> {
        let mut opened = Opened { graphs: Vec::with_capacity(definition.graphs.len()), images: Vec::new() };
        for source in &definition.graphs {
            let (graph, beside) = self.open(definition, source, tokens, checkpoint.take(), digest)?;
            opened.graphs.push(graph);
            opened.images.extend(beside);
        }
        for file in &definition.images {
            opened.images.push(self.open_file(definition, file, digest)?);
        }
        Ok(opened)
    }

    /// Adds the files of tokenizer, template and preprocessor.
    pub(super) fn with_text_files(
        &self,
        mut digest: Digest,
        definition: &GraphDefinition,
    ) -> Result<Digest, LoadError> {
        let text = definition.text.iter().flat_map(TextConfig::files);
        for file in text.chain(definition.image.iter().map(|image| image.preprocessor.clone())) {
            digest.file(self.folder, &file)?;
        }
        Ok(digest)
    }

    /// Opens a graph, and the one for images that stands beside it in a checkpoint, and adds what its scores depend on.
    fn open(
        &self,
        definition: &GraphDefinition,
        source: &GraphSource,
        tokens: &BTreeSet<u32>,
        checkpoint: Option<Checkpoint>,
        digest: &mut Digest,
    ) -> Result<(Graph, Option<Graph>), LoadError> {
        match source {
            GraphSource::File(file) => Ok((self.open_file(definition, file, digest)?, None)),
            GraphSource::Checkpoint(origin) => {
                for snapshot in origin.folders().filter_map(|folder| self.given.options.hub.snapshot_in(folder)) {
                    digest.text(&snapshot.id.to_string());
                }
                let checkpoint = checkpoint.map_or_else(|| Checkpoint::read(origin), Ok)?;
                let twins = self.given.twins;
                let opening = Opening { library: self.given.library, name: self.name, definition, twins, tokens };
                let (graph, read) = opening.open(origin.folder(), &checkpoint)?;
                digest.digest(&read);
                let images = opening.open_images(origin.folder(), &checkpoint)?;
                let images = images.map(|(images, read)| {
                    digest.digest(&read);
                    images
                });
                Ok((graph, images))
            }
        }
    }

    fn open_file(&self, definition: &GraphDefinition, file: &Path, digest: &mut Digest) -> Result<Graph, LoadError> {
        let runtime = |source| LoadError::Runtime { path: definition.manifest.clone(), source };
        let read = ModelFile::read(file).map_err(runtime)?;
        digest.read_file(file.strip_prefix(self.folder).unwrap_or(file), read.bytes());
        // Weights in files of their own decide scores as much as the graph does.
        let beside = file.parent().unwrap_or(self.folder);
        for weights in read.external_files() {
            digest.file(beside, &weights)?;
        }
        // What of it turns out to be an encoder may have several.
        let sessions = Sessions { alone: false, ..decoder::sessions(definition) };
        self.given.library.open_read(&read, &definition.providers, sessions).map_err(runtime)
    }
}
