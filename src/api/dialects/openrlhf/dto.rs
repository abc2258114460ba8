//! Request and response of `POST /get_reward`.

use indexmap::IndexMap;
use karat_engine::engine::{Draft, SampleReport};
use karat_rules::domain::{RenderedText, Reward, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::parts::{Body, Scored, Scores, Unread, invalid, sample},
    problem::Problem,
};

/// Sequences to score. `labels` may be sent too: a reward model has no use for them.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RewardBody {
    /// Whole sequences: each prompt followed by its response, special tokens included.
    query: Vec<String>,
    /// The prompt of each sequence; a sequence that doesn't begin with it is taken whole.
    #[serde(default)]
    prompts: Option<Vec<Option<String>>>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl RewardBody {
    pub(super) fn into_samples(self) -> Result<Vec<Draft>, Problem> {
        let prompts = self.prompts.filter(|prompts| !prompts.is_empty());
        if let Some(prompts) = prompts.as_ref().filter(|prompts| prompts.len() != self.query.len()) {
            return Err(invalid(format!(
                "there are {} prompts for {} queries; send one for each, or none",
                prompts.len(),
                self.query.len()
            )));
        }
        let mut prompts = prompts.unwrap_or_default().into_iter();
        let queries = self.query.into_iter().enumerate();
        let samples = queries.map(|(index, query)| {
            let prompt = prompts.next().flatten().unwrap_or_default();
            let text = RenderedText::new(query).map(|text| text.with_prompt(&prompt));
            sample("query", index, text.map(Sample::Text))
        });
        Ok(samples.collect())
    }
}

/// The rewards, in the order of the queries.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RewardReply {
    /// What the policy is trained on.
    rewards: Vec<Reward>,
    /// What samples are filtered by: the same numbers.
    scores: Vec<Reward>,
    /// What the trainer logs, one number a query under each name: `raw` (before transforms), `mean`, `worst_case`,
    /// `deviation` (the population standard deviation of the members), `member_0`, `member_1`, …, and the names of the
    /// model's objectives if it has any; `refused` is 1 for a query that can't be scored, where the URL states a number for
    /// such; of a request that names a run, `run_signals_firing` is how many of its signals fire.
    extra_logs: IndexMap<String, Vec<f64>>,
}

impl RewardReply {
    pub(super) fn empty() -> Self {
        Self { rewards: Vec::new(), scores: Vec::new(), extra_logs: IndexMap::new() }
    }

    pub(super) fn new(report: &Scores, states: bool, firing: Option<usize>) -> Self {
        let rewards: Vec<Reward> = report.results.iter().map(|result| result.reward).collect();
        let column = |of: &dyn Fn(&SampleReport) -> f64| {
            report.results.iter().map(|result: &Scored| of(result)).collect::<Vec<f64>>()
        };
        let mut extra_logs = IndexMap::from([
            ("raw".to_owned(), column(&|result| result.raw.get())),
            ("mean".to_owned(), column(&|result| result.ensemble.mean.get())),
            ("worst_case".to_owned(), column(&|result| result.ensemble.worst_case.get())),
            ("deviation".to_owned(), column(&|result| result.ensemble.variance.get().sqrt())),
        ]);
        let members = report.results.iter().map(|result| result.ensemble.members.len()).min().unwrap_or(0);
        for member in 0..members {
            extra_logs.insert(format!("member_{member}"), column(&|result| result.ensemble.members[member].get()));
        }
        let objectives = report.results.first().map(|result| result.detail().objectives.as_slice()).unwrap_or_default();
        for (place, (name, _)) in objectives.iter().enumerate() {
            // Every sample of a request has the objectives of its model, in the same order.
            let of =
                |result: &SampleReport| result.detail().objectives.get(place).map_or(0.0, |(_, score)| score.get());
            extra_logs.entry(name.clone()).or_insert_with(|| column(&of));
        }
        if let Some(firing) = firing {
            extra_logs.insert("run_signals_firing".to_owned(), vec![firing as f64; rewards.len()]);
        }
        if states {
            let refused = report.results.iter().map(|result| f64::from(u8::from(result.refused.is_some())));
            extra_logs.insert("refused".to_owned(), refused.collect());
        }
        Self { scores: rewards.clone(), rewards, extra_logs }
    }
}

impl Body for RewardBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
