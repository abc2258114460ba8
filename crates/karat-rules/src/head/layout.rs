//! The output shapes that heads read, and how a graph's are compared with them.

use std::fmt;

use super::{Head, HeadError, finite};
use crate::domain::{Dimension, RowTensor, TensorSpec, TokenizedInput};

/// One axis of an output, after the batch axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// As long as the input has tokens.
    Tokens,
    /// Exactly this long.
    Exactly(usize),
    /// At least this long, such as a vocabulary out of which a few columns are read.
    AtLeast(usize),
}

/// The axes of an output after the batch axis. A last axis of length 1 may be missing from the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(pub Vec<Axis>);

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[batch")?;
        for axis in &self.0 {
            match axis {
                Axis::Tokens => f.write_str(", sequence")?,
                Axis::Exactly(count) => write!(f, ", {count}")?,
                Axis::AtLeast(count) => write!(f, ", {count} or more")?,
            }
        }
        f.write_str("]")
    }
}

impl Layout {
    /// One list of `count` numbers a sample.
    #[must_use]
    pub fn list(count: usize) -> Self {
        Self(vec![Axis::Exactly(count)])
    }

    /// `count` numbers a token.
    #[must_use]
    pub fn by_token(count: usize) -> Self {
        Self(vec![Axis::Tokens, Axis::Exactly(count)])
    }

    fn fits(&self, lengths: &[Length]) -> bool {
        let axes = match self.0.as_slice() {
            [rest @ .., Axis::Exactly(1)] if lengths.len() == rest.len() => rest,
            axes => axes,
        };
        axes.len() == lengths.len()
            && axes.iter().zip(lengths).all(|(axis, length)| match (axis, length) {
                (_, Length::Unknown) | (Axis::Tokens, Length::Promised(_)) => true,
                (Axis::Tokens, Length::Row { runs_over_tokens, .. }) => *runs_over_tokens,
                (Axis::Exactly(count), Length::Promised(length) | Length::Row { length, .. }) => length == count,
                (Axis::AtLeast(count), Length::Promised(length) | Length::Row { length, .. }) => length >= count,
            })
    }
}

/// What is known of an axis: nothing, its length in the graph, or its length in a row of a sample.
#[derive(Debug, Clone, Copy)]
enum Length {
    Unknown,
    Promised(usize),
    Row { length: usize, runs_over_tokens: bool },
}

fn describe(layouts: &[Vec<Layout>]) -> String {
    let sets: Vec<String> =
        layouts.iter().map(|set| set.iter().map(Layout::to_string).collect::<Vec<_>>().join(" and ")).collect();
    sets.join(", or ")
}

/// Compares a graph's outputs with the layouts of a head.
pub(super) fn check(
    head: &str,
    layouts: &[Vec<Layout>],
    outputs: &[&TensorSpec],
    advice: impl Fn(&TensorSpec) -> Option<String>,
) -> Result<(), HeadError> {
    let reads = format!("the {head} head reads {}", describe(layouts));
    if let Some(output) = outputs.iter().find(|output| !output.element.is_float()) {
        return Err(HeadError::mismatch(
            format!("output {output} holds {}", output.element),
            "a head reads float32, float16 or bfloat16",
        ));
    }
    if layouts.iter().all(|set| set.len() != outputs.len()) {
        return Err(HeadError::mismatch(
            format!("the manifest names {} outputs", outputs.len()),
            format!("{reads}; name as many in graph.outputs, in this order"),
        ));
    }
    let fits = |output: &TensorSpec, layout: &Layout| {
        let lengths: Vec<Length> = output
            .shape
            .iter()
            .skip(1)
            .map(|dimension| match dimension {
                Dimension::Fixed(length) => Length::Promised(*length),
                Dimension::Dynamic(_) => Length::Unknown,
            })
            .collect();
        !output.shape.is_empty() && layout.fits(&lengths)
    };
    let sets = || layouts.iter().filter(|set| set.len() == outputs.len());
    if sets().any(|set| outputs.iter().zip(set).all(|(output, layout)| fits(output, layout))) {
        return Ok(());
    }
    let bad = outputs
        .iter()
        .enumerate()
        .find(|(index, output)| sets().all(|set| !fits(output, &set[*index])))
        .map_or(outputs[0], |(_, output)| *output);
    let advice = advice(bad).map(|advice| format!("; {advice}")).unwrap_or_default();
    Err(HeadError::mismatch(format!("output {bad} doesn't fit"), format!("{reads}{advice}")))
}

/// Which of a head's layouts a sample's rows have: an index into [`Head::layouts`].
///
/// # Errors
/// When they have none of them, so that no head computes with numbers in the wrong places.
pub(super) fn arrangement(head: &dyn Head, input: &TokenizedInput, rows: &[RowTensor]) -> Result<usize, HeadError> {
    let layouts = head.layouts();
    // A graph that computes every token gives a line for each; one that is read token by token only for those.
    let runs_over = |length| [input.len(), input.steps().len(), input.response().len()].contains(&length);
    let fits = |row: &RowTensor, layout: &Layout| {
        let lengths: Vec<Length> = row
            .shape()
            .iter()
            .map(|length| Length::Row { length: *length, runs_over_tokens: runs_over(*length) })
            .collect();
        layout.fits(&lengths)
    };
    layouts
        .iter()
        .position(|set| set.len() == rows.len() && rows.iter().zip(set).all(|(row, layout)| fits(row, layout)))
        .ok_or_else(|| {
            let shapes: Vec<_> = rows.iter().map(RowTensor::shape).collect();
            HeadError::mismatch(
                format!("the graph returned shapes {shapes:?} for a sample of {} tokens", input.len()),
                format!("the {} head reads {}, without the batch axis", head.name(), describe(&layouts)),
            )
        })
}

/// The numbers of the one row that a head reads.
///
/// # Errors
/// As [`arrangement`].
pub(super) fn one_row<'a>(
    head: &dyn Head,
    input: &TokenizedInput,
    rows: &'a [RowTensor],
) -> Result<&'a [f32], HeadError> {
    arrangement(head, input, rows)?;
    Ok(rows[0].values())
}

/// How many numbers a sample gets in an output, where it is one list of them.
pub(super) fn width(output: &TensorSpec) -> Option<usize> {
    match output.shape.as_slice() {
        [_, Dimension::Fixed(count)] => Some(*count),
        _ => None,
    }
}

/// The tokens at which the steps or segments of a response end, at least one.
pub(super) fn marks(input: &TokenizedInput) -> Result<&[usize], HeadError> {
    if input.steps().is_empty() { Err(HeadError::NoSteps) } else { Ok(input.steps()) }
}

/// The numbers of the token at `position` in a row of shape `[lines, width]` or `[lines]`, where lines are those of all
/// tokens, of the step marks, or of the response's tokens.
///
/// # Errors
/// When one is not finite.
pub(super) fn of_token(row: &RowTensor, input: &TokenizedInput, position: usize) -> Result<Vec<f64>, HeadError> {
    let lines = row.shape().first().copied().unwrap_or(1).max(1);
    let width = row.values().len() / lines;
    let line = match input.steps().binary_search(&position) {
        _ if lines == input.len() => position,
        Ok(step) if lines == input.steps().len() => step,
        _ => position.saturating_sub(input.response().start),
    };
    finite(row.values().get(line * width..(line + 1) * width).unwrap_or_default())
}
