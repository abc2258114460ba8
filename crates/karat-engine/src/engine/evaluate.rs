//! From head outputs to rewards: members, aggregate, transforms, up through composites. Pure.

use std::{borrow::Cow, ops::Range, sync::Arc, time::Duration};

use karat_rules::{
    aggregate::{self, Aggregation, Members},
    domain::{Cut, Reward},
    head::HeadOutput,
    transform::{Available, Chain, Context, Signal},
};

use super::{
    CompositeMember, Detail, EnsembleReport, GraphModel, Model, ModelBody, SampleReport, ScoreError, ScoreReport,
    StepRewards, Timings, Usage,
    cache::{Pending, Scored},
    request::Overrides,
    tokenize::Inputs,
};

/// What a request wants done otherwise than the model's manifest says, checked against the model.
#[derive(Debug)]
pub(super) struct Rules {
    aggregate: Option<Box<dyn Aggregation>>,
    transforms: Option<Chain>,
    context: Context,
    grouped: bool,
}

impl Rules {
    /// Builds the rules for `samples` samples.
    pub(super) fn resolve(model: &Model, overrides: Overrides, samples: usize) -> Result<Self, ScoreError> {
        let candidates = if overrides.grouped { samples } else { 1 };
        let aggregate = overrides.aggregate.map(|choice| aggregate::CATALOGUE.build(&choice)).transpose()?;
        let shape = model.members_shape(candidates);
        aggregate.as_deref().unwrap_or(&*model.aggregate).check(&shape).map_err(ScoreError::Unsuitable)?;

        let available = Available { group: candidates, ..overrides.context.available(model.gives_steps(), samples) };
        let transforms = overrides.transforms.map(|choices| Chain::build_for(&choices, &available)).transpose()?;
        if let Some(name) = transforms.as_ref().and_then(Chain::learning) {
            return Err(ScoreError::Forgetful { name: name.to_owned() });
        }
        transforms.as_ref().unwrap_or(&model.transforms).check(&available)?;
        Ok(Self { aggregate, transforms, context: overrides.context, grouped: overrides.grouped })
    }
}

/// What the graphs below a model said about every sample.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaves: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    model: Arc<GraphModel>,
    inputs: Arc<Inputs>,
    /// For each graph of the model, its output for each input.
    units: Vec<Vec<Scored>>,
}

impl Leaf {
    /// What the model's head makes of one sample: an output for each graph, or for as many graphs as it compares.
    fn outputs(&self, inputs: Range<usize>) -> Result<Vec<Cow<'_, HeadOutput>>, ScoreError> {
        let readings = self.units.iter().map(|unit| &unit[inputs.clone()]);
        match self.model.head.probing() {
            // A head that doesn't probe has one input a sample.
            None => Ok(readings.flat_map(|unit| unit.iter().map(|scored| Cow::Borrowed(&*scored.output))).collect()),
            Some(probing) => {
                let readings: Vec<Vec<&HeadOutput>> =
                    readings.map(|unit| unit.iter().map(|scored| &*scored.output).collect()).collect();
                let combined = readings.chunks(probing.graphs()).map(|graphs| {
                    let failed = |source| ScoreError::Head { model: self.model.name.clone(), source };
                    probing.combine(graphs).map(Cow::Owned).map_err(failed)
                });
                combined.collect()
            }
        }
    }
}

impl Leaves {
    /// Waits for the outputs of one graph model.
    pub(super) async fn collect(
        &mut self,
        model: Arc<GraphModel>,
        inputs: Arc<Inputs>,
        pending: Vec<Vec<Pending>>,
    ) -> Result<(), ScoreError> {
        let mut units = Vec::with_capacity(pending.len());
        for unit in pending {
            let mut scored = Vec::with_capacity(unit.len());
            for sample in unit {
                scored.push(sample.wait(&model.name).await?);
            }
            units.push(scored);
        }
        self.leaves.push(Leaf { model, inputs, units });
        Ok(())
    }

    fn of(&self, model: &Arc<GraphModel>) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| Arc::ptr_eq(&leaf.model, model))
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for leaf in &self.leaves {
            for unit in &leaf.units {
                for (scored, input) in unit.iter().zip(leaf.inputs.all()) {
                    usage.tokens += input.len();
                    usage.cached_tokens += if scored.cached { input.len() } else { 0 };
                }
            }
        }
        usage
    }

    fn timings(&self) -> Timings {
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

/// Puts the report of a request together; the caller adds the timings that only it knows.
pub(super) fn report(model: &Model, rules: &Rules, leaves: &Leaves) -> Result<ScoreReport, ScoreError> {
    let court = Court {
        aggregate: rules.aggregate.as_deref().unwrap_or(&*model.aggregate),
        transforms: rules.transforms.as_ref().unwrap_or(&model.transforms),
        context: &rules.context,
        grouped: rules.grouped,
    };
    Ok(ScoreReport {
        model: model.name.clone(),
        version: model.version.clone(),
        results: judge(model, &court, leaves)?,
        usage: leaves.usage(),
        timings: leaves.timings(),
    })
}

/// One sample's members, and what they cost, before they are aggregated.
struct Ballot {
    members: Members,
    detail: Detail,
    tokens: usize,
    cut: Cut,
}

/// How the samples of a request are judged by one model.
struct Court<'a> {
    aggregate: &'a dyn Aggregation,
    transforms: &'a Chain,
    context: &'a Context,
    grouped: bool,
}

