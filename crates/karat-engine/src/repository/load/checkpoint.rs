//! Graphs that are built from a checkpoint when a model is loaded.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use karat_checkpoint::{Checkpoint, Origin};
use karat_hub::Hub;
use karat_rules::domain::ModelName;
use karat_runtime::ort::{BuiltGraph, Weight};

use super::digest::Digest;
use crate::repository::LoadError;

/// How often somebody who waits is told how far reading has come.
const PROGRESS: Duration = Duration::from_secs(5);

/// Reads a checkpoint into memory: its graph, and each weight once. Nothing of it depends on the files afterwards.
pub(super) fn build(name: &ModelName, origin: &Origin) -> Result<BuiltGraph, LoadError> {
    let checkpoint = Checkpoint::read(origin)?;
    let graph = checkpoint.graph();
    let all: usize = graph.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let (started, mut told, mut read) = (Instant::now(), Instant::now(), 0);
    let mut weights = Vec::with_capacity(graph.tensors.len());
    for tensor in &graph.tensors {
        let numbers = checkpoint.numbers(tensor)?;
        read += numbers.len();
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let left = started.elapsed().mul_f64((all - read) as f64 / read.max(1) as f64);
            tracing::info!(model = %name, percent = read * 100 / all.max(1), seconds_left = left.as_secs(), "reading weights");
        }
        weights.push(Weight { name: tensor.name.clone(), shape: tensor.shape.clone(), numbers });
    }
    Ok(BuiltGraph { name: origin.folder().join("checkpoint"), model: graph.model.clone(), weights })
}

/// Adds what a checkpoint's scores depend on beside its tokenizer: its configuration, its weights, and what was made of
/// them; of models of the Hub also which commit they are.
pub(super) fn digest(origin: &Origin, hub: &Hub, digest: &mut Digest) -> Result<(), LoadError> {
    let checkpoint = Checkpoint::read(origin)?;
    for snapshot in origin.folders().filter_map(|folder| hub.snapshot_in(folder)) {
        digest.text(&snapshot.id.to_string());
    }
    digest.text(checkpoint.manifest().unwrap_or_default());
    for file in checkpoint.files() {
        digest.file(Path::new(""), &file)?;
    }
    Ok(())
}
