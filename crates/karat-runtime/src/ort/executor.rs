//! One session at work.

use std::{borrow::Cow, sync::Arc};

use ::ort::{
    session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs},
    value::{DynValue, TensorElementType, TensorRef, TensorValueTypeMarker, Value},
};
use half::{bf16, f16};
use karat_rules::domain::{Dimension, ElementType, GraphSignature, RowTensor, TensorSpec};

use super::{arena, failure};
use crate::{Cancellation, Executor, GraphBinding, RuntimeError, TokenBatch};

/// Memory grows with the positions of a pass times the length that each attends to. From this product on, that of 16
/// samples of 512 tokens, it is given back afterwards, although that makes the pass a little slower.
const LARGE_PASS: usize = 16 * 512 * 512;

/// Runs one session; its input buffers are kept from pass to pass.
pub(super) struct OrtExecutor {
    session: Session,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    pad_id: u32,
    usual_options: Arc<Options>,
    shrinking_options: Arc<Options>,
}

pub(super) struct Input {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) buffer: Integers,
}

/// What an input is told of each token.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Ids,
    Mask,
    Segments,
    Positions,
}

/// A buffer in the number format that the graph wants.
pub(super) enum Integers {
    Int64(Vec<i64>),
    Int32(Vec<i32>),
}

pub(super) struct Output {
    pub(super) name: String,
    pub(super) element: ElementType,
    /// Whether axis 1 runs over the tokens.
    pub(super) per_token: bool,
}

/// Options of a pass, reachable from another thread to stop it.
pub(super) struct Options(RunOptions<HasSelectedOutputs>);

// SAFETY: `ort` withholds `Sync` because selected outputs may carry preallocated tensors. These never do: they hold
// names alone, and all that another thread calls is `terminate`, which ONNX Runtime allows at any time.
#[expect(unsafe_code, reason = "ort has no other handle to stop a pass that selects its outputs")]
unsafe impl Sync for Options {}

impl Options {
    pub(super) fn new(outputs: &[String], configuration: &[(&str, &str)]) -> Result<Arc<Self>, ::ort::Error> {
        let mut options = RunOptions::new()?;
        for (key, value) in configuration {
            options.set(key, value)?;
        }
        let selection = outputs.iter().fold(OutputSelector::no_default(), OutputSelector::with);
        Ok(Arc::new(Self(options.with_outputs(selection))))
    }

    /// Runs a pass that stops when `cancel` is used.
    pub(super) fn run<'r>(
        self: &'r Arc<Self>,
        session: &'r mut Session,
        inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)>,
        cancel: &Cancellation,
        failed: impl Fn(::ort::Error) -> RuntimeError,
    ) -> Result<SessionOutputs<'r>, RuntimeError> {
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        // Left set when an earlier pass was stopped.
        self.0.unterminate().map_err(&failed)?;
        let registration = cancel.on_cancel({
            let options = Arc::clone(self);
            move || {
                if let Err(error) = options.0.terminate() {
                    tracing::warn!(%error, "a forward pass could not be stopped");
                }
            }
        });
        let results = session.run_with_options(inputs, &self.0).map_err(failed)?;
        drop(registration);
        Ok(results)
    }
}

/// The shape and the numbers of an output, in single precision.
pub(super) fn widened(value: &DynValue) -> Result<(Vec<i64>, Cow<'_, [f32]>), RuntimeError> {
    let failed = |error: ::ort::Error| RuntimeError::Pass { cause: error.into() };
    Ok(match value.data_type() {
        TensorElementType::Float16 => {
            let (shape, numbers) = value.try_extract_tensor::<f16>().map_err(failed)?;
            (shape.to_vec(), numbers.iter().copied().map(f16::to_f32).collect())
        }
        TensorElementType::Bfloat16 => {
            let (shape, numbers) = value.try_extract_tensor::<bf16>().map_err(failed)?;
            (shape.to_vec(), numbers.iter().copied().map(bf16::to_f32).collect())
        }
        _ => {
            let (shape, numbers) = value.try_extract_tensor::<f32>().map_err(failed)?;
            (shape.to_vec(), numbers.into())
        }
    })
}

impl OrtExecutor {
    pub(super) fn new(
        session: Session,
        signature: &GraphSignature,
        binding: &GraphBinding,
    ) -> Result<Self, RuntimeError> {
        let inputs = bind_inputs(signature, binding)?;
        let outputs = bind_outputs(signature, binding)?;
        let options = |configuration| {
            Options::new(&binding.outputs, configuration).map_err(|error| RuntimeError::Pass { cause: error.into() })
        };
        Ok(Self {
            session,
            inputs,
            outputs,
            pad_id: binding.pad_id,
            usual_options: options(&[])?,
            shrinking_options: options(arena::SHRINKING)?,
        })
    }
}

