//! Starts a model of packed rows: how many blocks of keys and values its sessions have, and how long a pass may be.

use std::{num::NonZeroUsize, sync::Arc};

use karat_rules::head::{DecoderOutput, Head};
use karat_runtime::{
    Executor, ProviderKind, Readout, RuntimeError,
    ort::Graph,
    packed::{BLOCK_TOKENS, PackedModel, PackedRows, PackedSession},
    telemetry::{PackedMetrics, SharingMetrics},
};

use super::{
    decoder::scores_at,
    sessions::{Running, SMALL_WEIGHTS, cores},
    trial::GraphTrial,
};
use crate::{
    manifest::SchedulingSection,
    repository::GraphForm,
    schedule::{
        Executors, Grouping, Policy,
        calibrate::Calibration,
        trial::{Company, Trial},
    },
};

/// What a model of packed rows is started with beside its graph.
pub(super) struct Packed<'a> {
    pub(super) written: &'a SchedulingSection,
    pub(super) head: &'a dyn Head,
    /// The outputs that the head reads, in its order.
    pub(super) outputs: Vec<String>,
    pub(super) max_tokens: usize,
    /// Whether it writes critiques.
    pub(super) writes: bool,
    pub(super) metrics: SharingMetrics,
    pub(super) packed_metrics: PackedMetrics,
    /// What tries whether samples may share passes.
    pub(super) graph_trial: GraphTrial<'a>,
}

/// The rows of a pass unless the manifest says otherwise. A GPU is busy with so many, and soon done with them: a model
/// of many weights with fewer.
const ROWS_OF_SMALL: usize = 1 << 15;
const ROWS_OF_LARGE: usize = 1 << 13;
/// On a processor nothing is gained by more.
const ROWS_ON_PROCESSOR: usize = 1 << 11;

/// The memory for keys and values on a GPU unless the manifest says otherwise: prompts of about 30,000 tokens of a model
/// of 8 billion parameters.
const BYTES: usize = 4 << 30;
/// The blocks on a processor.
const BLOCKS_ON_PROCESSOR: usize = 64;
/// How short the samples of a pass may be on average, in rows, for a model that keeps nothing between passes: each takes
/// a block of its own.
const SHORT: usize = 32;
/// How many of the jobs that are due first a batch is chosen from.
const WINDOW: usize = 4096;

