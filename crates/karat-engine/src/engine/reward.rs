//! From head outputs to rewards: members, aggregate, transforms, up through composites. Pure.

use std::{borrow::Cow, ops::Range, sync::Arc};

use karat_rules::{
    aggregate::{self, Aggregation, Members},
    domain::{Cut, Reward},
    transform::{Available, Chain, Context, Signal},
};

use super::{
    Detail, EnsembleReport, SampleReport, ScoreError, ScoreReport, StepRewards,
    compute::{Leaf, Leaves},
    request::Overrides,
};
use crate::repository::{CompositeMember, Model, ModelBody};

/// What a request wants done otherwise than the model's manifest says, checked against the model.
#[derive(Debug)]
pub(super) struct RequestRules {
    aggregate: Option<Box<dyn Aggregation>>,
    transforms: Option<Chain>,
    context: Context,
    sensitivities: Vec<f64>,
    grouped: bool,
}

impl RequestRules {
    /// Builds the rules for `samples` samples.
    pub(super) fn resolve(model: &Model, overrides: Overrides, samples: usize) -> Result<Self, ScoreError> {
        let candidates = if overrides.grouped { samples } else { 1 };
        let aggregate = overrides.aggregate.map(|choice| aggregate::CATALOGUE.build(&choice)).transpose()?;
        let shape = model.members_shape(candidates);
        aggregate.as_deref().unwrap_or(&*model.aggregate).check(&shape).map_err(ScoreError::Unsuitable)?;

        let available = Available { group: candidates, ..overrides.context.available(model.gives_steps(), samples) };
        let transforms = overrides.transforms.map(|choices| Chain::build_for(&choices, &available)).transpose()?;
        if let Some(name) = transforms.as_ref().and_then(Chain::learning) {
            return Err(ScoreError::NeedsMemory { name: name.to_owned() });
        }
        transforms.as_ref().unwrap_or(&model.transforms).check(&available)?;
        let Overrides { context, sensitivities, grouped, .. } = overrides;
        Ok(Self { aggregate, transforms, context, sensitivities, grouped })
    }

    /// These before the model's own.
    fn over<'a>(&'a self, model: &'a Model) -> Rules<'a> {
        Rules {
            aggregate: self.aggregate.as_deref().unwrap_or(&*model.aggregate),
            transforms: self.transforms.as_ref().unwrap_or(&model.transforms),
            context: &self.context,
            sensitivities: &self.sensitivities,
            grouped: self.grouped,
        }
    }
}

/// Puts the report of a request together; the caller adds the timings that only it knows.
pub(super) fn report(model: &Model, rules: &RequestRules, leaves: &Leaves) -> Result<ScoreReport, ScoreError> {
    let rules = rules.over(model);
    Ok(ScoreReport {
        model: model.name.clone(),
        version: model.version.clone(),
        results: if leaves.is_empty() { Vec::new() } else { score_samples(model, &rules, leaves)? },
        facts: leaves.facts(),
        refused: Vec::new(),
        probabilities: rules
            .transforms
            .gives_probabilities(rules.aggregate.gives_probabilities(model.scores_probabilities())),
        usage: leaves.usage(),
        timings: leaves.timings(),
        passes: leaves.passes(),
    })
}

/// One sample's scores by all members, and what they cost, before they are aggregated.
struct MemberScores {
    members: Members,
    detail: Option<Box<Detail>>,
    tokens: usize,
    cut: Cut,
}

/// By which rules one model scores the samples of a request.
struct Rules<'a> {
    aggregate: &'a dyn Aggregation,
    transforms: &'a Chain,
    context: &'a Context,
    /// One for each sample, or none at all.
    sensitivities: &'a [f64],
    grouped: bool,
}

/// Scores every sample by `model`.
fn score_samples(model: &Model, rules: &Rules<'_>, leaves: &Leaves) -> Result<Vec<SampleReport>, ScoreError> {
    let mut samples = match &model.body {
        ModelBody::Graph(graph) => {
            // Every leaf of the model was computed before anything is scored.
            let leaf = leaves.of(graph).ok_or(ScoreError::Panicked)?;
            let samples = leaf.inputs.samples().enumerate();
            all(leaf.inputs.count(), samples.map(|(index, inputs)| graph_members(leaf, index, inputs)))?
        }
        ModelBody::Composite(members) => composite_members(members, leaves)?,
    };
    for (sample, sensitivity) in samples.iter_mut().zip(rules.sensitivities) {
        // What comes from scores is finite and at least 0.
        sample.members = sample.members.clone().with_sensitivity(*sensitivity).ok_or(ScoreError::Panicked)?;
        sample.detail.get_or_insert_default().sensitivity = Some(*sensitivity);
    }
    let raw = aggregate(&samples, rules)?;

    let mut signals: Vec<Signal> = samples
        .iter()
        .zip(&raw)
        .map(|(sample, raw)| match sample.detail.as_ref().and_then(|detail| detail.steps.as_ref()) {
            Some(steps) if !rules.transforms.is_empty() => Signal::Steps(steps.clone()),
            _ => Signal::Outcome(raw.get()),
        })
        .collect();
    let held = rules.transforms.apply_with(&mut signals, rules.context)?;

    let count = samples.len();
    let scored = samples.into_iter().zip(raw).zip(signals).zip(held).enumerate();
    let reports =
        scored.map(|(index, (((sample, raw), signal), held))| report_sample(index, sample, raw, &signal, held));
    all(count, reports)
}

