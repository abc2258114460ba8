//! A request of a dialect: what its URL and its body say, and which model it means.

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::extract::{FromRequest, Query, Request};
use bytes::Bytes;
use http::HeaderMap;
use karat_engine::{
    engine::{Draft, OnRefused, ScoreError, ScoreReport, ScoreRequest},
    repository::NoModel,
    schedule::Admission,
    text::TextOptions,
};
use karat_rules::domain::ModelName;
use schemars::JsonSchema;

use super::{Activation, Body, Scores, UrlChoices, invalid};
use crate::api::{
    AppState,
    body::{self, Received},
    checks,
    dialects::dialect::Dialect,
    middleware, path,
    problem::Problem,
    runs::{RunFields, RunTag},
};

/// A request with a body of the type `T`.
#[derive(Debug)]
pub(crate) struct Call<T> {
    pub(crate) state: AppState,
    pub(crate) headers: HeaderMap,
    /// The request's id.
    pub(crate) id: String,
    /// When it is refused because too much waits.
    admission: Admission,
    path_model: Option<String>,
    run: Option<RunTag>,
    pub(crate) url: UrlChoices,
    pub(crate) body: T,
}

/// A request whose body isn't JSON alone.
#[derive(Debug)]
pub(crate) struct RawCall(pub(crate) Call<Bytes>);

impl<T: Body> FromRequest<AppState> for Call<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let dialect = request.extensions().get::<&'static Dialect>().copied();
        let (call, InFull { received, names_run }) = receive(request, state).await?.split();
        let length = received.len();
        let body: T = state.large_bodies.read(length, move || received.parse()).await??;
        let fields = dialect.map(|dialect| dialect.fields).unwrap_or_default();
        let of_run = if names_run { RunFields::NAMES } else { &[] };
        body.unread().map_or(Ok(()), |unread| unread.clone().without_read(of_run).check(fields))?;
        Ok(call.with_body(body))
    }
}

impl<T: JsonSchema> OperationInput for Call<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        Query::<UrlChoices>::operation_input(context, operation);
        axum::Json::<T>::operation_input(context, operation);
    }
}

impl FromRequest<AppState> for RawCall {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let (call, body) = receive(request, state).await?.split();
        Ok(Self(call.with_body(body.received.into_bytes())))
    }
}

impl OperationInput for RawCall {}

/// A body that came whole, and whether it names a run.
struct InFull {
    received: Received,
    names_run: bool,
}

async fn receive(mut request: Request, state: &AppState) -> Result<Call<InFull>, Problem> {
    let received = body::receive(&mut request, state).await?;
    let id = middleware::request_id(&request);
    let dialect = request.extensions().get::<&'static Dialect>();
    let admission = dialect.map_or(Admission::Bounded, |dialect| state.dialects.admission(dialect));
    let length = received.len();
    let read = move || (RunFields::of_body(received.bytes()), received);
    let (of_body, received) = state.large_bodies.read(length, read).await?;
    let body = InFull { received, names_run: of_body.run.is_some() };
    let state = &state.visited_by(request.extensions());
    let (mut parts, _) = request.into_parts();
    let path_model = path::model(&mut parts, state).await?;
    let url = Query::try_from_uri(&parts.uri).map(|Query(url)| url);
    let url: UrlChoices = url.map_err(|error| invalid(format!("the query of the URL: {error}")))?;
    let run = of_body.or(url.run()).or(RunFields::of_headers(&parts.headers)?).tag()?;
    Ok(Call { state: state.clone(), headers: parts.headers, id, admission, path_model, run, url, body })
}