impl Executor for OrtExecutor {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let failed = |error: ::ort::Error| failure::explain(error, batch.len(), batch.longest(), cancel);
        let large = batch.padded_tokens().saturating_mul(batch.longest()) >= LARGE_PASS;
        let options = if large { &self.shrinking_options } else { &self.usual_options };

        let shape = [batch.len(), batch.longest()];
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for input in &mut self.inputs {
            let value = match &mut input.buffer {
                Integers::Int64(buffer) => {
                    buffer.resize(batch.padded_tokens(), 0);
                    fill(buffer, shape, input.role, batch, self.pad_id);
                    TensorRef::from_array_view((shape, buffer.as_slice())).map(SessionInputValue::from)
                }
                Integers::Int32(buffer) => {
                    buffer.resize(batch.padded_tokens(), 0);
                    fill(buffer, shape, input.role, batch, self.pad_id);
                    TensorRef::from_array_view((shape, buffer.as_slice())).map(SessionInputValue::from)
                }
            };
            values.push((input.name.as_str().into(), value.map_err(failed)?));
        }

        let results = options.run(&mut self.session, values, cancel, failed)?;
        let mut rows: Vec<Vec<RowTensor>> =
            batch.inputs().iter().map(|_| Vec::with_capacity(self.outputs.len())).collect();
        for (output, value) in self.outputs.iter().zip(results.values()) {
            output.split(&value, shape, batch, &mut rows)?;
        }
        Ok(rows)
    }
}

/// Writes what `role` says of each token into a table of `rows` rows of `length` places, one sample a row, each padded
/// to that length; rows beyond the samples repeat the last.
pub(super) fn fill<T: Copy + TryFrom<u32> + From<bool>>(
    table: &mut [T],
    [rows, length]: [usize; 2],
    role: Role,
    batch: &TokenBatch,
    pad_id: u32,
) {
    let zero = T::from(false);
    // Ids come from a tokenizer's vocabulary, and positions from a length: both are far below either type's limit.
    let number = |value: u32| T::try_from(value).unwrap_or(zero);
    let inputs = batch.inputs();
    let samples = inputs.iter().chain(inputs.last().into_iter().cycle()).take(rows);
    for (row, input) in table.chunks_exact_mut(length.max(1)).zip(samples) {
        let (tokens, rest) = row.split_at_mut(input.len().min(length));
        let padding = match role {
            Role::Ids => {
                tokens.iter_mut().zip(input.ids()).for_each(|(place, &id)| *place = number(id));
                number(pad_id)
            }
            Role::Mask => {
                tokens.fill(T::from(true));
                zero
            }
            Role::Segments => {
                tokens.iter_mut().zip(input.type_ids()).for_each(|(place, &segment)| *place = number(segment));
                zero
            }
            Role::Positions => {
                tokens.iter_mut().zip(0_u32..).for_each(|(place, position)| *place = number(position));
                zero
            }
        };
        rest.fill(padding);
    }
}

impl Output {
    /// Copies each sample's part of `value`, which a pass of the shape `run` gave, to its row.
    pub(super) fn split<Type: TensorValueTypeMarker + ?Sized>(
        &self,
        value: &Value<Type>,
        run: [usize; 2],
        batch: &TokenBatch,
        rows: &mut [Vec<RowTensor>],
    ) -> Result<(), RuntimeError> {
        let failed = |error: ::ort::Error| RuntimeError::Pass { cause: error.into() };
        match self.element {
            ElementType::Float16 => {
                let (shape, values) = value.try_extract_tensor::<f16>().map_err(failed)?;
                self.cut(shape, values, f16::to_f32, run, batch, rows)
            }
            ElementType::Bfloat16 => {
                let (shape, values) = value.try_extract_tensor::<bf16>().map_err(failed)?;
                self.cut(shape, values, bf16::to_f32, run, batch, rows)
            }
            _ => {
                let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
                self.cut(shape, values, |number| number, run, batch, rows)
            }
        }
    }

    fn cut<T: Copy>(
        &self,
        shape: &[i64],
        values: &[T],
        widen: impl Fn(T) -> f32,
        [samples, longest]: [usize; 2],
        batch: &TokenBatch,
        rows: &mut [Vec<RowTensor>],
    ) -> Result<(), RuntimeError> {
        let mismatch =
            || RuntimeError::Shape { name: self.name.clone(), found: shape.to_vec(), samples, tokens: longest };
        let axes: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let Some((&rows_found, inner)) = axes.split_first() else { return Err(mismatch()) };
        let stride: usize = inner.iter().product();
        if rows_found != samples || values.len() != samples * stride {
            return Err(mismatch());
        }
        if self.per_token && inner.first() != Some(&longest) {
            return Err(mismatch());
        }
        for (index, (input, row)) in batch.inputs().iter().zip(rows).enumerate() {
            let mut kept = if inner.is_empty() { vec![1] } else { inner.to_vec() };
            if self.per_token {
                kept[0] = input.len();
            }
            let count: usize = kept.iter().product();
            let start = index * stride;
            let numbers = values[start..start + count].iter().copied().map(&widen).collect();
            row.push(RowTensor::new(kept, numbers).ok_or_else(mismatch)?);
        }
        Ok(())
    }
}

