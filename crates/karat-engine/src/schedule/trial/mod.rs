//! Tries whether a graph gives a sample one score, whatever company it has in a pass.
//!
//! A graph that sees padding, or whose operators look at a whole batch, gives scores that look as good as any and depend
//! on who else asked. What an exporter promises is no proof, so each graph is run when it is loaded: a few texts alone,
//! and the same beside each other. Where that makes a difference, they stay apart from then on.

mod batches;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use karat_rules::domain::{ElementType, RowTensor, TokenizedInput};
use karat_runtime::{Cancellation, Executor, RuntimeError, TokenBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use batches::Batches;

/// The numbers of an output that are compared of a text, evenly spread: a line of logits has a hundred thousand.
const COMPARED: usize = 2048;

/// What company a sample may have in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Company {
    /// Any other samples.
    Any,
    /// Samples of exactly its own length, so that none is padded.
    EqualLengths,
    /// None: each sample is computed alone.
    Alone,
}

/// What trying a graph came to, when it was loaded: the same texts were scored alone, padded beside longer ones, in
/// another order and in a large batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// What company samples get from now on.
    pub company: Company,
    /// The largest difference between what the graph gave of a text alone and in company; absent when a pass of several
    /// samples failed, or none was tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub largest_difference: Option<f64>,
    /// How large it may be, by the graph's number format and the size of its numbers.
    pub tolerance: f64,
    /// Why samples don't get any company; absent when they do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whether a score moved that the graph's form promises to keep. With `--strict` such a model isn't served.
    pub broken: bool,
}

/// What is known of a graph before it is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The coarsest number format that its passes round to.
    pub rounds_to: ElementType,
    /// Whether it has an input that tells tokens from padding, or needs none.
    pub masks: bool,
    /// Whether it quantises activations over a whole pass.
    pub quantises: bool,
    /// The most samples of a batch.
    pub most_samples: usize,
    /// The most positions of a batch.
    pub most_tokens: usize,
    /// How long it may take before large batches are left out.
    pub time: Duration,
}

/// What a graph gives of texts that are alone in their pass.
pub(crate) struct Alone {
    texts: Vec<Arc<TokenizedInput>>,
    numbers: Vec<Vec<f32>>,
    /// By how much a text that was computed twice differs from itself.
    repeated: f64,
    largest: f64,
    started: Instant,
    seconds_per_token: f64,
}

impl Alone {
    /// Runs each text by itself and unpadded.
    ///
    /// # Errors
    /// When a pass fails.
    pub(crate) fn compute(executor: &mut dyn Executor, texts: &[Arc<TokenizedInput>]) -> Result<Self, RuntimeError> {
        let started = Instant::now();
        executor.allow_rounding(false);
        let computed = texts.iter().map(|text| one(executor, text)).collect::<Result<Vec<_>, _>>();
        let took = started.elapsed();
        let again = texts.first().map(|text| one(executor, text)).transpose();
        executor.allow_rounding(true);
        let (computed, again) = (computed?, again?);
        let repeated = computed.first().zip(again.as_ref()).map_or(0.0, |(one, other)| difference(one, other));
        // A text that overflows says nothing of its company.
        let usable = texts.iter().zip(computed).filter(|(_, numbers)| numbers.iter().all(|number| number.is_finite()));
        let (texts, numbers): (Vec<_>, Vec<_>) = usable.map(|(text, numbers)| (Arc::clone(text), numbers)).unzip();
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let largest = numbers.iter().flatten().fold(0.0, |largest: f64, number| largest.max(f64::from(number.abs())));
        let seconds_per_token = took.as_secs_f64() / float(tokens.max(1));
        Ok(Self { texts, numbers, repeated, largest, started, seconds_per_token })
    }

    /// By how much the scores of one text differ that was computed twice, if that is more than rounding explains.
    pub(crate) fn wavers(&self, rounds_to: ElementType) -> Option<f64> {
        Some(self.repeated).filter(|repeated| !within(*repeated, tolerance(rounds_to, self.largest)))
    }

    /// How long ago the first text was begun.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs the texts in company on an executor of the same graph, and decides.
    ///
    /// # Errors
    /// When an executor breaks down; not when a pass of several samples fails.
    pub(crate) fn compare(&self, executor: &mut dyn Executor, conditions: &Conditions) -> Result<Trial, RuntimeError> {
        let tolerance = tolerance(conditions.rounds_to, self.largest);
        let lengths: Vec<usize> = self.texts.iter().map(|text| text.len()).collect();
        let batches = Batches { lengths: &lengths, samples: conditions.most_samples, tokens: conditions.most_tokens };
        let alike = self.worst(executor, &batches.alike(), conditions)?;
        let mixed = match conditions.masks {
            true => self.worst(executor, &batches.mixed(), conditions)?,
            false => Found::default(),
        };
        let (alike_holds, mixed_holds) = (alike.holds(tolerance), mixed.holds(tolerance));
        let company = match () {
            () if conditions.quantises || !alike_holds => Company::Alone,
            () if conditions.masks && mixed_holds => Company::Any,
            // Where nothing is padded, equal lengths are no remedy.
            () if !executor.pads() => Company::Alone,
            () => Company::EqualLengths,
        };
        let worst = if alike_holds { &mixed } else { &alike };
        let reason = match company {
            Company::Any => None,
            _ if conditions.quantises => Some(
                "the graph quantises activations over a whole pass, so that a score depends on its company".to_owned(),
            ),
            _ if !conditions.masks && alike_holds => Some(
                "the graph has no input that tells tokens from padding (attention_mask), so nothing is padded"
                    .to_owned(),
            ),
            _ => Some(format!("{worst}, where rounding explains {tolerance:.1e}{}", advice(company, executor.pads()))),
        };
        let failed = alike.failure.is_some() || mixed.failure.is_some();
        Ok(Trial {
            company,
            largest_difference: alike.largest.into_iter().chain(mixed.largest).reduce(f64::max).filter(|_| !failed),
            tolerance,
            reason,
            broken: !(conditions.quantises || alike_holds && mixed_holds),
        })
    }

