//! One model's share of the metrics.

use std::time::{Duration, Instant};

use karat_runtime::metrics;
use prometheus::{Histogram, IntCounter, IntGauge};

/// From a millisecond, a cached score, to the half minute after which most clients give up.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const BATCH_SAMPLES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const RATIO: [f64; 7] = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8];

metrics! {
    /// The metrics of one model.
    pub struct ModelMetrics of pub(super) ModelFamilies by "model" {
        queue_samples: IntGauge = "karat_queue_samples", "Samples that wait for a forward pass";
        queue_tokens: IntGauge = "karat_queue_tokens", "Tokens that wait for a forward pass";
        wait_seconds: Histogram in SECONDS = "karat_queue_wait_seconds", "Time a sample waited for its forward pass";
        batch_samples: Histogram in BATCH_SAMPLES = "karat_batch_samples", "Samples in a forward pass";
        batch_padding_ratio: Histogram in RATIO =
            "karat_batch_padding_ratio", "Share of a forward pass's positions that is padding";
        tokens: IntCounter = "karat_tokens_total", "Tokens scored, padding left out";
        padding_tokens: IntCounter = "karat_padding_tokens_total", "Positions of padding computed";
        passes: Histogram in SECONDS = "karat_forward_pass_seconds", "Time a forward pass took";
        running_passes: IntGauge = "karat_forward_passes_running", "Forward passes that are running";
        failed_passes: IntCounter = "karat_forward_passes_failed_total", "Forward passes that failed";
        out_of_memory_passes: IntCounter = "karat_forward_passes_out_of_memory_total",
            "Forward passes that the device's memory didn't hold; their batches are run in smaller parts";
        refused_samples: IntCounter = "karat_samples_refused_total", "Samples refused because too much waits";
        expired_samples: IntCounter = "karat_samples_expired_total", "Samples dropped because their deadline passed";
        cancelled_samples: IntCounter = "karat_samples_cancelled_total", "Samples dropped because their client left";
        cancelled_passes: IntCounter =
            "karat_forward_passes_cancelled_total", "Forward passes stopped because every client left";
        cache_hits: IntCounter = "karat_cache_hits_total", "Samples whose scores were in the cache";
        cache_misses: IntCounter = "karat_cache_misses_total", "Samples whose scores had to be computed";
        doubled_beginnings: IntCounter = "karat_doubled_beginnings_total",
            "Samples that came with a second beginning-of-sequence token, which was dropped";
        image_decode_seconds: Histogram in SECONDS = "karat_image_decode_seconds", "Time that decoding an image took";
        image_resize_seconds: Histogram in SECONDS =
            "karat_image_resize_seconds", "Time that resizing and cropping an image took";
        image_pixels: IntCounter = "karat_image_pixels_total", "Pixels of images that were decoded";
        refused_images: IntCounter =
            "karat_images_refused_total", "Images refused by their bytes: broken, too large, or of no kind that is read";
        generated_tokens: IntCounter = "karat_generated_tokens_total", "Tokens of generated texts";
        texts: IntGauge = "karat_generating_texts", "Texts that are being generated";
        refused_generations: IntCounter =
            "karat_generations_refused_total", "Requests for texts refused because too many wait";
        cancelled_generations: IntCounter =
            "karat_generations_cancelled_total", "Texts given up because their client left or their time was over";
    }
}

impl ModelMetrics {
    /// States what waits now.
    pub(crate) fn queue(&self, samples: usize, tokens: usize) {
        self.queue_samples.set(gauge(samples));
        self.queue_tokens.set(gauge(tokens));
    }

    /// A sample's wait ended with the start of its forward pass.
    pub(crate) fn waited(&self, wait: Duration) {
        self.wait_seconds.observe(wait.as_secs_f64());
    }

    /// Samples were refused because too much waits.
    pub(crate) fn refused(&self, samples: usize) {
        self.refused_samples.inc_by(samples as u64);
    }

    /// Samples were dropped because their deadline passed.
    pub(crate) fn expired(&self, samples: usize) {
        self.expired_samples.inc_by(samples as u64);
    }

    /// Samples were dropped because their client left.
    pub(crate) fn cancelled(&self, samples: usize) {
        self.cancelled_samples.inc_by(samples as u64);
    }

    /// A sample's score was in the cache.
    pub(crate) fn cache_hit(&self) {
        self.cache_hits.inc();
    }

    /// A sample's score had to be computed.
    pub fn cache_miss(&self) {
        self.cache_misses.inc();
    }

    /// A sample came with a second beginning-of-sequence token, which was dropped.
    pub(crate) fn doubled_beginning(&self) {
        self.doubled_beginnings.inc();
    }

    /// An image of so many pixels was decoded, resized and cropped.
    pub(crate) fn saw(&self, pixels: usize, decoding: Duration, resizing: Duration) {
        self.image_pixels.inc_by(pixels as u64);
        self.image_decode_seconds.observe(decoding.as_secs_f64());
        self.image_resize_seconds.observe(resizing.as_secs_f64());
    }

    /// An image was refused by its bytes.
    pub(crate) fn refused_image(&self) {
        self.refused_images.inc();
    }

    /// Tokens of generated texts were drawn.
    pub(crate) fn generated(&self, tokens: usize) {
        self.generated_tokens.inc_by(tokens as u64);
    }

    /// States how many texts are being written now.
    pub(crate) fn writing(&self, texts: usize) {
        self.texts.set(gauge(texts));
    }

    /// Texts were refused because too many wait.
    pub(crate) fn generation_refused(&self) {
        self.refused_generations.inc();
    }

    /// A text was given up because its client left or its time was over.
    pub(crate) fn generation_cancelled(&self) {
        self.cancelled_generations.inc();
    }

    /// So many passes ran out of memory within one that began as a whole, and were tried again in smaller ones.
    pub(crate) fn retried(&self, passes: usize) {
        self.out_of_memory_passes.inc_by(passes as u64);
    }

    /// A forward pass over `samples` of `tokens` tokens, padded to `padded_tokens`, starts now; it fails unless the
    /// guard says otherwise.
    #[must_use = "the pass ends when the guard is dropped"]
    pub(crate) fn pass(&self, samples: usize, tokens: usize, padded_tokens: usize) -> PassGuard<'_> {
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
pub(crate) struct PassGuard<'a> {
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
    pub(crate) fn done(mut self) {
        self.outcome = Outcome::Done;
    }

    /// The pass was stopped because every client left.
    pub(crate) fn cancelled(mut self) {
        self.outcome = Outcome::Cancelled;
    }

    /// The device's memory didn't hold the pass.
    pub(crate) fn out_of_memory(mut self) {
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
    use crate::telemetry::testing::Recorded;

    #[test]
    fn a_pass_is_recorded_however_it_ends() {
        let metrics = Recorded::new();
        let model = &metrics.model;
        model.pass(2, 30, 40).done();
        model.pass(1, 7, 7).cancelled();
        model.pass(4, 4, 4).out_of_memory();
        drop(model.pass(1, 9, 9));
        let text = metrics.text();
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
