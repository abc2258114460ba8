//! A session on a GPU.
//!
//! Inputs are written into pinned memory, which the GPU reads without another copy, and bound; of the outputs only
//! those that are read come back. Where a new shape is dear, all are rounded up to a few. Small passes cost more time for starting kernels than for computing, so their shapes
//! are rounded up to a few, each of which CUDA captures once and replays. ([`Memory::Host`] makes all of it run on the
//! processor, so that it can be tested without a GPU.)

use std::{
    collections::{HashMap, hash_map::Entry},
    num::NonZeroUsize,
    sync::Arc,
};

use ::ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, RunOptions, Session},
    value::{DynTensor, Tensor, TensorElementType},
};
use karat_rules::domain::{Dimension, ElementType, GraphSignature, RowTensor};

use super::{
    executor::{Input, Integers, Output, bind_inputs, bind_outputs, fill},
    failure,
};
use crate::{Cancellation, Executor, GraphBinding, Registration, RuntimeError, Shapes, TokenBatch};

/// Where the tensors of a pass lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// On that GPU, and in memory that is pinned for it.
    Gpu(u32),
    /// In the processor's memory.
    Host,
}

/// Runs one session on a GPU.
pub(super) struct DeviceExecutor {
    session: Session,
    binding: IoBinding,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    pad_id: u32,
    /// Where inputs are written before they go to the GPU.
    staging: Allocator,
    /// Where outputs come to. They are a few numbers a sample, which pinning wouldn't speed up.
    host: MemoryInfo<'static>,
    options: Arc<RunOptions>,
    captures: Option<Captures>,
    /// The shapes that passes which aren't captured are rounded up to, where others are dear.
    shapes: Option<Shapes>,
    /// Whether a pass may be rounded up.
    rounds: bool,
}

/// Passes that are captured, by their shape.
struct Captures {
    passes: HashMap<Run, Capture>,
    memory: Memory,
    longest: Option<NonZeroUsize>,
    /// The output's axes behind the samples; `None` for the tokens.
    axes: Vec<Vec<Option<usize>>>,
}

/// How many rows of how many tokens a pass computes, padding included.
type Run = [usize; 2];

/// One captured pass: tensors whose places never change.
struct Capture {
    binding: IoBinding,
    options: Arc<RunOptions>,
    inputs: Vec<DynTensor>,
    outputs: Vec<CapturedOutput>,
}

/// An output on the GPU, and its copy on the host.
struct CapturedOutput {
    device: DynTensor,
    host: DynTensor,
}

/// The run option that names a capture; without a capture it is -1.
const CAPTURE: &str = "gpu_graph_id";
/// The numbers of samples that passes are rounded up to; larger ones are not captured.
const CAPTURED_SAMPLES: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Beyond so many positions a pass computes for so long that starting its kernels doesn't count.
const CAPTURED_POSITIONS: usize = 4096;
/// Each capture holds memory of the GPU.
const MOST_CAPTURES: usize = 96;

impl DeviceExecutor {
    /// `captures` is given where passes shall be captured, with the longest sample that comes.
    pub(super) fn new(
        session: Session,
        signature: &GraphSignature,
        binding: &GraphBinding,
        memory: Memory,
        captures: Option<Option<NonZeroUsize>>,
    ) -> Result<Self, RuntimeError> {
        let inputs = bind_inputs(signature, binding)?;
        let outputs = bind_outputs(signature, binding)?;
        let captures = captures.map(|longest| Captures::new(signature, &outputs, memory, longest)).transpose()?;
        let failed = |error: ::ort::Error| RuntimeError::Pass { cause: error.into() };
        let mut options = RunOptions::new().map_err(failed)?;
        if captures.is_some() {
            options.set(CAPTURE, "-1").map_err(failed)?;
        }
        Ok(Self {
            binding: session.create_binding().map_err(failed)?,
            staging: memory.staging(&session),
            host: MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
                .map_err(failed)?,
            inputs,
            outputs,
            pad_id: binding.pad_id,
            options: Arc::new(options),
            captures,
            shapes: None,
            rounds: true,
            session,
        })
    }

    /// The same, but passes are rounded up to those shapes.
    pub(super) fn in_shapes(self, shapes: Option<Shapes>) -> Self {
        Self { shapes, ..self }
    }

    /// A pass of that shape, which the batch fits into.
    fn compute(&mut self, run: Run, batch: &TokenBatch, cancel: &Cancellation) -> Result<Rows, Failure> {
        for input in &self.inputs {
            let tensor = staged(input, &self.staging, run, batch, self.pad_id)?;
            self.binding.bind_input(&input.name, &tensor)?;
        }
        for output in &self.outputs {
            // Bound anew each time: what the last pass gave stands in its place, and has the last pass's shape.
            self.binding.bind_output_to_device(&output.name, &self.host)?;
        }
        self.options.unterminate()?;
        let stop = stop_on(cancel, &self.options);
        let results = self.session.run_binding_with_options(&self.binding, &self.options)?;
        drop(stop);
        let mut rows = empty_rows(batch, &self.outputs);
        for output in &self.outputs {
            output.split(&results[output.name.as_str()], run, batch, &mut rows)?;
        }
        Ok(rows)
    }

