//! Errors of the native routes as RFC 9457 problem details.

use std::{fmt, time::Duration};

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{MediaType, Operation, Response as ResponseDoc, SchemaObject},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use karat_engine::{
    engine::{ErrorKind, ScoreError},
    repository::ChangeError,
};
use karat_runs::store::StoreError;
use schemars::JsonSchema;
use serde::Serialize;

/// The kinds of problems, each with its own `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProblemType {
    MalformedJson,
    /// A body that broke off, which clients are told as one that isn't JSON.
    BodyIncomplete,
    InvalidRequest,
    /// An invalid request that dialects tell from others: it holds nothing.
    NoInputs,
    TooLong,
    TooManyInputs,
    BodyTooLarge,
    BodyTooSlow,
    UnknownModel,
    OtherVersion,
    UnknownRoute,
    UnknownRun,
    UnknownJob,
    WrongMethod,
    Forbidden,
    /// A request without a key, or with one that isn't known.
    NoKey,
    /// A key that may not do that.
    KeyForbids,
    /// A key whose tokens are used up.
    OutOfTokens,
    ModelUnavailable,
    /// What a client calls a job is the name of another.
    OtherJob,
    /// There is no room for what is to be kept.
    StateFull,
    /// Other models are made of the model that is to be unloaded.
    InUse,
    /// A model that is to be loaded can't be.
    NotLoaded,
    Overloaded,
    DeadlinePassed,
    ModelFailed,
    Internal,
}

impl ProblemType {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson | Self::BodyIncomplete => StatusCode::BAD_REQUEST,
            Self::InvalidRequest
            | Self::NoInputs
            | Self::TooLong
            | Self::TooManyInputs
            | Self::OtherJob
            | Self::NotLoaded => StatusCode::UNPROCESSABLE_ENTITY,
            Self::StateFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownModel | Self::UnknownRoute | Self::UnknownRun | Self::UnknownJob => StatusCode::NOT_FOUND,
            Self::OtherVersion => StatusCode::PRECONDITION_FAILED,
            Self::InUse => StatusCode::CONFLICT,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forbidden | Self::KeyForbids => StatusCode::FORBIDDEN,
            Self::NoKey => StatusCode::UNAUTHORIZED,
            Self::ModelUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Overloaded | Self::OutOfTokens => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlinePassed => StatusCode::GATEWAY_TIMEOUT,
            Self::ModelFailed | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The last part of the problem's `type`.
    fn slug(self) -> &'static str {
        match self {
            Self::MalformedJson | Self::BodyIncomplete => "malformed-json",
            Self::InvalidRequest | Self::NoInputs => "invalid-request",
            Self::TooLong => "too-long",
            Self::TooManyInputs => "too-many-inputs",
            Self::BodyTooLarge => "body-too-large",
            Self::BodyTooSlow => "body-too-slow",
            Self::UnknownModel => "unknown-model",
            Self::OtherVersion => "other-version",
            Self::OtherJob => "other-job",
            Self::StateFull => "state-full",
            Self::InUse => "in-use",
            Self::NotLoaded => "not-loaded",
            Self::UnknownRoute => "unknown-route",
            Self::UnknownRun => "unknown-run",
            Self::UnknownJob => "unknown-job",
            Self::WrongMethod => "wrong-method",
            Self::Forbidden => "forbidden",
            Self::NoKey => "no-key",
            Self::KeyForbids => "key-forbids",
            Self::OutOfTokens => "out-of-tokens",
            Self::ModelUnavailable => "model-unavailable",
            Self::Overloaded => "overloaded",
            Self::DeadlinePassed => "deadline-passed",
            Self::ModelFailed => "model-failed",
            Self::Internal => "internal",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::MalformedJson | Self::BodyIncomplete => "The body is not JSON",
            Self::InvalidRequest | Self::NoInputs => "The request can't be scored",
            Self::TooLong => "A sample is longer than the model takes",
            Self::TooManyInputs => "Too many inputs in one request",
            Self::BodyTooLarge => "The body is too large",
            Self::BodyTooSlow => "The body came too slowly",
            Self::UnknownModel => "There is no such model",
            Self::OtherVersion => "The model takes no requests in that version",
            Self::OtherJob => "The Idempotency-Key is another job's",
            Self::StateFull => "There is no room to keep it",
            Self::InUse => "Other models are made of the model",
            Self::NotLoaded => "The model can't be loaded",
            Self::UnknownRoute => "There is no such route",
            Self::UnknownRun => "There is no such run",
            Self::UnknownJob => "There is no such job",
            Self::WrongMethod => "The route doesn't take this method",
            Self::Forbidden => "The request isn't let in",
            Self::NoKey => "The request comes without a known key",
            Self::KeyForbids => "The key doesn't allow this",
            Self::OutOfTokens => "The key's tokens are used up",
            Self::ModelUnavailable => "The model takes no requests now",
            Self::Overloaded => "Too much is waiting",
            Self::DeadlinePassed => "The timeout passed",
            Self::ModelFailed => "The model failed",
            Self::Internal => "karat failed",
        }
    }
}

