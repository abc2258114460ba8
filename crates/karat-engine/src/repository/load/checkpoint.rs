//! Graphs that are built from a checkpoint when a model is loaded.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use karat_checkpoint::{Checkpoint, Element, Form, Numbers};
use karat_rules::domain::ModelName;
use karat_runtime::{
    Provider, ProviderKind,
    ort::{BuiltGraph, Library, Weight, WeightNumbers},
};

use super::digest::Digest;
use crate::{
    manifest::{CheckpointForm, GraphDefinition},
    repository::LoadError,
};

/// How often somebody who waits is told how far reading has come.
const PROGRESS: Duration = Duration::from_secs(5);

/// Reads a checkpoint into memory: its graph in the form that suits `provider`, and each weight once. Nothing of it depends
/// on the files afterwards.
pub(super) fn build(
    name: &ModelName,
    folder: &Path,
    definition: &GraphDefinition,
    provider: ProviderKind,
) -> Result<BuiltGraph, LoadError> {
    let checkpoint = Checkpoint::read(folder)?;
    let graph = checkpoint.graph_for(form(&checkpoint, definition, provider))?;
    let all: usize = graph.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let (started, mut told, mut read) = (Instant::now(), Instant::now(), 0);
    let mut weights = Vec::with_capacity(graph.tensors.len());
    for tensor in &graph.tensors {
        let numbers = match checkpoint.numbers(tensor)? {
            Numbers::Float32(numbers) => WeightNumbers::Float32(numbers),
            Numbers::Float16(numbers) => WeightNumbers::Float16(numbers),
            Numbers::Bfloat16(numbers) => WeightNumbers::Bfloat16(numbers),
        };
        read += tensor.shape.iter().product::<usize>();
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let left = started.elapsed().mul_f64((all - read) as f64 / read.max(1) as f64);
            tracing::info!(model = %name, percent = read * 100 / all.max(1), seconds_left = left.as_secs(), "reading weights");
        }
        weights.push(Weight { name: tensor.name.clone(), shape: tensor.shape.clone(), numbers });
    }
    Ok(BuiltGraph { name: folder.join("checkpoint"), model: graph.model, weights })
}

/// The first of the providers that starts, or the last one, which then says why it doesn't.
pub(super) fn provider(library: &Library, providers: &[Provider]) -> ProviderKind {
    let kinds = || providers.iter().map(Provider::kind);
    kinds()
        .find(|kind| library.try_provider(*kind).is_ok())
        .or_else(|| kinds().next_back())
        .unwrap_or(ProviderKind::Cpu)
}

/// The form that the manifest says, or the one that suits the provider.
fn form(checkpoint: &Checkpoint, definition: &GraphDefinition, provider: ProviderKind) -> Form {
    let on_cuda = provider == ProviderKind::Cuda;
    let packs = match definition.form {
        Some(form) => form == CheckpointForm::Packed,
        None => on_cuda && checkpoint.has(Form::Packed(checkpoint.half())),
    };
    match packs {
        false => Form::Rows,
        true if on_cuda => Form::Packed(checkpoint.half()),
        true => Form::Packed(Element::Float32),
    }
}

/// Adds what a checkpoint's scores depend on beside its tokenizer: its configuration, its weights, and what was made of
/// them.
pub(super) fn digest(folder: &Path, digest: &mut Digest) -> Result<(), LoadError> {
    let checkpoint = Checkpoint::read(folder)?;
    digest.text(checkpoint.manifest().unwrap_or_default());
    for file in checkpoint.files() {
        let name = file.strip_prefix(folder).unwrap_or(&file);
        digest.file(folder, name)?;
    }
    Ok(())
}
