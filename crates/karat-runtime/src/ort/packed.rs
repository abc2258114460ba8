//! One session of a graph that follows the contract `rm-packed/1`, with its caches of keys and values.
//!
//! The caches are allocated once, where the graph computes, and bound as inputs and as outputs: a pass writes into them
//! and nothing of them is copied. What goes in are a few whole numbers a token, what comes out are the reads.

use std::{num::NonZeroUsize, sync::Arc};

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
    packed::{PackedExecutor, PackedPass, PackedShape},
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
    /// Where inputs are written before they go to the device.
    staging: Allocator,
    /// Where outputs come to.
    host: MemoryInfo<'static>,
    options: Arc<RunOptions>,
    read: ReadTokens,
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
            staging: memory.staging(&session),
            host: MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
                .map_err(failed)?,
            options: Arc::new(RunOptions::new().map_err(failed)?),
            outputs: outputs.to_vec(),
            read: ReadTokens::default(),
            session,
            contract,
            shape,
            caches,
        })
    }

    /// Binds everything that a pass takes and gives.
    fn bind(&mut self, pass: &PackedPass) -> ::ort::Result<()> {
        let numbers = Numbers::of(pass);
        let (rows, whole) = pass.longest();
        let Self { binding, staging, contract, .. } = self;
        let mut longs = vec![(names::INPUT_IDS, integers(&pass.tokens)), (names::READS, self.read.0.clone())];
        if contract.model.causal {
            longs.extend([(names::EXPAND, places(&pass.expand)), (names::CONTRACT, places(&pass.contract))]);
        }
        if contract.takes_positions {
            longs.push((names::POSITIONS, places(&pass.positions())));
        }
        if contract.takes_segments {
            let first = || vec![0; pass.tokens.len()];
            longs.push((names::SEGMENTS, if pass.segments.is_empty() { first() } else { integers(&pass.segments) }));
        }
        for (name, values) in longs {
            bind(binding, staging, name, &[values.len()], &values)?;
        }
        let sequences = pass.sequences.len();
        bind(binding, staging, names::ROW_STARTS, &[sequences + 1], &numbers.row_starts)?;
        bind(binding, staging, names::PASTS, &[sequences], &numbers.pasts)?;
        bind(binding, staging, names::BLOCKS, &[sequences, numbers.most_blocks], &numbers.blocks)?;
        bind(binding, &Allocator::default(), names::LONGEST, &[2], &[short(rows), short(whole)])?;
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

    fn compute(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        let lines = self.read.fill(pass.reads.iter().map(|read| read.at));
        let tokens = pass.tokens.len();
        let failed = |error| failure::explain(error, pass.sequences.len(), tokens, cancel);
        self.bind(pass).map_err(failed)?;
        let Self { session, binding, options, outputs, .. } = self;
        // Left set when an earlier pass was stopped.
        options.unterminate().map_err(failed)?;
        let stop = stop_on(cancel, options);
        let results: SessionOutputs<'_> = session.run_binding_with_options(binding, options).map_err(failed)?;
        drop(stop);
        let given = Outputs { names: outputs, lines: self.read.0.len(), tokens };
        let wanted = pass.reads.iter().zip(&lines);
        given.read(&results, wanted.map(|(read, line)| Wanted { line: *line, output: read.output, what: &read.what }))
    }
}

impl PackedExecutor for OrtPacked {
    fn forward(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        pass.check(&self.shape)?;
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        if pass.reads.is_empty() && !self.shape.causal {
            // Nothing of it is kept.
            return Ok(Vec::new());
        }
        let given = self.compute(pass, cancel);
        if given.is_err() {
            // What a failed pass had bound would hold its memory until the next.
            self.binding.clear();
        }
        given
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

/// Binds numbers to an input, in memory of the device's choice.
fn bind<T: PrimitiveTensorElementType + Copy + std::fmt::Debug>(
    binding: &mut IoBinding,
    memory: &Allocator,
    name: &str,
    shape: &[usize],
    values: &[T],
) -> ::ort::Result<()> {
    let mut tensor = Tensor::<T>::new(memory, shape)?;
    tensor.extract_tensor_mut().1.copy_from_slice(values);
    binding.bind_input(name, &tensor)
}
