//! Graphs that were built in memory, and how their weights come into sessions.
//!
//! ONNX Runtime packs copies of matrices for its kernels. A session that stays the only one is given its weights, through
//! the library's model editor: each is freed as soon as it is packed, so that a model takes hardly more while it starts
//! than afterwards. What several sessions share has to stay with the lender, beside what is packed of it.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use ::ort::{
    editor::{self, ONNX_DOMAIN, Opset},
    memory::Allocator,
    session::{Session, builder::SessionBuilder},
    value::{Outlet, Tensor},
};
use half::{bf16, f16};
use karat_onnx::{ModelProto, ValueInfoProto, tensor_proto::DataType};
use karat_rules::domain::ElementType;
use prost::Message;

use super::{Library, graph::Sessions, lent::LentWeights, pool::Pool};
use crate::{ProviderKind, RuntimeError, error::Cause};

/// Below this many bytes ONNX Runtime takes weights only by copy.
const LEAST_GIVEN: usize = 128;

/// A weight of a graph that was built in memory.
pub struct Weight {
    name: String,
    numbers: Numbers,
}

/// Memory for numbers, by who owns it once a session starts.
enum Numbers {
    /// ONNX Runtime, which frees it.
    Given(Tensor<f32>),
    /// Whoever lends it.
    Lent { shape: Vec<usize>, numbers: Vec<f32> },
    /// The same in half precision.
    LentHalf { shape: Vec<usize>, numbers: Vec<f16> },
    /// The same in the upper half of single precision.
    LentBrain { shape: Vec<usize>, numbers: Vec<bf16> },
}

/// Memory for a weight's numbers, by their format.
#[derive(Debug)]
pub enum WeightNumbersMut<'a> {
    /// Single precision.
    Float32(&'a mut [f32]),
    /// Half precision.
    Float16(&'a mut [f16]),
    /// The upper half of single precision.
    Bfloat16(&'a mut [bf16]),
}

impl Weight {
    /// Memory for a weight of that shape and format in sessions of that kind, to be filled before they start; weights of
    /// 16 bits are always lent. ([`Library`] as its memory is the library's.)
    ///
    /// # Errors
    /// When there is not so much memory, or the format is none of floating point.
    pub fn new(
        _: &Library,
        name: String,
        shape: &[usize],
        element: ElementType,
        sessions: Sessions,
    ) -> Result<Self, RuntimeError> {
        let unavailable = |cause: Cause| RuntimeError::Graph { path: name.clone().into(), cause };
        let (count, owned) = (shape.iter().product(), shape.to_vec());
        let numbers = match element {
            ElementType::Float32 if sessions.alone => {
                let tensor = Tensor::new(&Allocator::default(), owned);
                Numbers::Given(tensor.map_err(|error| unavailable(error.into()))?)
            }
            ElementType::Float32 => Numbers::Lent { shape: owned, numbers: vec![0.0; count] },
            ElementType::Float16 => Numbers::LentHalf { shape: owned, numbers: vec![f16::ZERO; count] },
            ElementType::Bfloat16 => Numbers::LentBrain { shape: owned, numbers: vec![bf16::ZERO; count] },
            other => return Err(unavailable(format!("weights of the type {other:?} can't be given").into())),
        };
        Ok(Self { name, numbers })
    }

    /// Its numbers, row by row: as many as the shape has places. Anything until they are written.
    pub fn numbers_mut(&mut self) -> WeightNumbersMut<'_> {
        match &mut self.numbers {
            Numbers::Given(tensor) => WeightNumbersMut::Float32(tensor.extract_tensor_mut().1),
            Numbers::Lent { numbers, .. } => WeightNumbersMut::Float32(numbers),
            Numbers::LentHalf { numbers, .. } => WeightNumbersMut::Float16(numbers),
            Numbers::LentBrain { numbers, .. } => WeightNumbersMut::Bfloat16(numbers),
        }
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&mut self) -> u64 {
        let bytes = match self.numbers_mut() {
            WeightNumbersMut::Float32(numbers) => size_of_val(numbers),
            WeightNumbersMut::Float16(numbers) => size_of_val(numbers),
            WeightNumbersMut::Bfloat16(numbers) => size_of_val(numbers),
        };
        bytes as u64
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weight").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A graph whose sessions share their weights.
pub(super) struct Lent {
    graph: Vec<u8>,
    weights: LentWeights,
}

/// The weights of a graph that has one session, until that starts.
pub(super) struct Given {
    /// The graph, whose weights are inputs until they are given.
    graph: Vec<u8>,
    opset: u32,
    weights: Mutex<Option<GivenTensors>>,
}

/// Tensors by name, in memory that goes over to the session.
type GivenTensors = Vec<(String, Tensor<f32>)>;

/// One of both.
#[derive(Clone)]
pub(super) enum BuiltWeights {
    Lent(Arc<Lent>),
    Given(Arc<Given>),
}

impl BuiltWeights {
    /// Takes the numbers over without a copy; `name` is for messages. What is lent may be shared in `pool`.
    pub(super) fn new(
        model: &ModelProto,
        weights: Vec<Weight>,
        name: &Path,
        pool: Arc<Pool>,
    ) -> Result<Self, RuntimeError> {
        let unusable = |cause: Cause| RuntimeError::Graph { path: name.to_owned(), cause };
        let (mut tensors, mut given) = (Vec::new(), Vec::new());
        for Weight { name, numbers } in weights {
            let lent = match numbers {
                Numbers::Given(tensor) => {
                    given.push((name, tensor));
                    continue;
                }
                Numbers::Lent { shape, numbers } => Tensor::from_array((shape, numbers)).map(Tensor::into_dyn),
                Numbers::LentHalf { shape, numbers } => Tensor::from_array((shape, numbers)).map(Tensor::into_dyn),
                Numbers::LentBrain { shape, numbers } => Tensor::from_array((shape, numbers)).map(Tensor::into_dyn),
            };
            tensors.push((name, lent.map_err(|error| unusable(error.into()))?));
        }
        if given.is_empty() {
            return Ok(Self::lend(model, LentWeights::new(model.graph.as_ref(), tensors, pool)));
        }
        if !tensors.is_empty() {
            return Err(unusable("its weights were made for one session and for several".into()));
        }
        let opset = model.opset_import.iter().find(|opset| opset.domain().is_empty());
        let opset = opset.and_then(|opset| u32::try_from(opset.version()).ok()).unwrap_or_default();
        let graph = weights_as_inputs(model.clone()).encode_to_vec();
        Ok(Self::Given(Arc::new(Given { graph, opset, weights: Mutex::new(Some(given)) })))
    }

    /// Weights that are lent to the sessions of a graph, which has them as external data.
    pub(super) fn lend(graph: &ModelProto, weights: LentWeights) -> Self {
        Self::Lent(Arc::new(Lent { graph: graph.encode_to_vec(), weights }))
    }

    /// Those that are lent.
    pub(super) fn lent(&self) -> Option<&LentWeights> {
        match self {
            Self::Lent(lent) => Some(&lent.weights),
            Self::Given(_) => None,
        }
    }

    /// Starts a session; a second one only where weights are lent.
    pub(super) fn start(&self, builder: SessionBuilder, provider: ProviderKind) -> Result<Session, ::ort::Error> {
        match self {
            Self::Lent(lent) => lent.start(builder, provider),
            Self::Given(given) => given.start(builder),
        }
    }
}

impl fmt::Debug for BuiltWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lent(_) => "Lent",
            Self::Given(_) => "Given",
        })
    }
}

