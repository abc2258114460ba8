//! What every request is checked for, in whatever dialect it comes: how much it holds, how long it may take, and whether
//! it names a model.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use karat_rules::domain::ModelName;

use super::{
    ApiLimits,
    problem::{Problem, ProblemType, invalid},
};

/// Bounds how many inputs a request may hold.
pub(super) fn count(inputs: usize, limits: &ApiLimits) -> Result<(), Problem> {
    if inputs <= limits.inputs {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::TooManyInputs,
        format!(
            "the request has {inputs} inputs and the server takes at most {} at once; split it, or raise --max-inputs",
            limits.inputs
        ),
    ))
}

/// When to give up on a request that arrives now.
pub(super) fn deadline(timeout_ms: Option<u64>) -> Result<Option<Instant>, Problem> {
    if timeout_ms == Some(0) {
        return Err(invalid("timeout_ms must be at least 1"));
    }
    Ok(timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))))
}

/// The name of a model, if it can be one.
pub(super) fn model(name: &str) -> Result<ModelName, Problem> {
    name.parse().map_err(|_| unknown_model(name))
}

/// The name of one version of a model.
pub(super) fn version(model: &ModelName, version: &str) -> Result<ModelName, Problem> {
    let what = || invalid(format!("{version:?} can't be a version of {model}; GET /v1/models shows them"));
    model.labelled(version).map_err(|_| what())
}

/// The version that a request wants and no other, by its `If-Match`.
pub(super) fn wanted_version(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::IF_MATCH) { Err(one_version()) } else { Ok(None) };
    };
    let text = value.to_str().map_err(|_| one_version())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_one = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(Some(version.to_owned())) } else { Err(one_version()) }
}

fn one_version() -> Problem {
    invalid("If-Match names one version as GET /v1/models shows it, such as \"4f1c8e02a9b3d75e\"")
}

/// The problem of a model that isn't there.
pub(super) fn unknown_model(name: &str) -> Problem {
    unknown(&format!("there is no model {name:?}"), "")
}

/// The problem of a model that isn't there, or not as the request wants it, with what else helps.
pub(super) fn unknown(what: &str, advice: &str) -> Problem {
    Problem::new(ProblemType::UnknownModel, format!("{what}; GET /v1/models lists them{advice}"))
}
