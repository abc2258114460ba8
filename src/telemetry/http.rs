//! Counting requests.

use std::time::Instant;

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::metrics::HttpFamilies;

/// The class of a request whose client left before the answer; no status was sent.
const LEFT: &str = "left";

/// One request, counted when it is finished or dropped, whichever path the code takes.
#[derive(Debug)]
pub struct RequestGuard {
    route: String,
    requests: IntCounterVec,
    seconds: Histogram,
    in_flight: IntGauge,
    started: Instant,
    class: &'static str,
}

impl RequestGuard {
    pub(super) fn new(families: &HttpFamilies, route: &str) -> Self {
        families.in_flight.inc();
        Self {
            route: route.to_owned(),
            requests: families.requests.clone(),
            seconds: families.seconds.with_label_values(&[route]),
            in_flight: families.in_flight.clone(),
            started: Instant::now(),
            class: LEFT,
        }
    }

    /// Ends the request with the status that was sent.
    pub fn finish(mut self, status: u16) {
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
pub struct WaitGuard(IntGauge);

impl WaitGuard {
    pub(super) fn new(waiting: &IntGauge) -> Self {
        waiting.inc();
        Self(waiting.clone())
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
