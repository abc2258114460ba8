//! Where log lines go and how they look.

use std::{
    io::{self, IsTerminal},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};

/// Libraries that drown everything else at `debug`: ONNX Runtime tells of each node of each graph.
const QUIET: [&str; 8] =
    ["ort=warn", "h2=info", "hyper=info", "hyper_util=info", "rustls=info", "tonic=info", "tower=info", "ureq=info"];

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people at a terminal.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The filter can't be read.
    #[error(
        "the log filter can't be read: {0}; write a level such as \"info\", or \"info,karat_engine::schedule=debug\""
    )]
    Filter(#[from] ParseError),
    /// Another subscriber is in place.
    #[error("logging was started already: {0}")]
    Started(#[from] TryInitError),
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("there is no log format {other:?}; write \"text\" or \"json\"")),
        }
    }
}

/// Sends what karat and its libraries trace to standard error, as far as `filter` lets it through.
///
/// `filter` has the syntax of [`EnvFilter`]: a level, or levels for modules, separated by commas. Libraries that write a
/// line for each step of theirs are heard only where the filter names them.
///
/// # Errors
/// When the filter can't be read, or logging was started before.
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(self::filter(filter)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.finish().try_init()?,
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// The filter, with the libraries quiet that it doesn't name: what stands later wins.
fn filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{},{filter}", QUIET.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_only_by_their_names() {
        for (written, heard) in [
            ("debug", "ort=warn"),
            ("debug,ort=debug", "ort=debug"),
            ("ort=trace,info", "ort=trace"),
            ("karat_engine=debug", "h2=info"),
        ] {
            let read = filter(written).unwrap().to_string();
            assert!(read.split(',').any(|directive| directive == heard), "{written}: {read}");
        }
    }

    #[test]
    fn a_filter_that_can_not_be_read_is_refused() {
        assert!(matches!(start_logging("karat=loudly", LogFormat::Text), Err(LoggingError::Filter(_))));
    }
}
