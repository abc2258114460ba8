//! Starts a graph of images: all are of one size, so that a batch has no padding and its size is what there is to choose.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{Cancellation, Executor, PixelBinding, ProviderKind, RuntimeError, TokenBatch, ort::Graph};

use super::{
    sessions::{Running, cores},
    trial::{GraphTrial, enforce},
};
use crate::{
    manifest::SchedulingSection,
    repository::GraphForm,
    schedule::{Executors, calibrate::Calibration},
};

/// What a graph of images is started with.
pub(super) struct Pixels<'a> {
    pub(super) written: &'a SchedulingSection,
    pub(super) binding: &'a PixelBinding,
    /// An image to measure with.
    pub(super) probe: Option<&'a Arc<TokenizedInput>>,
    /// How long measuring may take; zero for none.
    pub(super) time: Duration,
    /// What tries the graph.
    pub(super) graph_trial: GraphTrial<'a>,
}

/// The images of a pass unless the manifest says otherwise: what a processor computes is no faster in larger ones, and a
/// GPU is busy with so many.
const ON_PROCESSOR: usize = 8;
const ON_GPU: usize = 64;
/// How often a pass is measured.
const RUNS: usize = 3;

impl Pixels<'_> {
    /// Starts the sessions, and measures how many tokens' worth of images they compute a second: what queues reckon with.
    ///
    /// # Errors
    /// When a session can't start, or the graph doesn't take the images.
    pub(super) fn start(self, graph: &Graph) -> Result<Running, RuntimeError> {
        let on_processor = graph.provider() == ProviderKind::Cpu;
        let sessions = self.written.sessions.unwrap_or(if on_processor { cores() } else { graph.devices() });
        let share = NonZeroUsize::new(cores().get() / sessions).unwrap_or(NonZeroUsize::MIN);
        let threads = if on_processor { self.written.threads.unwrap_or(share) } else { NonZeroUsize::MIN };
        let executors = (0..sessions.get()).map(|_| graph.pixel_executor(self.binding, threads));
        let mut parallel = executors.collect::<Result<Vec<_>, _>>()?;
        let tokens = self.probe.map_or(1, |probe| probe.len());
        let usual = if on_processor { ON_PROCESSOR } else { ON_GPU };
        let images = self.written.max_batch_tokens.map_or(usual, |most| (most.get() / tokens).max(1));
        let images = self.written.max_batch.map_or(images, |most| images.min(most.get()));
        let images = if graph.is_batch_invariant() { images } else { 1 };
        let rate = match (self.probe, parallel.first_mut()) {
            (Some(probe), Some(first)) if !self.time.is_zero() => self.rate(probe, images, &mut **first)?,
            _ => None,
        };
        let calibration = Calibration {
            sessions,
            threads,
            single_threads: None,
            single_jobs: 1,
            batch_tokens: images * tokens,
            batch_samples: images,
            overhead_tokens: 0,
            padding_percent: 0,
            tokens_per_second: rate.map(|rate| rate * sessions.get() as f64),
        };
        let mut executors = Executors { parallel, single: None };
        // Images have one shape, so that nothing is padded and nothing needs a mask; a graph may still mix them.
        let conditions = self.graph_trial.conditions(true, images, images * tokens);
        let trial = match (self.graph_trial.recall(&conditions), executors.parallel.first_mut()) {
            (Some(known), _) => known,
            (None, Some(executor)) => {
                let alone = self.graph_trial.alone(&mut **executor, &conditions)?;
                self.graph_trial.compare(&alone, &mut **executor, &conditions)?
            }
            // There is one at least.
            (None, None) => return Err(RuntimeError::NoProvider),
        };
        let policy = enforce(&trial, &mut executors, calibration.policy());
        Ok(Running { executors, policy, calibration, awaits: None, form: GraphForm::Padded, trial })
    }

    /// How many tokens' worth of images one session computes a second.
    fn rate(
        &self,
        probe: &Arc<TokenizedInput>,
        images: usize,
        executor: &mut dyn Executor,
    ) -> Result<Option<f64>, RuntimeError> {
        let Some(batch) = TokenBatch::new(vec![Arc::clone(probe); images]) else { return Ok(None) };
        let end = Instant::now() + self.time;
        let mut shortest: Option<Duration> = None;
        for _ in 0..RUNS {
            let started = Instant::now();
            executor.run(&batch, &Cancellation::new())?;
            let took = started.elapsed();
            shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));
            if Instant::now() >= end {
                break;
            }
        }
        Ok(shortest.map(|took| batch.tokens() as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)))
    }
}
