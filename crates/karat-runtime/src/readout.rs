//! Where the numbers that a sample asks for stand in its text.

use karat_rules::domain::{After, Reading, RowTensor, TokenizedInput};

use crate::{Padding, Read, RuntimeError};

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
    /// At the first token, as encoders are trained.
    Start,
    /// At each step mark.
    Marks,
    /// At each token of the response.
    Response,
}

/// What is read of a model's texts.
#[derive(Debug, Clone)]
pub struct Readout {
    /// The outputs that are read, in the order in which the executors were made to read them. Scores are read from all
    /// of them, those after the first at the input's gate where it has one; logits and log-probabilities from `logits` and
    /// states from `hidden`, unless there is only one.
    pub outputs: Vec<String>,
    /// Where scores are read.
    pub scores_at: ScoresAt,
}

impl Readout {
    /// Where the numbers for `input` are read, and from which outputs, in the order of the rows that a head gets.
    pub(crate) fn plan(&self, input: &TokenizedInput) -> Result<Plan, RuntimeError> {
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
                    ScoresAt::Start => vec![0],
                    ScoresAt::Marks => input.steps().to_vec(),
                    ScoresAt::Response => input.response().collect(),
                };
                let gate: Option<Vec<usize>> = input.gate().map(|gate| vec![gate]);
                let tensors = (0..self.outputs.len()).map(|output| {
                    let read = |at: &usize| TextRead { at: *at, output, what: Read::Numbers };
                    let positions = gate.as_ref().filter(|_| output > 0).unwrap_or(&positions);
                    positions.iter().map(read).collect()
                });
                Plan {
                    tensors: tensors.collect(),
                    by_token: matches!(self.scores_at, ScoresAt::Marks | ScoresAt::Response),
                }
            }
            Reading::LastState => {
                let read = TextRead { at: last, output: output(HIDDEN)?, what: Read::Numbers };
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

/// What is read for one input: for each tensor that the head gets, its values.
pub(crate) struct Plan {
    pub(crate) tensors: Vec<Vec<TextRead>>,
    /// Whether tensors have an axis of tokens, `[read, width]`, rather than all numbers in a line.
    by_token: bool,
}

impl Plan {
    /// Puts the tensors together out of what was read, in the order of what is read.
    pub(crate) fn gather(&self, mut read: impl Iterator<Item = Option<RowTensor>>) -> Option<Vec<RowTensor>> {
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

/// A text, with what is read of it.
#[derive(Debug, Clone)]
pub(crate) struct Text<'a> {
    pub(crate) ids: &'a [u32],
    /// Which segment each token belongs to.
    pub(crate) segments: &'a [u32],
    pub(crate) reads: Vec<TextRead>,
    /// How many of its first tokens later requests are likely to share.
    pub(crate) lasting: usize,
    /// How many tokens have to be computed or known: none stands behind the last that is read.
    pub(crate) needed: usize,
    /// How many tokens may come from the cache: a token that is read has to be computed.
    pub(crate) sharable: usize,
}

/// Something that is read at a token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextRead {
    pub(crate) at: usize,
    pub(crate) output: usize,
    pub(crate) what: Read,
}

impl<'a> Text<'a> {
    /// The tokens that have to be computed or known.
    pub(crate) fn wanted(&self) -> &'a [u32] {
        &self.ids[..self.needed]
    }

    /// The same text where each token sees all of it: every token is needed, and none may be known.
    pub(crate) fn whole(self) -> Self {
        Self { needed: self.ids.len(), sharable: 0, lasting: 0, ..self }
    }

    /// The text of a sample.
    pub(crate) fn of(input: &'a TokenizedInput, plan: &Plan) -> Self {
        let reads = plan.tensors.iter().flatten().cloned().collect();
        // Where prompt and response can't be told apart, anything may come again.
        let prompt = match input.response().start {
            0 => input.len(),
            start => start,
        };
        Self { segments: input.type_ids(), ..Self::new(input.ids(), reads, prompt) }
    }

    pub(crate) fn new(ids: &'a [u32], reads: Vec<TextRead>, lasting: usize) -> Self {
        let needed = reads.iter().map(|read| read.at + 1).max().unwrap_or(0);
        let sharable = reads.iter().map(|read| read.at).min().unwrap_or(0);
        Self { ids, segments: &[], reads, lasting: lasting.min(needed), needed, sharable }
    }
}