    /// A pass of a shape that is captured, or is being captured by this.
    fn replay(&mut self, run: Run, batch: &TokenBatch, cancel: &Cancellation) -> Result<Rows, Failure> {
        let Some(captures) = self.captures.as_mut() else { return self.compute(run, batch, cancel) };
        let number = captures.passes.len();
        let capture = match captures.passes.entry(run) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let input = |input: &Input| NewTensor {
                    name: input.name.clone(),
                    element: input_element(input),
                    shape: run.to_vec(),
                };
                let output = |(output, axes): (&Output, &Vec<Option<usize>>)| {
                    let axes = axes.iter().map(|axis| axis.unwrap_or(run[1]));
                    NewTensor {
                        name: output.name.clone(),
                        element: output_element(output),
                        shape: [run[0]].into_iter().chain(axes).collect(),
                    }
                };
                let inputs = self.inputs.iter().map(input).collect();
                let outputs = self.outputs.iter().zip(&captures.axes).map(output).collect();
                new.insert(Capture::new(number, &self.session, captures.memory, inputs, outputs)?)
            }
        };
        for (input, device) in self.inputs.iter().zip(&mut capture.inputs) {
            staged(input, &self.staging, run, batch, self.pad_id)?.copy_into(device)?;
        }
        capture.options.unterminate()?;
        let stop = stop_on(cancel, &capture.options);
        self.session.run_binding_with_options(&capture.binding, &capture.options)?;
        drop(stop);
        let mut rows = empty_rows(batch, &self.outputs);
        for (output, captured) in self.outputs.iter().zip(&mut capture.outputs) {
            captured.device.copy_into(&mut captured.host)?;
            output.split(&captured.host, run, batch, &mut rows)?;
        }
        Ok(rows)
    }
}

impl Executor for DeviceExecutor {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Rows, RuntimeError> {
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        let exact = [batch.len(), batch.longest()];
        let captures = self.captures.as_ref().filter(|_| self.rounds);
        let result = match captures.and_then(|captures| captures.shape(exact)) {
            Some(run) => self.replay(run, batch, cancel),
            None => self.compute(self.shapes().map_or(exact, |shapes| shapes.rounded(exact)), batch, cancel),
        };
        result.map_err(|failure| {
            // What a failed pass had bound would hold its memory until the next.
            self.binding.clear();
            match failure {
                Failure::Ort(error) => failure::explain(error, batch.len(), batch.longest(), cancel),
                Failure::Runtime(error) => error,
            }
        })
    }

    fn shapes(&self) -> Option<Shapes> {
        self.shapes.filter(|_| self.rounds)
    }

    fn allow_rounding(&mut self, allowed: bool) {
        self.rounds = allowed;
    }
}

type Rows = Vec<Vec<RowTensor>>;

fn empty_rows(batch: &TokenBatch, outputs: &[Output]) -> Rows {
    batch.inputs().iter().map(|_| Vec::with_capacity(outputs.len())).collect()
}

/// What a pass may end with.
enum Failure {
    Ort(::ort::Error),
    Runtime(RuntimeError),
}

impl From<::ort::Error> for Failure {
    fn from(error: ::ort::Error) -> Self {
        Self::Ort(error)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

/// Ends the running pass when `cancel` is used, for as long as the registration lives.
pub(super) fn stop_on<'c>(cancel: &'c Cancellation, options: &Arc<RunOptions>) -> Registration<'c> {
    let options = Arc::clone(options);
    cancel.on_cancel(move || {
        if let Err(error) = options.terminate() {
            tracing::warn!(%error, "a forward pass could not be stopped");
        }
    })
}

/// What `input` is told of the batch, in a tensor of its own.
fn staged(input: &Input, staging: &Allocator, run: Run, batch: &TokenBatch, pad_id: u32) -> ::ort::Result<DynTensor> {
    Ok(match &input.buffer {
        Integers::Int64(_) => {
            let mut tensor = Tensor::<i64>::new(staging, run)?;
            fill(tensor.extract_tensor_mut().1, run, input.role, batch, pad_id);
            tensor.upcast()
        }
        Integers::Int32(_) => {
            let mut tensor = Tensor::<i32>::new(staging, run)?;
            fill(tensor.extract_tensor_mut().1, run, input.role, batch, pad_id);
            tensor.upcast()
        }
    })
}

fn input_element(input: &Input) -> TensorElementType {
    match &input.buffer {
        Integers::Int64(_) => TensorElementType::Int64,
        Integers::Int32(_) => TensorElementType::Int32,
    }
}

