//! From tokens to what heads make of them: known, shared with others, or by a forward pass of its own.
//!
//! ```text
//! inputs ─ cache ─▶ schedule ─▶ runtime ─▶ head ─▶ outputs
//!            └──────── what is known or in flight ───▲
//! ```

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    mem::size_of,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use karat_rules::{
    domain::TokenizedInput,
    head::{HeadError, HeadOutput},
};
use karat_runtime::RuntimeError;

use super::{
    Facts, ScoreError, Timings, Usage,
    hashed::Hashed,
    refusal::is_of_one_sample,
    request::Urgency,
    single_flight::{Pending, SingleFlight, Source},
    tokenize::Inputs,
};
use crate::{
    repository::{GraphId, GraphModel, GraphUnit},
    schedule::{Job, JobError, PassRecord},
};

/// What an output is kept under: the graph and the exact token ids, or the digest of an image, so that neither a hash
/// collision of ids nor a model that is loaded again can return another input's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    graph: GraphId,
    input: Hashed,
}

/// What a head made of one input, and what it took.
#[derive(Debug, Clone)]
struct Computed {
    output: Arc<HeadOutput>,
    queued: Duration,
    running: Duration,
    pass: Arc<PassRecord>,
}

/// Why an output that was in flight did not arrive; shared by all who wait for it.
#[derive(Debug, Clone)]
enum ComputeError {
    Job(JobError),
    Head(HeadError),
}

impl ComputeError {
    /// What it means for the sample of that index, whose input went through the model's `graph`-th graph.
    fn of(self, model: &GraphModel, graph: usize, index: usize) -> ScoreError {
        let (name, graph) = (model.name.clone(), Some(graph + 1).filter(|_| model.units.len() > 1));
        match self {
            Self::Head(source) => ScoreError::Head { model: name, index: Some(index), graph, source },
            Self::Job(JobError::Runtime(source)) if matches!(*source, RuntimeError::NotFinite) => {
                ScoreError::NotFinite { model: name, index, graph, source }
            }
            Self::Job(JobError::Expired) => ScoreError::Expired,
            Self::Job(JobError::Stopped) => ScoreError::Stopped,
            Self::Job(JobError::Runtime(source)) => ScoreError::Runtime { model: name, source },
            Self::Job(JobError::Panicked) => ScoreError::Panicked,
        }
    }
}

/// The outputs of all graphs, bounded in bytes.
#[derive(Debug)]
pub(super) struct Outputs {
    cache: SingleFlight<Key, Computed, ComputeError>,
}

