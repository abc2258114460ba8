//! How the process runs: every flag, each also an environment variable `KARAT_…`, resolved once into plain values.
//!
//! What is computed stands in the models' manifests instead.

use std::{
    io::{self, IsTerminal},
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args,
    builder::{BoolishValueParser, PossibleValuesParser, RangedU64ValueParser},
};
use karat_engine::{
    manifest,
    repository::{ModelSource, Watch},
};
use karat_rules::domain::ModelName;

use crate::{
    api::{self, ApiLimits, DialectSettings, Fetcher, ImageHost, RunSettings, Visitors},
    server::{Patience, TlsFiles},
    telemetry::LogFormat,
};

/// Flags of `karat serve`.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "the comments are the flags' help, where backticks would stand as they are")]
pub(crate) struct ServeSettings {
    /// Models to serve, as --model takes them: karat serve ./my-checkpoint
    #[arg(value_name = "[NAME=]PLACE")]
    places: Vec<ModelSource>,

    /// The model repository: a folder with one folder for each model. By default "models", unless models are named one by one.
    #[arg(long, env = "KARAT_MODELS", value_name = "FOLDER")]
    models: Option<PathBuf>,

    /// A checkpoint's folder, or a model of the Hugging Face Hub as org/name or org/name@revision; may be given several
    /// times. It is called by the last part of its place, unless as NAME=PLACE. What the Hub's cache lacks is fetched.
    #[arg(long = "model", env = "KARAT_MODEL", value_delimiter = ',', value_name = "[NAME=]PLACE")]
    model: Vec<ModelSource>,

    /// Load what changes in the folders while the server runs, and unload what is gone. A new version takes over once it is
    /// loaded and tried. Without this, changes are told by GET /v1/models alone.
    #[arg(long, env = "KARAT_WATCH", value_parser = BoolishValueParser::new())]
    watch: bool,

    /// How often the models' files are looked at, in seconds. Files that changed are taken to be whole when they are the
    /// same at the next look.
    #[arg(long, env = "KARAT_WATCH_SECONDS", default_value_t = 5.0, value_parser = seconds, value_name = "SECONDS")]
    watch_seconds: f64,

    /// The models without which the server isn't ready, separated by commas. By default it is ready once all have been
    /// tried and one takes requests.
    #[arg(long, env = "KARAT_REQUIRE", value_delimiter = ',', value_name = "MODEL")]
    pub(crate) require: Vec<ModelName>,

    /// Where to listen. Loopback by default: whoever reaches the port can score.
    #[arg(long, env = "KARAT_LISTEN", default_value = "127.0.0.1:8080", value_parser = address, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,

    /// Stop when a model can't be loaded, or gives a text other scores in company, instead of serving the others.
    #[arg(long, env = "KARAT_STRICT", value_parser = BoolishValueParser::new())]
    pub(crate) strict: bool,

    /// The ONNX Runtime library. By default the file that ORT_DYLIB_PATH names, or the one beside the executable, or that
    /// of the Python environment that karat was installed into, or the one that `make setup` installed.
    #[arg(long, env = "KARAT_ONNXRUNTIME", value_name = "FILE")]
    pub(crate) onnxruntime: Option<PathBuf>,

    /// Memory for scores and tokens that are known already, in MiB; 0 keeps none.
    #[arg(long, env = "KARAT_CACHE_MB", default_value_t = 256, value_name = "MIB")]
    pub(crate) cache_mb: u64,

    /// Memory for what decoders computed of prompts, in MiB; 0 shares a prompt within a batch only.
    #[arg(long, env = "KARAT_PREFIX_CACHE_MB", default_value_t = 256, value_name = "MIB")]
    pub(crate) prefix_cache_mb: u64,

    /// The most tokens that may wait for one model before requests are refused with 429.
    #[arg(long, env = "KARAT_QUEUE_TOKENS", default_value_t = 1 << 20, value_name = "TOKENS")]
    pub(crate) queue_tokens: usize,

    /// The longest that a request may be expected to wait for its model before it is refused with 429, in seconds; 0
    /// sets no bound beside that on tokens.
    #[arg(long, env = "KARAT_QUEUE_SECONDS", default_value_t = 1.5, value_name = "SECONDS")]
    pub(crate) queue_seconds: f64,

    /// The longest that requests in the dialects that wait may be expected to wait before they are refused with 503, in
    /// seconds; 0 sets no bound. Less than the timeouts of trainers, since what comes later comes for nobody.
    #[arg(long, env = "KARAT_DIALECT_QUEUE_SECONDS", default_value_t = 25.0, value_name = "SECONDS")]
    pub(crate) dialect_queue_seconds: f64,

