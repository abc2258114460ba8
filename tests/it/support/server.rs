//! The whole server in this process, on a port that the system chooses.

use std::{
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use http::HeaderMap;
use karat::telemetry::Metrics;
use karat::{
    api::{
        self, ApiLimits, AppState, Closing, DialectSettings, Fetcher, ImageHost, Keys, LargeBodies, RunSettings,
        RunState, Visit,
    },
    server::{self, Drained, Patience, Tls},
};
use karat_engine::{
    engine::Engine,
    repository::{LoadError, LoadOptions, Watch},
};
use karat_hub::{Hub, HubSettings};
use karat_runtime::ort::Library;
use prometheus::Registry;
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::Repository;

/// ONNX Runtime, loaded once for all tests, from where the environment says or where `make setup` put it.
pub(crate) fn library() -> Library {
    let named = env::var_os("KARAT_ONNXRUNTIME");
    Library::load(named.as_deref().map(Path::new)).expect("`make setup` installs ONNX Runtime")
}

/// An engine with its metrics and limits, before anything listens.
pub(crate) struct Unserved {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: ApiLimits,
    pub(crate) dialects: DialectSettings,
    pub(crate) image_hosts: Vec<ImageHost>,
    pub(crate) runs: Arc<RunState>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) closing: Closing,
    pub(crate) drain: Duration,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// A Hub whose cache is empty and that reaches nothing.
fn offline_hub() -> Hub {
    Hub::new(HubSettings {
        cache: PathBuf::from("/nonexistent"),
        endpoint: "http://127.0.0.1:9".to_owned(),
        offline: true,
        token: None,
    })
}

impl Unserved {
    /// An engine without models.
    pub(crate) fn new() -> Self {
        Self {
            engine: Arc::new(Engine::new(1 << 20)),
            metrics: Arc::new(Metrics::register(&Registry::new()).unwrap()),
            limits: ApiLimits {
                body_bytes: 64 << 10,
                inputs: 64,
                receive: Duration::from_secs(60),
                buffered_bytes: 1 << 20,
            },
            dialects: DialectSettings::default(),
            image_hosts: Vec::new(),
            runs: Arc::new(RunState::open(&RunSettings::default()).unwrap()),
            keys: Arc::default(),
            closing: Closing::default(),
            drain: Duration::from_secs(5),
            tls: None,
        }
    }

    /// Loads a repository into it.
    pub(crate) async fn load(&self, repository: &Repository) -> Result<(), LoadError> {
        let (engine, metrics) = (Arc::clone(&self.engine), Arc::clone(&self.metrics));
        let options = LoadOptions {
            repository: Some(repository.path().to_owned()),
            models: Vec::new(),
            hub: offline_hub(),
            queue_tokens: 1 << 20,
            queue_time: None,
            calibration: Duration::ZERO,
            prefix_cache_bytes: 1 << 20,
            required: Vec::new(),
            watch: Watch::default(),
        };
        tokio::task::spawn_blocking(move || engine.load(&library(), metrics.engine(), &options)).await.unwrap()
    }

    /// Every route, without a network.
    pub(crate) fn routes(&self) -> Router {
        let state = AppState {
            engine: Arc::clone(&self.engine),
            metrics: Arc::clone(&self.metrics),
            limits: self.limits,
            large_bodies: LargeBodies::default(),
            dialects: Arc::new(self.dialects.clone()),
            visitors: Arc::default(),
            images: Fetcher::new(self.image_hosts.clone()),
            runs: Arc::clone(&self.runs),
            keys: Arc::clone(&self.keys),
            closing: self.closing.clone(),
            traces: None,
            visit: Visit::default(),
        };
        state.start_background();
        api::router(state)
    }

    /// Listens.
    pub(crate) async fn serve(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = self.routes();
        let patience = Patience { receive: self.limits.receive, drain: self.drain };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // Both a signal and a server that was dropped mean the end.
            let _ = stopped.await;
        };
        let server = server::Server { listener, routes, tls: self.tls, patience };
        let (engine, closing) = (Arc::clone(&self.engine), self.closing.clone());
        let give_up = move || {
            closing.give_up();
            engine.repository().stop();
        };
        let served = tokio::spawn(server.run(stopped, give_up));
        let Self { engine, metrics, closing, .. } = self;
        Server { address, client: client(), engine, metrics, closing, stop, served }
    }
}

/// A client that goes straight to the server, whatever proxy the environment names.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A running server with a client of its own; it stops when this value is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) closing: Closing,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<Drained>>,
}

impl Server {
    /// Serves a repository whose models are all loaded.
    pub(crate) async fn of(repository: &Repository) -> Self {
        let server = Unserved::new();
        server.load(repository).await.unwrap();
        server.serve().await
    }

    /// Tells it to take no more connections, and waits for its end.
    pub(crate) async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::of(self.client.get(self.url(path))).await
    }

    /// `POST /v1/score`.
    pub(crate) async fn post(&self, body: &Value) -> Reply {
        self.post_to("/v1/score", body).await
    }

    /// `POST` to any path.
    pub(crate) async fn post_to(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.client.post(self.url(path)).json(body)).await
    }

    /// `POST /v1/score` with the bytes of a body.
    pub(crate) async fn post_bytes(&self, body: impl Into<reqwest::Body>) -> Reply {
        Reply::of(self.client.post(self.url("/v1/score")).body(body)).await
    }

    /// The scores of rendered texts, in their order.
    pub(crate) async fn rewards(&self, model: &str, texts: &[&str]) -> Vec<f64> {
        let inputs: Vec<Value> = texts.iter().map(|text| serde_json::json!({ "text": text })).collect();
        let reply = self.post(&serde_json::json!({ "model": model, "inputs": inputs })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.rewards()
    }

    /// The value of one counter or gauge, its labels written as in the text format; 0 when it wasn't counted yet.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The body as JSON; null when it is something else.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, body }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn rewards(&self) -> Vec<f64> {
        let results = self.body["results"].as_array().unwrap();
        results.iter().map(|result| result["reward"].as_f64().unwrap()).collect()
    }

    /// Whether this is a problem of the given kind whose detail holds `needle`; if not, the answer.
    pub(crate) fn is_problem(&self, status: u16, slug: &str, needle: &str) -> Result<(), String> {
        let told = &self.body;
        let sound = self.status == status
            && self.header("content-type") == "application/problem+json"
            && told["type"] == format!("urn:karat:problem:{slug}")
            && told["status"] == status
            && told["title"].is_string()
            && told["detail"].as_str().is_some_and(|detail| detail.contains(needle));
        if sound { Ok(()) } else { Err(format!("no {status} {slug} with {needle:?}: {} {}", self.status, self.text)) }
    }

    /// Asserts [`Self::is_problem`].
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, slug: &str, needle: &str) {
        self.is_problem(status, slug, needle).unwrap();
    }
}