/// All of so many results, or the first error.
fn all<T>(count: usize, results: impl Iterator<Item = Result<T, ScoreError>>) -> Result<Vec<T>, ScoreError> {
    // `collect` doesn't know how many there will be, and grows as they come.
    let mut all = Vec::with_capacity(count);
    for result in results {
        all.push(result?);
    }
    Ok(all)
}

fn aggregate(samples: &[MemberScores], rules: &Rules<'_>) -> Result<Vec<Reward>, ScoreError> {
    let failed = |index| move |source| ScoreError::Aggregate { index, source };
    if rules.grouped {
        let members: Vec<Members> = samples.iter().map(|sample| sample.members.clone()).collect();
        return rules.aggregate.aggregate_group(&members).map_err(failed(0));
    }
    let each = samples.iter().enumerate();
    all(samples.len(), each.map(|(index, sample)| rules.aggregate.aggregate(&sample.members).map_err(failed(index))))
}

/// The members that one graph model gives a sample: the scores of each of its graphs, strung together.
fn graph_members(leaf: &Leaf, index: usize, inputs: Range<usize>) -> Result<MemberScores, ScoreError> {
    let outputs = leaf.outputs(index, inputs.clone())?;
    let inputs = &leaf.inputs.all()[inputs];
    let most = |cut: fn(&Cut) -> usize| inputs.iter().map(|input| cut(&input.input().cut())).max().unwrap_or(0);
    // Heads give at least one score, all graphs of a model have the same head, and a manifest names one at least.
    let first = outputs.first().ok_or(ScoreError::Panicked)?;
    let members = match first.objectives() {
        Some(names) => {
            let scores: Vec<&[Reward]> = outputs.iter().map(|output| output.members()).collect();
            Members::of_models(Arc::clone(names), &scores)
        }
        None => {
            let scores: Cow<'_, [Reward]> = match &outputs[..] {
                [only] => only.members().into(),
                several => several.iter().flat_map(|output| output.members()).copied().collect(),
            };
            let deviations: Option<Vec<&[f64]>> = outputs.iter().map(|output| output.deviations()).collect();
            let members = Members::new(&scores);
            match deviations {
                Some(deviations) => members.and_then(|members| members.with_deviations(deviations.concat())),
                None => members,
            }
        }
    };
    Ok(MemberScores {
        members: members.ok_or(ScoreError::Panicked)?,
        detail: Detail::of(first),
        tokens: inputs.iter().map(|input| input.input().len()).sum(),
        cut: Cut { prompt_tokens: most(|cut| cut.prompt_tokens), response_tokens: most(|cut| cut.response_tokens) },
    })
}

/// The members of a composite: one reward of each of its models, which are its objectives.
fn composite_members(members: &[CompositeMember], leaves: &Leaves) -> Result<Vec<MemberScores>, ScoreError> {
    let mut columns = Vec::with_capacity(members.len());
    for member in members {
        let rules = Rules {
            aggregate: member.aggregate.as_deref().unwrap_or(&*member.model.aggregate),
            transforms: member.transforms.as_ref().unwrap_or(&member.model.transforms),
            context: &Context::default(),
            sensitivities: &[],
            grouped: false,
        };
        columns.push((&member.model.name, score_samples(&member.model, &rules, leaves)?));
    }
    let samples = columns.first().map_or(0, |(_, reports)| reports.len());
    let row = |sample: usize| {
        let reports = || columns.iter().map(|(_, reports)| &reports[sample]);
        let rewards: Vec<Reward> = reports().map(|report| report.reward).collect();
        let most = |cut: fn(&Cut) -> usize| reports().map(|report| cut(&report.cut)).max().unwrap_or(0);
        let objectives = columns.iter().map(|(name, reports)| (name.to_string(), reports[sample].reward));
        Ok(MemberScores {
            // A manifest names at least one member.
            members: Members::new(&rewards).ok_or(ScoreError::Panicked)?,
            detail: Detail { objectives: objectives.collect(), ..Detail::default() }.if_any(),
            tokens: reports().map(|report| report.tokens).sum(),
            cut: Cut { prompt_tokens: most(|cut| cut.prompt_tokens), response_tokens: most(|cut| cut.response_tokens) },
        })
    };
    (0..samples).map(row).collect()
}

fn report_sample(
    index: usize,
    sample: MemberScores,
    raw: Reward,
    signal: &Signal,
    at_bound: bool,
) -> Result<SampleReport, ScoreError> {
    let finite = |value| Reward::new(value).map_err(|source| ScoreError::Statistic { index, source });
    let MemberScores { members, mut detail, tokens, cut } = sample;
    if let Signal::Steps(rewards) = signal {
        let detail = detail.get_or_insert_default();
        detail.step_rewards = Some(StepRewards { rewards: rewards.clone(), returns_to_go: signal.returns_to_go() });
    }
    Ok(SampleReport {
        reward: finite(signal.total())?,
        raw,
        ensemble: EnsembleReport {
            mean: finite(members.mean())?,
            worst_case: finite(members.minimum())?,
            variance: finite(members.variance())?,
            members: all(members.values().len(), members.values().iter().map(|value| finite(*value)))?,
        },
        detail,
        tokens,
        cut,
        at_bound,
    })
}