/// The most bytes of a detail once it is encoded, as JSON or in a gRPC status: enough for every message, little enough
/// that nobody is sent a body of his own back, and that it fits among a reply's headers.
const LONGEST_DETAIL: usize = 3072;

/// How soon somebody may have made room on a disk that is full.
const ROOM: Duration = Duration::from_secs(60);

/// A problem with what a request says.
pub(crate) fn invalid(reason: impl fmt::Display) -> Problem {
    Problem::new(ProblemType::InvalidRequest, reason.to_string())
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: ProblemType,
    detail: String,
    index: Option<usize>,
    retry_after: Option<Duration>,
}

/// The body of a problem.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct ProblemBody {
    /// Tells kinds of problems apart: `urn:karat:problem:` and a word.
    r#type: String,
    /// The kind of problem in words; the same for every problem of the type.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request and what to change.
    detail: String,
    /// Which input is at fault, counted from 0, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl Problem {
    /// A problem; a detail that repeats much of what the client sent is cut.
    pub(crate) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self { kind, detail: cut(detail.into()), index: None, retry_after: None }
    }

    /// The same problem of the model that a field of the request names.
    pub(crate) fn about(mut self, field: &str) -> Self {
        self.detail = cut(format!("{field}: {}", self.detail));
        self
    }

    /// With the time after which it is worth coming back.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// With the index of the pair whose sides were scored in turn.
    pub(crate) fn of_pair(mut self) -> Self {
        self.index = self.index.map(|index| index / 2);
        self
    }

    pub(crate) fn kind(&self) -> ProblemType {
        self.kind
    }

    /// What is wrong and what to change.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Tells when to come back, if that is known.
    pub(crate) fn set_retry_after(&self, headers: &mut HeaderMap) {
        set_retry_after(self.retry_after, headers);
    }
}

/// A detail of at most [`LONGEST_DETAIL`] bytes, whatever it is encoded as.
pub(crate) fn cut(mut detail: String) -> String {
    // JSON writes a control character in six bytes, a status of gRPC what isn't plain in three a byte.
    let encoded = |letter: char| match letter {
        _ if letter.is_control() => 6,
        '"' | '\\' | '%' => 3,
        _ if letter.is_ascii() => 1,
        _ => 3 * letter.len_utf8(),
    };
    let mut length = 0;
    let end = detail.char_indices().find(|(_, letter)| {
        length += encoded(*letter);
        length > LONGEST_DETAIL
    });
    if let Some((end, _)) = end {
        detail.truncate(end);
        detail.push('…');
    }
    detail
}

