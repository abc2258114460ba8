//! Tokens a minute.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A bucket that fills steadily, up to what comes in a minute.
///
/// What a request costs is known when it is done, so the bucket may be overdrawn; then nothing is let through until the
/// debt is paid. Over time no more is spent than comes in.
#[derive(Debug)]
pub(super) struct Bucket {
    per_minute: u64,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// In tokens; below 0 when overdrawn.
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_minute: u64) -> Self {
        Self { per_minute, state: Mutex::new(State { left: to_float(per_minute), at: Instant::now() }) }
    }

    pub(super) fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// How long until something is in it.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let left = self.filled(now).left;
        if left > 0.0 {
            return Duration::ZERO;
        }
        let seconds = (1.0 - left) * 60.0 / to_float(self.per_minute);
        // A debt that takes longer than that to pay was never granted.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    pub(super) fn spend(&self, tokens: usize, now: Instant) {
        self.filled(now).left -= to_float(tokens as u64);
    }

    fn filled(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let most = to_float(self.per_minute);
        let came = now.saturating_duration_since(state.at).as_secs_f64() * most / 60.0;
        *state = State { left: (state.left + came).min(most), at: now.max(state.at) };
        state
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts tokens beyond 2^52")]
fn to_float(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_spent_over_time_than_comes_in() {
        let bucket = Bucket::new(600);
        let begun = bucket.state.lock().unwrap().at;
        let (mut now, mut spent) = (begun, 0);
        // Somebody who asks at once whenever he may, for more than there ever is.
        loop {
            now += bucket.wait(now);
            if now >= begun + Duration::from_secs(3600) {
                break;
            }
            bucket.spend(700, now);
            spent += 700;
        }
        assert!((600 * 60..=600 * 61 + 700).contains(&spent), "{spent}");
    }

    #[test]
    fn what_is_left_does_not_grow_beyond_a_minute() {
        let bucket = Bucket::new(60);
        let begun = bucket.state.lock().unwrap().at;
        let later = begun + Duration::from_secs(86_400);
        bucket.spend(60, later);
        assert!(!bucket.wait(later).is_zero());
        // The clock of another thread may be a little behind.
        assert!(!bucket.wait(begun).is_zero());
        assert!(bucket.wait(later + Duration::from_secs(2)).is_zero());
    }
}