impl Lent {
    fn start(&self, mut builder: SessionBuilder, provider: ProviderKind) -> Result<Session, ::ort::Error> {
        // Elsewhere each session copies its weights to its device.
        if provider == ProviderKind::Cpu {
            // What is packed of a weight is shared only of those that are lent in this way too.
            builder = self.weights.lend(builder)?;
        }
        for (name, tensor) in self.weights.tensors() {
            builder = builder.with_external_initializer(name, Arc::clone(tensor))?;
        }
        builder.commit_from_memory(&self.graph)
    }
}

impl Given {
    fn start(&self, mut builder: SessionBuilder) -> Result<Session, ::ort::Error> {
        let mut session = builder.edit_from_memory(&self.graph)?;
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner).take();
        let weights = weights.ok_or_else(|| ::ort::Error::new("its weights were given to another session"))?;
        let is_weight = |input: &Outlet| weights.iter().any(|(name, _)| name == input.name());
        let inputs = session.inputs().iter().filter(|input| !is_weight(input));
        let inputs: Vec<Outlet> = inputs.map(|input| Outlet::new(input.name(), input.dtype().clone())).collect();
        let mut graph = editor::Graph::new()?;
        graph.set_inputs(inputs)?;
        for (name, mut tensor) in weights {
            let is_large = size_of_val(tensor.extract_tensor_mut().1) >= LEAST_GIVEN;
            graph.add_initializer(name, tensor, is_large)?;
        }
        let mut model = editor::Model::new([Opset::new(ONNX_DOMAIN, self.opset)?])?;
        model.set_graph(graph)?;
        session.apply_model(&model)?;
        // From here on the session alone holds the weights.
        drop(model);
        session.into_session()
    }
}

