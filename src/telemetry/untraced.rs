//! What stands for traces in a program that was built without them.

use http::{Method, StatusCode};

use super::{TraceContext, Work};

/// Nothing: there is no value of it.
#[derive(Debug)]
pub enum Traces {}

/// Nothing can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {}

impl Traces {
    #[expect(clippy::unnecessary_wraps, reason = "it may fail where traces are built in")]
    pub(crate) fn from_env() -> Result<Option<Self>, TraceError> {
        if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
            tracing::warn!("this karat was built without traces: OTEL_EXPORTER_OTLP_ENDPOINT is not read");
        }
        Ok(None)
    }

    pub(crate) fn begin(&self, _: Option<TraceContext>, _: &Method, _: &str) -> RequestTrace {
        match *self {}
    }

    pub(crate) fn shut_down(&self) {
        match *self {}
    }
}

/// Nothing: there is no value of it.
pub(crate) enum RequestTrace {}

impl RequestTrace {
    pub(crate) fn context(&self) -> TraceContext {
        match *self {}
    }

    pub(crate) fn finish(self, _: StatusCode, _: String, _: Option<&str>, _: &[Work]) {
        match self {}
    }
}
