//! Counting requests.

use std::time::Instant;

use karat_runtime::metrics;
use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge};

/// From a millisecond, a cached score, to the half minute after which most clients give up.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

metrics! {
    /// What the HTTP layer counts.
    pub(super) struct HttpMetrics {
        requests: IntCounterVec by ["route", "status"] =
            "karat_http_requests_total", "Requests answered, by route and class of status";
        seconds: HistogramVec by ["route"] in SECONDS =
            "karat_http_request_seconds", "Time from a request's head to its answer";
        in_flight: IntGauge = "karat_http_requests_in_flight", "Requests that are being answered";
        bodies_waiting: IntGauge = "karat_http_bodies_waiting", "Requests whose body waits unread for memory";
    }
}

/// The class of a request whose client left before the answer; no status was sent.
const LEFT: &str = "left";

/// One request, counted when it is finished or dropped, whichever path the code takes.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    route: String,
    requests: IntCounterVec,
    seconds: Histogram,
    in_flight: IntGauge,
    started: Instant,
    class: &'static str,
}

impl RequestGuard {
    pub(super) fn new(metrics: &HttpMetrics, route: &str) -> Self {
        metrics.in_flight.inc();
        Self {
            route: route.to_owned(),
            requests: metrics.requests.clone(),
            seconds: metrics.seconds.with_label_values(&[route]),
            in_flight: metrics.in_flight.clone(),
            started: Instant::now(),
            class: LEFT,
        }
    }

    /// Ends the request with the status that was sent.
    pub(crate) fn finish(mut self, status: u16) {
        self.class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.in_flight.dec();
        self.seconds.observe(self.started.elapsed().as_secs_f64());
        self.requests.with_label_values(&[self.route.as_str(), self.class]).inc();
    }
}

/// One request that waits for something; until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitGuard(IntGauge);

impl WaitGuard {
    pub(super) fn new(metrics: &HttpMetrics) -> Self {
        metrics.bodies_waiting.inc();
        Self(metrics.bodies_waiting.clone())
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use crate::telemetry::Metrics;

    #[test]
    fn every_request_is_counted_once_however_it_ends() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        metrics.request("/v1/score").finish(429);
        drop(metrics.request("/v1/score"));
        let running = metrics.request("/v1/score");
        let text = metrics.render().unwrap();
        for line in [
            "karat_http_requests_total{route=\"/v1/score\",status=\"4xx\"} 1",
            "karat_http_requests_total{route=\"/v1/score\",status=\"left\"} 1",
            "karat_http_request_seconds_count{route=\"/v1/score\"} 2",
            "karat_http_requests_in_flight 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        drop(running);
    }
}
