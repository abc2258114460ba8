//! What goes into a run: samples that a request had scored, and where a reward is found again.

use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};

use super::RunName;
use crate::statistics::Observation;

/// Samples that one request had scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The run that they belong to.
    pub run: RunName,
    /// The step, if the request named one.
    pub step: Option<u64>,
    /// What the samples are of, if the request says so: rewards of different tasks are told apart.
    pub task: Option<RunName>,
    /// The model that scored.
    pub model: ModelName,
    /// Whether its rewards are probabilities.
    pub probabilities: bool,
    /// The request's id, by which outcomes find the rewards.
    pub request: String,
    /// The samples, in the order of the request.
    pub samples: Vec<Observation>,
    /// The place of each in the request, ascending, where it had others that got no reward yet.
    pub places: Option<Vec<usize>>,
    /// The members' scores, as many for each sample.
    pub members: Vec<f32>,
}

impl Batch {
    /// The rewards by place in the request.
    pub(super) fn rewards(&self) -> impl Iterator<Item = Option<f64>> {
        let places = self.places.as_deref();
        let count = places.map_or(self.samples.len(), |places| places.last().map_or(0, |last| last + 1));
        (0..count).map(move |place| {
            let index = places.map_or(Some(place), |places| places.binary_search(&place).ok())?;
            self.samples.get(index).map(|sample| sample.reward)
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
