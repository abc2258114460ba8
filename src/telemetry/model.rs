//! One model's share of the metrics.

use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::metrics::ModelFamilies;

/// The metrics of one model. Clones share them.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    queue_samples: IntGauge,
    queue_tokens: IntGauge,
    wait_seconds: Histogram,
    batch_samples: Histogram,
    batch_padding_ratio: Histogram,
    tokens: IntCounter,
    padding_tokens: IntCounter,
    passes: Histogram,
    running_passes: IntGauge,
    failed_passes: IntCounter,
    out_of_memory_passes: IntCounter,
    refused_samples: IntCounter,
    expired_samples: IntCounter,
    cancelled_samples: IntCounter,
    cancelled_passes: IntCounter,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    doubled_beginnings: IntCounter,
    generated_tokens: IntCounter,
    texts: IntGauge,
    refused_generations: IntCounter,
    cancelled_generations: IntCounter,
    prefix_tokens: IntCounter,
    prefix_computed_tokens: IntCounter,
    prefix_cached_tokens: IntCounter,
    prefix_hits: IntCounter,
}

/// What was saved of a batch whose samples share what they begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// The samples' tokens.
    pub wanted: usize,
    /// Those that were computed.
    pub computed: usize,
    /// Those that the cache of prefixes held.
    pub cached: usize,
    /// The samples that it held a beginning of.
    pub hits: usize,
}

impl ModelMetrics {
    pub(super) fn new(families: &ModelFamilies, model: &str) -> Self {
        let label = &[model];
        Self {
            queue_samples: families.queue_samples.with_label_values(label),
            queue_tokens: families.queue_tokens.with_label_values(label),
            wait_seconds: families.wait_seconds.with_label_values(label),
            batch_samples: families.batch_samples.with_label_values(label),
            batch_padding_ratio: families.batch_padding_ratio.with_label_values(label),
            tokens: families.tokens.with_label_values(label),
            padding_tokens: families.padding_tokens.with_label_values(label),
            passes: families.passes.with_label_values(label),
            running_passes: families.running_passes.with_label_values(label),
            failed_passes: families.failed_passes.with_label_values(label),
            out_of_memory_passes: families.out_of_memory_passes.with_label_values(label),
            refused_samples: families.refused_samples.with_label_values(label),
            expired_samples: families.expired_samples.with_label_values(label),
            cancelled_samples: families.cancelled_samples.with_label_values(label),
            cancelled_passes: families.cancelled_passes.with_label_values(label),
            cache_hits: families.cache_hits.with_label_values(label),
            cache_misses: families.cache_misses.with_label_values(label),
            doubled_beginnings: families.doubled_beginnings.with_label_values(label),
            generated_tokens: families.generated_tokens.with_label_values(label),
            texts: families.texts.with_label_values(label),
            refused_generations: families.refused_generations.with_label_values(label),
            cancelled_generations: families.cancelled_generations.with_label_values(label),
            prefix_tokens: families.prefix_tokens.with_label_values(label),
            prefix_computed_tokens: families.prefix_computed_tokens.with_label_values(label),
            prefix_cached_tokens: families.prefix_cached_tokens.with_label_values(label),
            prefix_hits: families.prefix_hits.with_label_values(label),
        }
    }

    /// States what waits now.
    pub fn queue(&self, samples: usize, tokens: usize) {
        self.queue_samples.set(gauge(samples));
        self.queue_tokens.set(gauge(tokens));
    }

    /// A sample's wait ended with the start of its forward pass.
    pub fn waited(&self, wait: Duration) {
        self.wait_seconds.observe(wait.as_secs_f64());
    }

    /// Samples were refused because too much waits.
    pub fn refused(&self, samples: usize) {
        self.refused_samples.inc_by(samples as u64);
    }

    /// Samples were dropped because their deadline passed.
    pub fn expired(&self, samples: usize) {
        self.expired_samples.inc_by(samples as u64);
    }

    /// Samples were dropped because their client left.
    pub fn cancelled(&self, samples: usize) {
        self.cancelled_samples.inc_by(samples as u64);
    }

    /// A sample's score was in the cache.
    pub fn cache_hit(&self) {
        self.cache_hits.inc();
    }

    /// A sample's score had to be computed.
    pub fn cache_miss(&self) {
        self.cache_misses.inc();
    }

