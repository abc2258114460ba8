//! A decoder that computes nothing until it is told to stop, so that what it writes is never over.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use karat_engine::{
    generate::{GenerationLimits, Generator},
    manifest::CritiqueDefinition,
    repository::Critic,
    telemetry::ModelMetrics,
    text::StopStrings,
};
use karat_rules::domain::{ElementType, Pattern};
use karat_runtime::{Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, RuntimeError};

/// Holds each of its rows until that is cancelled. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldDecoder {
    begun: Arc<AtomicUsize>,
}

impl HeldDecoder {
    /// How many rows have begun.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// What writes critiques with it.
    pub(crate) fn critic(&self, metrics: &ModelMetrics) -> Critic {
        Critic {
            definition: CritiqueDefinition {
                request: Pattern::parse("{prompt} {response}", &["prompt", "response"]).unwrap(),
                max_tokens: NonZeroUsize::new(8).unwrap(),
                stop: StopStrings::default(),
                end_tokens: Vec::new(),
                rating: None,
                texts: NonZeroUsize::MIN,
            },
            ends: [].into(),
            generator: Generator::start(Box::new(self.clone()), GenerationLimits::default(), metrics.clone()).unwrap(),
        }
    }
}

impl DecoderExecutor for HeldDecoder {
    fn forward(&mut self, _: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        let (end, ended) = mpsc::channel();
        let _registration = cancel.on_cancel(move || {
            // The row that waits for it may be over already.
            let _ = end.send(());
        });
        self.begun.fetch_add(1, Ordering::SeqCst);
        // The hook holds the sending side for as long as the row is held.
        ended.recv().unwrap();
        Err(RuntimeError::Cancelled)
    }

    fn shape(&self) -> DecoderShape {
        DecoderShape { layers: 1, kv_heads: 1, head_dim: 1, context: 64, element: ElementType::Float32 }
    }
}
