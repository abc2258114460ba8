//! One session of a graph that follows the contract `rm-prefix/1`, at work.

use std::{borrow::Cow, ops::Range, sync::Arc};

use ::ort::{
    session::{Session, SessionInputValue, SessionOutputs},
    value::{PrimitiveTensorElementType, TensorRef},
};
use half::{bf16, f16};
use karat_rules::domain::ElementType;

use super::{
    contract::{PrefixContract, prefix_names as names},
    executor::Options,
    failure,
    reads::{Outputs, ReadTokens, Wanted, check_outputs, tensor},
};
use crate::{
    Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, KeyValues, Past, RuntimeError,
    decoder::Number,
};

/// Runs one session; its buffers are kept from row to row.
pub(super) struct OrtDecoder {
    session: Session,
    contract: PrefixContract,
    outputs: Vec<String>,
    /// Asks for the outputs alone.
    reading: Arc<Options>,
    /// Asks for the new keys and values as well.
    keeping: Arc<Options>,
    integers: IntegerBuffers,
    floats: FloatBuffers,
}

#[derive(Default)]
struct IntegerBuffers {
    ids: Vec<i64>,
    positions: Vec<i64>,
    /// The position of each token that went before or is new; 0 of those that nobody sees.
    key_positions: Vec<i64>,
    read: ReadTokens,
}

/// Buffers in the number format of the graph.
enum FloatBuffers {
    Float32(Buffers<f32>),
    Float16(Buffers<f16>),
    Bfloat16(Buffers<bf16>),
}

struct Buffers<T> {
    bias: Vec<T>,
    /// The past as the graph takes it, one tensor for each of the contract's inputs.
    past: Vec<Vec<T>>,
    /// What `past` was put together from: rows that continue the same tokens use it again.
    assembled: Vec<Past>,
}

/// A number as ONNX Runtime takes it.
trait TensorNumber: Number + PrimitiveTensorElementType + std::fmt::Debug {
    /// Added to the attention between a token and one that it doesn't see: so low that its weight is exactly 0, and
    /// far enough from the format's end that adding to it doesn't overflow.
    const UNSEEN: Self;
}

impl TensorNumber for f32 {
    const UNSEEN: Self = -1e9;
}

impl TensorNumber for f16 {
    const UNSEEN: Self = Self::from_f32_const(-3e4);
}

impl TensorNumber for bf16 {
    const UNSEEN: Self = Self::from_f32_const(-1e9);
}

impl OrtDecoder {
    /// Takes a session of a graph; `outputs` are the names of those that are read, at least one.
    pub(super) fn new(session: Session, contract: PrefixContract, outputs: &[String]) -> Result<Self, RuntimeError> {
        check_outputs(outputs, &contract.outputs)?;
        let options =
            |names: &[String]| Options::new(names, &[]).map_err(|error| RuntimeError::Pass { cause: error.into() });
        let floats = match contract.shape.element {
            ElementType::Float16 => FloatBuffers::Float16(Buffers::new(&contract)),
            ElementType::Bfloat16 => FloatBuffers::Bfloat16(Buffers::new(&contract)),
            _ => FloatBuffers::Float32(Buffers::new(&contract)),
        };
        Ok(Self {
            reading: options(outputs)?,
            keeping: options(&[outputs, &contract.present].concat())?,
            outputs: outputs.to_vec(),
            session,
            contract,
            integers: IntegerBuffers::default(),
            floats,
        })
    }
}

impl DecoderExecutor for OrtDecoder {
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        row.check(&self.contract.shape)?;
        let options = if row.keep.is_empty() { &self.reading } else { &self.keeping };
        let read = self.integers.fill(row);
        if self.contract.wants_key_positions {
            self.integers.fill_key_positions(row);
        }
        let Self { session, contract, outputs, integers, floats, .. } = self;
        let pass = Pass { contract, outputs, integers, options, row, read, cancel };
        match floats {
            FloatBuffers::Float32(buffers) => pass.run(session, buffers),
            FloatBuffers::Float16(buffers) => pass.run(session, buffers),
            FloatBuffers::Bfloat16(buffers) => pass.run(session, buffers),
        }
    }

    fn shape(&self) -> DecoderShape {
        self.contract.shape
    }

    fn forget(&mut self) {
        match &mut self.floats {
            FloatBuffers::Float32(buffers) => *buffers = Buffers::new(&self.contract),
            FloatBuffers::Float16(buffers) => *buffers = Buffers::new(&self.contract),
            FloatBuffers::Bfloat16(buffers) => *buffers = Buffers::new(&self.contract),
        }
    }
}

