//! One session of a graph that follows the contract `rm-packed/1`, with its caches of keys and values.
//!
//! The caches are allocated once, where the graph computes, and bound as inputs and as outputs: a pass writes into them
//! and nothing of them is copied. What goes in are a few whole numbers a token, what comes out are the reads.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use ::ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, RunOptions, Session, SessionOutputs},
    value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType},
};
use karat_rules::domain::{ElementType, RowTensor};

use super::{
    contract::{PackedContract, packed_names as names},
    device::{Memory, stop_on},
    failure,
    reads::{Outputs, ReadTokens, Wanted, check_outputs},
};
use crate::{
    Cancellation, RuntimeError,
    packed::{PackedExecutor, PackedPass, PackedShape, PackedStaging, StagedPass},
};

/// Runs one session over its own blocks.
pub(super) struct OrtPacked {
    session: Session,
    binding: IoBinding,
    contract: PackedContract,
    outputs: Vec<String>,
    shape: PackedShape,
    /// In the contract's order.
    caches: Vec<DynTensor>,
    staging: Arc<Staging>,
    /// Where outputs come to.
    host: MemoryInfo<'static>,
    options: Arc<RunOptions>,
}

/// Writes inputs into memory that the device reads without another copy, whatever runs meanwhile.
struct Staging {
    memory: Mutex<Allocator>,
    causal: bool,
    takes_positions: bool,
    takes_segments: bool,
}

/// What a pass takes beside the caches.
struct Inputs {
    tensors: Vec<(&'static str, DynTensor)>,
    /// How many tokens are read, and of each of the pass's reads the line in the outputs.
    read_tokens: usize,
    lines: Vec<usize>,
}

impl OrtPacked {
    /// Takes a session of a graph and allocates its blocks; `outputs` are the names of those that are read.
    pub(super) fn new(
        session: Session,
        contract: PackedContract,
        outputs: &[String],
        blocks: NonZeroUsize,
        memory: Memory,
    ) -> Result<Self, RuntimeError> {
        check_outputs(outputs, &contract.model.outputs)?;
        let failed = |error: ::ort::Error| RuntimeError::Pass { cause: error.into() };
        let device = match memory {
            Memory::Gpu(_) => memory.device().and_then(|info| Allocator::new(&session, info)).map_err(failed)?,
            Memory::Host => Allocator::default(),
        };
        let shape = contract.model.shape(blocks.get());
        let element = match contract.element {
            ElementType::Float16 => TensorElementType::Float16,
            ElementType::Bfloat16 => TensorElementType::Bfloat16,
            _ => TensorElementType::Float32,
        };
        let [tokens, heads, width] = contract.block;
        let cache = |_| DynTensor::new(&device, element, [blocks.get(), tokens, heads, width]);
        let caches = contract.caches.iter().map(cache).collect::<Result<_, _>>();
        let caches = caches.map_err(|error: ::ort::Error| RuntimeError::Blocks {
            blocks: blocks.get(),
            bytes: blocks.get().saturating_mul(shape.block_bytes),
            cause: error.into(),
        })?;
        Ok(Self {
            binding: session.create_binding().map_err(failed)?,
            staging: Arc::new(Staging {
                memory: Mutex::new(memory.staging(&session)),
                causal: contract.model.causal,
                takes_positions: contract.takes_positions,
                takes_segments: contract.takes_segments,
            }),
            host: MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
                .map_err(failed)?,
            options: Arc::new(RunOptions::new().map_err(failed)?),
            outputs: outputs.to_vec(),
            session,
            contract,
            shape,
            caches,
        })
    }

    /// Binds everything that a pass takes and gives.
    fn bind(&mut self, pass: &PackedPass, inputs: &Inputs) -> ::ort::Result<()> {
        let Self { binding, contract, .. } = self;
        for (name, tensor) in &inputs.tensors {
            binding.bind_input(*name, tensor)?;
        }
        // Bound anew each time: what the last pass gave stands in the outputs' places, and has the last pass's shape.
        binding.clear_outputs();
        for (cache, tensor) in contract.caches.iter().zip(&mut self.caches) {
            binding.bind_input(&cache.input, &*tensor)?;
            if let Some(output) = &cache.output {
                binding.bind_output(output, &mut *tensor)?;
            }
        }
        for (output, name) in self.outputs.iter().enumerate() {
            // Logits of a vocabulary are many numbers: what nobody reads stays on the device.
            if pass.reads.iter().any(|read| read.output == output) {
                binding.bind_output_to_device(name, &self.host)?;
            }
        }
        Ok(())
    }

