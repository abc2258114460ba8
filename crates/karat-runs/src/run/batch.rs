//! What goes into a run: samples that requests had scored, and where a reward is found again.

use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};

use super::{RequestKey, RunName};
use crate::statistics::Samples;

/// What the samples of a request have in common, and often those of its neighbours too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The step, if the request named one.
    pub step: Option<u64>,
    /// What the samples are of, if the request says so: rewards of different tasks are told apart.
    pub task: Option<RunName>,
    /// The model that scored.
    pub model: ModelName,
    /// Whether its rewards are probabilities.
    pub probabilities: bool,
}

/// The [`Origin`] of a request that is being answered, whose names are lent.
#[derive(Debug, Clone, Copy)]
pub struct OriginRef<'a> {
    /// The step, if the request named one.
    pub step: Option<u64>,
    /// What the samples are of, if the request says so.
    pub task: Option<&'a RunName>,
    /// The model that scored.
    pub model: &'a ModelName,
    /// Whether its rewards are probabilities.
    pub probabilities: bool,
}

impl OriginRef<'_> {
    pub(crate) fn to_owned(self) -> Origin {
        let Self { step, task, model, probabilities } = self;
        Origin { step, task: task.cloned(), model: model.clone(), probabilities }
    }

    pub(crate) fn is(self, origin: &Origin) -> bool {
        let Self { step, task, model, probabilities } = self;
        step == origin.step
            && task == origin.task.as_ref()
            && model == &origin.model
            && probabilities == origin.probabilities
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// By which outcomes find its rewards.
    pub key: RequestKey,
    /// The place of each scored sample in it, ascending, where it had others that got no reward, or none yet.
    pub places: Option<Vec<usize>>,
    /// How many other samples of it got no reward at all.
    pub unscored: u64,
}

/// Samples that some requests had scored, one request after another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch<'a> {
    /// What they have in common.
    pub origin: &'a Origin,
    /// The requests, each with how many samples of it were scored.
    pub requests: &'a [(Request, usize)],
    /// The samples, in the order of the requests.
    pub samples: Samples<'a>,
}

impl<'a> Batch<'a> {
    /// The first requests, so many, and the others.
    pub(super) fn split_at(self, requests: usize) -> (Self, Self) {
        let (first, others) = self.requests.split_at(requests.min(self.requests.len()));
        let mut samples = self.samples;
        let taken = samples.split_off(first.iter().map(|(_, samples)| samples).sum());
        (Self { requests: first, samples: taken, ..self }, Self { requests: others, samples, ..self })
    }

    /// Each request that had samples scored, with these.
    pub(super) fn each(self) -> impl Iterator<Item = (&'a Request, Samples<'a>)> {
        let mut samples = self.samples;
        let each = self.requests.iter().map(move |(request, count)| (request, samples.split_off(*count)));
        each.filter(|(_, samples)| samples.count() > 0)
    }
}

impl Request {
    /// The request of that key, all of whose samples were scored.
    #[must_use]
    pub fn whole(key: RequestKey) -> Self {
        Self { key, places: None, unscored: 0 }
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
