//! What goes into a run: samples that a request had scored, and where a reward is found again.

use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};

use super::{RequestKey, RunName};
use crate::statistics::Observation;

/// What the samples of one request have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The step, if the request named one.
    pub step: Option<u64>,
    /// What the samples are of, if the request says so: rewards of different tasks are told apart.
    pub task: Option<RunName>,
    /// The model that scored.
    pub model: ModelName,
    /// Whether its rewards are probabilities.
    pub probabilities: bool,
    /// The request, by which outcomes find the rewards.
    pub request: RequestKey,
    /// The place of each sample in the request, ascending, where it had others that got no reward, or none yet.
    pub places: Option<Vec<usize>>,
    /// How many other samples of it got no reward at all.
    pub unscored: u64,
}

/// Samples that one request had scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch<'a> {
    /// What they have in common.
    pub origin: &'a Origin,
    /// The samples, in the order of the request.
    pub samples: &'a [Observation],
    /// The members' scores, as many for each sample; empty where members aren't told apart.
    pub members: &'a [f32],
}

impl Batch<'_> {
    /// The rewards by place in the request.
    pub(super) fn rewards(&self) -> impl Iterator<Item = Option<f32>> {
        let places = self.origin.places.as_deref();
        let count = places.map_or(self.samples.len(), |places| places.last().map_or(0, |last| last + 1));
        (0..count).map(move |place| {
            let index = places.map_or(Some(place), |places| places.binary_search(&place).ok())?;
            self.samples.get(index).map(|sample| sample.reward as f32)
        })
    }
}

/// What an outcome was laid beside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// The model that gave the reward.
    pub model: ModelName,
    /// The step.
    pub step: u64,
    /// The reward.
    pub reward: f64,
}