/// Scores every sample by `model`.
fn judge(model: &Model, court: &Court<'_>, leaves: &Leaves) -> Result<Vec<SampleReport>, ScoreError> {
    let ballots = match &model.body {
        ModelBody::Graph(graph) => {
            // Every leaf of the model was collected before anything is judged.
            let leaf = leaves.of(graph).ok_or(ScoreError::Panicked)?;
            leaf.inputs.samples().map(|inputs| leaf_ballot(leaf, inputs)).collect::<Result<Vec<_>, _>>()?
        }
        ModelBody::Composite(members) => composite_ballots(members, leaves)?,
    };
    let members: Vec<Members> = ballots.iter().map(|ballot| ballot.members.clone()).collect();
    let raw = aggregate(&members, court)?;

    let mut signals: Vec<Signal> = ballots
        .iter()
        .zip(&raw)
        .map(|(ballot, raw)| match &ballot.detail.steps {
            Some(steps) if !court.transforms.is_empty() => Signal::Steps(steps.clone()),
            _ => Signal::Outcome(raw.get()),
        })
        .collect();
    court.transforms.apply_with(&mut signals, court.context)?;

    let verdicts = ballots.into_iter().zip(raw).zip(signals).enumerate();
    verdicts.map(|(index, ((ballot, raw), signal))| report_sample(index, ballot, raw, &signal)).collect()
}

fn aggregate(members: &[Members], court: &Court<'_>) -> Result<Vec<Reward>, ScoreError> {
    let blame = |index| move |source| ScoreError::Aggregate { index, source };
    if court.grouped {
        return court.aggregate.aggregate_group(members).map_err(blame(0));
    }
    members
        .iter()
        .enumerate()
        .map(|(index, members)| court.aggregate.aggregate(members).map_err(blame(index)))
        .collect()
}

/// The members of one graph model: the scores of each of its graphs, strung together.
fn leaf_ballot(leaf: &Leaf, inputs: Range<usize>) -> Result<Ballot, ScoreError> {
    let outputs = leaf.outputs(inputs.clone())?;
    let outputs: Vec<&HeadOutput> = outputs.iter().map(|output| &**output).collect();
    let inputs = &leaf.inputs.all()[inputs];
    let most = |cut: fn(&Cut) -> usize| inputs.iter().map(|input| cut(&input.cut())).max().unwrap_or(0);
    // Heads give at least one score, all graphs of a model have the same head, and a manifest names one at least.
    let first = outputs.first().ok_or(ScoreError::Panicked)?;
    let members = match first.objectives() {
        Some(names) => {
            let ballots: Vec<&[Reward]> = outputs.iter().map(|output| output.members()).collect();
            Members::of_ballots(Arc::clone(names), &ballots)
        }
        None => {
            let scores: Vec<Reward> = outputs.iter().flat_map(|output| output.members()).copied().collect();
            let deviations: Option<Vec<&[f64]>> = outputs.iter().map(|output| output.deviations()).collect();
            let members = Members::new(&scores);
            match deviations {
                Some(deviations) => members.and_then(|members| members.with_deviations(deviations.concat())),
                None => members,
            }
        }
    };
    Ok(Ballot {
        members: members.ok_or(ScoreError::Panicked)?,
        detail: Detail::of(first),
        tokens: inputs.iter().map(|input| input.len()).sum(),
        cut: Cut { prompt_tokens: most(|cut| cut.prompt_tokens), response_tokens: most(|cut| cut.response_tokens) },
    })
}

/// The members of a composite: one reward of each of its models, which are its objectives.
fn composite_ballots(members: &[CompositeMember], leaves: &Leaves) -> Result<Vec<Ballot>, ScoreError> {
    let mut columns = Vec::with_capacity(members.len());
    for member in members {
        let court = Court {
            aggregate: member.aggregate.as_deref().unwrap_or(&*member.model.aggregate),
            transforms: member.transforms.as_ref().unwrap_or(&member.model.transforms),
            context: &Context::default(),
            grouped: false,
        };
        columns.push((&member.model.name, judge(&member.model, &court, leaves)?));
    }
    let samples = columns.first().map_or(0, |(_, reports)| reports.len());
    let row = |sample: usize| {
        let reports = || columns.iter().map(|(_, reports)| &reports[sample]);
        let rewards: Vec<Reward> = reports().map(|report| report.reward).collect();
        let most = |cut: fn(&Cut) -> usize| reports().map(|report| cut(&report.cut)).max().unwrap_or(0);
        let objectives = columns.iter().map(|(name, reports)| (name.to_string(), reports[sample].reward));
        Ok(Ballot {
            // A manifest names at least one member.
            members: Members::new(&rewards).ok_or(ScoreError::Panicked)?,
            detail: Detail { objectives: objectives.collect(), ..Detail::default() },
            tokens: reports().map(|report| report.tokens).sum(),
            cut: Cut { prompt_tokens: most(|cut| cut.prompt_tokens), response_tokens: most(|cut| cut.response_tokens) },
        })
    };
    (0..samples).map(row).collect()
}

fn report_sample(index: usize, ballot: Ballot, raw: Reward, signal: &Signal) -> Result<SampleReport, ScoreError> {
    let finite = |value| Reward::new(value).map_err(|source| ScoreError::Statistic { index, source });
    let Ballot { members, mut detail, tokens, cut } = ballot;
    if let Signal::Steps(rewards) = signal {
        detail.step_rewards = Some(StepRewards { rewards: rewards.clone(), returns_to_go: signal.returns_to_go() });
    }
    Ok(SampleReport {
        reward: finite(signal.total())?,
        raw,
        ensemble: EnsembleReport {
            mean: finite(members.mean())?,
            worst_case: finite(members.minimum())?,
            variance: finite(members.variance())?,
            members: members.values().iter().map(|value| finite(*value)).collect::<Result<_, _>>()?,
        },
        detail,
        tokens,
        cut,
    })
}
