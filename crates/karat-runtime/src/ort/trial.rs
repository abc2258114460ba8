//! Whether a provider starts, found out by starting it.

use ::ort::session::Session;
use prost::Message;

use super::{Library, preload::preload, proto, provider};
use crate::{Provider, ProviderKind, RuntimeError};

impl Library {
    /// Starts a session of the smallest graph there is on that provider, with its default options.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] with what is missing and what to install.
    pub fn try_provider(&self, kind: ProviderKind) -> Result<(), RuntimeError> {
        preload(kind, self.path());
        let failed = |error: ::ort::Error| provider::explain(kind, error, self.path());
        let mut builder = Session::builder(&self.environment).map_err(failed)?;
        let dispatches = provider::dispatch(&Provider::from(kind), &provider::Registration::default());
        if !dispatches.is_empty() {
            builder = builder.with_execution_providers(dispatches).map_err(|error| failed(error.into()))?;
        }
        builder.commit_from_memory(&identity().encode_to_vec()).map(drop).map_err(failed)
    }
}

/// One number in, the same number out.
fn identity() -> proto::Model {
    const IR_VERSION: i64 = 8;
    const OPERATORS_VERSION: i64 = 17;
    let number = |name: &str| {
        let shape = proto::Shape { axes: vec![proto::Axis { size: Some(1), name: None }] };
        let tensor = proto::TensorType { element: proto::element::FLOAT, shape: Some(shape) };
        proto::Value { name: name.to_owned(), r#type: Some(proto::Type { tensor: Some(tensor) }) }
    };
    let node = proto::Node {
        inputs: vec!["in".to_owned()],
        outputs: vec!["out".to_owned()],
        operator: "Identity".to_owned(),
        ..proto::Node::default()
    };
    let graph = proto::Graph {
        name: "trial".to_owned(),
        nodes: vec![node],
        inputs: vec![number("in")],
        outputs: vec![number("out")],
        ..proto::Graph::default()
    };
    proto::Model {
        ir_version: IR_VERSION,
        graph: Some(graph),
        opsets: vec![proto::OperatorSet { domain: String::new(), version: OPERATORS_VERSION }],
        ..proto::Model::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::library, *};

    #[test]
    fn the_processor_starts_and_a_provider_without_its_library_does_not() {
        let library = library();
        library.try_provider(ProviderKind::Cpu).unwrap();
        for kind in [ProviderKind::Cuda, ProviderKind::Tensorrt] {
            let error = library.try_provider(kind).unwrap_err();
            assert!(matches!(error, RuntimeError::Provider { .. }), "{error}");
        }
    }
}
