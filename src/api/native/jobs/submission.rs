//! A job that is handed over twice is one job: a client that heard no answer may send it again under the same name.

use aide::{
    OperationInput,
    generate::GenContext,
    openapi::Operation,
    operation::{ParamLocation, add_parameters, parameters_from_schema},
};
use http::{HeaderMap, HeaderName};
use karat_runs::store::Submission;
use schemars::JsonSchema;
use sha2::{Digest, Sha256};

use super::upload::Upload;
use crate::api::problem::{Problem, invalid};

/// The header that names a submission (draft-ietf-httpapi-idempotency-key-header).
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest name, in bytes.
const LONGEST: usize = 255;

/// The headers of a job, as they are documented.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is wanted")]
struct Headers {
    /// What the client calls this job, up to 255 visible characters, such as a UUID. Sent again with the same options and
    /// rows, it is answered with the job that it named first, for as long as that is kept; with others, it is refused
    /// with 422. Each key of the server has names of its own.
    #[schemars(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

impl OperationInput for Upload {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let schema = context.schema.subschema_for::<Headers>();
        let headers = parameters_from_schema(context, schema, ParamLocation::Header);
        add_parameters(context, operation, headers);
    }
}

/// What a client calls a job, and a digest over what has arrived of it.
#[derive(Debug)]
pub(super) struct Arrived {
    name: String,
    digest: Sha256,
}

impl Arrived {
    /// What the headers call the job, if they do.
    ///
    /// # Errors
    /// Where there are several names, or one that is none.
    pub(super) fn named(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let name = value.to_str().ok().map(str::trim).map(|text| {
            // The draft has it in quotes, and many clients send it without.
            text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
        });
        let name =
            name.filter(|name| (1..=LONGEST).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()));
        match (name, values.next()) {
            (Some(name), None) => Ok(Some(Self { name: name.to_owned(), digest: Sha256::new() })),
            _ => Err(invalid(format!(
                "Idempotency-Key names one job, in 1 to {LONGEST} visible characters without spaces, such as a UUID"
            ))),
        }
    }

    /// Adds the job's options, or a row.
    pub(super) fn add(&mut self, part: &str) {
        // With its length, so that no two sequences of parts are the same bytes.
        self.digest.update((part.len() as u64).to_le_bytes());
        self.digest.update(part);
    }

    pub(super) fn finish(self) -> Submission {
        let digest = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Submission { name: self.name, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[&str]) -> String {
        let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, "\"a-b\"".parse().unwrap())]);
        let mut arrived = Arrived::named(&headers).unwrap().unwrap();
        parts.iter().for_each(|part| arrived.add(part));
        let Submission { name, digest } = arrived.finish();
        assert_eq!(name, "a-b", "quotes are no part of the name");
        digest
    }

    #[test]
    fn other_rows_have_another_digest_wherever_they_are_parted() {
        assert_eq!(digest(&["{}", "12", "3"]), digest(&["{}", "12", "3"]));
        for other in [&["{}", "1", "23"][..], &["{}", "123"], &["{}", "3", "12"], &["{}", "12"]] {
            assert_ne!(digest(&["{}", "12", "3"]), digest(other), "{other:?}");
        }
    }

    #[test]
    fn what_names_no_job_is_refused() {
        assert!(Arrived::named(&HeaderMap::new()).unwrap().is_none());
        for values in [&[""][..], &["\"\""], &["a b"], &["é"], &[&"x".repeat(256)], &["a", "a"]] {
            let mut all = HeaderMap::new();
            for value in values {
                all.append(IDEMPOTENCY_KEY, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert!(Arrived::named(&all).is_err(), "{values:?}");
        }
    }
}
