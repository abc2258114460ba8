//! The binary tensor extension: JSON first, then the packed values of the tensors that say how long theirs are.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

use super::{
    dto::{InferBody, InferReply, InputBody, PackedSize},
    inference::{InferRequest, Inferred},
    tensor::{InputTensor, InputValues, unpack_integers, unpack_texts, unsupported},
};
use crate::api::{body, dialects::parts::invalid, problem::Problem, reply::Reply};

/// The length of the JSON that stands before packed tensors.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The length of the JSON, if the request says that packed tensors follow it.
pub(super) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(written) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = written.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| invalid("Inference-Header-Content-Length must be a number of bytes"))
}

/// Which outputs come packed.
#[derive(Debug)]
pub(super) struct Packing {
    usually: bool,
    otherwise: Vec<(String, bool)>,
}

impl Packing {
    fn packs(&self, name: &str) -> bool {
        let named = self.otherwise.iter().find(|(output, _)| output == name);
        named.map_or(self.usually, |(_, packed)| *packed)
    }
}

/// Reads a body.
pub(super) fn decode(bytes: &[u8], header_length: Option<usize>) -> Result<(InferRequest, Packing), Problem> {
    let (json, mut packed) = bytes
        .split_at_checked(header_length.unwrap_or(bytes.len()))
        .ok_or_else(|| invalid("the body is shorter than its Inference-Header-Content-Length"))?;
    let request: InferBody = body::parse(json)?;
    request.check()?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        inputs.push(match input.parameters.binary_data_size {
            None => plain(input)?,
            Some(size) => {
                let (own, rest) = packed.split_at_checked(size).ok_or_else(|| {
                    invalid(format!("the body ends before the {size} bytes of the input {:?}", input.name))
                })?;
                packed = rest;
                let values = match input.datatype.as_str() {
                    "BYTES" => InputValues::Text(unpack_texts(&input.name, own)?),
                    datatype => InputValues::Integers(unpack_integers(&input.name, datatype, own)?),
                };
                InputTensor::new(input.name, &input.shape, values)?
            }
        });
    }
    if !packed.is_empty() {
        return Err(invalid(format!("{} bytes follow the tensors; check binary_data_size", packed.len())));
    }
    let named = request.outputs.iter();
    let otherwise = named.filter_map(|output| Some((output.name.clone(), output.parameters.binary_data?))).collect();
    let packing = Packing { usually: request.parameters.binary_data_output, otherwise };
    let request = InferRequest {
        id: request.id,
        inputs,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        parameters: request.parameters.values(),
    };
    Ok((request, packing))
}

fn plain(input: InputBody) -> Result<InputTensor, Problem> {
    let InputBody { name, shape, datatype, data, .. } = input;
    let data = data.ok_or_else(|| invalid(format!("the input {name:?} has neither data nor binary_data_size")))?;
    let mut flat = Vec::new();
    flatten(data, &mut flat);
    let wrong = |value: &Value| invalid(format!("the input {name:?} holds {value}, which is no {datatype}"));
    let values = match datatype.as_str() {
        "BYTES" => {
            let texts = flat.into_iter().map(|value| match value {
                Value::String(text) => Ok(text),
                other => Err(wrong(&other)),
            });
            InputValues::Text(texts.collect::<Result<_, _>>()?)
        }
        "INT64" | "INT32" | "UINT32" => {
            let numbers = flat.iter().map(|value| value.as_i64().ok_or_else(|| wrong(value)));
            InputValues::Integers(numbers.collect::<Result<_, _>>()?)
        }
        other => return Err(unsupported(&name, other)),
    };
    InputTensor::new(name, &shape, values)
}

fn flatten(value: Value, flat: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.into_iter().for_each(|value| flatten(value, flat)),
        other => flat.push(other),
    }
}

/// Writes an answer, all in JSON or with packed tensors behind it.
pub(super) fn encode(inferred: &Inferred, packing: &Packing) -> Response {
    let mut reply = InferReply::new(inferred);
    let mut packed = Vec::new();
    let mut packs = false;
    for (body, output) in reply.outputs.iter_mut().zip(&inferred.outputs) {
        if packing.packs(output.name) {
            let values = output.values.packed();
            body.parameters = Some(PackedSize { binary_data_size: values.len() });
            body.data = None;
            packed.extend(values);
            packs = true;
        }
    }
    if !packs {
        return Reply::new(&inferred.report, reply).into_response();
    }
    // Maps with string keys and plain values always have a JSON form.
    let mut bytes = serde_json::to_vec(&reply).unwrap_or_default();
    let length = bytes.len();
    bytes.extend(packed);
    let mut response = Reply::new(&inferred.report, ()).into_response();
    *response.body_mut() = bytes.into();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEADER_LENGTH, HeaderValue::from(length));
    response
}
