//! Starts what writes critiques with a model.

use std::{num::NonZeroUsize, path::Path, sync::Arc, thread};

use karat_rules::{domain::TokenizedInput, head::DecoderOutput};
use karat_runtime::ort::Graph;

use crate::{
    generate::{Event, GenerationLimits, Generator, Order, Sampling},
    manifest::{CritiqueDefinition, GraphDefinition},
    repository::{Critic, LoadError},
    telemetry::ModelMetrics,
    text::TextPipeline,
    workers::{Roster, Stage},
};

/// The memory that keys and values of texts may take, if the longest text takes no more: half a gibibyte.
const TEXT_BYTES: usize = 1 << 29;

/// What a critic is made of.
pub(super) struct Parts<'a> {
    pub(super) definition: &'a GraphDefinition,
    pub(super) critique: &'a CritiqueDefinition,
    pub(super) pipeline: &'a TextPipeline,
    pub(super) graph: &'a Graph,
    pub(super) metrics: &'a ModelMetrics,
    /// A short text to try it with.
    pub(super) probe: Option<&'a Arc<TokenizedInput>>,
    pub(super) roster: &'a Roster,
}

/// Opens one more session of a graph, on all cores, and writes a token with it.
pub(super) fn start(parts: &Parts<'_>) -> Result<Critic, LoadError> {
    let Parts { definition, critique, pipeline, graph, metrics, probe, roster } = *parts;
    let path = &definition.manifest;
    let ends =
        pipeline.end_ids(&critique.end_tokens).map_err(|source| LoadError::Text { path: path.clone(), source })?.into();
    let threads = definition.scheduling.threads;
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let executor = graph
        .decoder_executor(&[DecoderOutput::Logits.name().to_owned()], threads)
        .map_err(|source| LoadError::Runtime { path: path.clone(), source })?;
    let limits = GenerationLimits {
        texts: critique.texts.get(),
        tokens: (TEXT_BYTES / executor.shape().bytes_per_token().max(1)).max(pipeline.max_tokens()),
        ..GenerationLimits::default()
    };
    let generator = Generator::start(executor, limits, metrics.clone())
        .map_err(|source| LoadError::Workers { path: path.clone(), source: source.into() })?;
    generator.enlist(roster, Stage::Loading);
    if let Some(probe) = probe {
        warm_up(&generator, probe, path)?;
    }
    Ok(Critic { definition: critique.clone(), ends, generator })
}

fn warm_up(generator: &Generator, probe: &TokenizedInput, path: &Path) -> Result<(), LoadError> {
    let failed = |reason: &dyn std::fmt::Display| LoadError::WarmUp {
        path: path.to_owned(),
        tokens: probe.len(),
        reason: reason.to_string(),
    };
    let order = Order {
        prompt: probe.ids().into(),
        texts: vec![Sampling::GREEDY],
        max_tokens: NonZeroUsize::MIN,
        ends: [].into(),
    };
    for mut stream in generator.submit(order).map_err(|refusal| failed(&refusal))? {
        while let Some(event) = futures_executor::block_on(stream.next()) {
            if let Event::End(_) = event.map_err(|error| failed(&error))? {
                break;
            }
        }
    }
    Ok(())
}