impl IntegerBuffers {
    /// Fills the buffers; gives, for each of the row's reads, its place among the tokens that are read.
    fn fill(&mut self, row: &DecoderRow) -> Vec<usize> {
        // Ids come from a vocabulary, and positions from a length: both are far below the type's limit.
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.ids.clear();
        self.positions.clear();
        for span in &row.spans {
            self.ids.extend(span.tokens.iter().copied().map(i64::from));
            self.positions.extend((span.position..span.position + span.tokens.len()).map(number));
        }
        self.read.fill(row.reads.iter().map(|read| read.at))
    }

    /// Tells the positions of all tokens from those that see them: what a span sees goes right before it in its text.
    fn fill_key_positions(&mut self, row: &DecoderRow) {
        let past = row.past_tokens();
        self.key_positions.clear();
        self.key_positions.resize(past + row.new_tokens(), 0);
        let mut start = past;
        for span in &row.spans {
            let own = start..start + span.tokens.len();
            start = own.end;
            let new = span.sees_new.iter().map(|range| past + range.start..past + range.end);
            let seen = span.sees_past.iter().cloned().chain(new).chain([own]);
            // A length, far below the type's limit.
            let mut end = i64::try_from(span.position + span.tokens.len()).unwrap_or(i64::MAX);
            for range in seen.rev() {
                for place in self.key_positions[range].iter_mut().rev() {
                    end -= 1;
                    *place = end;
                }
            }
        }
    }
}

impl<T: TensorNumber> Buffers<T> {
    fn new(contract: &PrefixContract) -> Self {
        Self { bias: Vec::new(), past: vec![Vec::new(); contract.past.len()], assembled: Vec::new() }
    }

    /// Writes which token sees which, as numbers of shape `[new, past + new]`.
    fn mask(&mut self, row: &DecoderRow) {
        let (past, width) = (row.past_tokens(), row.past_tokens() + row.new_tokens());
        self.bias.clear();
        self.bias.resize(row.new_tokens() * width, T::UNSEEN);
        let mut start = 0;
        for span in &row.spans {
            for at in start..start + span.tokens.len() {
                let line = &mut self.bias[at * width..(at + 1) * width];
                let (seen_past, seen_new) = line.split_at_mut(past);
                span.sees_past.iter().for_each(|range| seen_past[range.clone()].fill(T::ZERO));
                span.sees_new.iter().for_each(|range| seen_new[range.clone()].fill(T::ZERO));
                seen_new[start..=at].fill(T::ZERO);
            }
            start += span.tokens.len();
        }
    }

    /// Puts the past together as the graph takes it: one tensor `[KV, P, HD]` after another.
    fn assemble(&mut self, past: &[Past], shape: &DecoderShape) {
        let same = self.assembled.len() == past.len() && self.assembled.iter().zip(past).all(|(a, b)| a.is_same(b));
        if same {
            return;
        }
        let tokens: usize = past.iter().map(|part| part.range.len()).sum();
        for (tensor, buffer) in self.past.iter_mut().enumerate() {
            buffer.clear();
            buffer.reserve_exact(shape.kv_heads * tokens * shape.head_dim);
            for head in 0..shape.kv_heads {
                for part in past {
                    let numbers = T::of(part.values.numbers()).unwrap_or_default();
                    let first = (tensor * shape.kv_heads + head) * part.values.tokens();
                    let at = |token: usize| (first + token) * shape.head_dim;
                    buffer.extend_from_slice(&numbers[at(part.range.start)..at(part.range.end)]);
                }
            }
        }
        self.assembled = past.to_vec();
    }
}

/// A tensor that borrows its numbers.
fn view<'a, T, const N: usize>(axes: [usize; N], numbers: &'a [T]) -> Result<SessionInputValue<'a>, RuntimeError>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let tensor = TensorRef::from_array_view((axes, numbers));
    tensor.map(SessionInputValue::from).map_err(|error| RuntimeError::Pass { cause: error.into() })
}

