//! Whether a provider starts, found out by starting it.

use ::ort::session::Session;
use karat_onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_proto::DataType};
use prost::Message;

use super::{Library, preload::preload, provider};
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
fn identity() -> ModelProto {
    let number = |name| ValueInfoProto::tensor(name, DataType::Float, &["1"]);
    ModelProto::of(GraphProto {
        name: Some("trial".to_owned()),
        node: vec![NodeProto::new("Identity", &["in"], "out", Vec::new())],
        input: vec![number("in")],
        output: vec![number("out")],
        ..GraphProto::default()
    })
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