/// The graph with its external weights as inputs, which need no data to be read.
fn weights_as_inputs(mut model: ModelProto) -> ModelProto {
    if let Some(graph) = &mut model.graph {
        let (external, kept) =
            std::mem::take(&mut graph.initializer).into_iter().partition(|tensor| !tensor.external_data.is_empty());
        graph.initializer = kept;
        for tensor in external as Vec<karat_onnx::TensorProto> {
            let axes: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
            let axes: Vec<&str> = axes.iter().map(String::as_str).collect();
            graph.input.push(ValueInfoProto::tensor(tensor.name(), DataType::Float, &axes));
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use karat_rules::domain::{Cut, TokenizedInput};

    use super::{
        super::{
            BuiltGraph, Graph, SessionTrial,
            testing::{GraphWriter, ids_to_scores, library},
        },
        *,
    };
    use crate::{Cancellation, Executor, Provider, TokenBatch};

    const SIZE: usize = 64;
    const ALONE: Sessions = Sessions { threads: NonZeroUsize::MIN, alone: true };

    /// Sums a sample's ids, multiplies a row of that sum with a matrix, which is packed, and with a number, which is too
    /// small to be given without a copy.
    fn open(sessions: Sessions) -> Graph {
        let model = GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .integers("axis", &[1])
            .floats("ones", &[1, 64], &[1.0; SIZE])
            .external("matrix", &[64, 64], "memory", 0)
            .external("number", &[1], "memory", 0)
            .cast("input_ids", "ids", DataType::Float)
            .node("ReduceSum", &["ids", "axis"], "sum", &[("keepdims", 1)])
            .node("MatMul", &["sum", "ones"], "row", &[])
            .node("Gemm", &["row", "matrix"], "product", &[("transB", 1)])
            .node("Mul", &["product", "number"], "scores", &[])
            .output("scores", DataType::Float, &["batch", "64"])
            .model();
        let weight = |name: &str, shape: &[usize], number: fn(usize) -> f32| {
            let mut weight = Weight::new(&library(), name.to_owned(), shape, ElementType::Float32, sessions).unwrap();
            let WeightNumbersMut::Float32(numbers) = weight.numbers_mut() else { panic!("32 bits were asked for") };
            numbers.iter_mut().enumerate().for_each(|(at, into)| *into = number(at));
            weight
        };
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let weights = vec![weight("matrix", &[64, 64], |at| (at / SIZE) as f32), weight("number", &[1], |_| 0.5)];
        let built = BuiltGraph { name: "built".into(), model, weights, files: Vec::new() };
        library().open_built(built, &[Provider::Cpu], sessions).unwrap()
    }

    fn executor(graph: &Graph, threads: usize) -> Result<Box<dyn Executor>, RuntimeError> {
        let binding = ids_to_scores();
        graph.executor(&binding, NonZeroUsize::new(threads).unwrap())
    }

    fn scores(executor: &mut dyn Executor) -> Vec<f32> {
        let input = TokenizedInput::new(vec![1, 2], vec![0, 0], 0..2, Cut::default()).unwrap();
        executor.run(&TokenBatch::single(Arc::new(input)), &Cancellation::new()).unwrap()[0][0].values().to_vec()
    }

    fn run(graph: &Graph, threads: usize) -> Result<Vec<f32>, RuntimeError> {
        Ok(scores(&mut *executor(graph, threads)?))
    }

    fn trial(executor: &mut dyn Executor) -> SessionTrial<'_> {
        Box::new(|| Some(scores(executor).into_iter().map(f32::to_bits).collect()))
    }

    #[test]
    fn a_session_computes_with_the_weights_that_it_was_given_and_no_other_can_start() {
        let graph = open(ALONE);
        assert_eq!(graph.signature().inputs.len(), 1, "weights are no inputs");
        assert_eq!(graph.weight_bytes(), 4 * (64 * 64 + 1));
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let expected: Vec<f32> = (0..SIZE).map(|row| 3.0 * 64.0 * 0.5 * row as f32).collect();
        assert_eq!(run(&graph, 1).unwrap(), expected);
        let error = run(&graph, 1).unwrap_err().to_string();
        assert!(error.contains("given to another session"), "{error}");
        let shared = open(Sessions::SEVERAL);
        for threads in 1..=3 {
            assert_eq!(run(&shared, threads).unwrap(), expected);
        }
        let (mut tried, mut other) = (executor(&shared, 1).unwrap(), executor(&shared, 2).unwrap());
        // While one isn't tried, nothing is given back.
        assert_eq!(shared.give_back_weights(&mut [trial(&mut *tried)], None), None);
        assert_eq!(run(&shared, 1).unwrap(), expected);
        let bits: Vec<u32> = expected.iter().map(|number| number.to_bits()).collect();
        // Nobody gives what is thought to be known: so they are asked, and what they gave is told.
        let given = shared.give_back_weights(&mut [trial(&mut *tried), trial(&mut *other)], Some(&|_| false));
        assert_eq!(given, Some(vec![bits; 2]));
        assert!(run(&shared, 1).unwrap_err().to_string().contains("given back"));
        assert_eq!([scores(&mut *tried), scores(&mut *other)], [expected.clone(), expected]);
    }

    #[test]
    fn sessions_that_give_known_numbers_with_spoilt_weights_need_not_be_asked_before() {
        let graph = open(Sessions::SEVERAL);
        let mut session = executor(&graph, 1).unwrap();
        let expected = scores(&mut *session);
        let is_known = |given: &[u32]| given.iter().copied().eq(expected.iter().map(|number| number.to_bits()));
        let mut runs = 0;
        let mut trial = || {
            runs += 1;
            Some(scores(&mut *session).into_iter().map(f32::to_bits).collect())
        };
        assert_eq!(graph.give_back_weights(&mut [Box::new(&mut trial)], Some(&is_known)), None);
        assert_eq!(runs, 1);
        assert!(run(&graph, 1).unwrap_err().to_string().contains("given back"));
        assert_eq!(scores(&mut *session), expected);
    }
}