/// One row on its way through the session.
struct Pass<'a> {
    contract: &'a PrefixContract,
    outputs: &'a [String],
    integers: &'a IntegerBuffers,
    options: &'a Arc<Options>,
    row: &'a DecoderRow,
    /// For each read, its line in the outputs.
    read: Vec<usize>,
    cancel: &'a Cancellation,
}

impl Pass<'_> {
    fn run<T: TensorNumber>(
        &self,
        session: &mut Session,
        buffers: &mut Buffers<T>,
    ) -> Result<DecoderRowOutput, RuntimeError> {
        let shape = &self.contract.shape;
        buffers.mask(self.row);
        // Keys and values that are wanted whole are in the graph's own order already.
        let whole = match self.row.past.as_slice() {
            [only] if only.range == (0..only.values.tokens()) => T::of(only.values.numbers()),
            _ => None,
        };
        if whole.is_none() {
            buffers.assemble(&self.row.past, shape);
        }
        let IntegerBuffers { ids, positions, key_positions, read: ReadTokens(read) } = self.integers;
        let (new, past) = (ids.len(), self.row.past_tokens());
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            (names::INPUT_IDS.into(), view([1, new], ids)?),
            (names::POSITION_IDS.into(), view([1, new], positions)?),
            (names::SCORE_POSITIONS.into(), view([read.len()], read)?),
            (names::ATTN_BIAS.into(), view([1, 1, new, past + new], &buffers.bias)?),
        ];
        if self.contract.wants_key_positions {
            inputs.push((names::KEY_POSITION_IDS.into(), view([1, past + new], key_positions)?));
        }
        let size = shape.kv_heads * past * shape.head_dim;
        for (index, (name, assembled)) in self.contract.past.iter().zip(&buffers.past).enumerate() {
            let numbers = whole.map_or(assembled.as_slice(), |whole| &whole[index * size..(index + 1) * size]);
            inputs.push((name.into(), view([1, shape.kv_heads, past, shape.head_dim], numbers)?));
        }
        let failed = |error| failure::explain(error, 1, past + new, self.cancel);
        let results = self.options.run(session, inputs, self.cancel, failed)?;
        let lines = self.row.reads.iter().zip(&self.read);
        let wanted = lines.map(|(read, line)| Wanted { line: *line, output: read.output, what: &read.what });
        Ok(DecoderRowOutput { reads: self.given().read(&results, wanted)?, kept: self.kept::<T>(&results)? })
    }

    /// Takes the wanted keys and values out of what the graph computed.
    fn kept<T: TensorNumber>(&self, results: &SessionOutputs<'_>) -> Result<Vec<Arc<KeyValues>>, RuntimeError> {
        let ranges = &self.row.keep;
        let shape = &self.contract.shape;
        let new = self.row.new_tokens();
        let mut kept: Vec<Vec<T>> =
            ranges.iter().map(|range| Vec::with_capacity(shape.numbers_per_token() * range.len())).collect();
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        for name in &self.contract.present {
            let (found, numbers) = tensor(results, name)?
                .try_extract_tensor::<T>()
                .map_err(|error| RuntimeError::Pass { cause: error.into() })?;
            if numbers.len() != shape.kv_heads * new * shape.head_dim {
                return Err(self.given().mismatch(name, found));
            }
            for head in 0..shape.kv_heads {
                let at = |token: usize| (head * new + token) * shape.head_dim;
                for (range, kept) in ranges.iter().zip(&mut kept) {
                    kept.extend_from_slice(&numbers[at(range.start)..at(range.end)]);
                }
            }
        }
        let values = |(range, numbers): (&Range<usize>, Vec<T>)| {
            KeyValues::new(shape, range.len(), T::wrap(numbers)).map(Arc::new)
        };
        let lost = || RuntimeError::Pass { cause: "keys and values of another number came out".into() };
        ranges.iter().zip(kept).map(values).collect::<Option<Vec<_>>>().ok_or_else(lost)
    }

    fn given(&self) -> Outputs<'_> {
        Outputs {
            names: self.outputs,
            logits: &self.contract.logits,
            lines: self.integers.read.0.len(),
            tokens: self.row.new_tokens(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges that happen to hold one")]
mod tests;
