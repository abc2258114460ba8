//! Reads JSON bodies, so that body errors take the same path as all others.
//!
//! The body is bounded, checked for UTF-8, and parsed with the path to what is wrong in the message. The
//! `Content-Type` is not looked at: trainers and `curl -d` send JSON under other names.

use std::{fmt, marker::PhantomData};

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::extract::{FromRequest, Request};
use bytes::{Buf, Bytes};
use http::header;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, MapAccess, Visitor,
        value::{MapAccessDeserializer, MapDeserializer},
    },
};
use serde_json::value::RawValue;

use super::{
    AppState,
    intake::NotWhole,
    problem::{Problem, ProblemType, invalid},
};

/// A JSON body of the type `T`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &AppState) -> Result<Self, Problem> {
        let received = receive(&mut request, state).await?;
        let length = received.len();
        state.large_bodies.read(length, move || received.parse()).await?.map(Self)
    }
}

/// A body that came whole.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    bytes: Bytes,
    /// Its fields, where somebody had to look at them to know whose body it is.
    fields: Option<Fields>,
}

/// Takes a request's body: the one that was left for its handler, or else the one that arrives.
pub(crate) async fn receive(request: &mut Request, state: &AppState) -> Result<Received, Problem> {
    let limit = state.limits.body_bytes;
    if let Some(received) = request.extensions_mut().remove::<Result<Received, Problem>>() {
        return received;
    }
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
    // What could be read is plain by now.
    let encoding = request.headers().get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
    if let Some(encoding) = encoding {
        let found = String::from_utf8_lossy(encoding.as_bytes());
        return Err(invalid(format!("the body is encoded as {found:?}; send it as gzip, deflate, zstd, or plain")));
    }
    let body = std::mem::take(request.body_mut());
    let parts = Limited::new(body, limit).collect().await.map_err(|error| {
        // A body that breaks off has no one left to answer; one that is too long still listens.
        if error.is::<LengthLimitError>() {
            too_large()
        } else if let Some(reason) = NotWhole::among(&*error) {
            reason.into()
        } else {
            Problem::new(ProblemType::BodyIncomplete, "the body broke off before its end; send it whole")
        }
    })?;
    let mut parts = parts.aggregate();
    let length = parts.remaining();
    let bytes = state.large_bodies.read(length, move || parts.copy_to_bytes(length)).await?;
    Ok(Received { bytes, fields: None })
}

impl Received {
    /// The body as text, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// Leaves the body for a handler further in.
    pub(crate) fn leave(received: Result<Self, Problem>, request: &mut Request) {
        request.extensions_mut().insert(received);
    }

    /// The same body, to be read from its fields.
    pub(crate) fn in_fields(self, fields: Fields) -> Self {
        Self { fields: Some(fields), ..self }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match &self.fields {
            // Only the whole body tells the place of what is wrong.
            Some(fields) => fields.read().or_else(|_| parse(&self.bytes)),
            None => parse(&self.bytes).or_else(|problem| {
                let plain = without_nan(&self.bytes).ok_or_else(|| problem.clone())?;
                parse(&plain).map_err(|_| problem)
            }),
        }
    }
}

/// The fields of a body as they were written.
#[derive(Debug, Clone)]
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Whether there is that field with a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| key == name && value.get() != "null")
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(MapDeserializer::new(self.0.iter().map(|(key, value)| (key.as_str(), &**value))))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
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
            malformed(format!("the body is not valid JSON: {inner}{}", advice(&inner)))
        }
    })?;
    deserializer.end().map_err(|error| malformed(format!("something follows the JSON object: {error}")))?;
    Ok(value)
}

/// What to write instead of what JSON libraries write all the same.
fn advice(error: &serde_json::Error) -> &'static str {
    let said = error.to_string();
    if said.contains("surrogate") || said.contains("hex escape") {
        "; a lone surrogate such as \\ud83d stands for no character: send whole ones, as UTF-8"
    } else {
        ""
    }
}

/// A body whose NaN and infinities, which JSON doesn't have and Python's writes, are something that no field that is read
/// takes; none where it has none of them.
fn without_nan(bytes: &[u8]) -> Option<Vec<u8>> {
    const NOT_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    const STAND_IN: &[u8] = b"{\"NaN\":null}";
    let mut plain = Vec::with_capacity(bytes.len());
    let (mut at, mut in_text, mut found) = (0, false, false);
    while let Some(byte) = bytes.get(at) {
        let not_number = NOT_NUMBERS.into_iter().find(|word| !in_text && bytes[at..].starts_with(word));
        if let Some(word) = not_number {
            plain.extend_from_slice(STAND_IN);
            at += word.len();
            found = true;
            continue;
        }
        let escaped = in_text && *byte == b'\\';
        in_text ^= *byte == b'"';
        plain.push(*byte);
        at += 1;
        if escaped {
            plain.extend(bytes.get(at));
            at += 1;
        }
    }
    found.then_some(plain)
}

impl<T: JsonSchema> OperationInput for JsonBody<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<T>::operation_input(context, operation);
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
