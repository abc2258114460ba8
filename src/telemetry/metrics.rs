//! Every metric that karat has, in one struct.

use prometheus::{
    Error, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use super::{Build, ModelMetrics, PrefixCacheMetrics, RequestGuard, WaitGuard};
use crate::domain::ModelName;

/// All metrics of one server. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    pub(super) http: HttpFamilies,
    pub(super) model: ModelFamilies,
    cache_bytes: IntGauge,
    prefix_cache: PrefixCacheMetrics,
}

/// Metrics of the HTTP layer.
#[derive(Debug, Clone)]
pub(super) struct HttpFamilies {
    pub(super) requests: IntCounterVec,
    pub(super) seconds: HistogramVec,
    pub(super) in_flight: IntGauge,
    pub(super) bodies_waiting: IntGauge,
}

/// Metrics with the label `model`; [`ModelMetrics`] holds one model's share of them.
#[derive(Debug, Clone)]
pub(super) struct ModelFamilies {
    pub(super) queue_samples: IntGaugeVec,
    pub(super) queue_tokens: IntGaugeVec,
    pub(super) wait_seconds: HistogramVec,
    pub(super) batch_samples: HistogramVec,
    pub(super) batch_padding_ratio: HistogramVec,
    pub(super) tokens: IntCounterVec,
    pub(super) padding_tokens: IntCounterVec,
    pub(super) passes: HistogramVec,
    pub(super) running_passes: IntGaugeVec,
    pub(super) failed_passes: IntCounterVec,
    pub(super) out_of_memory_passes: IntCounterVec,
    pub(super) refused_samples: IntCounterVec,
    pub(super) expired_samples: IntCounterVec,
    pub(super) cancelled_samples: IntCounterVec,
    pub(super) cancelled_passes: IntCounterVec,
    pub(super) cache_hits: IntCounterVec,
    pub(super) cache_misses: IntCounterVec,
    pub(super) doubled_beginnings: IntCounterVec,
    pub(super) generated_tokens: IntCounterVec,
    pub(super) texts: IntGaugeVec,
    pub(super) refused_generations: IntCounterVec,
    pub(super) cancelled_generations: IntCounterVec,
    pub(super) prefix_tokens: IntCounterVec,
    pub(super) prefix_computed_tokens: IntCounterVec,
    pub(super) prefix_cached_tokens: IntCounterVec,
    pub(super) prefix_hits: IntCounterVec,
}

/// From a millisecond, a cached score, to the half minute after which most clients give up.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const BATCH_SAMPLES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const RATIO: [f64; 7] = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8];

