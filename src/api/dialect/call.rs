//! A request of a dialect: what its URL says, and a body that was read but not yet understood.

use std::{
    convert::Infallible,
    marker::PhantomData,
    time::{Duration, Instant},
};

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use bytes::Bytes;
use http::HeaderMap;
use karat_engine::{
    engine::{ScoreError, ScoreReport, ScoreRequest},
    repository::NoModel,
    schedule::Admission,
    text::TextOptions,
};
use karat_rules::domain::{ModelName, Sample};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{Activation, Dialect, Failure, UrlChoices, invalid};
use crate::api::{
    AppState, body, middleware,
    problem::{Problem, ProblemType},
};

/// A request whose body was read. What is wrong with it is kept until it's known in which shape to say so.
#[derive(Debug)]
pub(crate) struct RawCall {
    pub(crate) state: AppState,
    pub(crate) headers: HeaderMap,
    id: String,
    path_model: Option<String>,
    url: Result<UrlChoices, Problem>,
    body: Result<Bytes, Problem>,
}

impl FromRequest<AppState> for RawCall {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Infallible> {
        let id = middleware::request_id(&request);
        let (mut parts, content) = request.into_parts();
        let path_model = RawPathParams::from_request_parts(&mut parts, state).await.ok().and_then(|parameters| {
            parameters.iter().find(|(name, _)| *name == "model").map(|(_, value)| value.to_owned())
        });
        let url = Query::try_from_uri(&parts.uri).map(|Query(url)| url);
        let url = url.map_err(|error| invalid(format!("the query of the URL: {error}")));
        let headers = parts.headers.clone();
        let body = body::read(Request::from_parts(parts, content), state.limits.body_bytes).await;
        Ok(Self { state: state.clone(), headers, id, path_model, url, body })
    }
}

impl OperationInput for RawCall {}

impl RawCall {
    /// The body's bytes; empty when it couldn't be read.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// The call without its body, which is handed over as bytes.
    pub(crate) fn into_bytes<D: Dialect>(self) -> Result<Call<D, Bytes>, Failure<D>> {
        let body = self.body?;
        Ok(Call {
            state: self.state,
            headers: self.headers,
            id: self.id,
            path_model: self.path_model,
            url: self.url?,
            body,
            dialect: PhantomData,
        })
    }

    /// Understands the body.
    pub(crate) fn parse<D: Dialect, T: DeserializeOwned>(self) -> Result<Call<D, T>, Failure<D>> {
        let call = self.into_bytes()?;
        let body = body::parse(&call.body)?;
        Ok(call.with_body(body))
    }
}

/// A request of the dialect `D` with a body of the type `T`.
#[derive(Debug)]
pub(crate) struct Call<D, T> {
    pub(crate) state: AppState,
    pub(crate) headers: HeaderMap,
    /// The request's id.
    pub(crate) id: String,
    path_model: Option<String>,
    pub(crate) url: UrlChoices,
    pub(crate) body: T,
    dialect: PhantomData<D>,
}

impl<D: Dialect, T: DeserializeOwned> FromRequest<AppState> for Call<D, T> {
    type Rejection = Failure<D>;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure<D>> {
        let Ok(raw) = RawCall::from_request(request, state).await;
        raw.parse()
    }
}

impl<D, T: JsonSchema> OperationInput for Call<D, T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Query::<UrlChoices>::operation_input(context, operation);
        axum::Json::<T>::operation_input(context, operation);
    }
}

impl<D> Call<D, ()> {
    /// A call that came without HTTP, for the model of that name.
    pub(crate) fn of_model(state: AppState, model: String, url: UrlChoices) -> Self {
        let id = uuid::Uuid::now_v7().to_string();
        Self { state, headers: HeaderMap::new(), id, path_model: Some(model), url, body: (), dialect: PhantomData }
    }
}

