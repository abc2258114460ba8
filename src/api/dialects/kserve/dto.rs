//! The JSON of KServe's V2 protocol.

use karat_engine::repository::Model;
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    describe::{BACKEND, INPUTS, OUTPUTS, PLATFORM, TRITON_PLATFORM, TensorDescription},
    inference::{Inferred, Parameters},
    tensor::OutputValues,
};
use crate::api::{
    dialects::parts::{KnownFields, Unread},
    problem::Problem,
};

/// Tensors to score.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "KserveInferBody")]
pub(super) struct InferBody {
    /// The client's own name for the request, sent back.
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) parameters: InferParameters,
    /// The tensors.
    pub(super) inputs: Vec<InputBody>,
    /// The wanted outputs; all by default.
    #[serde(default)]
    pub(super) outputs: Vec<WantedOutput>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// What a request says beside its tensors.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(super) struct InferParameters {
    /// 1 is the most urgent, 0 stands for the usual.
    #[serde(default)]
    priority: Option<u64>,
    /// The time in microseconds after which the request is given up; 0 stands for none.
    #[serde(default)]
    timeout: Option<u64>,
    /// Whether the tokenizer adds its special tokens to text; by default as the model's manifest says.
    #[serde(default)]
    add_special_tokens: Option<bool>,
    /// Whether outputs come packed, unless they say otherwise themselves.
    #[serde(default)]
    pub(super) binary_data_output: bool,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// The parameters of a request that leave scores alone.
pub(super) const OF_REQUEST: KnownFields = KnownFields {
    harmless: &["sequence_id", "sequence_start", "sequence_end", "headers", "triton_enable_empty_final_response"],
    advice: &[],
};

/// The parameters of inputs and outputs that leave scores alone.
pub(super) const OF_TENSOR: KnownFields = KnownFields {
    harmless: &[],
    advice: &[
        ("shared_memory_region", "tensors are taken from the request alone"),
        ("classification", "outputs are numbers; leave it out"),
    ],
};

impl InferBody {
    /// Refuses what nothing reads, in the body and in its lists of parameters.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let nothing = KnownFields::default();
        self.unread.check(nothing)?;
        self.parameters.unread.check_as("parameters.", OF_REQUEST)?;
        for (index, input) in self.inputs.iter().enumerate() {
            input.unread.check_as(&format!("inputs[{index}]."), nothing)?;
            let parameters = input.parameters.unread.clone().without("content_type", &["str", "np"]);
            parameters.check_as(&format!("inputs[{index}].parameters."), OF_TENSOR)?;
        }
        for (index, output) in self.outputs.iter().enumerate() {
            let parameters = output.parameters.unread.clone().without("content_type", &["np"]);
            parameters.check_as(&format!("outputs[{index}].parameters."), OF_TENSOR)?;
        }
        Ok(())
    }
}

impl InferParameters {
    pub(super) fn values(self) -> Parameters {
        let Self { priority, timeout, add_special_tokens, .. } = self;
        Parameters { priority, timeout, add_special_tokens }
    }
}

/// One tensor.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "KserveInput")]
pub(super) struct InputBody {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    /// `BYTES`, `INT64`, `INT32` or `UINT32`.
    pub(super) datatype: String,
    #[serde(default)]
    pub(super) parameters: InputParameters,
    /// The values, flat or nested as the shape; left out when they follow the JSON packed.
    #[serde(default)]
    #[schemars(with = "Option<Vec<Value>>")]
    pub(super) data: Option<Value>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// What an input says beside its values.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(super) struct InputParameters {
    /// How many bytes of what follows the JSON are this tensor's.
    #[serde(default)]
    pub(super) binary_data_size: Option<usize>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// A wanted output.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "KserveWantedOutput")]
pub(super) struct WantedOutput {
    pub(super) name: String,
    #[serde(default)]
    pub(super) parameters: OutputParameters,
}

/// How an output is wanted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(super) struct OutputParameters {
    /// Whether it comes packed.
    #[serde(default)]
    pub(super) binary_data: Option<bool>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// Scored tensors.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveInferReply")]
pub(super) struct InferReply {
    model_name: ModelName,
    model_version: ModelVersion,
    id: String,
    pub(super) outputs: Vec<OutputBody>,
}

/// One tensor.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KserveOutput")]
pub(super) struct OutputBody {
    name: &'static str,
    shape: [usize; 2],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<PackedSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<OutputData>,
}

/// How many bytes of what follows the JSON are a tensor's.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PackedSize {
    pub(super) binary_data_size: usize,
}

/// The values of a tensor.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OutputData {
    Floats(Vec<f32>),
    Booleans(Vec<bool>),
}

impl InferReply {
    pub(super) fn new(inferred: &Inferred) -> Self {
        let outputs = inferred.outputs.iter().map(|output| OutputBody {
            name: output.name,
            shape: output.shape,
            datatype: output.values.datatype().name(),
            parameters: None,
            data: Some(match output.values.clone() {
                OutputValues::Floats(values) => OutputData::Floats(values),
                OutputValues::Booleans(values) => OutputData::Booleans(values),
            }),
        });
        Self {
            model_name: inferred.report.model.clone(),
            model_version: inferred.report.version.clone(),
            id: inferred.id.clone(),
            outputs: outputs.collect(),
        }
    }
}

/// What the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServerMetadata {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) extensions: [&'static str; 3],
}

impl ServerMetadata {
    pub(super) fn current() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            extensions: ["binary_tensor_data", "model_configuration", "model_repository"],
        }
    }
}

/// A model's tensors.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ModelMetadata {
    name: ModelName,
    versions: [ModelVersion; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// One tensor of a model.
#[derive(Debug, Serialize, JsonSchema)]
struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// The axes, the batch first; -1 where the length varies.
    shape: [i64; 2],
}

impl ModelMetadata {
    pub(super) fn of(model: &Model) -> Self {
        let metadata = |tensor: &TensorDescription| TensorMetadata {
            name: tensor.name,
            datatype: tensor.datatype.name(),
            shape: [-1, tensor.width],
        };
        Self {
            name: model.name.clone(),
            versions: [model.version.clone()],
            platform: PLATFORM,
            inputs: INPUTS.iter().map(metadata).collect(),
            outputs: OUTPUTS.iter().map(metadata).collect(),
        }
    }
}

/// A model's configuration as Triton writes it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ModelConfig {
    name: ModelName,
    platform: &'static str,
    backend: &'static str,
    max_batch_size: usize,
    input: Vec<InputConfig>,
    output: Vec<OutputConfig>,
}

/// An input of a configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct InputConfig {
    name: &'static str,
    data_type: &'static str,
    /// The axes without the batch.
    dims: [i64; 1],
    /// Always true: no request has all of them.
    optional: bool,
}

/// An output of a configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct OutputConfig {
    name: &'static str,
    data_type: &'static str,
    /// The axes without the batch.
    dims: [i64; 1],
}

impl ModelConfig {
    pub(super) fn of(model: &Model, max_batch_size: usize) -> Self {
        Self {
            name: model.name.clone(),
            platform: TRITON_PLATFORM,
            backend: BACKEND,
            max_batch_size,
            input: INPUTS
                .iter()
                .map(|input| InputConfig {
                    name: input.name,
                    data_type: input.datatype.triton_name(),
                    dims: [input.width],
                    optional: true,
                })
                .collect(),
            output: OUTPUTS
                .iter()
                .map(|output| OutputConfig {
                    name: output.name,
                    data_type: output.datatype.triton_name(),
                    dims: [output.width],
                })
                .collect(),
        }
    }
}
