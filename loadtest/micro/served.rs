//! A server without a network and with forward passes that cost nothing, and requests for it.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use karat::api::{self, ApiLimits, AppState, Closing, Fetcher, LargeBodies, RunSettings, RunState, Visit};
use karat::telemetry::Metrics;
use karat_engine::{
    engine::Engine,
    repository::{GraphForm, GraphId, GraphModel, GraphUnit, MachineUse, Model, ModelBody, ModelStatus, WrittenRules},
    schedule::{Executors, Policy, QueueLimits, Scheduler},
    text::{TextConfig, TextPipeline},
};
use karat_rules::{
    aggregate,
    domain::{Dimension, ElementType, GraphSignature, ModelName, ModelVersion, TensorSpec, catalogue::Choice},
    head,
    transform::Chain,
};
use karat_runtime::{ProviderKind, fake::FakeControl};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The program's own: a quarter of what a request takes with the system's is searching for room.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) const SAMPLES: usize = 32;
pub(crate) const MODEL: &str = "relevance";

/// A server without a network, whose forward passes cost nothing.
pub(crate) struct Served {
    pub(crate) runtime: Runtime,
    pub(crate) engine: Arc<Engine>,
    pub(crate) runs: Arc<RunState>,
    router: Router,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(&RunSettings::default())
    }

    pub(crate) fn with(settings: &RunSettings) -> Self {
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let engine = Arc::new(Engine::new(64 << 20));
        engine.repository().set_status(name(), ModelStatus::Ready(Arc::new(model(&metrics))));
        let runs = Arc::new(RunState::open(settings).unwrap());
        let state = AppState {
            keys: Arc::default(),
            closing: Closing::default(),
            traces: None,
            visit: Visit::default(),
            engine: Arc::clone(&engine),
            metrics,
            limits: ApiLimits {
                body_bytes: 32 << 20,
                inputs: 4096,
                receive: Duration::from_secs(60),
                buffered_bytes: 1 << 30,
            },
            visitors: Arc::default(),
            images: Fetcher::new(Vec::new()),
            large_bodies: LargeBodies::default(),
            dialects: Arc::default(),
            runs: Arc::clone(&runs),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, engine, runs, router: api::router(state) }
    }

    /// The status and the length of the reply.
    pub(crate) fn post(&self, body: String) -> (StatusCode, usize) {
        let request = Request::post("/v1/score").body(Body::from(body)).unwrap();
        self.runtime.block_on(async {
            let reply = self.router.clone().oneshot(request).await.unwrap();
            let status = reply.status();
            (status, reply.into_body().collect().await.unwrap().to_bytes().len())
        })
    }
}

pub(crate) fn name() -> ModelName {
    MODEL.parse().unwrap()
}

/// The pipeline of the demo model.
pub(crate) fn pipeline() -> TextPipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(MODEL);
    let config: TextConfig =
        toml::from_str("tokenizer = \"tokenizer.json\"\nrender = \"pair\"\nmax_tokens = 512").unwrap();
    TextPipeline::load(&folder, &config).unwrap()
}

fn model(metrics: &Metrics) -> Model {
    let metrics = metrics.engine().model(&name());
    let executors = Executors { parallel: vec![FakeControl::new().executor()], single: None };
    let scheduler = Scheduler::start(executors, Policy::default(), QueueLimits::default(), metrics.clone()).unwrap();
    let logits = TensorSpec {
        name: "logits".to_owned(),
        element: ElementType::Float32,
        shape: vec![Dimension::Dynamic("batch".to_owned()), Dimension::Fixed(1)],
    };
    let unit = GraphUnit {
        id: GraphId::unique(),
        signature: GraphSignature { inputs: Vec::new(), outputs: vec![logits] },
        provider: ProviderKind::Cpu,
        weights: Arc::default(),
        skipped: Vec::new(),
        trial: None,
        machine: MachineUse::default(),
        form: GraphForm::Padded,
        scheduler,
        images: None,
    };
    let graph = GraphModel {
        name: name(),
        metrics,
        pipeline: Arc::new(pipeline().into()),
        head: head::CATALOGUE.build(&Choice::named("scalar")).unwrap(),
        units: vec![unit],
        critic: None,
    };
    Model {
        name: name(),
        version: ModelVersion::from_digest(&[0; 32]),
        hub: Vec::new(),
        description: None,
        license: None,
        aggregate: aggregate::CATALOGUE.build(&Choice::named("mean")).unwrap(),
        transforms: Chain::default(),
        written: WrittenRules { aggregate: Choice::named("mean"), transforms: Vec::new() },
        references: None,
        body: ModelBody::Graph(Arc::new(graph)),
    }
}

/// About 160 tokens, no two samples alike.
pub(crate) fn texts() -> Vec<(String, String)> {
    texts_from(0)
}

/// A request's samples, the first of them of that number.
fn texts_from(first: usize) -> Vec<(String, String)> {
    let words = ["reward", "model", "the", "answer", "tides", "because", "moon", "gravity", "water", "question"];
    let text = |mut state: usize, count: usize| {
        let mut text = String::new();
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            write!(text, "{} ", words[(state >> 33) % words.len()]).unwrap();
        }
        text
    };
    (first..first + SAMPLES).map(|number| (text(2 * number, 40), text(2 * number + 1, 120))).collect()
}

pub(crate) fn body(model: &str) -> String {
    body_from(model, 0)
}

/// So many bodies with samples of their own.
pub(crate) fn bodies(model: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| body_from(model, number * SAMPLES)).collect()
}

fn body_from(model: &str, first: usize) -> String {
    let pair = |(prompt, response): (String, String)| json!({"prompt": prompt, "response": response});
    let inputs: Vec<Value> = texts_from(first).into_iter().map(pair).collect();
    json!({"model": model, "inputs": inputs}).to_string()
}
