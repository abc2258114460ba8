//! `karat serve`: the server in the foreground.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use karat_engine::{
    engine::Engine,
    repository::{LoadError, LoadOptions, ModelStatus},
};
use karat_hub::{Hub, HubSettings};
use karat_runtime::ort::Library;
use prometheus::Registry;
use tokio::{net::TcpListener, sync::oneshot};

use super::CommandError;
use crate::{
    api::{self, AppState, RunState},
    server::{self, Drained, StopSignals},
    settings::ServeSettings,
    telemetry::{self, Metrics},
};

/// How long a server that ends waits at least for a model that is being loaded.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn serve(settings: ServeSettings) -> Result<(), CommandError> {
    telemetry::start_logging(&settings.log, settings.log_format)?;
    // Before any other thread runs: loading the library sets an environment variable.
    let library = Library::load(settings.onnxruntime.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(run(settings, library));
    // Tasks that outlived the drain are dropped here, not waited for.
    runtime.shutdown_background();
    served
}

async fn run(settings: ServeSettings, library: Library) -> Result<(), CommandError> {
    let signals = StopSignals::watch()?;
    if let Some(model) = settings.default_model.as_ref().filter(|model| !settings.has_model(model)) {
        return Err(format!("--default-model names {model}, which is no folder of --models and no --model").into());
    }
    let metrics = Arc::new(Metrics::register(&Registry::new())?);
    let engine = Arc::new(Engine::new(settings.cache_mb << 20));
    let state = AppState {
        engine: Arc::clone(&engine),
        metrics: Arc::clone(&metrics),
        limits: settings.limits(),
        dialects: Arc::new(settings.dialects()),
        visitors: Arc::new(settings.visitors()),
        runs: Arc::new(RunState::open(&settings.runs())?),
    };
    state.start_background();
    let runs = Arc::clone(&state.runs);
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("can't listen on {}: {error}; choose another --listen", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, onnxruntime = %library.path().display(), "listening");

    let options = LoadOptions {
        repository: settings.repository(),
        models: settings.named_models().to_vec(),
        hub: Hub::new(HubSettings::from_env()),
        queue_tokens: settings.queue_tokens,
        queue_time: settings.queue_time(),
        calibration: settings.calibration(),
        prefix_cache_bytes: settings.prefix_cache_mb << 20,
        required: settings.require.clone(),
        watch: settings.watch(),
    };
    let (loaded, loader) = load(Arc::clone(&engine), library, metrics, options)?;
    tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.follow_shadows().await }
    });
    let (fatal, mut fatal_error) = oneshot::channel();
    let strict = settings.strict;
    let stop = {
        let engine = Arc::clone(&engine);
        async move {
            let broken = async {
                match loaded.await {
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => {
                        "the thread that loads models broke off; the log tells where: please report it".to_owned()
                    }
                    Ok(Ok(())) if strict => match objection(&engine) {
                        Some(objection) => objection,
                        None => std::future::pending().await,
                    },
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = signals.received() => {}
                reason = broken => {
                    // Nobody listens any more only when the server has ended on its own.
                    let _ = fatal.send(reason);
                }
            }
        }
    };
    if server::run(listener, api::router(state), stop, settings.patience()).await? == Drained::Overdue {
        engine.repository().stop();
    }
    let patience = settings.patience().drain.max(LEAST_PATIENCE);
    tokio::task::spawn_blocking(move || {
        engine.repository().drain();
        runs.close();
        // ONNX Runtime must not be taken down under a thread that opens a graph. An engine that TensorRT builds takes
        // minutes, for which nobody waits.
        let _ = loader.recv_timeout(patience);
    })
    .await?;
    fatal_error.try_recv().map_or(Ok(()), |reason| Err(reason.into()))
}

/// How loading ends.
type Loaded = oneshot::Receiver<Result<(), LoadError>>;

/// Loads the models on a thread of their own, so that the server can tell how far it has come, and what is asked for later.
/// The second channel closes when the thread has ended.
fn load(
    engine: Arc<Engine>,
    library: Library,
    metrics: Arc<Metrics>,
    options: LoadOptions,
) -> std::io::Result<(Loaded, mpsc::Receiver<()>)> {
    let (done, loaded) = oneshot::channel();
    let (alive, ended) = mpsc::channel();
    thread::Builder::new().name("karat-load".to_owned()).spawn(move || {
        let _alive: mpsc::Sender<()> = alive;
        let mut loader = engine.loader(&library, metrics.engine(), &options);
        // The receiver is gone when the server was stopped while models loaded.
        let _ = done.send(loader.load_all());
        loader.follow();
    })?;
    Ok((loaded, ended))
}

/// What `--strict` doesn't bear.
fn objection(engine: &Engine) -> Option<String> {
    engine.repository().models().into_iter().find_map(|(name, listed)| match listed.status {
        ModelStatus::Failed(_) => {
            Some("a model failed to load and --strict was given; the log says which and why".to_owned())
        }
        ModelStatus::Ready(model) => model.broken_promises().into_iter().next().map(|reason| {
            format!("the model {name} gives a text other scores in company, and --strict was given: {reason}")
        }),
        ModelStatus::Loading | ModelStatus::Building(_) | ModelStatus::Unloaded => None,
    })
}
