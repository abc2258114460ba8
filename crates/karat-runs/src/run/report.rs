//! What is told of a run.

use std::fmt::Write;

use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CalibrationReport, Config, Event, RunName};
use crate::{
    signals::Reading,
    statistics::{Bucket, Moments, PairSeries, TaskSketch},
};

/// The levels of the quantiles that are told.
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// A run in a line.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunSummary {
    /// Its name.
    pub run: RunName,
    /// How many samples were scored.
    pub samples: u64,
    /// The latest step, of those that were named or counted.
    pub last_step: u64,
    /// The models that scored.
    pub models: Vec<ModelName>,
    /// The signals that fire now, each once.
    pub firing: Vec<String>,
    /// When the run was last heard of, in milliseconds since 1970.
    pub updated: u64,
}

/// All that is known of a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunReport {
    /// Its name.
    pub run: RunName,
    /// How many samples were scored.
    pub samples: u64,
    /// When the run was first heard of, in milliseconds since 1970.
    pub created: u64,
    /// When the run was last heard of, in milliseconds since 1970.
    pub updated: u64,
    /// What was asked for beside statistics.
    pub config: Config,
    /// Samples that a second judge can't score, since their texts are rendered for another model, or that came faster than
    /// it scores.
    pub unjudged: u64,
    /// What each model gave.
    pub models: Vec<ModelReport>,
    /// What each model gave for each task that requests named.
    pub tasks: Vec<TaskReport>,
    /// The signals that began to fire or stopped, oldest first, up to 128.
    pub events: Vec<Event>,
}

/// One model's rewards in a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModelReport {
    /// The model.
    pub model: ModelName,
    /// How many samples it scored.
    pub samples: u64,
    /// What later steps are compared with; null until the run's beginning is over.
    pub reference: Option<StepReport>,
    /// Whether the reference was registered, in place of the run's beginning.
    pub registered: bool,
    /// The steps, oldest first. A long run's steps are merged with their neighbours.
    pub steps: Vec<StepReport>,
    /// Rewards beside a second judge's scores; null without one.
    pub judge: Option<PairsReport>,
    /// Rewards beside outcomes; null without any.
    pub outcomes: Option<PairsReport>,
    /// Rewards beside what edits that shouldn't matter changed them by; null where none were tried.
    pub sensitivity: Option<PairsReport>,
    /// Errors of the reward as a probability of success; null without outcomes of 0 and 1.
    pub calibration: Option<CalibrationReport>,
    /// Every signal's state.
    pub signals: Vec<SignalReport>,
}

/// One model's rewards for one task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TaskReport {
    /// The task.
    pub task: RunName,
    /// The model.
    pub model: ModelName,
    /// The rewards' 5 %, 25 %, 50 %, 75 % and 95 % quantiles, from a sketch.
    pub quantiles: Option<[f64; 5]>,
}

impl TaskReport {
    pub(super) fn new(task: &RunName, model: &ModelName, rewards: &TaskSketch) -> Self {
        Self { task: task.clone(), model: model.clone(), quantiles: rewards.quantiles(QUANTILES) }
    }
}

/// A signal's state.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SignalReport {
    /// The signal: `GET /v1/signals` describes each.
    pub signal: String,
    /// Whether it fires.
    pub firing: bool,
    /// The step at which it began to fire; null where it doesn't.
    pub since_step: Option<u64>,
    /// The step at which it fired first; null where it never did.
    pub first_fired: Option<u64>,
    /// Its value; null where there is too little to tell, or the run lacks what it looks at.
    pub reading: Option<Reading>,
}

/// Statistics of one step, or of some that lie side by side. Shares lie between 0 and 1. A null is undefined, as a
/// deviation of one sample is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// The first step.
    pub first_step: u64,
    /// The last step.
    pub last_step: u64,
    /// How many samples were scored.
    pub samples: u64,
    /// The mean reward.
    pub mean: Option<f64>,
    /// The sample deviation of the rewards.
    pub deviation: Option<f64>,
    /// The lowest reward.
    pub minimum: Option<f64>,
    /// The highest reward.
    pub maximum: Option<f64>,
    /// The rewards' 5 %, 25 %, 50 %, 75 % and 95 % quantiles, from a sketch.
    pub quantiles: Option<[f64; 5]>,
    /// The mean of the members' population deviations.
    pub disagreement: Option<f64>,
    /// Pearson's correlation of reward and the members' deviation.
    pub disagreement_correlation: Option<f64>,
    /// By how much the lowest member lies below the members' mean, in the mean.
    pub worst_case_gap: Option<f64>,
    /// The mean length of the responses in characters.
    pub length: Option<f64>,
    /// Pearson's correlation of reward and length.
    pub length_correlation: Option<f64>,
    /// The share of rewards at the bound of a clip.
    pub at_bound: f64,
    /// The share of samples that the run had seen before.
    pub duplicates: f64,
    /// The share of responses that begin by declining to answer.
    pub refusals: f64,
    /// The share of samples that lost something to truncation.
    pub cuts: f64,
    /// How many samples got no reward, since their request was refused or failed.
    pub unscored: u64,
    /// How strongly this step is preferred to the one before it; null for the first.
    pub preference: Option<Preference>,
}

