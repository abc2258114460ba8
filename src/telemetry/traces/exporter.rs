//! The way to a collector, as OpenTelemetry's environment variables describe it.

use std::{env, sync::Arc, time::Duration};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;

/// How long one message to a collector may take over HTTP.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why traces can't be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// A protocol that isn't spoken.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL is {0:?}; write grpc or http/protobuf")]
    Protocol(String),
    /// An exporter that isn't there.
    #[error("OTEL_TRACES_EXPORTER is {0:?}; write otlp or none")]
    Exporter(String),
    /// What else the variables say can't be done.
    #[error("the collector that OTEL_EXPORTER_OTLP_ENDPOINT names can't be used: {0}")]
    Build(#[from] ExporterBuildError),
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// What sends spans, where the variables ask for it.
pub(super) fn provider_from_env() -> Result<Option<SdkTracerProvider>, TraceError> {
    let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        .into_iter()
        .any(|name| variable(name).is_some());
    let exporter = variable("OTEL_TRACES_EXPORTER");
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match exporter.as_deref() {
        Some("none") => return Ok(None),
        None if !named => return Ok(None),
        None | Some("otlp") => {}
        Some(other) => return Err(TraceError::Exporter(other.to_owned())),
    }
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let exporter = match protocol.as_deref().unwrap_or("http/protobuf") {
        "grpc" => SpanExporter::builder().with_tonic().build()?,
        "http/protobuf" => SpanExporter::builder().with_http().with_http_client(OnRuntime::new()).build()?,
        other => return Err(TraceError::Protocol(other.to_owned())),
    };
    let mut resource = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("karat");
    }
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
}

/// Sends on the server's runtime: the exporter's thread has none.
#[derive(Debug)]
struct OnRuntime {
    client: Arc<HyperClient>,
    runtime: Handle,
}

impl OnRuntime {
    fn new() -> Self {
        Self { client: Arc::new(HyperClient::with_default_connector(TIMEOUT, None)), runtime: Handle::current() }
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
