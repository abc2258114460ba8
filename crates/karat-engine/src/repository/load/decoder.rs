//! Starts a decoder: its sessions share what samples begin with.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use karat_rules::head::Head;
use karat_runtime::{
    DecoderExecutor, Padding, ProviderKind, Purpose, Readout, RuntimeError, ScoresAt,
    ort::{Graph, Library, Sessions},
    prefix::{PrefixCache, PrefixExecutor, RowCost, SharedModel, Singles},
    telemetry::SharingMetrics,
};

use super::{
    sessions::{Running, cores},
    trial::GraphTrial,
};
use crate::{
    manifest::{GraphDefinition, SchedulingSection},
    repository::GraphForm,
    schedule::{
        Executors, Grouping, Policy,
        calibrate::Calibration,
        recall, remember,
        trial::{Company, Trial},
    },
};

/// What a decoder is started with beside its graph.
pub(super) struct Decoder<'a> {
    pub(super) library: &'a Library,
    /// What tells the model's passes from those of others.
    pub(super) passes: &'a str,
    pub(super) written: &'a SchedulingSection,
    pub(super) head: &'a dyn Head,
    /// The outputs that the head reads, in its order.
    pub(super) outputs: Vec<String>,
    pub(super) cache: &'a PrefixCache,
    pub(super) metrics: SharingMetrics,
    /// A token that the model knows.
    pub(super) token: u32,
    /// Where the costs of rows are kept between starts.
    pub(super) file: &'a Path,
    /// How long measuring may take; zero for none.
    pub(super) time: std::time::Duration,
    /// What was measured of the graph that this one replaces.
    pub(super) replaced: Option<RowCost>,
    /// What tries whether samples may share rows.
    pub(super) graph_trial: GraphTrial<'a>,
}

/// What may join the first sample of a batch, in rows of 256 tokens: 64 candidates of 32 tokens with what a template writes
/// around each, as a few that are left over pay for a row of their own, and little enough to be over soon.
const ROWS: usize = 9;
/// The most bytes of weights that sessions of one thread are started for: each packs all of them before they turn out to be
/// there already.
const SINGLES_WEIGHTS: u64 = 1 << 30;
/// The most samples of a batch unless the manifest says otherwise.
const SAMPLES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// How many of the jobs that are due first a batch is chosen from.
const WINDOW: usize = 512;

/// How the sessions of a model's decoders will be asked for.
pub(super) fn sessions(definition: &GraphDefinition) -> Sessions {
    let (sessions, threads) = division(&definition.scheduling, ProviderKind::Cpu);
    Sessions { threads, alone: is_alone(definition, sessions) }
}

/// Whether a graph has one session, if it has so many. Who writes has one beside those that score, and a provider that
/// fails must leave the weights to the next.
pub(super) fn is_alone(definition: &GraphDefinition, sessions: NonZeroUsize) -> bool {
    sessions == NonZeroUsize::MIN && definition.critique.is_none() && definition.providers.len() == 1
}

/// How many sessions of how many threads. Rows are long enough to keep all cores busy, and a prompt is computed once, one
/// row after another: one session on all cores is never much slower than several, and often faster.
fn division(written: &SchedulingSection, provider: ProviderKind) -> (NonZeroUsize, NonZeroUsize) {
    let sessions = written.sessions.unwrap_or(NonZeroUsize::MIN);
    if provider != ProviderKind::Cpu {
        return (sessions, NonZeroUsize::MIN);
    }
    let fitting = NonZeroUsize::new(cores().get() / sessions).unwrap_or(NonZeroUsize::MIN);
    (sessions, written.threads.unwrap_or(fitting))
}

/// How many sessions of one thread a decoder on the processor has beside the one on all cores, with weights of so many
/// bytes: one for each core, for rows side by side. None where a batch has fewer rows than there are cores, where the
/// manifest divides the machine, or where weights are large.
pub(super) fn singles(written: &SchedulingSection, provider: ProviderKind, weight_bytes: u64) -> usize {
    let fills_cores = (2..=ROWS).contains(&cores().get());
    let divided = written.sessions.is_some() || written.threads.is_some();
    let small = weight_bytes <= SINGLES_WEIGHTS;
    if provider == ProviderKind::Cpu && fills_cores && !divided && small { cores().get() } else { 0 }
}