    /// The largest difference that the batches make.
    fn worst(
        &self,
        executor: &mut dyn Executor,
        batches: &[Vec<usize>],
        conditions: &Conditions,
    ) -> Result<Found, RuntimeError> {
        let mut found = Found::default();
        for batch in batches {
            let inputs: Vec<_> = batch.iter().map(|text| Arc::clone(&self.texts[*text])).collect();
            let Some(tokens) = TokenBatch::new(inputs) else { continue };
            let expected = self.seconds_per_token * float(tokens.padded_tokens());
            // What tells most comes first and is tried in any case.
            if tokens.len() > self.texts.len()
                && self.started.elapsed().as_secs_f64() + expected > conditions.time.as_secs_f64()
            {
                continue;
            }
            let rows = match executor.run(&tokens, &Cancellation::new()) {
                Ok(rows) => rows,
                // Later batches are smaller where memory ends.
                Err(RuntimeError::OutOfMemory { .. }) => continue,
                Err(RuntimeError::Cancelled) => return Err(RuntimeError::Cancelled),
                Err(error) => {
                    found.failure.get_or_insert(error.to_string());
                    continue;
                }
            };
            for (text, rows) in batch.iter().zip(&rows) {
                let made = difference(&self.numbers[*text], &numbers(rows));
                found.largest = Some(found.largest.map_or(made, |largest| largest.max(made)));
            }
        }
        Ok(found)
    }
}

/// What batches of one kind showed.
#[derive(Debug, Default)]
struct Found {
    largest: Option<f64>,
    failure: Option<String>,
}

impl Found {
    fn holds(&self, tolerance: f64) -> bool {
        self.failure.is_none() && self.largest.is_none_or(|largest| within(largest, tolerance))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, self.largest) {
            (Some(failure), _) => write!(f, "a pass of several samples fails ({failure})"),
            (None, largest) => {
                write!(f, "beside others a text's numbers differ by {:.2e}", largest.unwrap_or_default())
            }
        }
    }
}

/// What may be done about it.
fn advice(company: Company, pads: bool) -> &'static str {
    match (company, pads) {
        (Company::EqualLengths, _) => {
            "; the graph sees padding: export it with its attention_mask in use, or name the pad_token that it looks for"
        }
        (Company::Alone | Company::Any, true) => "; export the graph so that samples of a batch don't mix",
        (Company::Alone | Company::Any, false) => "; build or export the graph anew",
    }
}

/// By how much numbers of one text may differ from pass to pass: matrix products of another shape add in another order.
///
/// 1e-4 is what karat promises in single precision, and numbers above 10 get as many digits. In 16 bits a pass rounds after
/// each operator, by 2⁻¹¹ (half precision) or 2⁻⁸ (bfloat16) of a number; what some 256 such roundings come to, which add
/// up like their root, is let pass.
fn tolerance(rounds_to: ElementType, largest: f64) -> f64 {
    const ROUNDINGS: f64 = 16.0;
    match rounds_to {
        ElementType::Float16 => ROUNDINGS / 2048.0 * largest.max(1.0),
        ElementType::Bfloat16 => ROUNDINGS / 256.0 * largest.max(1.0),
        ElementType::Float32 | ElementType::Int64 | ElementType::Int32 | ElementType::Other => {
            (largest * 1e-5).max(1e-4)
        }
    }
}

fn one(executor: &mut dyn Executor, text: &Arc<TokenizedInput>) -> Result<Vec<f32>, RuntimeError> {
    let rows = executor.run(&TokenBatch::single(Arc::clone(text)), &Cancellation::new())?;
    Ok(rows.first().map(|rows| numbers(rows)).unwrap_or_default())
}

/// What is compared of a text's rows.
fn numbers(rows: &[RowTensor]) -> Vec<f32> {
    let spread = |row: &RowTensor| {
        let step = row.values().len() / COMPARED + 1;
        row.values().iter().copied().step_by(step).collect::<Vec<_>>()
    };
    rows.iter().flat_map(spread).collect()
}

/// The largest difference between numbers of two passes over one text.
fn difference(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return f64::INFINITY;
    }
    let differences = one.iter().zip(other).map(|(one, other)| match one.to_bits() == other.to_bits() {
        true => 0.0,
        // What is finite in one pass and not in the other is as far apart as can be.
        false => {
            Some((f64::from(*one) - f64::from(*other)).abs()).filter(|far| far.is_finite()).unwrap_or(f64::INFINITY)
        }
    });
    differences.fold(0.0, f64::max)
}

fn within(difference: f64, tolerance: f64) -> bool {
    difference <= tolerance
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