impl Outputs {
    /// Keeps at most `bytes`; 0 keeps nothing but still shares what is in flight.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            // What the map itself takes is left out, and the pass, which many share.
            cache: SingleFlight::new(bytes, |key: &Key, computed: &Computed| {
                size_of::<Key>() + key.input.input().bytes() + size_of::<Computed>() + computed.output.bytes()
            }),
        }
    }

    /// Whether outputs are kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.cache.keeps()
    }

    /// The memory that known outputs take.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Of each sample whether the outputs of all its inputs are known.
    pub(super) fn known(&self, leaves: &[Arc<GraphModel>], inputs: &[Arc<Inputs>]) -> Vec<bool> {
        let mut known = vec![true; inputs.first().map_or(0, |inputs| inputs.samples().count())];
        for (model, inputs) in leaves.iter().zip(inputs) {
            for (range, known) in inputs.samples().zip(&mut known) {
                let of_sample = || inputs.all()[range.clone()].iter();
                *known &= model.units.iter().all(|unit| {
                    of_sample().all(|input| self.cache.knows(&Key { graph: unit.id, input: input.clone() }))
                });
            }
        }
        known
    }

    /// Gets the output of every input of every graph. With `spares_others`, a sample of which a head can make nothing is
    /// taken out.
    ///
    /// # Errors
    /// When a queue refuses what has to be computed, or a pass or a head fails.
    pub(super) async fn compute(
        &self,
        leaves: &[Arc<GraphModel>],
        inputs: Vec<Arc<Inputs>>,
        urgency: Urgency,
        spares_others: bool,
    ) -> Result<Computation, ScoreError> {
        let mut pending = Vec::with_capacity(leaves.len());
        for (model, inputs) in leaves.iter().zip(&inputs) {
            // Everything is queued before anything is awaited: a refusal drops, and so abandons, what was admitted.
            let units = model.units.iter().map(|unit| self.begin(model, unit, inputs.all(), urgency));
            pending.push(units.collect::<Result<Vec<_>, _>>()?);
        }
        let mut computed = Vec::with_capacity(leaves.len());
        let mut refused = BTreeMap::new();
        for ((model, inputs), pending) in leaves.iter().zip(inputs).zip(pending) {
            let mut units = Vec::with_capacity(pending.len());
            for (graph, unit) in pending.into_iter().enumerate() {
                let mut scored = Vec::with_capacity(unit.len());
                for (pending, sample) in unit.into_iter().zip(inputs.sample_of_each()) {
                    match Scored::wait(pending).await.map_err(|error| error.of(model, graph, sample)) {
                        Ok(output) => scored.push(Some(output)),
                        Err(error) if spares_others && is_of_one_sample(&error) => {
                            refused.insert(sample, error);
                            scored.push(None);
                        }
                        Err(error) => return Err(error),
                    }
                }
                units.push(scored);
            }
            computed.push((Arc::clone(model), inputs, units));
        }
        let leaves = computed.into_iter().map(|(model, inputs, units)| {
            let stays: Vec<bool> = inputs.sample_of_each().map(|sample| !refused.contains_key(&sample)).collect();
            let kept = |unit: Vec<Option<Scored>>| unit.into_iter().zip(&stays).filter(|(_, stays)| **stays);
            let units = units.into_iter().map(|unit| kept(unit).filter_map(|(scored, _)| scored).collect());
            Leaf { model, units: units.collect(), inputs: Inputs::without(inputs, &refused) }
        });
        Ok(Computation { leaves: Leaves { leaves: leaves.collect() }, refused })
    }

    /// Finds or starts the outputs of one graph; what must be computed is admitted together or not at all.
    fn begin(
        &self,
        model: &Arc<GraphModel>,
        unit: &GraphUnit,
        inputs: &[Hashed],
        urgency: Urgency,
    ) -> Result<Vec<Pending<Computed, ComputeError>>, ScoreError> {
        let mut found: Vec<(usize, Pending<Computed, ComputeError>)> = Vec::with_capacity(inputs.len());
        for side in unit.sides() {
            let own = || inputs.iter().enumerate().filter(|(_, input)| unit.side_of(input.input()).id == side.id);
            // What is known is recognised without its pixels, and what is computed needs them.
            let seen = own().map(|(_, input)| input).filter(|input| input.input().pixels().is_some());
            let seen: HashSet<&Hashed> = seen.collect();
            let keys = own().map(|(_, input)| Key { graph: side.id, input: input.remembered() });
            let pending = self.cache.begin(keys, urgency, |missing| {
                let whole = |key: &Key| Arc::clone(seen.get(&key.input).map_or(&key.input, |input| *input).input());
                start(model, side, missing.iter().map(whole).collect(), urgency)
            })?;
            found.extend(own().map(|(index, _)| index).zip(pending));
        }
        found.sort_unstable_by_key(|(index, _)| *index);
        for (_, pending) in &found {
            match pending.source() {
                Source::Started => model.metrics.cache_miss(),
                Source::Known | Source::Shared => model.metrics.cache_hit(),
            }
        }
        Ok(found.into_iter().map(|(_, pending)| pending).collect())
    }
}

/// Queues inputs of one graph and reads what its passes give.
fn start(
    model: &Arc<GraphModel>,
    unit: &GraphUnit,
    missing: Vec<Arc<TokenizedInput>>,
    urgency: Urgency,
) -> Result<Vec<impl Future<Output = Result<Computed, ComputeError>> + Send + use<>>, ScoreError> {
    let jobs = missing.iter().map(|input| Job {
        input: Arc::clone(input),
        client: urgency.client,
        priority: urgency.priority,
        deadline: urgency.deadline,
        admission: urgency.admission,
    });
    let tickets = unit.scheduler.submit(jobs.collect())?;
    let computed = missing.into_iter().zip(tickets).map(|(input, ticket)| {
        let model = Arc::clone(model);
        async move {
            let completed = ticket.await.map_err(ComputeError::Job)?;
            let output = model.head.read(&input, &completed.rows).map_err(ComputeError::Head)?;
            Ok(Computed {
                output: Arc::new(output),
                queued: completed.queued,
                running: completed.running,
                pass: completed.pass,
            })
        }
    });
    Ok(computed.collect())
}

