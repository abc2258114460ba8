//! Between gRPC's messages and the tensors of the inference.

use std::collections::HashMap;

use karat_engine::repository::Model;

use super::{
    super::{
        describe::{BACKEND, Datatype, INPUTS, OUTPUTS, PLATFORM, TRITON_PLATFORM, TensorDescription},
        dto::{OF_REQUEST, OF_TENSOR},
        inference::{InferRequest, Inferred, Parameters},
        tensor::{InputTensor, InputValues, OutputValues, unpack_bytes, unpack_integers, unsupported},
    },
    protocol::{
        self, DataType, InferParameter, InferTensorContents, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor,
        model_metadata_response::TensorMetadata,
    },
};
use crate::api::{
    dialects::parts::{Unread, UrlChoices, invalid},
    problem::Problem,
};

/// What a client wants scored, and the rules that it chooses in its parameters: a gRPC call has no URL to say them in.
pub(super) fn request(message: protocol::ModelInferRequest) -> Result<(InferRequest, UrlChoices), Problem> {
    check(&message)?;
    let protocol::ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = message;
    if !raw_input_contents.is_empty() && raw_input_contents.len() != inputs.len() {
        return Err(invalid(format!(
            "there are {} packed tensors for {} inputs; pack all of them or none",
            raw_input_contents.len(),
            inputs.len()
        )));
    }
    let mut packed = raw_input_contents.into_iter();
    let inputs = inputs.into_iter().map(|input| match packed.next() {
        Some(bytes) => unpack(input, &bytes),
        None => plain(input),
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let url = choices(&parameters)?;
    let request = InferRequest {
        id: Some(id),
        inputs,
        outputs: outputs.into_iter().map(|output| output.name).collect(),
        parameters: Parameters {
            priority: number(&parameters, "priority"),
            timeout: number(&parameters, "timeout"),
            add_special_tokens: match choice(&parameters, "add_special_tokens") {
                Some(ParameterChoice::BoolParam(value)) => Some(*value),
                _ => None,
            },
        },
    };
    Ok((request, url))
}

fn choice<'a>(parameters: &'a HashMap<String, InferParameter>, name: &str) -> Option<&'a ParameterChoice> {
    parameters.get(name)?.parameter_choice.as_ref()
}

fn number(parameters: &HashMap<String, InferParameter>, name: &str) -> Option<u64> {
    match choice(parameters, name)? {
        ParameterChoice::Int64Param(value) => u64::try_from(*value).ok(),
        ParameterChoice::Uint64Param(value) => Some(*value),
        _ => None,
    }
}

/// The parameters of a call that stand in for those of a URL.
const CHOICES: [&str; 6] = ["aggregate", "transforms", "truncation", "on_refused", "run", "task"];
/// Those that are read as numbers or whether something is wanted.
const READ: [&str; 4] = ["priority", "timeout", "step", "add_special_tokens"];

/// Refuses parameters that nothing reads, or that are of a kind in which nothing reads them.
fn check(message: &protocol::ModelInferRequest) -> Result<(), Problem> {
    let unread = |parameters: &HashMap<String, InferParameter>, read: &dyn Fn(&str, &ParameterChoice) -> bool| {
        let asked = parameters.iter().filter_map(|(name, value)| Some((name, value.parameter_choice.as_ref()?)));
        let mut left: Vec<_> = asked.filter(|(name, choice)| !read(name, choice)).collect();
        left.sort_by_key(|(name, _)| *name);
        Unread::from(
            left.into_iter().map(|(name, choice)| (name.clone(), value(choice))).collect::<serde_json::Map<_, _>>(),
        )
    };
    let known = |name: &str, choice: &ParameterChoice| match choice {
        ParameterChoice::StringParam(_) => CHOICES.contains(&name),
        ParameterChoice::BoolParam(_) => name == "add_special_tokens",
        ParameterChoice::Int64Param(_) | ParameterChoice::Uint64Param(_) => READ[..3].contains(&name),
        ParameterChoice::DoubleParam(_) => false,
    };
    unread(&message.parameters, &known).check_as("parameters.", OF_REQUEST)?;
    for (index, input) in message.inputs.iter().enumerate() {
        let left = unread(&input.parameters, &|_, _| false).without("content_type", &["str", "np"]);
        left.check_as(&format!("inputs[{index}].parameters."), OF_TENSOR)?;
    }
    for (index, output) in message.outputs.iter().enumerate() {
        // Every tensor of a reply is packed where the request's are.
        let left = unread(&output.parameters, &|name, _| name == "binary_data").without("content_type", &["np"]);
        left.check_as(&format!("outputs[{index}].parameters."), OF_TENSOR)?;
    }
    Ok(())
}