/// A reason in which of every absolute path the last two parts are left: where a server's folders lie is nobody's concern.
pub(crate) fn without_folders(reason: &str) -> String {
    let ends =
        |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '`' | '(' | ')' | ',' | ';' | ':');
    let mut shorter = String::with_capacity(reason.len());
    for part in reason.split_inclusive(ends) {
        let word = part.trim_end_matches(ends);
        match word.starts_with('/').then(|| word.rmatch_indices('/').nth(1)).flatten() {
            Some((cut, _)) if cut > 0 => shorter.push_str(&part[cut + 1..]),
            _ => shorter.push_str(part),
        }
    }
    shorter
}

fn set_retry_after(wait: Option<Duration>, headers: &mut HeaderMap) {
    if let Some(wait) = wait {
        // Whole seconds, rounded up: a client that comes back early is refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

impl From<ScoreError> for Problem {
    fn from(error: ScoreError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Invalid if matches!(error, ScoreError::NoSamples) => ProblemType::NoInputs,
            ErrorKind::Invalid => ProblemType::InvalidRequest,
            ErrorKind::TooLong => ProblemType::TooLong,
            ErrorKind::NotFound => ProblemType::UnknownModel,
            ErrorKind::OtherVersion => ProblemType::OtherVersion,
            ErrorKind::Unavailable => ProblemType::ModelUnavailable,
            ErrorKind::Overloaded => ProblemType::Overloaded,
            ErrorKind::Deadline => ProblemType::DeadlinePassed,
            ErrorKind::Runtime => ProblemType::ModelFailed,
            ErrorKind::Internal => ProblemType::Internal,
        };
        // What a runtime says may name files and versions of this machine: that is for the log, not for clients.
        let detail = match &error {
            ScoreError::Runtime { model, .. } => {
                tracing::error!(%model, error = %error, "a forward pass failed");
                format!("the model {model} failed in its forward pass; the server's log has the cause")
            }
            ScoreError::Generate { model, .. } => {
                tracing::error!(%model, error = %error, "a text broke off");
                format!("the model {model} broke off while it wrote; the server's log has the cause")
            }
            ScoreError::Head { .. }
            | ScoreError::NotFinite { .. }
            | ScoreError::Panicked
            | ScoreError::Statistic { .. } => {
                tracing::error!(error = %error, "a request failed");
                error.to_string()
            }
            _ => error.to_string(),
        };
        Self { kind, detail: cut(detail), index: error.sample(), retry_after: error.retry_after() }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Full = error {
            return Self::new(ProblemType::StateFull, error.to_string()).after(ROOM);
        }
        // What the file system says names folders of this machine.
        tracing::error!(%error, "the state can't be written or read");
        let detail = "karat can't write or read its state (--state); the server's log has the cause";
        Self::new(ProblemType::Internal, detail)
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::Unknown { .. } => ProblemType::UnknownModel,
            ChangeError::Load(_) => ProblemType::NotLoaded,
            ChangeError::InUse { .. } => ProblemType::InUse,
            ChangeError::Ended => ProblemType::ModelUnavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl Problem {
    /// The problem as data, for replies that have begun already.
    pub(crate) fn into_body(self) -> impl Serialize {
        ProblemBody {
            r#type: format!("urn:karat:problem:{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: self.detail,
            index: self.index,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.kind.status(), self.retry_after);
        let mut response = (status, Json(self.clone().into_body())).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        set_retry_after(retry_after, response.headers_mut());
        // For the dialect of the route, which tells problems in its own shape.
        response.extensions_mut().insert(self);
        response
    }
}

impl OperationOutput for Problem {
    type Inner = Self;

    fn operation_response(context: &mut GenContext, _: &mut Operation) -> Option<ResponseDoc> {
        let json_schema = context.schema.subschema_for::<ProblemBody>();
        let schema = SchemaObject { json_schema, external_docs: None, example: None };
        let media = MediaType { schema: Some(schema), ..MediaType::default() };
        Some(ResponseDoc {
            description: "A problem (RFC 9457) that says what to change".to_owned(),
            content: [("application/problem+json".to_owned(), media)].into_iter().collect(),
            ..ResponseDoc::default()
        })
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Self::operation_response(context, operation).map(|response| (None, response)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
