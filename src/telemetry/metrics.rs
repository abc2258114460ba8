//! All metrics of one server, and the page that shows them.

use std::collections::BTreeSet;

use karat_engine::{engine::ScoreReport, repository::ModelStatus, telemetry::EngineMetrics};
use karat_rules::domain::ModelName;
use karat_runs::{registry::Runs, run::RunName};
use karat_runtime::metrics;
use prometheus::{Error, IntGaugeVec, Registry, TextEncoder, proto::LabelPair};

use super::{Build, RequestGuard, WaitGuard, Waiting, http::HttpMetrics, runs::RunMetrics, scores::ScoreMetrics};

/// All metrics of one server. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    http: HttpMetrics,
    engine: EngineMetrics,
    runs: RunMetrics,
    scores: ScoreMetrics,
}

metrics! {
    /// Which build runs.
    struct BuildMetrics {
        info: IntGaugeVec by ["version"] = "karat_build_info", "1, with the version as its label";
    }
}

impl Metrics {
    /// Creates every metric and registers it.
    ///
    /// # Errors
    /// When `registry` holds a metric of the same name already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        BuildMetrics::register(registry)?.info.with_label_values(&[Build::CURRENT.version]).set(1);
        Ok(Self {
            registry: registry.clone(),
            http: HttpMetrics::register(registry)?,
            engine: EngineMetrics::register(registry)?,
            runs: RunMetrics::register(registry)?,
            scores: ScoreMetrics::register(registry)?,
        })
    }

    /// What the engine counts.
    #[must_use]
    pub fn engine(&self) -> &EngineMetrics {
        &self.engine
    }

    /// Counts a request from now until the guard is finished or dropped.
    ///
    /// `route` must be the route's pattern, such as `/v1/models/{name}`: a path as the client wrote it would give
    /// the label no end of values.
    #[must_use = "the request ends when the guard is dropped"]
    pub(crate) fn request(&self, route: &str) -> RequestGuard {
        RequestGuard::new(&self.http, route)
    }

    /// Counts a request whose body waits for memory, until the guard is dropped.
    #[must_use = "the wait ends when the guard is dropped"]
    pub(crate) fn body_waits(&self) -> WaitGuard {
        WaitGuard::new(&self.http)
    }

    /// Says how training runs, jobs and the backlog stand.
    pub(crate) fn show_runs(&self, runs: &Runs, waiting: Waiting) {
        self.runs.show(runs, waiting);
    }

    /// Counts what a model said of the samples of a request.
    pub(crate) fn scored(&self, report: &ScoreReport) {
        self.scores.scored(report);
    }

    /// States how far each model has come.
    pub(crate) fn models<'a>(&self, models: impl Iterator<Item = (&'a ModelName, &'a ModelStatus)>) {
        self.scores.models(models);
    }

    /// All metrics in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric can't be written, which only a metric without a name can cause.
    pub fn render(&self) -> Result<String, Error> {
        self.render_without(&BTreeSet::new())
    }

    /// The same without those of some training runs.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn render_without(&self, hidden: &BTreeSet<RunName>) -> Result<String, Error> {
        let mut families = self.registry.gather();
        let is_hidden =
            |label: &LabelPair| label.name() == "run" && hidden.iter().any(|run| run.as_str() == label.value());
        for family in &mut families {
            family.mut_metric().retain(|metric| !metric.get_label().iter().any(is_hidden));
        }
        TextEncoder::new().encode_to_string(&families)
    }
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
        let model = metrics.engine().model(&"m".parse().unwrap());
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
