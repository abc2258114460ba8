//! Runs a batch of samples as passes of packed rows.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use karat_rules::domain::RowTensor;

use super::{
    BLOCK_TOKENS, PackedSession, PackedShape,
    layout::{Layout, Limits},
    session::{Claim, Ready, Turn},
};
use crate::{
    Cancellation, Executor, MemoryBound, Purpose, Readout, RuntimeError, SharedDevice, TokenBatch,
    readout::{Plan, Text},
    telemetry::{PrefixCounts, SharingMetrics},
};

/// Runs batches on one session of a packed graph. Where the model is causal, what samples begin with is computed once,
/// within a batch and, as far as the blocks reach, from batch to batch.
pub struct PackedRows {
    session: PackedSession,
    shape: PackedShape,
    /// Whether what samples begin with is computed once.
    shares: bool,
    readout: Arc<Readout>,
    metrics: SharingMetrics,
    /// The most rows of a pass of several samples, which is learned from all who score on the session.
    rows: Arc<Mutex<MemoryBound>>,
    /// The passes that ran out of memory and were tried again, until somebody asks.
    retries: usize,
}

impl PackedRows {
    /// Takes a session, which must have been made to read the outputs of `readout` in their order. `rows` is the most
    /// rows of a pass of several samples; a longer sample runs alone.
    #[must_use]
    pub fn new(session: PackedSession, readout: Arc<Readout>, rows: usize, metrics: SharingMetrics) -> Self {
        let shape = session.shape();
        let rows = Arc::new(Mutex::new(MemoryBound::new(rows)));
        Self { shares: shape.causal, shape, session, readout, metrics, rows, retries: 0 }
    }

    /// Another one on the same session, which makes a pass ready while this one computes.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            session: self.session.clone(),
            shape: self.shape,
            shares: self.shares,
            readout: Arc::clone(&self.readout),
            metrics: self.metrics.clone(),
            rows: Arc::clone(&self.rows),
            retries: 0,
        }
    }

    /// The same, but every sample is computed whole, whatever is known of its beginning.
    #[must_use]
    pub fn without_sharing(self) -> Self {
        Self { shares: false, ..self }
    }
}

/// What was read so far: by text and read.
type Results = Vec<Vec<Option<RowTensor>>>;

impl Executor for PackedRows {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let plans: Vec<Plan> =
            batch.inputs().iter().map(|input| self.readout.plan(input)).collect::<Result<_, RuntimeError>>()?;
        let texts = batch.inputs().iter().zip(&plans).map(|(input, plan)| Text::of(input, plan));
        let texts: Vec<Text<'_>> = texts.map(|text| if self.shares { text } else { text.whole() }).collect();
        let mut results: Results = texts.iter().map(|text| vec![None; text.reads.len()]).collect();
        // Of a text that nothing is read of there is nothing to compute.
        let mut waiting: Vec<usize> = (0..texts.len()).filter(|text| !texts[*text].reads.is_empty()).collect();
        while !waiting.is_empty() {
            if cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled);
            }
            waiting = self.pass(&texts, &waiting, cancel, &mut results)?;
        }
        let gathered = plans.iter().zip(results).map(|(plan, read)| plan.gather(read.into_iter()));
        let lost = || RuntimeError::Pass { cause: "a pass gave less than was read of it".into() };
        gathered.map(|rows| rows.ok_or_else(lost)).collect()
    }

    fn pads(&self) -> bool {
        false
    }

    fn device(&self) -> Option<Arc<dyn SharedDevice>> {
        Some(self.session.device())
    }

    fn take_retries(&mut self) -> usize {
        mem::take(&mut self.retries)
    }
}

impl PackedRows {
    /// Computes as many of the waiting texts as one pass takes; gives those that still wait.
    fn pass(
        &mut self,
        texts: &[Text<'_>],
        waiting: &[usize],
        cancel: &Cancellation,
        results: &mut Results,
    ) -> Result<Vec<usize>, RuntimeError> {
        let limits = self.limits();
        let claim = self.session.prepare(|blocks| Layout::new(texts, waiting, limits, blocks));
        let mut turn = self.session.turn(Purpose::Scoring);
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        let limits = self.limits();
        let ready = claim.and_then(Claim::take).filter(|ready| ready.layout.is_current(texts, limits, turn.blocks));
        let Ready { layout, staged } =
            ready.unwrap_or_else(|| Ready { layout: laid_out(texts, waiting, limits, &turn), staged: None });
        let rows = layout.pass.expand.len();
        if layout.placed.is_empty() {
            return Err(self.does_not_fit(waiting.iter().map(|text| texts[*text].needed)));
        }
        // Whatever comes of it, the leases end with the layout. What a pass that failed wrote is kept by nobody.
        let output = match turn.run(&layout.pass, staged, cancel) {
            Ok(output) => output,
            Err(error @ RuntimeError::OutOfMemory { .. }) if layout.placed.len() > 1 => {
                let bound = self.bound().ran_out(rows);
                if let Some(bound) = bound {
                    tracing::warn!(%error, rows, bound, "out of memory: passes are smaller from now on");
                    self.retries += 1;
                    return Ok(waiting.to_vec());
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        // Whoever asked runs each sample alone then, so that one that overflows fails alone.
        if !output.iter().flat_map(RowTensor::values).all(|value| value.is_finite()) {
            return Err(RuntimeError::NotFinite);
        }
        self.bound().fitted(rows);
        let mut counts = PrefixCounts { computed: layout.pass.tokens.len(), ..PrefixCounts::default() };
        for placed in &layout.placed {
            let text = &texts[placed.text];
            if self.shares {
                turn.blocks.keep(&placed.lease, &text.ids[..placed.lasting]);
            }
            counts.tokens += text.needed;
            counts.cached += placed.known;
            counts.hits += usize::from(placed.known > 0);
        }
        self.metrics.shared(counts);
        for ((text, read), value) in layout.reads.into_iter().zip(output) {
            results[text][read] = Some(value);
        }
        Ok(layout.left)
    }

    fn limits(&self) -> Limits {
        Limits { rows: self.bound().bound(), shares: self.shares }
    }

    fn bound(&self) -> MutexGuard<'_, MemoryBound> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn does_not_fit(&self, tokens: impl Iterator<Item = usize>) -> RuntimeError {
        let blocks = tokens.map(|tokens| tokens.div_ceil(BLOCK_TOKENS)).min().unwrap_or(0);
        let reason = format!(
            "it takes {blocks} blocks of {BLOCK_TOKENS} tokens, and the session has {}; lower text.max_tokens, or raise \
             scheduling.block_memory_mb",
            self.shape.blocks
        );
        RuntimeError::Row { reason }
    }
}

/// A pass that is laid out in its turn. Where blocks are short, those of a pass that was made ready too early are taken.
fn laid_out(texts: &[Text<'_>], waiting: &[usize], limits: Limits, turn: &Turn<'_>) -> Layout {
    let layout = Layout::new(texts, waiting, limits, turn.blocks);
    if !layout.short || !turn.reclaim() {
        return layout;
    }
    drop(layout);
    Layout::new(texts, waiting, limits, turn.blocks)
}

#[cfg(test)]
mod tests;