impl Call<()> {
    /// A call that came as a message of gRPC's, for the model of that name.
    ///
    /// # Errors
    /// When it names a run by what can't be a name.
    pub(crate) fn of_model(
        state: AppState,
        dialect: &Dialect,
        id: String,
        model: String,
        url: UrlChoices,
    ) -> Result<Self, Problem> {
        let run = url.run().tag()?;
        let admission = state.dialects.admission(dialect);
        Ok(Self { state, headers: HeaderMap::new(), id, admission, path_model: Some(model), run, url, body: () })
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

impl<T> Call<T> {
    /// The same call with another body.
    fn with_body<U>(self, body: U) -> Call<U> {
        let Self { state, headers, id, admission, path_model, run, url, body: _ } = self;
        Call { state, headers, id, admission, path_model, run, url, body }
    }

    /// Takes the body out.
    pub(crate) fn split(self) -> (Call<()>, T) {
        let Self { state, headers, id, admission, path_model, run, url, body } = self;
        (Call { state, headers, id, admission, path_model, run, url, body: () }, body)
    }

    /// The same call for another model than its path says.
    pub(crate) fn for_model(self, model: &ModelName) -> Self {
        Self { path_model: Some(model.to_string()), ..self }
    }

    /// What the URL says about the activation, or else what the dialect says.
    pub(crate) fn activation(&self, dialect: Activation) -> Activation {
        self.url.activation.unwrap_or(dialect)
    }

    /// The model: of the path, or else the query, the body's field, the default, the only one there is; of these the version
    /// that the request insists on, if it does.
    fn model(&self, field: ModelField<'_>) -> Result<ModelName, Problem> {
        let model = self.named_model(field)?;
        match checks::wanted_version(&self.headers)? {
            Some(version) => checks::version(&model, &version),
            None => Ok(model),
        }
    }

    fn named_model(&self, field: ModelField<'_>) -> Result<ModelName, Problem> {
        if let Some(name) = self.path_model.as_deref().or(self.url.model.as_deref()) {
            return self.known(name).ok_or_else(|| checks::unknown_model(name));
        }
        let default = self.state.dialects.default_model.clone();
        match field {
            ModelField::Absent => {}
            ModelField::Named(name) => {
                let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
                let found = self.known(name).or_else(|| self.known(last)).or(default);
                return found.ok_or_else(|| {
                    let what = format!("there is no model {name:?}");
                    checks::unknown(&what, ", and --default-model stands in for unknown ones")
                });
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
        samples: Vec<Draft>,
        text: TextOptions,
    ) -> Result<Scores, Problem> {
        let request = self.request(field, samples, text)?;
        Ok(self.run(request).await?.into())
    }

    /// Scores a request, and keeps statistics of it where the call belongs to a run.
    pub(crate) async fn run(&self, request: ScoreRequest) -> Result<ScoreReport, Problem> {
        self.state.score(self.run.as_ref(), &self.id, request).await
    }

    /// How many signals fire of the run that the call belongs to, if it names one: 0 while nothing is known of it.
    pub(crate) fn firing(&self) -> Option<usize> {
        let tag = self.run.as_ref()?;
        Some(self.state.runs.runs.firing(&tag.run).unwrap_or(0))
    }

    /// What to ask of the engine.
    pub(crate) fn request(
        &self,
        field: ModelField<'_>,
        samples: Vec<Draft>,
        text: TextOptions,
    ) -> Result<ScoreRequest, Problem> {
        checks::count(samples.len(), &self.state.limits)?;
        let on_refused = self.url.on_refused.unwrap_or_default();
        if on_refused == OnRefused::Mark {
            return Err(invalid(
                "on_refused=mark: replies of this route hold numbers alone; state the one that is meant, such as \
                 on_refused=-1",
            ));
        }
        let model = self.model(field)?;
        let text = TextOptions {
            truncation: self.url.truncation.or(text.truncation),
            ending: self.url.ending.unwrap_or(text.ending),
            ..text
        };
        let deadline = checks::deadline(self.url.timeout_ms)?;
        Ok(ScoreRequest::of(model, samples, on_refused)?
            .with_aggregate(self.url.aggregate.clone())
            .with_transforms(self.url.transforms.clone())
            .with_text(text)
            .with_priority(self.url.priority.unwrap_or_default())
            .with_deadline(deadline)
            .with_admission(self.admission))
    }
}
