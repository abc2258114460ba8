//! One model's rewards in a run, and the state of every signal about them.

use std::collections::BTreeMap;

use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};

use super::{EventKind, ModelReport, SignalReport, StepReport, calibration::Calibration, report::PairsReport};
use crate::{
    signals::{self, Reading, Sides, View},
    statistics::{Bucket, PairSeries, Series},
};

/// What stands beside a model's rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// A second judge's score.
    Judge,
    /// What came of the sample.
    Outcome,
    /// By how much edits that shouldn't matter change the reward.
    Sensitivity,
}

/// One model's rewards in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    pub(super) series: Series,
    judge: PairSeries,
    outcomes: PairSeries,
    sensitivity: PairSeries,
    calibration: Calibration,
    /// Whether the model's rewards are probabilities.
    pub(super) probabilities: bool,
    states: BTreeMap<String, State>,
}

/// What a signal was when it was last read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct State {
    since: Option<u64>,
    first: Option<u64>,
    reading: Option<Reading>,
}

impl Track {
    /// Lays a number beside a reward of a step.
    pub(super) fn add_beside(&mut self, what: Beside, step: u64, reward: f64, other: f64) {
        match what {
            Beside::Judge => self.judge.add(step, reward, other),
            Beside::Sensitivity => self.sensitivity.add(step, reward, other),
            Beside::Outcome => {
                self.outcomes.add(step, reward, other);
                self.calibration.add(reward, self.probabilities, other);
            }
        }
    }

    /// Reads every signal; what changed.
    pub(super) fn read_signals(&mut self) -> Vec<EventKind> {
        let Some(window) = self.series.window() else { return Vec::new() };
        let (judge, outcomes, sensitivity) = (self.judge.window(), self.outcomes.window(), self.sensitivity.window());
        let view = View {
            reference: self.series.reference(),
            window: &window,
            judge: sides(&self.judge, judge.as_ref()),
            outcomes: sides(&self.outcomes, outcomes.as_ref()),
            sensitivity: sides(&self.sensitivity, sensitivity.as_ref()),
        };
        let step = window.last_step;
        let mut changed = Vec::new();
        for entry in &signals::CATALOGUE {
            let reading = (entry.read)(&view);
            let state = self.states.entry(entry.name.to_owned()).or_default();
            state.reading = reading;
            // What can't be told for a while stays as it was.
            let Some(reading) = reading else { continue };
            if reading.fires != state.since.is_some() {
                state.since = reading.fires.then_some(step);
                state.first = state.first.or(state.since);
                changed.push(EventKind::Signal { signal: entry.name.to_owned(), firing: reading.fires, step, reading });
            }
        }
        changed
    }

    /// The signals that fire.
    pub(super) fn firing(&self) -> impl Iterator<Item = &str> {
        self.states.iter().filter(|(_, state)| state.since.is_some()).map(|(name, _)| name.as_str())
    }

    /// The latest value of each signal that has one.
    pub(super) fn readings(&self) -> impl Iterator<Item = (&str, Reading)> {
        self.states.iter().filter_map(|(name, state)| Some((name.as_str(), state.reading?)))
    }

    /// The step before the latest one, which is over, and the one before that.
    pub(super) fn ended_step(&self) -> Option<(&Bucket, Option<&Bucket>)> {
        let buckets = self.series.buckets();
        let ended = buckets.len().checked_sub(2)?;
        Some((&buckets[ended], ended.checked_sub(1).map(|before| &buckets[before])))
    }

    pub(super) fn report(&self, model: &ModelName) -> ModelReport {
        let buckets = self.series.buckets();
        let steps = buckets.iter().enumerate();
        let steps = steps.map(|(index, bucket)| StepReport::new(bucket, index.checked_sub(1).map(|i| &buckets[i])));
        let reference = self.series.reference();
        let signals = signals::CATALOGUE.iter().map(|entry| {
            let State { since, first, reading } = self.states.get(entry.name).copied().unwrap_or_default();
            SignalReport {
                signal: entry.name.to_owned(),
                firing: since.is_some(),
                since_step: since,
                first_fired: first,
                reading,
            }
        });
        ModelReport {
            model: model.clone(),
            samples: self.series.count(),
            reference: (reference.count() > 0).then(|| StepReport::new(reference, None)),
            registered: self.series.is_registered(),
            steps: steps.collect(),
            judge: PairsReport::of(&self.judge),
            outcomes: PairsReport::of(&self.outcomes),
            sensitivity: PairsReport::of(&self.sensitivity),
            calibration: self.calibration.report(),
            signals: signals.collect(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.series.bytes()
            + self.judge.bytes()
            + self.outcomes.bytes()
            + self.sensitivity.bytes()
            + self.states.len() * (size_of::<State>() + 64)
    }
}

fn sides<'a>(pairs: &'a PairSeries, window: Option<&'a crate::statistics::Moments>) -> Option<Sides<'a>> {
    window.map(|window| Sides { reference: pairs.reference(), window })
}
