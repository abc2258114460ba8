//! What the sessions of a graph have in common: workers want one each, and all start from the same choices.

use std::{num::NonZeroUsize, path::PathBuf};

use ::ort::{
    ErrorCode,
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, ValueType},
};
use karat_rules::domain::{Dimension, ElementType, GraphSignature, TensorSpec};

use super::{Library, engines::Engines, given::BuiltWeights, lent::LentWeights, preload::preload, provider};
use crate::{CudaOptions, Provider, ProviderKind, RuntimeError, TensorrtOptions};

/// Where the weights of sessions are.
#[derive(Debug)]
pub(super) enum Weights {
    /// In the graph's file, or those beside it.
    InFile,
    /// In memory, held once for all sessions; the rest is in the file.
    Shared(LentWeights),
    /// In memory, as the graph is itself.
    Built(BuiltWeights),
}

impl Weights {
    /// Those that are lent.
    pub(super) fn lent(&self) -> Option<&LentWeights> {
        match self {
            Self::InFile => None,
            Self::Shared(lent) => Some(lent),
            Self::Built(built) => built.lent(),
        }
    }
}

/// What every session of a graph is made from.
#[derive(Debug)]
pub(super) struct SessionSource {
    pub(super) library: Library,
    pub(super) path: PathBuf,
    pub(super) provider: Provider,
    pub(super) inputs: Vec<String>,
    /// The providers that the manifest names behind this one.
    pub(super) behind: Vec<Provider>,
    /// Where TensorRT keeps what it builds.
    pub(super) engines: Option<Engines>,
    pub(super) weights: Weights,
    /// Whether its sessions take packed rows.
    pub(super) packed: bool,
}

impl SessionSource {
    /// Starts session number `turn`.
    pub(super) fn start(&self, threads: NonZeroUsize, turn: usize) -> Result<Session, RuntimeError> {
        let unavailable = |error| provider::explain(self.provider.kind(), error, self.library.path());
        let unloadable = |error: ::ort::Error| RuntimeError::Graph { path: self.path.clone(), cause: error.into() };
        let mut builder = Session::builder(&self.library.environment)
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|builder| Ok(builder.with_intra_threads(threads.get())?))
            // Threads that spin from one operator to the next make a pass on two cores 1.1 times as fast. They must
            // stop with the pass: those that spin on burn the cores that the server and other sessions need.
            .and_then(|builder| Ok(builder.with_intra_op_spinning(threads.get() > 1)?))
            .and_then(|builder| Ok(builder.with_config_entry("session.force_spinning_stop", "1")?))
            .map_err(unloadable)?;
        preload(self.provider.kind(), self.library.path());
        let registration = provider::Registration {
            device: self.device(turn),
            inputs: &self.inputs,
            engines: self.engines.as_ref().and_then(Engines::prepare),
            behind: &self.behind,
        };
        let dispatches = provider::dispatch(&self.provider, &registration);
        if !dispatches.is_empty() {
            builder = builder.with_execution_providers(dispatches).map_err(|error| unavailable(error.into()))?;
        }
        if self.provider.kind() == ProviderKind::Tensorrt && !registration.allows_processor() {
            builder = builder.with_disable_cpu_fallback().map_err(|error| unavailable(error.into()))?;
        }
        if self.provider == Provider::Cpu {
            // What it computes with comes from one arena for all; weights would only pin pieces of that.
            builder = builder.with_env_allocators().map_err(|error| unloadable(error.into()))?;
            builder = builder.with_device_allocated_initializers().map_err(|error| unloadable(error.into()))?;
        } else if self.packed {
            // The arena would round each weight up, and what is left of a GPU are the blocks of keys and values.
            builder = builder.with_device_allocated_initializers().map_err(|error| unloadable(error.into()))?;
        }
        let committed = match &self.weights {
            Weights::InFile => builder.commit_from_file(&self.path),
            Weights::Shared(shared) => {
                shared.lend(builder).and_then(|mut builder| builder.commit_from_file(&self.path))
            }
            Weights::Built(built) => built.start(builder, self.provider.kind()),
        };
        let session =
            committed.map_err(|error| match (&self.provider, error.code()) {
                (Provider::Cpu, _)
                | (
                    _,
                    ErrorCode::InvalidGraph | ErrorCode::InvalidProtobuf | ErrorCode::NoModel | ErrorCode::NoSuchFile,
                ) => unloadable(error),
                // A GPU is first touched here: a driver or device that is missing shows now.
                _ => unavailable(error),
            })?;
        if let Some(engines) = &self.engines {
            engines.complete();
        }
        Ok(session)
    }

    /// The number of the GPU that session number `turn` runs on.
    pub(super) fn device(&self, turn: usize) -> u32 {
        match &self.provider {
            Provider::Cpu => 0,
            Provider::Cuda(CudaOptions { devices, .. }) | Provider::Tensorrt(TensorrtOptions { devices, .. }) => {
                devices.of_session(turn)
            }
        }
    }
}

/// What a session's graph takes and gives; `inputs` are those that a caller feeds.
pub(super) fn signature(session: &Session, inputs: &[String]) -> GraphSignature {
    // A session that was given its weights lists them as well.
    let is_fed = |outlet: &&Outlet| inputs.iter().any(|input| input == outlet.name());
    GraphSignature {
        inputs: session.inputs().iter().filter(is_fed).map(specification).collect(),
        outputs: session.outputs().iter().map(specification).collect(),
    }
}

fn specification(outlet: &Outlet) -> TensorSpec {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let element = match ty {
                TensorElementType::Float32 => ElementType::Float32,
                TensorElementType::Float16 => ElementType::Float16,
                TensorElementType::Bfloat16 => ElementType::Bfloat16,
                TensorElementType::Int64 => ElementType::Int64,
                TensorElementType::Int32 => ElementType::Int32,
                _ => ElementType::Other,
            };
            let shape = shape
                .iter()
                .zip(dimension_symbols.iter())
                .map(|(&size, symbol)| match usize::try_from(size) {
                    Ok(size) => Dimension::Fixed(size),
                    Err(_) => Dimension::Dynamic(symbol.to_string()),
                })
                .collect();
            (element, shape)
        }
        _ => (ElementType::Other, Vec::new()),
    };
    TensorSpec { name: outlet.name().to_owned(), element, shape }
}