    /// How long to measure a model that is loaded for the first time, in seconds, to choose batch sizes and sessions; 0
    /// takes what suits most models. The choice is kept beside the graph.
    #[arg(long, env = "KARAT_CALIBRATION_SECONDS", default_value_t = 2.0, value_name = "SECONDS")]
    pub(crate) calibration_seconds: f64,

    /// The largest request body in bytes.
    #[arg(long, env = "KARAT_MAX_BODY_BYTES", default_value_t = 32 << 20, value_name = "BYTES")]
    pub(crate) max_body_bytes: usize,

    /// How long the head of a request may take to arrive, and its body after that, in seconds. Silent connections are
    /// closed after that time.
    #[arg(long, env = "KARAT_RECEIVE_SECONDS", default_value_t = 60.0, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) receive_seconds: f64,

    /// Memory for the bodies of all requests that aren't answered yet, in MiB. Requests beyond it wait unread.
    #[arg(long, env = "KARAT_BUFFERED_MB", default_value_t = 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20), value_name = "MIB")]
    pub(crate) buffered_mb: usize,

    /// The most inputs in one request.
    #[arg(long, env = "KARAT_MAX_INPUTS", default_value_t = 4096, value_name = "COUNT")]
    pub(crate) max_inputs: usize,

    /// How long to wait for requests in flight when told to stop, in seconds.
    #[arg(long, env = "KARAT_DRAIN_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,

    /// How long the server still takes requests after SIGTERM while it says that it isn't ready, in seconds, so that
    /// balancers send the next ones elsewhere.
    #[arg(long, env = "KARAT_READY_DOWN_SECONDS", default_value_t = 0, value_name = "SECONDS")]
    pub(crate) ready_down_seconds: u64,

    /// A file of keys, one JSON object a line, as "karat keys new" writes them. With it every route but those of health
    /// wants a key; it is read anew when it changes, and on SIGHUP.
    #[arg(long, env = "KARAT_KEYS", value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,

    /// The server's certificate as PEM, those of authorities between behind it: speak HTTPS. It is read anew when it
    /// changes, and on SIGHUP.
    #[arg(long, env = "KARAT_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key as PEM.
    #[arg(long, env = "KARAT_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Certificates of authorities as PEM: take only clients that have a certificate of one of them.
    #[arg(long, env = "KARAT_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// What to log: a level, or levels for modules, such as "info,karat_engine::schedule=debug,ort=warn". By default
    /// "info"; at a terminal, which is told in other words how far the models are, "warn".
    #[arg(long, env = "KARAT_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// The model of requests in other servers' dialects that name none, or one that isn't in the repository.
    #[arg(long, env = "KARAT_DEFAULT_MODEL", value_name = "MODEL")]
    pub(crate) default_model: Option<ModelName>,

    /// The dialects whose requests are refused while too much waits, separated by commas. The others wait, since most
    /// trainers lose what is refused. karat's own routes always refuse, with 429.
    #[arg(long, env = "KARAT_SHED", value_delimiter = ',', value_parser = PossibleValuesParser::new(api::dialect_names()),
          value_name = "DIALECT")]
    pub(crate) shed: Vec<String>,

    /// The origins of web pages that may use the server beside its own, such as https://console.example, separated by
    /// commas.
    #[arg(long, env = "KARAT_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,

    /// The names under which a server that listens on a loopback address may be asked for beside localhost, as behind a
    /// proxy that keeps the name it was asked for; separated by commas.
    #[arg(long, env = "KARAT_ALLOW_HOST", value_delimiter = ',', value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,

    /// The hosts of which images are fetched that requests name by URL, each as NAME or NAME:PORT, separated by commas.
    /// Without it every URL is refused. Redirects aren't followed, and names that lead into a private network are refused.
    #[arg(long, env = "KARAT_FETCH_IMAGES", value_delimiter = ',', value_name = "HOST")]
    pub(crate) fetch_images: Vec<ImageHost>,

    /// A folder for what lasts: statistics of training runs, their outcomes, jobs, and what running normalisations learned.
    /// Without it, they live in memory.
    #[arg(long, env = "KARAT_STATE", value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,

    /// Memory for statistics of training runs, in MiB. The runs that were heard of longest ago go first.
    #[arg(long, env = "KARAT_RUNS_MB", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20), value_name = "MIB")]
    pub(crate) runs_mb: usize,

    /// How to write log lines: "text" or "json".
    #[arg(long, env = "KARAT_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

impl ServeSettings {
    /// Whether somebody sits at a terminal and has asked for no log lines of their own: they are told what runs where.
    pub(crate) fn greets(&self) -> bool {
        self.log.is_none() && self.log_format == LogFormat::Text && io::stderr().is_terminal()
    }

