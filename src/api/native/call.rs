//! A scoring request of karat's own: in its body stand, side by side, what is the route's own and the options that all
//! scoring routes share.
//!
//! Flattening one into the other would do, but Serde then neither refuses unknown fields nor tells where an error is.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::extract::{FromRequest, Request};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, MapDeserializer},
    },
};
use serde_aux::serde_introspection::serde_introspect;
use serde_json::value::RawValue;

use karat_engine::engine::ScoreError;

use super::request::Options;
use crate::api::{
    AppState, body, checks,
    images::{self, ImageSource},
    middleware,
    problem::{Problem, invalid},
    runs::{RunFields, RunTag},
};

/// What a route's body holds beside the options.
pub(super) trait OwnBody: DeserializeOwned + Send + 'static {
    /// How many inputs that makes, which is bounded before they are built.
    fn inputs(&self) -> usize;

    /// The images that it holds, of which some may have to be fetched.
    fn images(&mut self) -> Vec<&mut ImageSource> {
        Vec::new()
    }
}

/// A request whose body is whole and holds no more than it may.
#[derive(Debug)]
pub(super) struct Call<T> {
    pub(super) state: AppState,
    /// The request's id.
    pub(super) id: String,
    /// The run that it belongs to, if it names one.
    pub(super) run: Option<RunTag>,
    pub(super) body: T,
    pub(super) options: Options,
}

impl<T: OwnBody> FromRequest<AppState> for Call<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &AppState) -> Result<Self, Problem> {
        let received = body::receive(&mut request, state).await?;
        // What is wrong is found where each half is parsed by itself: unknown fields first, and then the wrong value.
        let length = received.len();
        let (mut body, mut options) = state.large_bodies.read(length, move || split::<T>(received.bytes())).await??;
        checks::count(T::inputs(&body), &state.limits)?;
        let fetched = images::fetch(&state.images, T::images(&mut body));
        match options.deadline()? {
            None => fetched.await?,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), fetched).await.map_err(|_| ScoreError::Expired)??;
            }
        }
        let (query, headers) = (RunFields::of_query(request.uri())?, RunFields::of_headers(request.headers())?);
        let run = options.take_run_fields().or(query).or(headers).tag()?;
        let options = match checks::wanted_version(request.headers())? {
            Some(version) => options.of_version(&version)?,
            None => options,
        };
        let state = state.visited_by(request.extensions());
        Ok(Self { state, id: middleware::request_id(&request), run, body, options })
    }
}

impl<T: JsonSchema> OperationInput for Call<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<WithOptions<T>>::operation_input(context, operation);
    }
}

/// The schema of an object with the fields of both.
struct WithOptions<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for WithOptions<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}With{}", T::schema_name(), Options::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "allOf": [generator.subschema_for::<T>(), generator.subschema_for::<Options>()] })
    }
}

/// Parses a body into a route's own fields and the options.
pub(super) fn split<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Options), Problem> {
    str::from_utf8(bytes).ok().and_then(|text| both(text).ok()).map_or_else(|| each(bytes), Ok)
}

/// Parses a route's own fields and then the options, with a message that tells the path to what is wrong.
fn each<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Options), Problem> {
    let written: BTreeMap<String, IgnoredAny> = body::parse(bytes)?;
    let known: Vec<&str> = [serde_introspect::<T>(), serde_introspect::<Options>()].concat();
    if let Some(unknown) = written.keys().find(|key| !known.contains(&key.as_str())) {
        let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let detail = format!("unknown field `{unknown}`, expected one of {known}");
        return Err(invalid(detail));
    }
    Ok((body::parse(bytes)?, body::parse(bytes)?))
}

/// Parses both at once.
fn both<T: DeserializeOwned>(text: &str) -> Result<(T, Options), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (own, Written { options, run, step, task }) = deserializer.deserialize_map(Both(PhantomData))?;
    deserializer.end()?;
    let options = options.iter().map(|(Name(name), value)| (&**name, *value));
    let options: Options = Deserialize::deserialize(MapDeserializer::new(options))?;
    let run = RunFields { run: run.flatten(), step: step.flatten(), task: task.flatten() };
    Ok((own, options.of_run(run)))
}

/// Reads a route's own fields as they come, and keeps the options as they are written.
struct Both<T>(PhantomData<T>);

/// The name of a field, which is rarely written with escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The options as they are written, but for what every request of a run has, which is read at once.
#[derive(Default)]
struct Written<'de> {
    options: Vec<(Name<'de>, &'de RawValue)>,
    run: Option<Option<String>>,
    step: Option<Option<u64>>,
    task: Option<Option<String>>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Both<T> {
    type Value = (T, Written<'de>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut written = Written::default();
        let own = T::deserialize(MapAccessDeserializer::new(OwnFields {
            map,
            own: serde_introspect::<T>(),
            others: serde_introspect::<Options>(),
            written: &mut written,
        }))?;
        Ok((own, written))
    }
}

/// The fields of an object that are a route's own; the others are put aside.
struct OwnFields<'a, 'de, A> {
    map: A,
    own: &'static [&'static str],
    others: &'static [&'static str],
    written: &'a mut Written<'de>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnFields<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.map.next_key()? {
            match &*name {
                "run" => once(&mut self.written.run, &mut self.map)?,
                "step" => once(&mut self.written.step, &mut self.map)?,
                "task" => once(&mut self.written.task, &mut self.map)?,
                own if self.own.contains(&own) => return seed.deserialize(name.into_deserializer()).map(Some),
                other if self.others.contains(&other) => {
                    self.written.options.push((Name(name), self.map.next_value()?));
                }
                _ => return Err(A::Error::custom("unknown field")),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads the value of a field that may be there once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(field: &mut Option<T>, map: &mut A) -> Result<(), A::Error> {
    match field.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(A::Error::custom("duplicate field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Own {
        #[serde(default, rename = "inputs")]
        _inputs: Vec<String>,
    }

    #[test]
    fn one_pass_takes_what_each_half_takes_by_itself() {
        for (body, fits) in [
            (
                r#"{"model":"m","inputs":["a"],"aggregate":{"uncertainty_weighted":{"lambda":0.5}},"references":[1,2.5]}"#,
                true,
            ),
            (r#"{"inputs":["\u00e9"],"\u006dodel":"m","truncation":null,"priority":"high"}"#, true),
            (r#"{"step":7,"model":"m","run":"a","task":null,"inputs":["a"]}"#, true),
            (r#"{"model":"m","run":null,"run":"a"}"#, false),
            (r#"{"model":"m","run":"a","step":-1}"#, false),
            (r#"{"inputs":[]}"#, false),
            (r#"{"model":"m","inputs":["a"],"inputs":["b"]}"#, false),
            (r#"{"model":"m","model":"n"}"#, false),
            (r#"{"model":"m","aggregate":{"mean":{},"mean":{}}}"#, false),
            (r#"{"model":"m","agregate":"mean"}"#, false),
            (r#"{"model":"m"} {}"#, false),
            (r#"{"model":"m","timeout_ms":-1}"#, false),
            (r#"[["a"]]"#, false),
        ] {
            let read = [each::<Own>(body.as_bytes()).ok(), both::<Own>(body).ok()];
            assert_eq!(read[0].is_some(), fits, "{body}");
            let [each, both] = read.map(|read| format!("{read:?}"));
            assert_eq!(both, each, "{body}");
        }
        for broken in [b"{\"model\":\"\xff\"}".as_slice(), b"", b"{"] {
            assert!(each::<Own>(broken).is_err() && split::<Own>(broken).is_err(), "{broken:?}");
        }
    }
}
