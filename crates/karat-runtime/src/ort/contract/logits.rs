//! Which tokens' logits a graph gives, where it doesn't give those of its whole vocabulary.

use std::sync::Arc;

use karat_rules::domain::{Dimension, TensorSpec};

use super::{Promise, refuse};
use crate::RuntimeError;

/// The metadata that names the tokens, in the order of the columns.
const KEY: &str = "karat.logits";
/// The output that they are the columns of.
const OUTPUT: &str = "logits";

/// Whose logits the columns of the output `logits` are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum LogitColumns {
    /// All tokens', in the order of their ids.
    #[default]
    Vocabulary,
    /// These tokens' alone, in this order.
    Tokens(Arc<[u32]>),
}

impl LogitColumns {
    /// Whether an output has a column for each token of the vocabulary, or none of tokens at all.
    pub(crate) fn are_whole(&self, output: &str) -> bool {
        output != OUTPUT || *self == Self::Vocabulary
    }

    /// The column of an output that is meant by a number: of logits, by a token.
    pub(crate) fn place(&self, output: &str, column: u32) -> Option<usize> {
        match self {
            Self::Tokens(tokens) if output == OUTPUT => tokens.iter().position(|token| *token == column),
            Self::Tokens(_) | Self::Vocabulary => usize::try_from(column).ok(),
        }
    }
}

impl Promise<'_> {
    /// Whose logits the graph gives, by its metadata and its outputs.
    pub(super) fn logits(&self, outputs: &[TensorSpec]) -> Result<LogitColumns, RuntimeError> {
        let Some(written) = self.text(KEY) else { return Ok(LogitColumns::Vocabulary) };
        let tokens: Result<Vec<u32>, _> = written.split_ascii_whitespace().map(str::parse).collect();
        let tokens = tokens.ok().filter(|tokens| !tokens.is_empty()).ok_or_else(|| {
            refuse(
                format!("the graph's metadata {KEY} is {written:?}"),
                "write the ids of the tokens whose logits it gives, or leave it out where it gives all",
            )
        })?;
        let output = self.find(outputs, OUTPUT)?;
        match output.shape.last() {
            Some(Dimension::Fixed(width)) if *width != tokens.len() => Err(refuse(
                format!("the graph's metadata {KEY} names {} tokens, and output {output} has {width}", tokens.len()),
                "name as many tokens as the output has columns",
            )),
            _ => Ok(LogitColumns::Tokens(tokens.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use karat_rules::domain::{ElementType, GraphSignature};

    use super::*;

    fn read(written: Option<&str>, width: usize) -> Result<LogitColumns, String> {
        let metadata: BTreeMap<String, String> =
            written.map(|written| (KEY.to_owned(), written.to_owned())).into_iter().collect();
        let shape = vec![Dimension::Dynamic("read".to_owned()), Dimension::Fixed(width)];
        let outputs = vec![TensorSpec { name: OUTPUT.to_owned(), element: ElementType::Float32, shape }];
        let signature = GraphSignature { inputs: Vec::new(), outputs: outputs.clone() };
        let promise = Promise { name: "test", metadata: &metadata, signature: &signature };
        promise.logits(&outputs).map_err(|error| error.to_string())
    }

    #[test]
    fn a_column_is_found_by_its_token() {
        let some = read(Some("319 7"), 2).unwrap();
        assert_eq!([319, 7, 0].map(|token| some.place("logits", token)), [Some(0), Some(1), None]);
        assert_eq!(some.place("scores", 1), Some(1), "other outputs have no tokens");
        assert!(some.are_whole("scores") && !some.are_whole("logits"));
        let all = read(None, 320).unwrap();
        assert_eq!((all.place("logits", 319), all.are_whole("logits")), (Some(319), true));
    }

    #[test]
    fn what_names_no_columns_is_refused() {
        for (written, width, part) in [("yes", 1, "\"yes\""), ("", 1, "\"\""), ("7 8", 320, "2 tokens")] {
            let error = read(Some(written), width).unwrap_err();
            assert!(error.contains(part) && error.contains(KEY), "{error}");
        }
    }
}