/// An input's output, and what it cost this request.
#[derive(Debug, Clone)]
struct Scored {
    output: Arc<HeadOutput>,
    /// Whether it needed no forward pass of its own.
    cached: bool,
    queued: Duration,
    running: Duration,
    /// The pass that computed it, where this request waited for one.
    pass: Option<Arc<PassRecord>>,
}

impl Scored {
    async fn wait(pending: Pending<Computed, ComputeError>) -> Result<Self, ComputeError> {
        let source = pending.source();
        let Computed { output, queued, running, pass } = pending.wait().await?;
        Ok(match source {
            // What was known was waited for by somebody else.
            Source::Known => Self { output, cached: true, queued: Duration::ZERO, running: Duration::ZERO, pass: None },
            Source::Shared => Self { output, cached: true, queued, running, pass: Some(pass) },
            Source::Started => Self { output, cached: false, queued, running, pass: Some(pass) },
        })
    }
}

/// What was computed of the samples of a request.
pub(super) struct Computation {
    pub(super) leaves: Leaves,
    /// The samples of which a head can make nothing, by their positions; they are in no leaf.
    pub(super) refused: BTreeMap<usize, ScoreError>,
}

/// What the graphs below a model said about every sample.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaves: Vec<Leaf>,
}

/// What the graphs of one graph model said about every sample.
#[derive(Debug)]
pub(super) struct Leaf {
    model: Arc<GraphModel>,
    pub(super) inputs: Arc<Inputs>,
    /// For each graph of the model, its output for each input.
    units: Vec<Vec<Scored>>,
}

impl Leaf {
    /// What the model's head makes of the sample of that index: an output for each graph, or for as many graphs as it compares.
    ///
    /// # Errors
    /// When the head can't combine what it asked.
    pub(super) fn outputs(&self, index: usize, inputs: Range<usize>) -> Result<Vec<Cow<'_, HeadOutput>>, ScoreError> {
        let readings = self.units.iter().map(|unit| &unit[inputs.clone()]);
        match self.model.head.probing() {
            // A head that doesn't probe has one input a sample.
            None => Ok(readings.flat_map(|unit| unit.iter().map(|scored| Cow::Borrowed(&*scored.output))).collect()),
            Some(probing) => {
                let readings: Vec<Vec<&HeadOutput>> =
                    readings.map(|unit| unit.iter().map(|scored| &*scored.output).collect()).collect();
                let combined = readings.chunks(probing.graphs()).map(|graphs| {
                    let name = &self.model.name;
                    let failed =
                        |source| ScoreError::Head { model: name.clone(), index: Some(index), graph: None, source };
                    probing.combine(graphs).map(Cow::Owned).map_err(failed)
                });
                combined.collect()
            }
        }
    }
}

impl Leaves {
    /// What one graph model said.
    pub(super) fn of(&self, model: &Arc<GraphModel>) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| Arc::ptr_eq(&leaf.model, model))
    }

    /// Whether no sample is left.
    pub(super) fn is_empty(&self) -> bool {
        self.leaves.iter().all(|leaf| leaf.inputs.all().is_empty())
    }

    /// What is known of the samples' texts.
    pub(super) fn facts(&self) -> Vec<Facts> {
        // All leaves have the same samples.
        self.leaves.first().map_or_else(Vec::new, |leaf| leaf.inputs.facts().to_vec())
    }

    /// What it cost, in tokens.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for leaf in &self.leaves {
            for unit in &leaf.units {
                for (scored, input) in unit.iter().zip(leaf.inputs.all()) {
                    let tokens = input.input().len();
                    usage.tokens += tokens;
                    usage.cached_tokens += if scored.cached { tokens } else { 0 };
                }
            }
        }
        usage
    }

    /// The forward passes that the request waited for, each once, in the order in which they began.
    pub(super) fn passes(&self) -> Vec<Arc<PassRecord>> {
        let scored = self.leaves.iter().flat_map(|leaf| leaf.units.iter().flatten());
        let mut passes: Vec<_> = scored.filter_map(|scored| scored.pass.clone()).collect();
        passes.sort_by_key(|pass| (pass.started, pass.id));
        passes.dedup_by_key(|pass| pass.id);
        passes
    }

    /// How long queues and passes took.
    pub(super) fn timings(&self) -> Timings {
        let longest = |time: fn(&Scored) -> Duration| {
            self.leaves.iter().flat_map(|leaf| leaf.units.iter().flatten()).map(time).max().unwrap_or_default()
        };
        Timings {
            queue: longest(|scored| scored.queued),
            infer: longest(|scored| scored.running),
            ..Timings::default()
        }
    }
}
