//! What is read at tokens, out of the outputs of a pass: each a line of numbers for every token that is read.

use std::borrow::Cow;

use ::ort::{session::SessionOutputs, value::DynValue};
use karat_rules::{
    domain::{RowTensor, TensorSpec},
    numeric::log_probabilities,
};

use super::{contract::LogitColumns, executor::widened};
use crate::{Read, RuntimeError};

/// Checks that `outputs` names some of those that a graph reads at tokens.
pub(super) fn check_outputs(outputs: &[String], known: &[TensorSpec]) -> Result<(), RuntimeError> {
    match outputs.iter().find(|name| !known.iter().any(|output| output.name == **name)) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<&str> = known.iter().map(|output| output.name.as_str()).collect();
            Err(RuntimeError::Binding {
                found: format!("the graph reads no {unknown:?} at a token"),
                advice: format!("name one of: {}", names.join(", ")),
            })
        }
    }
}

/// The tokens at which a pass reads, each once, in order.
#[derive(Debug, Default)]
pub(super) struct ReadTokens(pub(super) Vec<i64>);

impl ReadTokens {
    /// Notes the tokens; gives, for each of them, its line in the outputs.
    pub(super) fn fill(&mut self, tokens: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
        let mut once: Vec<usize> = tokens.clone().collect();
        once.sort_unstable();
        once.dedup();
        self.0.clear();
        // Tokens are counted over a row in memory: far below the type's limit.
        self.0.extend(once.iter().map(|token| i64::try_from(*token).unwrap_or(i64::MAX)));
        if once.is_empty() {
            // A pass that reads nothing still computes one read, lest the graph meets an axis of length 0.
            self.0.push(0);
        }
        tokens.map(|token| once.binary_search(&token).unwrap_or_default()).collect()
    }
}

/// One read: at which line of which output, and what of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) line: usize,
    pub(super) output: usize,
    pub(super) what: &'a Read,
}

/// The outputs that are read, and the size of the pass that gave them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outputs<'a> {
    pub(super) names: &'a [String],
    /// Whose logits those are.
    pub(super) logits: &'a LogitColumns,
    /// How many tokens were read.
    pub(super) lines: usize,
    /// How many tokens the pass had, for messages.
    pub(super) tokens: usize,
}

/// An output: one line of numbers for each token that is read.
struct Table<'a> {
    shape: Vec<i64>,
    numbers: Cow<'a, [f32]>,
    width: usize,
}

impl Outputs<'_> {
    /// Takes the reads out of the outputs, in their order.
    pub(super) fn read<'w>(
        &self,
        results: &SessionOutputs<'_>,
        wanted: impl Iterator<Item = Wanted<'w>>,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        let mut tables: Vec<Option<Table<'_>>> = self.names.iter().map(|_| None).collect();
        let mut reads = Vec::new();
        for Wanted { line, output, what } in wanted {
            let (Some(name), Some(table)) = (self.names.get(output), tables.get_mut(output)) else {
                return Err(RuntimeError::Row { reason: format!("output {output} of {} is wanted", self.names.len()) });
            };
            let table = match table {
                Some(table) => table,
                None => table.insert(self.table(results, name)?),
            };
            let line = &table.numbers[line * table.width..(line + 1) * table.width];
            let mismatch = || self.mismatch(name, &table.shape);
            let values = match what {
                Read::Numbers => line.to_vec(),
                // A softmax over some tokens' logits alone would be another distribution.
                Read::LogProbabilities(_) if !self.logits.are_whole(name) => return Err(mismatch()),
                Read::LogProbabilities(columns) => log_probabilities(line, columns).ok_or_else(mismatch)?,
                Read::Columns(columns) => {
                    let at = |column: &u32| line.get(self.logits.place(name, *column)?).copied();
                    columns.iter().map(at).collect::<Option<_>>().ok_or_else(mismatch)?
                }
            };
            reads.push(RowTensor::new(vec![values.len()], values).ok_or_else(mismatch)?);
        }
        Ok(reads)
    }

    fn table<'a>(&self, results: &'a SessionOutputs<'_>, name: &str) -> Result<Table<'a>, RuntimeError> {
        let (shape, numbers) = widened(tensor(results, name)?)?;
        match shape.as_slice() {
            [rows, _] if usize::try_from(*rows) == Ok(self.lines) => {
                let width = numbers.len() / self.lines;
                Ok(Table { shape, numbers, width })
            }
            _ => Err(self.mismatch(name, &shape)),
        }
    }

    /// An output that came in another shape than the contract says.
    pub(super) fn mismatch(&self, name: &str, found: &[i64]) -> RuntimeError {
        RuntimeError::Shape { name: name.to_owned(), found: found.to_vec(), samples: self.lines, tokens: self.tokens }
    }
}

/// The output of that name.
pub(super) fn tensor<'a>(results: &'a SessionOutputs<'_>, name: &str) -> Result<&'a DynValue, RuntimeError> {
    results.get(name).ok_or_else(|| RuntimeError::Pass { cause: format!("the output {name:?} did not come").into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_graph_meets_an_axis_of_length_0() {
        let mut read = ReadTokens::default();
        assert_eq!(read.fill([7, 2, 7].into_iter()), [1, 0, 1]);
        assert_eq!(read.0, [2, 7]);
        // On some graphs ONNX Runtime would divide by it, and the process would die.
        assert!(read.fill(std::iter::empty()).is_empty());
        assert_eq!(read.0, [0]);
    }
}