    /// A sample came with a second beginning-of-sequence token, which was dropped.
    pub fn doubled_beginning(&self) {
        self.doubled_beginnings.inc();
    }

    /// Tokens of generated texts were drawn.
    pub fn generated(&self, tokens: usize) {
        self.generated_tokens.inc_by(tokens as u64);
    }

    /// States how many texts are being written now.
    pub fn writing(&self, texts: usize) {
        self.texts.set(gauge(texts));
    }

    /// Texts were refused because too many wait.
    pub fn generation_refused(&self) {
        self.refused_generations.inc();
    }

    /// A text was given up because its client left or its time was over.
    pub fn generation_cancelled(&self) {
        self.cancelled_generations.inc();
    }

    /// A batch was computed that shares what its samples begin with.
    pub fn shared(&self, counts: PrefixCounts) {
        self.prefix_tokens.inc_by(counts.wanted as u64);
        self.prefix_computed_tokens.inc_by(counts.computed as u64);
        self.prefix_cached_tokens.inc_by(counts.cached as u64);
        self.prefix_hits.inc_by(counts.hits as u64);
    }

    /// A forward pass over `samples` of `tokens` tokens, padded to `padded_tokens`, starts now; it fails unless the
    /// guard says otherwise.
    #[must_use = "the pass ends when the guard is dropped"]
    pub fn pass(&self, samples: usize, tokens: usize, padded_tokens: usize) -> PassGuard<'_> {
        let padding = padded_tokens.saturating_sub(tokens);
        #[expect(clippy::cast_precision_loss, reason = "a share of a batch needs no more than 52 bits")]
        {
            self.batch_samples.observe(samples as f64);
            self.batch_padding_ratio.observe(padding as f64 / padded_tokens.max(1) as f64);
        }
        self.running_passes.inc();
        PassGuard { metrics: self, tokens, padding, started: Instant::now(), outcome: Outcome::Failed }
    }
}

/// A running forward pass, recorded when it ends, whichever path the code takes.
#[derive(Debug)]
pub struct PassGuard<'a> {
    metrics: &'a ModelMetrics,
    tokens: usize,
    padding: usize,
    started: Instant,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Done,
    Cancelled,
    OutOfMemory,
    Failed,
}

impl PassGuard<'_> {
    /// The pass gave scores.
    pub fn done(mut self) {
        self.outcome = Outcome::Done;
    }

    /// The pass was stopped because every client left.
    pub fn cancelled(mut self) {
        self.outcome = Outcome::Cancelled;
    }

    /// The device's memory didn't hold the pass.
    pub fn out_of_memory(mut self) {
        self.outcome = Outcome::OutOfMemory;
    }
}

impl Drop for PassGuard<'_> {
    fn drop(&mut self) {
        self.metrics.running_passes.dec();
        self.metrics.passes.observe(self.started.elapsed().as_secs_f64());
        match self.outcome {
            Outcome::Done => {
                self.metrics.tokens.inc_by(self.tokens as u64);
                self.metrics.padding_tokens.inc_by(self.padding as u64);
            }
            Outcome::Cancelled => self.metrics.cancelled_passes.inc(),
            Outcome::OutOfMemory => self.metrics.out_of_memory_passes.inc(),
            Outcome::Failed => self.metrics.failed_passes.inc(),
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use crate::telemetry::Metrics;

    #[test]
    fn a_pass_is_recorded_however_it_ends() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let model = metrics.model(&"m".parse().unwrap());
        model.pass(2, 30, 40).done();
        model.pass(1, 7, 7).cancelled();
        model.pass(4, 4, 4).out_of_memory();
        drop(model.pass(1, 9, 9));
        let text = metrics.render().unwrap();
        for line in [
            "karat_tokens_total{model=\"m\"} 30",
            "karat_padding_tokens_total{model=\"m\"} 10",
            "karat_forward_pass_seconds_count{model=\"m\"} 4",
            "karat_forward_passes_cancelled_total{model=\"m\"} 1",
            "karat_forward_passes_failed_total{model=\"m\"} 1",
            "karat_forward_passes_out_of_memory_total{model=\"m\"} 1",
            "karat_forward_passes_running{model=\"m\"} 0",
            "karat_batch_padding_ratio_sum{model=\"m\"} 0.25",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
