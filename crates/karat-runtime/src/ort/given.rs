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
    session::{
        Session,
        builder::{PrepackedWeights, SessionBuilder},
    },
    value::{DynValue, Outlet, Tensor},
};
use karat_onnx::{ModelProto, ValueInfoProto, tensor_proto::DataType};
use prost::Message;

use super::{Library, graph::Sessions};
use crate::{RuntimeError, error::Cause};

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
}

impl Weight {
    /// Memory for a weight of that shape in sessions of that kind, to be filled before they start. ([`Library`] as its
    /// memory is the library's.)
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn new(_: &Library, name: String, shape: &[usize], sessions: Sessions) -> Result<Self, RuntimeError> {
        let numbers = if sessions.alone {
            let unavailable =
                |error: ::ort::Error| RuntimeError::Graph { path: name.clone().into(), cause: error.into() };
            Numbers::Given(Tensor::new(&Allocator::default(), shape.to_vec()).map_err(unavailable)?)
        } else {
            Numbers::Lent { shape: shape.to_vec(), numbers: vec![0.0; shape.iter().product()] }
        };
        Ok(Self { name, numbers })
    }

    /// Its numbers, row by row: as many as the shape has places. Anything until they are written.
    pub fn numbers_mut(&mut self) -> &mut [f32] {
        match &mut self.numbers {
            Numbers::Given(tensor) => tensor.extract_tensor_mut().1,
            Numbers::Lent { numbers, .. } => numbers,
        }
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&mut self) -> u64 {
        size_of_val(self.numbers_mut()) as u64
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weight").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The weights that the sessions of one graph share.
pub(super) struct Lent {
    graph: Vec<u8>,
    tensors: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

/// The weights of a graph that has one session, until that starts.
pub(super) struct Given {
    /// The graph, whose weights are inputs until they are given.
    graph: Vec<u8>,
    opset: u32,
    weights: Mutex<Option<Vec<(String, Tensor<f32>)>>>,
}

/// One of both.
#[derive(Clone)]
pub(super) enum BuiltWeights {
    Lent(Arc<Lent>),
    Given(Arc<Given>),
}

impl BuiltWeights {
    /// Takes the numbers over without a copy; `name` is for messages.
    pub(super) fn new(model: &ModelProto, weights: Vec<Weight>, name: &Path) -> Result<Self, RuntimeError> {
        let unusable = |cause: Cause| RuntimeError::Graph { path: name.to_owned(), cause };
        let (mut tensors, mut given) = (Vec::new(), Vec::new());
        for Weight { name, numbers } in weights {
            match numbers {
                Numbers::Given(tensor) => given.push((name, tensor)),
                Numbers::Lent { shape, numbers } => {
                    let tensor = Tensor::from_array((shape, numbers)).map_err(|error| unusable(error.into()))?;
                    tensors.push((name, Arc::new(tensor.into_dyn())));
                }
            }
        }
        if given.is_empty() {
            let lent = Lent { graph: model.encode_to_vec(), tensors, packed: PrepackedWeights::new() };
            return Ok(Self::Lent(Arc::new(lent)));
        }
        if !tensors.is_empty() {
            return Err(unusable("its weights were made for one session and for several".into()));
        }
        let opset = model.opset_import.iter().find(|opset| opset.domain().is_empty());
        let opset = opset.and_then(|opset| u32::try_from(opset.version()).ok()).unwrap_or_default();
        let graph = weights_as_inputs(model.clone()).encode_to_vec();
        Ok(Self::Given(Arc::new(Given { graph, opset, weights: Mutex::new(Some(given)) })))
    }

    /// Starts a session; a second one only where weights are lent.
    pub(super) fn start(&self, builder: SessionBuilder) -> Result<Session, ::ort::Error> {
        match self {
            Self::Lent(lent) => lent.start(builder),
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
    fn start(&self, builder: SessionBuilder) -> Result<Session, ::ort::Error> {
        let mut builder = builder.with_prepacked_weights(&self.packed)?;
        for (name, tensor) in &self.tensors {
            // The first tells the optimiser what the weight is, the second lets sessions share what is packed of it.
            builder = builder.with_external_initializer(name, Arc::clone(tensor))?;
            builder = builder.with_initializer(name, Arc::clone(tensor))?;
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