impl Packed<'_> {
    /// Starts a session on each device, with its blocks.
    ///
    /// # Errors
    /// When a session can't start, or its device doesn't hold the blocks.
    pub(super) fn start(self, graph: &Graph, model: &PackedModel) -> Result<Running, RuntimeError> {
        let on_processor = graph.provider() == ProviderKind::Cpu;
        let sessions = self.written.sessions.unwrap_or_else(|| graph.devices());
        let share = NonZeroUsize::new(cores().get() / sessions).unwrap_or(NonZeroUsize::MIN);
        let threads = if on_processor { self.written.threads.unwrap_or(share) } else { NonZeroUsize::MIN };
        let usual = match graph.weight_bytes() {
            _ if on_processor => ROWS_ON_PROCESSOR,
            weights if weights <= SMALL_WEIGHTS => ROWS_OF_SMALL,
            _ => ROWS_OF_LARGE,
        };
        let rows = self.written.max_batch_tokens.map_or(usual, NonZeroUsize::get);
        let blocks = self.blocks(model, rows, on_processor);
        let scores_at = scores_at(self.head, model.causal, model.padding);
        let readout = Readout { scores_at, outputs: self.outputs.clone() };
        let readout = Arc::new(readout);
        let mut read = readout.outputs.clone();
        let logits = self.writes.then(|| place_of(DecoderOutput::Logits.name(), &mut read));
        let session = || {
            let executor = graph.packed_executor(&read, blocks, threads)?;
            Ok(PackedSession::new(executor, self.packed_metrics.clone()))
        };
        let first = session()?;
        let others = (1..sessions.get()).map(|_| session()).collect::<Result<Vec<_>, RuntimeError>>()?;
        let most = self.written.max_batch.map_or(WINDOW, NonZeroUsize::get);
        let calibration = Calibration {
            sessions,
            threads,
            single_threads: None,
            single_jobs: 1,
            batch_tokens: rows,
            batch_samples: if graph.is_batch_invariant() { most } else { 1 },
            overhead_tokens: 0,
            padding_percent: 0,
            tokens_per_second: None,
        };
        let unread = SharingMetrics::unread().unwrap_or_else(|_| self.metrics.clone());
        let trying = || PackedRows::new(first.clone(), Arc::clone(&readout), rows, unread.clone());
        let trial = self.tried(&calibration, &trying)?;
        let scoring = |session| PackedRows::new(session, Arc::clone(&readout), rows, self.metrics.clone());
        let shares = trial.company == Company::Any;
        let rows = std::iter::once(first.clone()).chain(others).map(scoring);
        let rows: Vec<PackedRows> = rows.map(|rows| if shares { rows } else { rows.without_sharing() }).collect();
        // Of two on a session, one makes the next pass ready while the other's runs.
        let beside: Vec<PackedRows> = rows.iter().map(PackedRows::beside).collect();
        let parallel = rows.into_iter().chain(beside).map(|rows| Box::new(rows) as Box<dyn Executor>);
        let executors = Executors { parallel: parallel.collect(), single: None };
        let shared = NonZeroUsize::new(BLOCK_TOKENS).filter(|_| model.causal && shares);
        let policy = Policy { grouping: Grouping::Packed { shared }, window: WINDOW, ..calibration.policy() };
        let policy = policy.in_company(trial.company);
        let form = GraphForm::Packed { session: first, logits };
        Ok(Running { executors, policy, calibration, awaits: None, form, trial })
    }

    /// Tries a session.
    fn tried(&self, calibration: &Calibration, scoring: &impl Fn() -> PackedRows) -> Result<Trial, RuntimeError> {
        let conditions = self.graph_trial.conditions(true, calibration.batch_samples, calibration.batch_tokens);
        if let Some(known) = self.graph_trial.recall(&conditions) {
            return Ok(known);
        }
        let alone = self.graph_trial.alone(&mut scoring().without_sharing(), &conditions)?;
        self.graph_trial.compare(&alone, &mut scoring(), &conditions)
    }

    /// How many blocks a session has: as many as its memory holds, but enough for the longest sample and for a pass.
    fn blocks(&self, model: &PackedModel, rows: usize, on_processor: bool) -> NonZeroUsize {
        let block = model.block_bytes.max(1);
        let longest = self.max_tokens.div_ceil(BLOCK_TOKENS);
        let least = if self.writes { longest + longest_text(self.max_tokens) } else { longest };
        let blocks = match self.written.block_memory_mb {
            Some(mebibytes) => mebibytes.get().saturating_mul(1 << 20) / block,
            None if on_processor => BLOCKS_ON_PROCESSOR,
            None if model.causal => (BYTES / block).max(rows.div_ceil(BLOCK_TOKENS)),
            None => rows.div_ceil(SHORT),
        };
        NonZeroUsize::new(blocks.max(least)).unwrap_or(NonZeroUsize::MIN)
    }
}

/// The place of an output among those that are read, where it is put if it isn't there.
fn place_of(output: &str, read: &mut Vec<String>) -> usize {
    read.iter().position(|name| name == output).unwrap_or_else(|| {
        read.push(output.to_owned());
        read.len() - 1
    })
}

/// How many of a session's blocks the texts that are written on it may take: half of them, and never so many that the
/// longest sample couldn't be scored beside them.
pub(super) fn blocks_for_texts(blocks: usize, max_tokens: usize) -> usize {
    let longest = max_tokens.div_ceil(BLOCK_TOKENS);
    (blocks / 2).max(longest_text(max_tokens)).min(blocks.saturating_sub(longest))
}

/// How many blocks a text of so many tokens takes that is written: its prompt may end within a block, of which what is
/// written has a copy.
fn longest_text(max_tokens: usize) -> usize {
    max_tokens.div_ceil(BLOCK_TOKENS) + 1
}