/// What a body's own field says about the model.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ModelField<'a> {
    /// The dialect has no such field.
    Absent,
    /// The client names the model that it wants. Trainers write the path of a checkpoint there, so its last part counts
    /// too; what isn't known becomes the default model if there is one.
    Named(&'a str),
    /// The client writes the same word whatever the server; it counts only if it is a model's name.
    Habitual(&'a str),
}

impl<'a> ModelField<'a> {
    /// The model that the client names, if it does.
    pub(crate) fn named(field: Option<&'a str>) -> Self {
        field.filter(|name| !name.is_empty()).map_or(Self::Absent, Self::Named)
    }
}

impl<D: Dialect, T> Call<D, T> {
    /// The same call with another body.
    pub(crate) fn with_body<U>(self, body: U) -> Call<D, U> {
        Call {
            state: self.state,
            headers: self.headers,
            id: self.id,
            path_model: self.path_model,
            url: self.url,
            body,
            dialect: PhantomData,
        }
    }

    /// Takes the body out.
    pub(crate) fn split(self) -> (Call<D, ()>, T) {
        let Self { state, headers, id, path_model, url, body, dialect } = self;
        (Call { state, headers, id, path_model, url, body: (), dialect }, body)
    }

    /// What the URL says about the activation, or else what the dialect says.
    pub(crate) fn activation(&self, dialect: Activation) -> Activation {
        self.url.activation.unwrap_or(dialect)
    }

    /// The model: of the path, or else the query, the body's field, the default, the only one there is.
    pub(crate) fn model(&self, field: ModelField<'_>) -> Result<ModelName, Problem> {
        let unknown = |name: &str, advice: &str| {
            let detail = format!("there is no model {name:?}; GET /v1/models lists them{advice}");
            Problem::new(ProblemType::UnknownModel, detail)
        };
        if let Some(name) = self.path_model.as_deref().or(self.url.model.as_deref()) {
            return self.known(name).ok_or_else(|| unknown(name, ""));
        }
        let default = self.state.dialects.default_model.clone();
        match field {
            ModelField::Absent => {}
            ModelField::Named(name) => {
                let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
                let found = self.known(name).or_else(|| self.known(last)).or(default);
                return found.ok_or_else(|| unknown(name, ", and --default-model stands in for unknown ones"));
            }
            ModelField::Habitual(name) => {
                if let Some(found) = self.known(name) {
                    return Ok(found);
                }
            }
        }
        default.or_else(|| self.state.engine.repository().only_model()).ok_or_else(|| {
            invalid(
                "the request names no model and the server has several; write it into the URL as /m/{model}/… or \
                 ?model=…, or start the server with --default-model",
            )
        })
    }

    /// The name, if a model of the repository has it, loaded or not.
    fn known(&self, name: &str) -> Option<ModelName> {
        let name: ModelName = name.parse().ok()?;
        match self.state.engine.model(&name) {
            Err(ScoreError::NoModel(NoModel::Unknown { .. })) => None,
            _ => Some(name),
        }
    }

    /// Scores samples by what URL, body and settings say.
    pub(crate) async fn score(
        &self,
        field: ModelField<'_>,
        samples: Vec<Sample>,
        text: TextOptions,
    ) -> Result<ScoreReport, Failure<D>> {
        let request = self.request(field, samples, text)?;
        Ok(self.state.engine.score(request).await?)
    }

    /// What to ask of the engine.
    pub(crate) fn request(
        &self,
        field: ModelField<'_>,
        samples: Vec<Sample>,
        text: TextOptions,
    ) -> Result<ScoreRequest, Problem> {
        let limit = self.state.limits.inputs;
        if samples.len() > limit {
            let detail = format!(
                "the request has {} inputs and the server takes at most {limit} at once; split it, or raise \
                 --max-inputs",
                samples.len()
            );
            return Err(Problem::new(ProblemType::TooManyInputs, detail));
        }
        let model = self.model(field)?;
        let text = TextOptions {
            truncation: self.url.truncation.or(text.truncation),
            ending: self.url.ending.unwrap_or(text.ending),
            ..text
        };
        let deadline = match self.url.timeout_ms {
            Some(0) => return Err(invalid("timeout_ms must be at least 1")),
            Some(ms) => Instant::now().checked_add(Duration::from_millis(ms)),
            None => None,
        };
        let sheds = self.state.dialects.shedding.contains(D::NAME);
        Ok(ScoreRequest::new(model, samples)?
            .with_aggregate(self.url.aggregate.clone())
            .with_transforms(self.url.transforms.clone())
            .with_text(text)
            .with_priority(self.url.priority.unwrap_or_default())
            .with_deadline(deadline)
            .with_admission(if sheds { Admission::Bounded } else { Admission::Always }))
    }
}