    fn compute(
        &mut self,
        pass: &PackedPass,
        inputs: &Inputs,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        let tokens = pass.tokens.len();
        let failed = |error| failure::explain(error, pass.sequences.len(), tokens, cancel);
        self.bind(pass, inputs).map_err(failed)?;
        let Self { session, binding, options, outputs, contract, .. } = self;
        // Left set when an earlier pass was stopped.
        options.unterminate().map_err(failed)?;
        let stop = stop_on(cancel, options);
        let results: SessionOutputs<'_> = session.run_binding_with_options(binding, options).map_err(failed)?;
        drop(stop);
        let given = Outputs { names: outputs, logits: &contract.logits, lines: inputs.read_tokens, tokens };
        let wanted = pass.reads.iter().zip(&inputs.lines);
        given.read(&results, wanted.map(|(read, line)| Wanted { line: *line, output: read.output, what: &read.what }))
    }
}

impl Staging {
    /// Writes what a pass takes.
    fn write(&self, pass: &PackedPass) -> ::ort::Result<Inputs> {
        let numbers = Numbers::of(pass);
        let (rows, whole) = pass.longest();
        let mut read = ReadTokens::default();
        let lines = read.fill(pass.reads.iter().map(|read| read.at));
        let read_tokens = read.0.len();
        let mut longs = vec![(names::INPUT_IDS, integers(&pass.tokens)), (names::READS, read.0)];
        if self.causal {
            longs.extend([(names::EXPAND, places(&pass.expand)), (names::CONTRACT, places(&pass.contract))]);
        }
        if self.takes_positions {
            longs.push((names::POSITIONS, places(&pass.positions())));
        }
        if self.takes_segments {
            let first = || vec![0; pass.tokens.len()];
            longs.push((names::SEGMENTS, if pass.segments.is_empty() { first() } else { integers(&pass.segments) }));
        }
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tensors = Vec::with_capacity(longs.len() + 4);
        for (name, values) in longs {
            tensors.push((name, written(&memory, &[values.len()], &values)?));
        }
        let sequences = pass.sequences.len();
        tensors.push((names::ROW_STARTS, written(&memory, &[sequences + 1], &numbers.row_starts)?));
        tensors.push((names::PASTS, written(&memory, &[sequences], &numbers.pasts)?));
        tensors.push((names::BLOCKS, written(&memory, &[sequences, numbers.most_blocks], &numbers.blocks)?));
        let longest = [short(rows), short(whole)];
        tensors.push((names::LONGEST, written(&Allocator::default(), &[2], &longest)?));
        Ok(Inputs { tensors, read_tokens, lines })
    }
}

impl PackedStaging for Arc<Staging> {
    fn stage(&self, pass: &PackedPass) -> Result<StagedPass, RuntimeError> {
        let failed = |error: ::ort::Error| RuntimeError::Pass { cause: error.into() };
        Ok(StagedPass(Box::new(self.write(pass).map_err(failed)?)))
    }
}

impl OrtPacked {
    /// A pass whose inputs may have been written already.
    fn pass(
        &mut self,
        pass: &PackedPass,
        staged: Option<StagedPass>,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        pass.check(&self.shape)?;
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        if pass.reads.is_empty() && !self.shape.causal {
            // Nothing of it is kept.
            return Ok(Vec::new());
        }
        let failed = |error| failure::explain(error, pass.sequences.len(), pass.tokens.len(), cancel);
        let inputs = match staged.and_then(|staged| staged.0.downcast::<Inputs>().ok()) {
            Some(inputs) => *inputs,
            None => self.staging.write(pass).map_err(failed)?,
        };
        let given = self.compute(pass, &inputs, cancel);
        if given.is_err() {
            // What a failed pass had bound would hold its memory until the next.
            self.binding.clear();
        }
        given
    }
}

impl PackedExecutor for OrtPacked {
    fn forward(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        self.pass(pass, None, cancel)
    }

    fn staging(&self) -> Option<Box<dyn PackedStaging>> {
        Some(Box::new(Arc::clone(&self.staging)))
    }

    fn forward_staged(
        &mut self,
        pass: &PackedPass,
        staged: StagedPass,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        self.pass(pass, Some(staged), cancel)
    }

    fn shape(&self) -> PackedShape {
        self.shape
    }
}

/// What the graph is told of a pass's sequences, in 32 bits.
struct Numbers {
    row_starts: Vec<i32>,
    pasts: Vec<i32>,
    /// `[sequences, most_blocks]`, filled up with 0.
    blocks: Vec<i32>,
    most_blocks: usize,
}

impl Numbers {
    fn of(pass: &PackedPass) -> Self {
        let most_blocks = pass.sequences.iter().map(|sequence| sequence.blocks.len()).max().unwrap_or(0);
        let mut numbers = Self { row_starts: vec![0], pasts: Vec::new(), blocks: Vec::new(), most_blocks };
        let mut rows = 0;
        for sequence in &pass.sequences {
            rows += sequence.rows;
            numbers.row_starts.push(short(rows));
            numbers.pasts.push(short(sequence.past));
            numbers.blocks.extend(sequence.blocks.iter().map(|block| short(*block as usize)));
            numbers.blocks.resize(numbers.row_starts.len().saturating_sub(1) * most_blocks, 0);
        }
        numbers
    }
}

/// Ids come from a vocabulary.
fn integers(values: &[u32]) -> Vec<i64> {
    values.iter().copied().map(i64::from).collect()
}

/// Places in a row lie far below the type's limit.
fn places(values: &[usize]) -> Vec<i64> {
    values.iter().map(|value| i64::try_from(*value).unwrap_or(i64::MAX)).collect()
}

/// A checked pass has no more rows and blocks than fit into the memory of one device.
fn short(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Numbers in a tensor of that memory.
fn written<T: PrimitiveTensorElementType + Copy + std::fmt::Debug>(
    memory: &Allocator,
    shape: &[usize],
    values: &[T],
) -> ::ort::Result<DynTensor> {
    let mut tensor = Tensor::<T>::new(memory, shape)?;
    tensor.extract_tensor_mut().1.copy_from_slice(values);
    Ok(tensor.upcast())
}