impl Metrics {
    /// Creates every metric and registers it.
    ///
    /// # Errors
    /// When `registry` holds a metric of the same name already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let build = add(
            registry,
            IntGaugeVec::new(Opts::new("karat_build_info", "1, with the version as its label"), &["version"])?,
        )?;
        build.with_label_values(&[Build::CURRENT.version]).set(1);

        let counter = |name: &str, help: &str| add(registry, IntCounterVec::new(Opts::new(name, help), &["model"])?);
        let gauge = |name: &str, help: &str| add(registry, IntGaugeVec::new(Opts::new(name, help), &["model"])?);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            add(registry, HistogramVec::new(options, &["model"])?)
        };
        Ok(Self {
            registry: registry.clone(),
            http: HttpFamilies {
                requests: add(
                    registry,
                    IntCounterVec::new(
                        Opts::new("karat_http_requests_total", "Requests answered, by route and class of status"),
                        &["route", "status"],
                    )?,
                )?,
                seconds: add(
                    registry,
                    HistogramVec::new(
                        HistogramOpts::new("karat_http_request_seconds", "Time from a request's head to its answer")
                            .buckets(SECONDS.to_vec()),
                        &["route"],
                    )?,
                )?,
                in_flight: add(
                    registry,
                    IntGauge::new("karat_http_requests_in_flight", "Requests that are being answered")?,
                )?,
                bodies_waiting: add(
                    registry,
                    IntGauge::new("karat_http_bodies_waiting", "Requests whose body waits unread for memory")?,
                )?,
            },
            model: ModelFamilies {
                queue_samples: gauge("karat_queue_samples", "Samples that wait for a forward pass")?,
                queue_tokens: gauge("karat_queue_tokens", "Tokens that wait for a forward pass")?,
                wait_seconds: histogram(
                    "karat_queue_wait_seconds",
                    "Time a sample waited for its forward pass",
                    &SECONDS,
                )?,
                batch_samples: histogram("karat_batch_samples", "Samples in a forward pass", &BATCH_SAMPLES)?,
                batch_padding_ratio: histogram(
                    "karat_batch_padding_ratio",
                    "Share of a forward pass's positions that is padding",
                    &RATIO,
                )?,
                tokens: counter("karat_tokens_total", "Tokens scored, padding left out")?,
                padding_tokens: counter("karat_padding_tokens_total", "Positions of padding computed")?,
                passes: histogram("karat_forward_pass_seconds", "Time a forward pass took", &SECONDS)?,
                running_passes: gauge("karat_forward_passes_running", "Forward passes that are running")?,
                failed_passes: counter("karat_forward_passes_failed_total", "Forward passes that failed")?,
                out_of_memory_passes: counter(
                    "karat_forward_passes_out_of_memory_total",
                    "Forward passes that the device's memory didn't hold; their batches are run in smaller parts",
                )?,
                refused_samples: counter("karat_samples_refused_total", "Samples refused because too much waits")?,
                expired_samples: counter(
                    "karat_samples_expired_total",
                    "Samples dropped because their deadline passed",
                )?,
                cancelled_samples: counter(
                    "karat_samples_cancelled_total",
                    "Samples dropped because their client left",
                )?,
                cancelled_passes: counter(
                    "karat_forward_passes_cancelled_total",
                    "Forward passes stopped because every client left",
                )?,
                cache_hits: counter("karat_cache_hits_total", "Samples whose scores were in the cache")?,
                cache_misses: counter("karat_cache_misses_total", "Samples whose scores had to be computed")?,
                doubled_beginnings: counter(
                    "karat_doubled_beginnings_total",
                    "Samples that came with a second beginning-of-sequence token, which was dropped",
                )?,
                generated_tokens: counter("karat_generated_tokens_total", "Tokens of generated texts")?,
                texts: gauge("karat_generating_texts", "Texts that are being generated")?,
                refused_generations: counter(
                    "karat_generations_refused_total",
                    "Requests for texts refused because too many wait",
                )?,
                cancelled_generations: counter(
                    "karat_generations_cancelled_total",
                    "Texts given up because their client left or their time was over",
                )?,
                prefix_tokens: counter(
                    "karat_prefix_tokens_total",
                    "Tokens of samples of models that share prefixes, as if each were computed alone",
                )?,
                prefix_computed_tokens: counter(
                    "karat_prefix_computed_tokens_total",
                    "Tokens of them that were computed",
                )?,
                prefix_cached_tokens: counter(
                    "karat_prefix_cached_tokens_total",
                    "Tokens of them whose keys and values were in the cache of prefixes",
                )?,
                prefix_hits: counter(
                    "karat_prefix_hits_total",
                    "Samples whose beginning was in the cache of prefixes",
                )?,
            },
            cache_bytes: add(
                registry,
                IntGauge::new("karat_cache_bytes", "Memory that known scores and tokens take")?,
            )?,
            prefix_cache: PrefixCacheMetrics {
                bytes: add(
                    registry,
                    IntGauge::new("karat_prefix_cache_bytes", "Memory that keys and values of prefixes take")?,
                )?,
                evicted_blocks: add(
                    registry,
                    IntCounter::new(
                        "karat_prefix_cache_evicted_blocks_total",
                        "Blocks of prefixes dropped to make room for others",
                    )?,
                )?,
            },
        })
    }

    /// The metrics of one model, every label resolved, so that recording looks nothing up.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> ModelMetrics {
        ModelMetrics::new(&self.model, name.as_str())
    }

    /// The metrics of the cache of prefixes.
    #[must_use]
    pub fn prefix_cache(&self) -> PrefixCacheMetrics {
        self.prefix_cache.clone()
    }

    /// Counts a request from now until the guard is finished or dropped.
    ///
    /// `route` must be the route's pattern, such as `/v1/models/{name}`: a path as the client wrote it would give
    /// the label no end of values.
    #[must_use = "the request ends when the guard is dropped"]
    pub fn request(&self, route: &str) -> RequestGuard {
        RequestGuard::new(&self.http, route)
    }

    /// Counts a request whose body waits for memory, until the guard is dropped.
    #[must_use = "the wait ends when the guard is dropped"]
    pub fn body_waits(&self) -> WaitGuard {
        WaitGuard::new(&self.http.bodies_waiting)
    }

    /// States how much memory the caches of all models take.
    pub fn cache_bytes(&self, bytes: u64) {
        self.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric can't be written, which only a metric without a name can cause.
    pub fn render(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_do_not_share_a_registry_by_accident() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        assert!(matches!(Metrics::register(&registry), Err(Error::AlreadyReg)));
    }

    #[test]
    fn names_follow_the_scheme() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let model = metrics.model(&"m".parse().unwrap());
        model.cache_miss();
        metrics.request("/v1/score").finish(200);
        let text = metrics.render().unwrap();
        let mut types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).peekable();
        assert!(types.peek().is_some());
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(name.starts_with("karat_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
        assert!(text.contains(&format!("karat_build_info{{version=\"{}\"}} 1", Build::CURRENT.version)), "{text}");
    }
}