    /// What is logged.
    pub(crate) fn log_filter(&self) -> &str {
        self.log.as_deref().unwrap_or(if self.greets() { "warn" } else { "info" })
    }

    /// How long to measure a model that is loaded for the first time; nothing for what is no time.
    pub(crate) fn calibration(&self) -> Duration {
        Duration::try_from_secs_f64(self.calibration_seconds).unwrap_or_default()
    }

    /// What happens to files that change.
    pub(crate) fn watch(&self) -> Watch {
        // The flag's parser lets nothing else through than finite times above 0.
        Watch { every: Duration::from_secs_f64(self.watch_seconds), follows: self.watch }
    }

    /// How long a request may be expected to wait, where that is bounded.
    pub(crate) fn queue_time(&self) -> Option<Duration> {
        bound(self.queue_seconds)
    }

    /// How long the server waits for its clients.
    pub(crate) fn patience(&self) -> Patience {
        Patience { receive: self.receive(), drain: Duration::from_secs(self.drain_seconds) }
    }

    /// How long the server still takes requests once it says that it isn't ready.
    pub(crate) fn ready_down(&self) -> Duration {
        Duration::from_secs(self.ready_down_seconds)
    }

    /// Where the certificates lie, if HTTPS is spoken.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsFiles { certificate, key, client_authorities: self.tls_client_ca.clone() })
    }

    /// Bounds on what a request may send.
    pub(crate) fn limits(&self) -> ApiLimits {
        ApiLimits {
            body_bytes: self.max_body_bytes,
            inputs: self.max_inputs,
            receive: self.receive(),
            buffered_bytes: self.buffered_mb << 20,
        }
    }

    /// The flag's parser lets nothing else through than finite times above 0.
    fn receive(&self) -> Duration {
        Duration::from_secs_f64(self.receive_seconds)
    }

    /// The folder of models, if one is served.
    pub(crate) fn repository(&self) -> Option<PathBuf> {
        let usual = || self.named_models().next().is_none().then(|| PathBuf::from("models"));
        self.models.clone().or_else(usual)
    }

    /// The models that are named one by one.
    pub(crate) fn named_models(&self) -> impl Iterator<Item = &ModelSource> {
        self.places.iter().chain(&self.model)
    }

    /// Whether a model of that name is served.
    pub(crate) fn has_model(&self, model: &ModelName) -> bool {
        let in_repository = |folder: PathBuf| manifest::is_model(&folder.join(model.as_str()));
        self.named_models().any(|source| source.name() == model) || self.repository().is_some_and(in_repository)
    }

    /// Which web pages may use the server, and under which names. Other machines may call it whatever they like.
    pub(crate) fn visitors(&self) -> Visitors {
        let hosts = self.listen.ip().is_loopback().then(|| self.allow_host.iter().cloned().collect());
        Visitors { origins: self.allow_origin.iter().cloned().collect(), hosts }
    }

    /// What fetches images by URL.
    pub(crate) fn images(&self) -> Fetcher {
        Fetcher::new(self.fetch_images.clone())
    }

    /// How much is kept of training runs, and where.
    pub(crate) fn runs(&self) -> RunSettings {
        RunSettings { folder: self.state.clone(), bytes: self.runs_mb << 20, ..RunSettings::default() }
    }

    /// What holds for all dialects.
    pub(crate) fn dialects(&self) -> DialectSettings {
        DialectSettings {
            default_model: self.default_model.clone(),
            shedding: self.shed.iter().cloned().collect(),
            patience: bound(self.dialect_queue_seconds),
        }
    }
}

/// An address, or a name of this machine such as localhost, of whose addresses the first of IPv4 counts.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = |reason: String| format!("{reason}; write an address and a port, such as 127.0.0.1:8080");
    let addresses: Vec<SocketAddr> = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    let found = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    found.copied().ok_or_else(|| wrong("it stands for no address".to_owned()))
}

/// A bound on a time, where there is one.
fn bound(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

/// A time that something can take.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}; write a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("write a number of seconds above 0 and up to a day".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        serve: ServeSettings,
    }

    #[test]
    fn models_are_named_with_a_flag_or_without() {
        let named = |flags: &[&str]| {
            let settings = Flags::parse_from([&["serve"], flags].concat()).serve;
            let names: Vec<String> = settings.named_models().map(|model| model.name().to_string()).collect();
            (names.join(" "), settings.repository())
        };
        assert_eq!(named(&["./src", "--model", "b=./docs"]), ("src b".to_owned(), None));
        assert_eq!(named(&["./src", "--models", "all"]), ("src".to_owned(), Some("all".into())));
        assert_eq!(named(&[]), (String::new(), Some("models".into())));
    }
}
