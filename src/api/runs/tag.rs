//! Which run, step and task a request belongs to: what its body, its URL or its headers say, in that order.

use http::{HeaderMap, HeaderName, Uri};
use karat_runs::run::{RunName, RunNameError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::problem::{Problem, invalid};

const RUN: HeaderName = HeaderName::from_static("x-karat-run");
const STEP: HeaderName = HeaderName::from_static("x-karat-step");
const TASK: HeaderName = HeaderName::from_static("x-karat-task");
/// The largest step: every JSON reader knows it exactly.
const LARGEST_STEP: u64 = (1 << 53) - 1;

/// What a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunTag {
    pub(crate) run: RunName,
    pub(crate) step: Option<u64>,
    pub(crate) task: Option<RunName>,
}

/// The same as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) struct RunFields {
    /// The training run that the request belongs to, of which statistics are kept: see `GET /v1/runs`.
    #[serde(default)]
    pub(crate) run: Option<String>,
    /// The run's step.
    #[serde(default)]
    pub(crate) step: Option<u64>,
    /// What the samples are of, where a run has several tasks.
    #[serde(default)]
    pub(crate) task: Option<String>,
}

impl RunFields {
    /// How the fields are called.
    pub(crate) const NAMES: &[&str] = &["run", "step", "task"];

    /// What the query of a URL says, whatever else stands there.
    pub(crate) fn of_query(uri: &Uri) -> Result<Self, Problem> {
        let Some(query) = uri.query().filter(|query| query.contains("run=")) else { return Ok(Self::default()) };
        let read = axum::extract::Query::<Self>::try_from_uri(uri);
        read.map(|axum::extract::Query(fields)| fields)
            .map_err(|error| invalid(format!("the query of the URL ({}): {error}", &query[..query.len().min(200)])))
    }

    /// What headers say.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name: &HeaderName| -> Result<Option<String>, Problem> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let text = value.to_str().map_err(|_| invalid(format!("the header {name} is no text")))?;
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        };
        let step = text(&STEP)?;
        let number = |step: String| -> Result<u64, Problem> {
            step.parse().map_err(|_| invalid(format!("{STEP}: {step:?} is no step; write a whole number from 0")))
        };
        Ok(Self { run: text(&RUN)?, step: step.map(number).transpose()?, task: text(&TASK)? })
    }

    /// What a body says at its top, in dialects whose bodies have no such fields of their own.
    pub(crate) fn of_body(bytes: &[u8]) -> Self {
        // Nearly no body holds the word, and those that do may hold it in a text.
        let holds = bytes.windows(5).any(|window| window == b"\"run\"");
        if !holds { Self::default() } else { serde_json::from_slice(bytes).unwrap_or_default() }
    }

    /// These, and where they say nothing the others.
    pub(crate) fn or(self, others: Self) -> Self {
        Self { run: self.run.or(others.run), step: self.step.or(others.step), task: self.task.or(others.task) }
    }

    /// The run with its step, if a run is named.
    pub(crate) fn tag(self) -> Result<Option<RunTag>, Problem> {
        let Self { run, step, task } = self;
        let Some(run) = run else {
            if step.is_some() || task.is_some() {
                return Err(invalid("there is a step or a task and no run; name the run as well, or leave both out"));
            }
            return Ok(None);
        };
        if step.is_some_and(|step| step > LARGEST_STEP) {
            return Err(invalid(format!("step: write a whole number up to {LARGEST_STEP}")));
        }
        let name = |field: &str, text: String| -> Result<RunName, Problem> {
            text.try_into().map_err(|error: RunNameError| invalid(format!("{field}: {error}")))
        };
        let task = task.map(|task| name("task", task)).transpose()?;
        Ok(Some(RunTag { run: name("run", run)?, step, task }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(run: Option<&str>, step: Option<u64>) -> RunFields {
        RunFields { run: run.map(str::to_owned), step, task: None }
    }

    #[test]
    fn body_url_and_headers_say_it_in_that_order() {
        let mut headers = HeaderMap::new();
        headers.insert(RUN, "from-header".parse().unwrap());
        headers.insert(STEP, "7".parse().unwrap());
        let of_headers = RunFields::of_headers(&headers).unwrap();
        assert_eq!(of_headers, fields(Some("from-header"), Some(7)));
        let of_query = RunFields::of_query(&Uri::from_static("/x?model=m&run=from-url")).unwrap();
        let of_body = RunFields::of_body(br#"{"query": ["\"run\""], "step": 9}"#);
        assert_eq!(of_body, RunFields::default(), "no body names a run by what its texts hold");
        let tag = of_body.or(of_query).or(of_headers).tag().unwrap().unwrap();
        assert_eq!((tag.run.as_str(), tag.step), ("from-url", Some(7)));
        assert_eq!(RunFields::of_body(br#"{"run": "a", "step": 9}"#), fields(Some("a"), Some(9)));
    }

    #[test]
    fn hostile_names_and_lone_steps_are_refused() {
        for (run, step) in [(Some("a/b"), None), (Some(""), None), (None, Some(1)), (Some("a"), Some(u64::MAX))] {
            assert!(fields(run, step).tag().is_err(), "{run:?} {step:?}");
        }
        assert_eq!(fields(None, None).tag().unwrap(), None);
        let mut headers = HeaderMap::new();
        headers.insert(STEP, "-1".parse().unwrap());
        assert!(RunFields::of_headers(&headers).is_err());
    }
}