/// How strongly a step is preferred to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preference {
    /// The probability that a sample of this step has a higher reward than one of the step before, ties counted half.
    pub wins: Option<f64>,
    /// The mean over the members of the change of their mean score: the preference strength μ of Wang et al. 2024 (Secrets
    /// of RLHF II), of steps instead of pairs.
    pub mean: Option<f64>,
    /// The population deviation of that over the members, σ.
    pub deviation: Option<f64>,
}

/// Rewards beside another number.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairsReport {
    /// How many samples have both.
    pub samples: u64,
    /// Pearson's correlation over the whole run.
    pub correlation: Option<f64>,
    /// The same by step.
    pub steps: Vec<PairStep>,
}

/// Rewards beside another number at one step, or at some that lie side by side.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairStep {
    /// The first step.
    pub first_step: u64,
    /// The last step.
    pub last_step: u64,
    /// How many samples have both.
    pub samples: u64,
    /// The mean reward of these.
    pub reward: f64,
    /// The mean of the other number.
    pub other: f64,
    /// Pearson's correlation of both.
    pub correlation: Option<f64>,
}

impl StepReport {
    pub(super) fn new(bucket: &Bucket, before: Option<&Bucket>) -> Self {
        let samples = bucket.count();
        let mean_of = |moments: &Moments, second: bool| {
            let (first, other) = moments.means();
            (samples > 0).then_some(if second { other } else { first })
        };
        let share = |count: u64| count as f64 / samples.max(1) as f64;
        let first = bucket.length.first();
        Self {
            first_step: bucket.first_step,
            last_step: bucket.last_step,
            samples,
            mean: mean_of(&bucket.length, false),
            deviation: first.map(|mean| mean.variance.sqrt()),
            minimum: (samples > 0).then_some(bucket.lowest),
            maximum: (samples > 0).then_some(bucket.highest),
            quantiles: bucket.rewards.quantiles(QUANTILES),
            disagreement: mean_of(&bucket.disagreement, true),
            disagreement_correlation: bucket.disagreement.correlation(),
            worst_case_gap: mean_of(&bucket.gap, true),
            length: mean_of(&bucket.length, true),
            length_correlation: bucket.length.correlation(),
            at_bound: share(bucket.counts.at_bound),
            duplicates: share(bucket.counts.duplicates),
            refusals: share(bucket.counts.refusals),
            cuts: share(bucket.counts.cut),
            unscored: bucket.counts.unscored,
            preference: before.map(|before| Preference::of(bucket, before)),
        }
    }
}

impl Preference {
    fn of(now: &Bucket, before: &Bucket) -> Self {
        let changes: Vec<f64> =
            now.members.iter().zip(&before.members).map(|(now, before)| now.means().0 - before.means().0).collect();
        let mut moments = Moments::default();
        changes.iter().for_each(|change| moments.add(*change, 0.0));
        let known = moments.count() > 0;
        Self {
            wins: now.rewards.beats(&before.rewards),
            mean: known.then_some(moments.means().0),
            deviation: known.then_some(moments.deviations().0),
        }
    }
}

impl PairsReport {
    pub(super) fn of(pairs: &PairSeries) -> Option<Self> {
        let mut whole = Moments::default();
        let steps = pairs.buckets().iter().map(|bucket| {
            whole.merge(&bucket.pairs);
            let (reward, other) = bucket.pairs.means();
            PairStep {
                first_step: bucket.first_step,
                last_step: bucket.last_step,
                samples: bucket.pairs.count(),
                reward,
                other,
                correlation: bucket.pairs.correlation(),
            }
        });
        let steps: Vec<PairStep> = steps.collect();
        (whole.count() > 0).then(|| Self { samples: whole.count(), correlation: whole.correlation(), steps })
    }
}

impl RunReport {
    /// The steps as a table, a line each: comma-separated values with a line of names. What is undefined is empty.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut table = String::from(
            "model,first_step,last_step,samples,mean,deviation,minimum,maximum,p05,p25,p50,p75,p95,disagreement,\
             disagreement_correlation,worst_case_gap,length,length_correlation,at_bound,duplicates,refusals,cuts,unscored,\
             wins\n",
        );
        for model in &self.models {
            for step in &model.steps {
                let _ = write!(table, "{},{},{},{}", model.model, step.first_step, step.last_step, step.samples);
                let quantiles = step.quantiles.map_or([None; 5], |quantiles| quantiles.map(Some));
                let head = [step.mean, step.deviation, step.minimum, step.maximum];
                let tail = [
                    step.disagreement,
                    step.disagreement_correlation,
                    step.worst_case_gap,
                    step.length,
                    step.length_correlation,
                    Some(step.at_bound),
                    Some(step.duplicates),
                    Some(step.refusals),
                    Some(step.cuts),
                ];
                for number in head.iter().chain(&quantiles).chain(&tail) {
                    let _ = match number {
                        Some(number) => write!(table, ",{number}"),
                        None => write!(table, ","),
                    };
                }
                let wins = step.preference.and_then(|preference| preference.wins);
                let _ = writeln!(table, ",{},{}", step.unscored, wins.map(|wins| wins.to_string()).unwrap_or_default());
            }
        }
        table
    }
}