fn value(choice: &ParameterChoice) -> serde_json::Value {
    match choice {
        ParameterChoice::StringParam(text) => text.as_str().into(),
        ParameterChoice::BoolParam(value) => (*value).into(),
        ParameterChoice::Int64Param(value) => (*value).into(),
        ParameterChoice::Uint64Param(value) => (*value).into(),
        ParameterChoice::DoubleParam(value) => (*value).into(),
    }
}

/// The parameters that stand in for those of a URL.
fn choices(parameters: &HashMap<String, InferParameter>) -> Result<UrlChoices, Problem> {
    let texts = CHOICES.into_iter().filter_map(|name| {
        let ParameterChoice::StringParam(text) = choice(parameters, name)? else { return None };
        Some((name.to_owned(), serde_json::Value::from(text.as_str())))
    });
    let step = number(parameters, "step").map(|step| ("step".to_owned(), serde_json::Value::from(step)));
    serde_json::from_value(serde_json::Value::Object(texts.chain(step).collect()))
        .map_err(|error| invalid(format!("parameters: {error}")))
}

fn unpack(input: InferInputTensor, bytes: &[u8]) -> Result<InputTensor, Problem> {
    let values = match input.datatype.as_str() {
        "BYTES" => InputValues::Bytes(unpack_bytes(&input.name, bytes)?),
        datatype => InputValues::Integers(unpack_integers(&input.name, datatype, bytes)?),
    };
    InputTensor::new(input.name, &input.shape, values)
}

fn plain(input: InferInputTensor) -> Result<InputTensor, Problem> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let contents = contents.unwrap_or_default();
    let values = match datatype.as_str() {
        "BYTES" => InputValues::Bytes(contents.bytes_contents),
        "INT64" => InputValues::Integers(contents.int64_contents),
        "INT32" => InputValues::Integers(contents.int_contents.into_iter().map(i64::from).collect()),
        "UINT32" => InputValues::Integers(contents.uint_contents.into_iter().map(i64::from).collect()),
        other => return Err(unsupported(&name, other)),
    };
    InputTensor::new(name, &shape, values)
}

/// The answer, packed where the request was.
pub(super) fn reply(inferred: Inferred, packed: bool) -> protocol::ModelInferResponse {
    let Inferred { id, report, outputs } = inferred;
    let raw_output_contents =
        if packed { outputs.iter().map(|output| output.values.packed()).collect() } else { Vec::new() };
    let outputs = outputs.into_iter().map(|output| InferOutputTensor {
        name: output.name.to_owned(),
        datatype: output.values.datatype().name().to_owned(),
        shape: output.shape.iter().map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX)).collect(),
        contents: (!packed).then(|| match output.values {
            OutputValues::Floats(values) => InferTensorContents { fp32_contents: values, ..Default::default() },
            OutputValues::Booleans(values) => InferTensorContents { bool_contents: values, ..Default::default() },
        }),
    });
    protocol::ModelInferResponse {
        model_name: report.model.to_string(),
        model_version: report.version.to_string(),
        id,
        outputs: outputs.collect(),
        raw_output_contents,
    }
}

/// A model's tensors.
pub(super) fn metadata(model: &Model) -> protocol::ModelMetadataResponse {
    let describe = |tensor: &TensorDescription| TensorMetadata {
        name: tensor.name.to_owned(),
        datatype: tensor.datatype.name().to_owned(),
        shape: vec![-1, tensor.width],
    };
    protocol::ModelMetadataResponse {
        name: model.name.to_string(),
        versions: vec![model.version.to_string()],
        platform: PLATFORM.to_owned(),
        inputs: INPUTS.iter().map(describe).collect(),
        outputs: OUTPUTS.iter().map(describe).collect(),
    }
}

/// A model's configuration as Triton writes it.
pub(super) fn config(model: &Model, max_batch_size: usize) -> protocol::ModelConfigResponse {
    let number = |datatype| match datatype {
        Datatype::Bytes => DataType::TypeString,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Bool => DataType::TypeBool,
    };
    let input = INPUTS.iter().map(|input| protocol::ModelInput {
        name: input.name.to_owned(),
        data_type: number(input.datatype).into(),
        dims: vec![input.width],
        optional: true,
    });
    let output = OUTPUTS.iter().map(|output| protocol::ModelOutput {
        name: output.name.to_owned(),
        data_type: number(output.datatype).into(),
        dims: vec![output.width],
    });
    protocol::ModelConfigResponse {
        config: Some(protocol::ModelConfig {
            name: model.name.to_string(),
            platform: TRITON_PLATFORM.to_owned(),
            max_batch_size: i32::try_from(max_batch_size).unwrap_or(i32::MAX),
            input: input.collect(),
            output: output.collect(),
            backend: BACKEND.to_owned(),
        }),
    }
}