pub(super) fn bind_inputs(signature: &GraphSignature, binding: &GraphBinding) -> Result<Vec<Input>, RuntimeError> {
    let named = [
        (Some(&binding.input_ids), Role::Ids),
        (binding.attention_mask.as_ref(), Role::Mask),
        (binding.token_type_ids.as_ref(), Role::Segments),
        (binding.position_ids.as_ref(), Role::Positions),
    ];
    let mut inputs = Vec::new();
    for (name, role) in named {
        let Some(name) = name else { continue };
        let specification = find(&signature.inputs, name, "input")?;
        let buffer = match specification.element {
            ElementType::Int64 => Integers::Int64(Vec::new()),
            ElementType::Int32 => Integers::Int32(Vec::new()),
            other => {
                return Err(RuntimeError::Binding {
                    found: format!("input {specification} takes {other}"),
                    advice: "token inputs are int64 or int32; export the graph so".to_owned(),
                });
            }
        };
        let dynamic = matches!(specification.shape.as_slice(), [Dimension::Dynamic(_), Dimension::Dynamic(_)]);
        if !dynamic {
            return Err(RuntimeError::Binding {
                found: format!("input {specification} has a fixed shape"),
                advice: "export the graph with dynamic axes for batch and sequence".to_owned(),
            });
        }
        inputs.push(Input { name: name.clone(), role, buffer });
    }
    if let Some(unbound) = signature.inputs.iter().find(|input| !inputs.iter().any(|bound| bound.name == input.name)) {
        return Err(RuntimeError::Binding {
            found: format!("nothing feeds the input {unbound}"),
            advice: "name it in the manifest, or export the graph without it".to_owned(),
        });
    }
    Ok(inputs)
}

pub(super) fn bind_outputs(signature: &GraphSignature, binding: &GraphBinding) -> Result<Vec<Output>, RuntimeError> {
    let tokens_axis = match find(&signature.inputs, &binding.input_ids, "input")?.shape.as_slice() {
        [_, Dimension::Dynamic(name)] => name.as_str(),
        _ => "",
    };
    bind_each(signature, &binding.outputs, |specification| runs_over_tokens(specification, tokens_axis))
}

/// The outputs of a graph that takes images: none has an axis of tokens.
pub(super) fn bind_pixel_outputs(signature: &GraphSignature, outputs: &[String]) -> Result<Vec<Output>, RuntimeError> {
    bind_each(signature, outputs, |_| false)
}

fn bind_each(
    signature: &GraphSignature,
    outputs: &[String],
    per_token: impl Fn(&TensorSpec) -> bool,
) -> Result<Vec<Output>, RuntimeError> {
    if outputs.is_empty() {
        return Err(RuntimeError::Binding {
            found: "no output is named".to_owned(),
            advice: format!("name one of: {}", names(&signature.outputs)),
        });
    }
    let bind = |name: &String| {
        let specification = find(&signature.outputs, name, "output")?;
        if !specification.element.is_float() {
            return Err(RuntimeError::Binding {
                found: format!("output {specification} holds {}", specification.element),
                advice: "scores are float32, float16 or bfloat16; export the graph so".to_owned(),
            });
        }
        Ok(Output { name: name.clone(), element: specification.element, per_token: per_token(specification) })
    };
    outputs.iter().map(bind).collect()
}

/// Whether axis 1 of an output runs over tokens: it bears the name of the inputs' token axis, or names say nothing
/// and a third axis follows it.
fn runs_over_tokens(output: &TensorSpec, tokens_axis: &str) -> bool {
    match output.shape.get(1) {
        Some(Dimension::Dynamic(name)) if !name.is_empty() && name == tokens_axis => true,
        Some(Dimension::Dynamic(_)) => output.shape.len() > 2,
        _ => false,
    }
}

fn find<'a>(tensors: &'a [TensorSpec], name: &str, what: &str) -> Result<&'a TensorSpec, RuntimeError> {
    tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| RuntimeError::Binding {
        found: format!("the graph has no {what} {name:?}"),
        advice: format!("name one of: {}", names(tensors)),
    })
}

fn names(tensors: &[TensorSpec]) -> String {
    tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