impl Decoder<'_> {
    /// Starts the sessions and measures what rows cost, unless an earlier start did.
    ///
    /// # Errors
    /// When a session can't start or a row can't be computed.
    pub(super) fn start(self, graph: &Graph) -> Result<Running, RuntimeError> {
        let (sessions, threads) = division(self.written, graph.provider());
        let decoders = (0..sessions.get()).map(|_| graph.decoder_executor(&self.outputs, threads, Purpose::Scoring));
        let mut decoders: Vec<Box<dyn DecoderExecutor>> = decoders.collect::<Result<_, _>>()?;
        let cost = match decoders.first_mut() {
            Some(first) => self.cost(&mut **first, graph.provider(), threads)?,
            None => RowCost::assumed(),
        };
        let scores_at = scores_at(self.head, true, graph.decoder_padding());
        let calibration = Calibration {
            sessions,
            threads,
            single_threads: None,
            single_jobs: 1,
            batch_tokens: self.written.max_batch_tokens.map_or(cost.best(0).max(256) * ROWS, NonZeroUsize::get),
            batch_samples: if graph.is_batch_invariant() { self.written.max_batch.unwrap_or(SAMPLES).get() } else { 1 },
            overhead_tokens: 0,
            padding_percent: 100,
            tokens_per_second: cost.tokens_per_second(),
        };
        let readout = Readout { outputs: self.outputs.clone(), scores_at };
        let model = |shares, metrics: &SharingMetrics| {
            let (readout, cost, cache) = (readout.clone(), cost.clone(), self.cache.clone());
            SharedModel::new(readout, shares, cost, cache, metrics.clone())
        };
        let first = if decoders.is_empty() { None } else { Some(decoders.remove(0)) };
        // There is one at least.
        let (trial, first) = self.tried(first.ok_or(RuntimeError::NoProvider)?, &model, &calibration)?;
        let shares = trial.company == Company::Any;
        let singles = if shares { self.singles(graph)? } else { Vec::new() };
        let abreast = NonZeroUsize::new(singles.len()).unwrap_or(NonZeroUsize::MIN);
        let grouping = if shares { Grouping::Beginning { abreast } } else { Grouping::Length };
        let policy = Policy { grouping, window: WINDOW, ..calibration.policy() }.in_company(trial.company);
        let shared = Arc::new(model(shares, &self.metrics).with_singles(Singles::new(singles)));
        let executor = |decoder| Box::new(PrefixExecutor::new(decoder, Arc::clone(&shared))) as _;
        let parallel = std::iter::once(first).chain(decoders).map(executor).collect();
        let executors = Executors { parallel, single: None };
        Ok(Running { executors, policy, calibration, awaits: None, form: GraphForm::Prefixes(shared), trial })
    }

    /// The sessions on which rows are computed side by side.
    fn singles(&self, graph: &Graph) -> Result<Vec<Box<dyn DecoderExecutor>>, RuntimeError> {
        if !graph.lends_weights() {
            return Ok(Vec::new());
        }
        let count = singles(self.written, graph.provider(), graph.weight_bytes());
        (0..count).map(|_| graph.decoder_executor(&self.outputs, NonZeroUsize::MIN, Purpose::Scoring)).collect()
    }

    /// Tries a session; gives it back.
    fn tried(
        &self,
        decoder: Box<dyn DecoderExecutor>,
        model: &impl Fn(bool, &SharingMetrics) -> SharedModel,
        calibration: &Calibration,
    ) -> Result<(Trial, Box<dyn DecoderExecutor>), RuntimeError> {
        let conditions = self.graph_trial.conditions(true, calibration.batch_samples, calibration.batch_tokens);
        if let Some(known) = self.graph_trial.recall(&conditions) {
            return Ok((known, decoder));
        }
        let unread = SharingMetrics::unread().unwrap_or_else(|_| self.metrics.clone());
        let mut whole = PrefixExecutor::new(decoder, Arc::new(model(false, &unread)));
        let alone = self.graph_trial.alone(&mut whole, &conditions)?;
        let sharing = Arc::new(model(!conditions.quantises, &unread));
        let mut sharing = PrefixExecutor::new(whole.into_decoder(), sharing);
        let trial = self.graph_trial.compare(&alone, &mut sharing, &conditions)?;
        Ok((trial, sharing.into_decoder()))
    }

    fn cost(
        &self,
        decoders: &mut dyn DecoderExecutor,
        provider: ProviderKind,
        threads: NonZeroUsize,
    ) -> Result<RowCost, RuntimeError> {
        let Self { passes, library, .. } = self;
        let fingerprint = format!("{passes} {provider} {threads} {:?} {}", self.outputs, library.build_info());
        let sound = |cost: &RowCost| match cost.is_sound() {
            true => Ok(()),
            false => Err("no rows cost that".to_owned()),
        };
        if let Some(cost) = recall(self.file, &fingerprint, sound).or_else(|| self.replaced.clone()) {
            return Ok(cost);
        }
        if self.time.is_zero() {
            return Ok(RowCost::assumed());
        }
        let cost = RowCost::measure(decoders, self.token, self.time)?;
        if let Err(error) = remember(self.file, &fingerprint, &cost) {
            tracing::info!(file = %self.file.display(), %error, "costs of rows not kept: measured again next time");
        }
        Ok(cost)
    }
}

/// Where a head reads its scores: a model that looks both ways gives a sample's at its first token.
pub(super) fn scores_at(head: &dyn Head, causal: bool, padding: Option<Padding>) -> ScoresAt {
    let shape = head.shape();
    match () {
        () if shape.steps => ScoresAt::Marks,
        () if shape.tokens => ScoresAt::Response,
        () if causal => ScoresAt::End { padding },
        () => ScoresAt::Start,
    }
}