fn output_element(output: &Output) -> TensorElementType {
    match output.element {
        ElementType::Float16 => TensorElementType::Float16,
        ElementType::Bfloat16 => TensorElementType::Bfloat16,
        _ => TensorElementType::Float32,
    }
}

impl Memory {
    pub(super) fn device(self) -> ::ort::Result<MemoryInfo<'static>> {
        match self {
            Self::Gpu(number) => MemoryInfo::new(
                AllocationDevice::CUDA,
                i32::try_from(number).unwrap_or(i32::MAX),
                AllocatorType::Device,
                MemoryType::Default,
            ),
            Self::Host => MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default),
        }
    }

    /// Pinned memory, or ordinary memory where the provider has none: slower, but right.
    pub(super) fn staging(self, session: &Session) -> Allocator {
        let Self::Gpu(number) = self else { return Allocator::default() };
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        MemoryInfo::new(AllocationDevice::CUDA_PINNED, number, AllocatorType::Device, MemoryType::CPUInput)
            .and_then(|pinned| Allocator::new(session, pinned))
            .unwrap_or_else(|error| {
                tracing::warn!(%error, gpu = number, "no pinned memory: inputs take a copy more");
                Allocator::default()
            })
    }
}

impl Captures {
    fn new(
        signature: &GraphSignature,
        outputs: &[Output],
        memory: Memory,
        longest: Option<NonZeroUsize>,
    ) -> Result<Self, RuntimeError> {
        let axes = |output: &Output| {
            let specification = signature.outputs.iter().find(|specification| specification.name == output.name);
            let inner = specification.and_then(|specification| specification.shape.get(1..)).unwrap_or_default();
            let axis = |(number, dimension): (usize, &Dimension)| match dimension {
                Dimension::Fixed(size) => Some(Some(*size)),
                Dimension::Dynamic(_) if number == 0 && output.per_token => Some(None),
                Dimension::Dynamic(_) => None,
            };
            inner.iter().enumerate().map(axis).collect::<Option<Vec<_>>>().ok_or_else(|| RuntimeError::Binding {
                found: format!("output {:?} has axes whose sizes aren't known beforehand", output.name),
                advice: "set cuda_graph = false, or export the graph with fixed sizes".to_owned(),
            })
        };
        let axes = outputs.iter().map(axes).collect::<Result<_, _>>()?;
        Ok(Self { passes: HashMap::new(), memory, longest, axes })
    }

    /// The shape that a pass is captured under; `None` when it is better run as it is.
    fn shape(&self, exact: Run) -> Option<Run> {
        let rounded = rounded(exact, self.longest)?;
        (self.passes.contains_key(&rounded) || self.passes.len() < MOST_CAPTURES).then_some(rounded)
    }
}

/// The next larger of a few shapes: lengths grow by an eighth, at least by 8 tokens.
fn rounded([samples, tokens]: Run, longest: Option<NonZeroUsize>) -> Option<Run> {
    let rows = CAPTURED_SAMPLES.into_iter().find(|&rows| rows >= samples)?;
    let step = (tokens.next_power_of_two() / 16).max(8);
    let length = tokens.next_multiple_of(step);
    // Beyond the longest sample a graph may have no embedding for a position.
    let length = longest.map_or(length, |longest| length.min(longest.get().max(tokens)));
    (rows * length <= CAPTURED_POSITIONS).then_some([rows, length])
}

/// A tensor to be made.
struct NewTensor {
    /// What it is bound to.
    name: String,
    element: TensorElementType,
    shape: Vec<usize>,
}

impl Capture {
    fn new(
        number: usize,
        session: &Session,
        memory: Memory,
        inputs: Vec<NewTensor>,
        outputs: Vec<NewTensor>,
    ) -> ::ort::Result<Self> {
        let mut options = RunOptions::new()?;
        if memory != Memory::Host {
            options.set(CAPTURE, number.to_string())?;
        }
        let device = Allocator::new(session, memory.device()?)?;
        let mut capture = Self {
            binding: session.create_binding()?,
            options: Arc::new(options),
            inputs: Vec::with_capacity(inputs.len()),
            outputs: Vec::with_capacity(outputs.len()),
        };
        for NewTensor { name, element, shape } in inputs {
            let tensor = DynTensor::new(&device, element, shape)?;
            capture.binding.bind_input(name, &tensor)?;
            capture.inputs.push(tensor);
        }
        for NewTensor { name, element, shape } in outputs {
            let host = DynTensor::new(&Allocator::default(), element, shape.clone())?;
            let mut tensor = DynTensor::new(&device, element, shape)?;
            capture.binding.bind_output(name, &mut tensor)?;
            capture.outputs.push(CapturedOutput { device: tensor, host });
        }
        Ok(capture)
    }
}

#[cfg(test)]
mod tests;
