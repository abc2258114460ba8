//! `karat serve`: the server in the foreground.

use std::{
    path::Path,
    sync::{self, Arc},
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
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{CommandError, banner};
use crate::{
    api::{self, AppState, Closing, Keys, LargeBodies, RunState, Visit},
    server::{Drained, FAREWELL, Server, Signals, Stop, Tls, Watched, allow_all, exit_now},
    settings::ServeSettings,
    telemetry::{self, Metrics, Traces},
};

/// How long a server whose requests are all answered waits at least for its threads.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// How long a server that ends waits for the collector of its traces.
const LAST_TRACES: Duration = Duration::from_secs(2);

pub(super) fn serve(settings: ServeSettings) -> Result<(), CommandError> {
    telemetry::start_logging(settings.log_filter(), settings.log_format)?;
    allow_all();
    // Before any other thread runs: loading the library sets an environment variable.
    let library = Library::load(settings.onnxruntime.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(run(settings, library));
    // Tasks that outlived the drain are dropped here, not waited for.
    runtime.shutdown_background();
    let Served { outcome, threads_ended } = served?;
    if !threads_ended {
        let status = outcome.as_ref().map_or_else(
            |error| {
                super::report(error.as_ref());
                1
            },
            |()| 0,
        );
        exit_now(status);
    }
    outcome
}

/// How a server ended.
struct Served {
    outcome: Result<(), CommandError>,
    /// Whether no thread is left that could be inside ONNX Runtime.
    threads_ended: bool,
}

async fn run(settings: ServeSettings, library: Library) -> Result<Served, CommandError> {
    let signals = Signals::watch()?;
    if let Some(model) = settings.default_model.as_ref().filter(|model| !settings.has_model(model)) {
        return Err(format!("--default-model names {model}, which is no folder of --models and no --model").into());
    }
    let keys = Arc::new(settings.keys.clone().map_or_else(|| Ok(Keys::default()), Keys::load)?);
    let tls = settings.tls().map(Tls::load).transpose()?.map(Arc::new);
    let traces = Traces::from_env()?.map(Arc::new);
    let metrics = Arc::new(Metrics::register(&Registry::new())?);
    let engine = Arc::new(Engine::new(settings.cache_mb << 20));
    let closing = Closing::default();
    let state = AppState {
        engine: Arc::clone(&engine),
        metrics: Arc::clone(&metrics),
        limits: settings.limits(),
        large_bodies: LargeBodies::default(),
        dialects: Arc::new(settings.dialects()),
        visitors: Arc::new(settings.visitors()),
        images: settings.images(),
        runs: Arc::new(RunState::open(&settings.runs())?),
        keys: Arc::clone(&keys),
        closing: closing.clone(),
        traces: traces.clone(),
        visit: Visit::default(),
    };
    state.start_background();
    let runs = Arc::clone(&state.runs);
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("can't listen on {}: {error}; choose another --listen", settings.listen))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(address = %listener.local_addr()?, scheme, onnxruntime = %library.path().display(), "listening");

    let options = LoadOptions {
        repository: settings.repository(),
        models: settings.named_models().cloned().collect(),
        hub: Hub::new(HubSettings::from_env()),
        queue_tokens: settings.queue_tokens,
        queue_time: settings.queue_time(),
        calibration: settings.calibration(),
        prefix_cache_bytes: settings.prefix_cache_mb << 20,
        required: settings.require.clone(),
        watch: settings.watch(),
    };
    if settings.greets() {
        let scheme = if tls.is_some() { "https" } else { "http" };
        banner::show(&engine, scheme, listener.local_addr()?, library.path())?;
    }
    let (loaded, loader) = load(Arc::clone(&engine), library, metrics, options)?;
    let (told, stops) = mpsc::unbounded_channel();
    let (reload, reloads) = mpsc::unbounded_channel();
    tokio::spawn(signals.pass_on(told, reload));
    tokio::spawn(keep_files(keys, tls.clone(), reloads));
    tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.follow_shadows().await }
    });
    let (fatal, mut fatal_error) = oneshot::channel();
    let broken = broken(loaded, settings.strict.then(|| Arc::clone(&engine)));
    let stop = stop(stops, broken, closing.clone(), settings.ready_down(), fatal);
    let patience = settings.patience();
    let server = Server { listener, routes: api::router(state), tls, patience };
    let give_up = || {
        closing.give_up();
        engine.repository().stop();
    };
    let drained = server.run(stop, give_up).await?;
    let threads = match drained {
        Drained::Whole => patience.drain.max(LEAST_PATIENCE),
        Drained::Overdue => FAREWELL,
    };
    let last = tokio::task::spawn_blocking(move || traces.iter().for_each(|traces| traces.shut_down()));
    // A collector that is away doesn't keep the server.
    let _ = timeout(LAST_TRACES, last).await;
    let ending = tokio::task::spawn_blocking(move || {
        engine.repository().drain();
        runs.close();
        // The thread that loads models ends when it has seen that the repository does.
        let _ = loader.recv();
    });
    let threads_ended = timeout(threads, ending).await.is_ok();
    let outcome = match (fatal_error.try_recv(), drained) {
        (Ok(reason), _) => Err(reason.into()),
        (Err(_), Drained::Overdue) => {
            Err(format!("requests in flight were given up after {} s", patience.drain.as_secs()).into())
        }
        (Err(_), Drained::Whole) => Ok(()),
    };
    Ok(Served { outcome, threads_ended })
}

