//! Starts what writes critiques with a model.

use std::{num::NonZeroUsize, sync::Arc, thread};

use karat_rules::{domain::TokenizedInput, head::DecoderOutput};
use karat_runtime::{
    DecoderExecutor, Purpose,
    ort::Graph,
    packed::{BLOCK_TOKENS, PackedTexts},
};

use super::packed::blocks_for_texts;
use crate::{
    generate::{Event, GenerationLimits, Generator, Order, Sampling},
    manifest::{CritiqueDefinition, GraphDefinition},
    repository::{Critic, GraphForm, LoadError},
    telemetry::ModelMetrics,
    text::TextPipeline,
    workers::{Roster, Stage},
};

/// The memory that keys and values of texts may take, if the longest text takes no more: half a gibibyte.
const TEXT_BYTES: usize = 1 << 29;
/// The most tokens of prompts in a pass of packed rows: little enough that those who wait for a score don't notice.
const PACKED_ROW: usize = 1 << 11;

/// What a critic is made of.
pub(super) struct Parts<'a> {
    pub(super) definition: &'a GraphDefinition,
    pub(super) critique: &'a CritiqueDefinition,
    pub(super) pipeline: &'a TextPipeline,
    /// How the graph takes samples.
    pub(super) form: &'a GraphForm,
    pub(super) metrics: &'a ModelMetrics,
    /// A short text to try it with.
    pub(super) probe: Option<&'a Arc<TokenizedInput>>,
    pub(super) roster: &'a Roster,
}

/// What writes.
pub(super) enum Writer {
    /// One more session of a graph, on all cores.
    Own(Box<dyn DecoderExecutor>),
    /// The session that scores, in turns with that, where the graph takes packed rows.
    Packed(PackedTexts),
}

impl Writer {
    /// Opens it, for a graph that scores already.
    pub(super) fn open(definition: &GraphDefinition, graph: &Graph, form: &GraphForm) -> Result<Self, LoadError> {
        if let GraphForm::Packed { session, logits: Some(logits) } = form {
            return Ok(Self::Packed(PackedTexts::new(session.clone(), *logits)));
        }
        let threads = definition.scheduling.threads;
        let threads = threads.unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        graph
            .decoder_executor(&[DecoderOutput::Logits.name().to_owned()], threads, Purpose::Writing)
            .map(Self::Own)
            .map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })
    }

    /// The session that nothing else uses.
    pub(super) fn own(&mut self) -> Option<&mut dyn DecoderExecutor> {
        match self {
            Self::Own(session) => Some(&mut **session),
            Self::Packed(_) => None,
        }
    }
}

/// Starts what writes, and writes a token with it.
pub(super) fn start(parts: &Parts<'_>, writer: Writer) -> Result<Critic, LoadError> {
    let Parts { definition, critique, pipeline, metrics, probe, roster, .. } = *parts;
    let path = &definition.manifest;
    let ends =
        pipeline.end_ids(&critique.end_tokens).map_err(|source| LoadError::Text { path: path.clone(), source })?.into();
    let texts = critique.texts.get();
    let generator = match writer {
        Writer::Packed(packed) => {
            let limits = GenerationLimits {
                texts,
                tokens: blocks_for_texts(packed.shape().blocks, pipeline.max_tokens()) * BLOCK_TOKENS,
                row: PACKED_ROW,
                block: BLOCK_TOKENS,
                ..GenerationLimits::default()
            };
            Generator::start_packed(packed, limits, metrics.clone())
        }
        Writer::Own(session) => {
            let limits = GenerationLimits {
                texts,
                tokens: (TEXT_BYTES / session.shape().bytes_per_token().max(1)).max(pipeline.max_tokens()),
                ..GenerationLimits::default()
            };
            match parts.form {
                GraphForm::Prefixes(known) => {
                    Generator::start_knowing(session, Arc::clone(known), limits, metrics.clone())
                }
                GraphForm::Padded | GraphForm::Packed { .. } => Generator::start(session, limits, metrics.clone()),
            }
        }
    };
    let generator = generator.map_err(|source| LoadError::Workers { path: path.clone(), source: source.into() })?;
    generator.enlist(roster, Stage::Loading);
    if let Some(probe) = probe {
        write_one(&generator, probe).map_err(|reason| LoadError::WarmUp {
            path: path.clone(),
            tokens: probe.len(),
            // There is no other.
            shortest: true,
            reason,
        })?;
        if let GraphForm::Prefixes(known) = parts.form {
            // Nobody will go on from that.
            known.forget();
        }
    }
    Ok(Critic { definition: critique.clone(), ends, generator })
}

/// Writes a token, or says why that can't be done.
fn write_one(generator: &Generator, probe: &TokenizedInput) -> Result<(), String> {
    let order = Order {
        prompt: probe.ids().into(),
        texts: vec![Sampling::GREEDY],
        max_tokens: NonZeroUsize::MIN,
        ends: [].into(),
    };
    for mut stream in generator.submit(order).map_err(|refusal| refusal.to_string())? {
        while let Some(event) = futures_executor::block_on(stream.next()) {
            if let Event::End(_) = event.map_err(|error| error.to_string())? {
                break;
            }
        }
    }
    Ok(())
}
