//! How fast tokens are computed, as measured.

use std::time::Duration;

/// An exponentially weighted average of tokens a second over all workers together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    tokens: f64,
    seconds: f64,
}

/// How much of the past is kept with each pass: the average reaches back over about thirty passes.
const MEMORY: f64 = 0.97;

impl Rate {
    /// Reckons with `tokens_per_second` for as long as little is measured.
    pub(super) fn assumed(tokens_per_second: Option<f64>) -> Self {
        const SECONDS: f64 = 0.1;
        match tokens_per_second.filter(|rate| rate.is_finite() && *rate > 0.0) {
            Some(rate) => Self { tokens: rate * SECONDS, seconds: SECONDS },
            None => Self::default(),
        }
    }

    /// Takes in a pass of `tokens` tokens; `workers` passes of its kind run side by side.
    pub(super) fn observe(&mut self, tokens: usize, took: Duration, workers: usize) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (tokens, workers) = (tokens as f64, workers.max(1) as f64);
        self.tokens = self.tokens * MEMORY + tokens;
        self.seconds = self.seconds * MEMORY + took.as_secs_f64() / workers;
    }

    /// How long `tokens` take; `None` before the first measurement.
    pub(super) fn time_for(&self, tokens: usize) -> Option<Duration> {
        if self.tokens <= 0.0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = tokens as f64 * self.seconds / self.tokens;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_machine() {
        let mut rate = Rate::default();
        assert_eq!(rate.time_for(100), None);
        assert_eq!(Rate::assumed(Some(200.0)).time_for(100), Some(Duration::from_millis(500)));
        for _ in 0..10 {
            rate.observe(100, Duration::from_millis(20), 2);
        }
        let close = |rate: &Rate, seconds: f64| (rate.time_for(1000).unwrap().as_secs_f64() - seconds).abs() < 0.01;
        assert!(close(&rate, 0.1), "{rate:?}");
        for _ in 0..1000 {
            rate.observe(100, Duration::from_millis(60), 2);
        }
        assert!(close(&rate, 0.3), "{rate:?}");
    }
}
