//! The scores of a dialect's request: a number for each sample, since replies of other servers have no place for less.

use std::ops::Deref;

use karat_engine::engine::{SampleReport, ScoreReport, Timings, Usage};
use karat_rules::domain::{ModelName, ModelVersion};

/// What was scored, in the order of the request's samples.
#[derive(Debug)]
pub(crate) struct Scores {
    pub(crate) model: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) results: Vec<Scored>,
    /// How many of them were refused.
    pub(crate) refused: usize,
    /// Whether every reward is a probability already.
    pub(crate) probabilities: bool,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// One sample's scores, or the number that the request states for one that can't be scored.
#[derive(Debug, Clone)]
pub(crate) struct Scored {
    report: SampleReport,
    /// Why it wasn't scored, if it wasn't.
    pub(crate) refused: Option<String>,
}

impl Deref for Scored {
    type Target = SampleReport;

    fn deref(&self) -> &SampleReport {
        &self.report
    }
}

impl From<ScoreReport> for Scores {
    /// What is marked without a number is left out: no dialect asks for that.
    fn from(report: ScoreReport) -> Self {
        let (model, version, probabilities) = (report.model.clone(), report.version.clone(), report.probabilities);
        let (usage, timings, refused) = (report.usage, report.timings, report.refused.len());
        let like = report.results.first().cloned();
        let outcomes = report.into_outcomes().into_iter();
        let results = outcomes.filter_map(|outcome| match outcome {
            Ok(report) => Some(Scored { report, refused: None }),
            Err(refusal) => refusal.reward.map(|reward| Scored {
                report: SampleReport::stated(reward, like.as_ref()),
                refused: Some(refusal.reason),
            }),
        });
        Self { model, version, results: results.collect(), refused, probabilities, usage, timings }
    }
}