/// Ready when the server is to take no more requests: when it was told to stop and has said for a while that it isn't
/// ready, or when it can't go on, whose reason goes to `fatal`.
async fn stop(
    mut stops: mpsc::UnboundedReceiver<Stop>,
    broken: impl Future<Output = String>,
    closing: Closing,
    ready_down: Duration,
    fatal: oneshot::Sender<String>,
) {
    tokio::select! {
        word = stops.recv() => {
            closing.leave();
            // A person who presses Ctrl-C has no balancer that must learn of it.
            if word == Some(Stop::Asked) {
                tokio::time::sleep(ready_down).await;
            }
        }
        reason = broken => {
            closing.leave();
            // Nobody listens any more only when the server has ended on its own.
            let _ = fatal.send(reason);
        }
    }
}

/// Ready with a reason when the server can't go on. With a `strict` engine, that none of its models may fail or break a
/// promise.
async fn broken(loaded: Loaded, strict: Option<Arc<Engine>>) -> String {
    let reason = match loaded.await {
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the thread that loads models broke off; the log tells where: please report it".to_owned()),
        Ok(Ok(())) => strict.and_then(|engine| objection(&engine)),
    };
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// Reads keys and certificates anew when they change or somebody says so.
async fn keep_files(keys: Arc<Keys>, tls: Option<Arc<Tls>>, told: mpsc::UnboundedReceiver<()>) {
    let certificates = tls.iter().flat_map(|tls| tls.files().paths());
    let files = keys.file().map(Path::to_owned).into_iter().chain(certificates).collect();
    let reload = || {
        if let Err(error) = keys.reload() {
            tracing::error!(%error, "keys can't be read anew: those from before hold");
        }
        if let Some(Err(error)) = tls.as_ref().map(|tls| tls.reload()) {
            tracing::error!(%error, "certificates can't be read anew: those from before hold");
        }
    };
    Watched::new(files).keep(told, reload).await;
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
) -> std::io::Result<(Loaded, sync::mpsc::Receiver<()>)> {
    let (done, loaded) = oneshot::channel();
    let (alive, ended) = sync::mpsc::channel();
    thread::Builder::new().name("karat-load".to_owned()).spawn(move || {
        let _alive: sync::mpsc::Sender<()> = alive;
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
