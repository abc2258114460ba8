//! What the executors of one decoder share, and where the numbers that a sample asks for stand.

use karat_rules::domain::{After, Reading, RowTensor, TokenizedInput};

use super::{cache::PrefixCache, cost::RowCost, forest::TextRead};
use crate::{Padding, Read, RuntimeError, telemetry::SharingMetrics};

/// The output that heads read log-probabilities from.
const LOGITS: &str = "logits";
/// The output that holds the trunk's state.
const HIDDEN: &str = "hidden";

/// Where a head reads a sample's scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoresAt {
    /// At the end, as models for sequence classification are trained.
    End {
        /// How the model tells the end; without it the last token counts, whatever it is.
        padding: Option<Padding>,
    },
    /// At each step mark.
    Marks,
    /// At each token of the response.
    Response,
}

/// What the executors of one decoder share.
#[derive(Debug)]
pub struct SharedModel {
    /// The outputs that are read, in the order in which the executors were made to read them. Scores are read from all
    /// of them, those after the first at the input's gate where it has one; logits and log-probabilities from `logits` and states from `hidden`, unless there is only one.
    pub outputs: Vec<String>,
    /// Where scores are read.
    pub(crate) scores_at: ScoresAt,
    /// Whether rows may hold several texts, and texts be cut: false for a graph whose numbers depend on what else is
    /// in the row.
    pub shares: bool,
    /// What rows cost.
    pub(crate) cost: RowCost,
    /// What was computed before.
    pub(crate) cache: PrefixCache,
    /// Tells the model's keys and values from those of others.
    root: u64,
    /// What is counted.
    pub(crate) metrics: SharingMetrics,
}

impl SharedModel {
    /// A model of its own in `cache`.
    #[must_use]
    pub fn new(
        outputs: Vec<String>,
        scores_at: ScoresAt,
        shares: bool,
        cost: RowCost,
        cache: PrefixCache,
        metrics: SharingMetrics,
    ) -> Self {
        let root = cache.new_root();
        Self { outputs, scores_at, shares, cost, cache, root, metrics }
    }

    /// Tells the model's keys and values from those of others.
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// Drops what the cache holds of the model.
    pub fn forget(&self) {
        self.cache.forget(self.root);
    }

    /// Where the numbers for `input` are read, and from which outputs, in the order of the rows that a head gets.
    pub(super) fn plan(&self, input: &TokenizedInput) -> Result<Plan, RuntimeError> {
        let last = input.len() - 1;
        let output = |name: &str| {
            if self.outputs.len() == 1 {
                return Ok(0);
            }
            self.outputs.iter().position(|output| output == name).ok_or_else(|| RuntimeError::Binding {
                found: format!("the output {name:?} is wanted, and only {} is read", self.outputs.join(", ")),
                advice: format!("export the graph with the output {name:?} and name it in graph.output"),
            })
        };
        Ok(match input.reading() {
            Reading::Scores => {
                let positions = match self.scores_at {
                    ScoresAt::End { padding } => {
                        vec![padding.map_or(last, |padding| padding.score_position(input.ids()))]
                    }
                    ScoresAt::Marks => input.steps().to_vec(),
                    ScoresAt::Response => input.response().collect(),
                };
                let gate: Option<Vec<usize>> = input.gate().map(|gate| vec![gate]);
                let tensors = (0..self.outputs.len()).map(|output| {
                    let read = |at: &usize| TextRead { at: *at, output, what: Read::Numbers };
                    let positions = gate.as_ref().filter(|_| output > 0).unwrap_or(&positions);
                    positions.iter().map(read).collect()
                });
                Plan { tensors: tensors.collect(), by_token: !matches!(self.scores_at, ScoresAt::End { .. }) }
            }
            Reading::LastState => {
                let read = TextRead { at: last, output: output(HIDDEN)?, what: Read::Numbers };
                Plan { tensors: vec![vec![read]], by_token: false }
            }
            Reading::NextToken(ids) => {
                let read = TextRead { at: last, output: output(LOGITS)?, what: Read::LogProbabilities(ids[..].into()) };
                Plan { tensors: vec![vec![read]], by_token: false }
            }
            Reading::Logits(after, ids) => {
                let output = output(LOGITS)?;
                let read = |at: &usize| TextRead { at: *at, output, what: Read::Columns(ids[..].into()) };
                match after {
                    After::End => Plan { tensors: vec![vec![read(&last)]], by_token: false },
                    After::Steps => Plan { tensors: vec![input.steps().iter().map(read).collect()], by_token: true },
                }
            }
            Reading::LogProbabilities(range) => {
                let output = output(LOGITS)?;
                let read =
                    |at: usize| TextRead { at: at - 1, output, what: Read::LogProbabilities([input.ids()[at]].into()) };
                Plan { tensors: vec![range.clone().map(read).collect()], by_token: false }
            }
        })
    }
}

impl Drop for SharedModel {
    fn drop(&mut self) {
        self.forget();
    }
}

/// What is read for one input: for each tensor that the head gets, its values.
pub(super) struct Plan {
    pub(super) tensors: Vec<Vec<TextRead>>,
    /// Whether tensors have an axis of tokens, `[read, width]`, rather than all numbers in a line.
    by_token: bool,
}

impl Plan {
    /// Puts the tensors together out of what was read, in the order of what is read.
    pub(super) fn gather(&self, mut read: impl Iterator<Item = Option<RowTensor>>) -> Option<Vec<RowTensor>> {
        let tensor = |reads: &Vec<TextRead>| {
            let parts: Vec<RowTensor> = read.by_ref().take(reads.len()).collect::<Option<_>>()?;
            let width = parts.first().map_or(0, |part| part.values().len());
            let values: Vec<f32> = parts.iter().flat_map(|part| part.values().iter().copied()).collect();
            let shape = if self.by_token { vec![reads.len(), width] } else { vec![values.len()] };
            RowTensor::new(shape, values)
        };
        self.tensors.iter().map(tensor).collect()
    }
}
