//! Traces of requests, sent to a collector by OpenTelemetry's protocol.
//!
//! The engine measures its stages anyway, so a request's spans are made when it is done, and one that isn't sampled costs
//! nothing. A forward pass has a trace of its own, since many requests share it; the spans that waited for it link to it.
//! Spans hold names, numbers and versions, never a word of what was scored.

mod exporter;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode};
use karat_engine::schedule::{PassId, PassRecord};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState, Tracer,
        TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use super::{TraceContext, Work};
pub(crate) use exporter::TraceError;

/// How many passes are remembered: more than end while a request that waited for one is still on its way here.
const PASSES: usize = 1024;

/// Where traces go.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// The spans of passes that were told of already, oldest first.
    passes: Mutex<VecDeque<(PassId, SpanContext)>>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    /// To the collector that OpenTelemetry's environment variables name, if they name one. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When what they say can't be done.
    pub(crate) fn from_env() -> Result<Option<Self>, TraceError> {
        let Some(provider) = exporter::provider_from_env()? else { return Ok(None) };
        let tracer = provider.tracer("karat");
        Ok(Some(Self { provider, tracer, passes: Mutex::default() }))
    }

    /// Begins the trace of a request, or goes on with its client's.
    pub(crate) fn begin(&self, arrived: Option<TraceContext>, method: &Method, route: &str) -> RequestTrace<'_> {
        let parent = arrived.map_or_else(Context::new, |arrived| {
            let flags = if arrived.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let (trace, parent) = (arrived.trace().into(), arrived.parent().into());
            Context::new().with_remote_span_context(SpanContext::new(trace, parent, flags, true, TraceState::default()))
        });
        let attributes =
            [KeyValue::new("http.request.method", method.to_string()), KeyValue::new("http.route", route.to_owned())];
        let builder = SpanBuilder::from_name(format!("{method} {route}"));
        let builder = builder.with_kind(SpanKind::Server).with_attributes(attributes);
        RequestTrace { traces: self, span: self.tracer.build_with_context(builder, &parent) }
    }

    /// Sends what is left.
    pub(crate) fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }

    /// The span of a forward pass, which is made for the first request that tells of it.
    fn pass(&self, pass: &PassRecord, clock: Clock) -> SpanContext {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = passes.iter().rev().find(|(id, _)| *id == pass.id) {
            return known.clone();
        }
        let attributes = [number("karat.samples", pass.samples), number("karat.tokens", pass.tokens)];
        let span = self.stage("batch", (pass.started, pass.running), clock, &Context::new(), |builder| {
            builder.with_attributes(attributes)
        });
        if passes.len() == PASSES {
            passes.pop_front();
        }
        passes.push_back((pass.id, span.clone()));
        span
    }

    /// A span of something that is over.
    fn stage(
        &self,
        name: &'static str,
        (begun, took): (Instant, Duration),
        clock: Clock,
        parent: &Context,
        with: impl FnOnce(SpanBuilder) -> SpanBuilder,
    ) -> SpanContext {
        let start = clock.time(begun);
        let builder = with(SpanBuilder::from_name(name).with_start_time(start));
        let mut span = self.tracer.build_with_context(builder, parent);
        span.end_with_timestamp(start + took);
        span.span_context().clone()
    }
}

/// What the two clocks of a process said at one time.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant, SystemTime);

impl Clock {
    fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    fn time(self, at: Instant) -> SystemTime {
        let Self(now, time) = self;
        time.checked_sub(now.saturating_duration_since(at)).unwrap_or(time)
    }
}

fn number(name: &'static str, value: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX))
}

/// The trace of a request that is being answered; it ends when it is dropped.
pub(crate) struct RequestTrace<'a> {
    traces: &'a Traces,
    span: Span,
}

impl RequestTrace<'_> {
    /// Where the request is in its trace.
    pub(crate) fn context(&self) -> TraceContext {
        let context = self.span.span_context();
        let number = |bytes: [u8; 16]| u128::from_be_bytes(bytes);
        let parent = u64::from_be_bytes(context.span_id().to_bytes());
        TraceContext::new(number(context.trace_id().to_bytes()), parent, context.is_sampled())
    }

    /// Tells what became of it.
    pub(crate) fn finish(mut self, status: StatusCode, id: String, key: Option<&str>, work: &[Work]) {
        if !self.span.is_recording() {
            return;
        }
        self.span.set_attribute(number("http.response.status_code", status.as_u16().into()));
        self.span.set_attribute(KeyValue::new("karat.request_id", id));
        if let Some(key) = key {
            self.span.set_attribute(KeyValue::new("karat.key", key.to_owned()));
        }
        if status.is_server_error() {
            self.span.set_status(Status::error(""));
        }
        let clock = Clock::now();
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        for work in work {
            self.tell(work, clock, &parent);
        }
    }

    /// A span for each stage of one call of the engine.
    fn tell(&self, work: &Work, clock: Clock, parent: &Context) {
        let Work { model, version, tokens, begun, timings, passes } = work;
        let attributes = [
            KeyValue::new("karat.model", model.to_string()),
            KeyValue::new("karat.model_version", version.to_string()),
            number("karat.tokens", *tokens),
        ];
        let with = |links: &[Link]| {
            let (attributes, links) = (attributes.clone(), links.to_vec());
            move |builder: SpanBuilder| builder.with_attributes(attributes).with_links(links)
        };
        let tokenized = *begun + timings.tokenize;
        self.traces.stage("tokenise", (*begun, timings.tokenize), clock, parent, with(&[]));
        let computed = match (passes.first(), passes.iter().map(|pass| pass.started + pass.running).max()) {
            (Some(first), Some(end)) => {
                let links: Vec<Link> =
                    passes.iter().map(|pass| Link::new(self.traces.pass(pass, clock), Vec::new(), 0)).collect();
                self.traces.stage("queue", (tokenized, timings.queue), clock, parent, with(&links));
                let took = end.saturating_duration_since(first.started);
                self.traces.stage("compute", (first.started, took), clock, parent, with(&links));
                end
            }
            // Everything was known.
            _ => tokenized,
        };
        let rest = (*begun + timings.total).saturating_duration_since(computed);
        self.traces.stage("aggregate", (computed, rest), clock, parent, with(&[]));
    }
}
