//! Reads JSON bodies, so that body errors take the same path as all others.
//!
//! The body is bounded, checked for UTF-8, and parsed with the path to what is wrong in the message. The
//! `Content-Type` is not looked at: trainers and `curl -d` send JSON under other names.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, Request},
};
use http::header;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};

use serde_aux::serde_introspection::serde_introspect;

use super::{
    AppState,
    intake::TooSlow,
    problem::{Problem, ProblemType},
};

/// A JSON body of the type `T`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let bytes = read(request, state.limits.body_bytes).await?;
        parse(&bytes).map(Self)
    }
}

pub(crate) async fn read(request: Request, limit: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || {
        Problem::new(
            ProblemType::BodyTooLarge,
            format!("the body has more than {limit} bytes; split the request, or raise --max-body-bytes"),
        )
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let body: Body = request.into_body();
    to_bytes(body, limit).await.map_err(|error| {
        // A body that breaks off has no one left to answer; one that is too long still listens.
        if std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
        {
            too_large()
        } else if let Some(slow) = TooSlow::among(&error) {
            Problem::new(ProblemType::BodyTooSlow, slow.to_string())
        } else {
            Problem::new(ProblemType::MalformedJson, "the body broke off before its end; send it whole")
        }
    })
}

/// Parses a JSON object; the message names the path to what is wrong.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |detail: String| Problem::new(ProblemType::MalformedJson, detail);
    if bytes.is_empty() {
        return Err(malformed("the body is empty; send a JSON object".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| malformed(format!("the body is not UTF-8: {error}; encode text as UTF-8")))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            Problem::new(ProblemType::InvalidRequest, format!("{place}{inner}"))
        } else {
            malformed(format!("the body is not valid JSON: {inner}"))
        }
    })?;
    deserializer.end().map_err(|error| malformed(format!("something follows the JSON object: {error}")))?;
    Ok(value)
}

impl<T: JsonSchema> OperationInput for JsonBody<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<T>::operation_input(context, operation);
    }
}

/// A JSON body that holds what is a route's own (`T`) and what all routes of its kind share (`S`), side by side.
///
/// Flattening one into the other would do, but Serde then neither refuses unknown fields nor tells where an error is.
#[derive(Debug)]
pub(crate) struct SharedBody<T, S> {
    pub(crate) own: T,
    pub(crate) shared: S,
}

impl<T: DeserializeOwned, S: DeserializeOwned> FromRequest<AppState> for SharedBody<T, S> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let bytes = read(request, state.limits.body_bytes).await?;
        let written: BTreeMap<String, IgnoredAny> = parse(&bytes)?;
        let known: Vec<&str> = [serde_introspect::<T>(), serde_introspect::<S>()].concat();
        if let Some(unknown) = written.keys().find(|key| !known.contains(&key.as_str())) {
            let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return Err(Problem::new(
                ProblemType::InvalidRequest,
                format!("unknown field `{unknown}`, expected one of {known}"),
            ));
        }
        Ok(Self { own: parse(&bytes)?, shared: parse(&bytes)? })
    }
}

impl<T: JsonSchema, S: JsonSchema> OperationInput for SharedBody<T, S> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<AllOf<T, S>>::operation_input(context, operation);
    }
}

/// The schema of an object with the fields of both.
struct AllOf<T, S>(PhantomData<(T, S)>);

impl<T: JsonSchema, S: JsonSchema> JsonSchema for AllOf<T, S> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}With{}", T::schema_name(), S::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "allOf": [generator.subschema_for::<T>(), generator.subschema_for::<S>()] })
    }
}

/// A `T` that was written as a JSON object.
///
/// Derived parsers also take a list and match it to their fields by position, which no schema mentions.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a list of objects; for `#[serde(deserialize_with)]`.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// Reads a list of objects or null; for `#[serde(deserialize_with)]`.
pub(crate) fn optional_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let objects = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(objects.map(|objects| objects.into_iter().map(|Object(value)| value).collect()))
}
