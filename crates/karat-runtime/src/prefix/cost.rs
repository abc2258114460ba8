//! What a row costs on this machine: how many new tokens make the best use of it, and whether two texts should share it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{Cancellation, DecoderExecutor, DecoderRow, KeyValues, Past, Read, ReadAt, RuntimeError, Span};

/// The time that rows take, by how many new tokens they have.
///
/// A graph computes the attention of every new token to everything in its row, seen or not, so that what a row costs
/// depends on nothing but how long it and its past are. In between the measured lengths it is interpolated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowCost {
    /// By ascending length, at least two.
    points: Vec<Point>,
}

/// What rows of one length cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    /// New tokens.
    new: f64,
    /// Seconds without a past.
    seconds: f64,
    /// Seconds more for each token of the past.
    past: f64,
}

/// The lengths that are measured, the most telling first, for when there isn't time for all.
const MEASURED_LENGTHS: [usize; 6] = [256, 128, 32, 512, 384, 64];
/// The length of the row that tells how fast a model is: so short that the largest takes no time worth mentioning.
const TRIAL: usize = 32;
/// How long a past is measured with: as long as a prompt whose likenesses to a row of 256 tokens don't fit into the
/// cache of a processor any more, which makes shorter rows the better ones.
const MEASURED_PAST: usize = 1024;
/// Longer rows are never measured.
const LONGEST: f64 = 512.0;
/// By how much longer rows must be better, for they are stopped later and waste more.
const GAIN_OF_LONGER_ROWS: f64 = 1.03;

impl RowCost {
    /// What is true of most models on a processor, for when nothing is measured; its unit is no second.
    #[must_use]
    pub fn assumed() -> Self {
        let point = |new: f64| Point { new, seconds: 24.0 + new + new * new / 4096.0, past: new / 4096.0 };
        Self { points: [32.0, 64.0, 128.0, 256.0, 512.0].map(point).into() }
    }

    /// Whether it can have been measured: times of at least two lengths, in order.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let times = |point: &Point| {
            point.seconds.is_finite() && point.seconds > 0.0 && point.past.is_finite() && point.past >= 0.0
        };
        let ascends = self.points.is_sorted_by(|one, next| one.new < next.new);
        let starts = self.points.first().is_some_and(|point| point.new >= 1.0);
        let ends = self.points.last().is_some_and(|point| point.new <= LONGEST);
        self.points.len() >= 2 && ascends && starts && ends && self.points.iter().all(times)
    }

    /// Measures rows of a few lengths, as many as fit into `time`. Where there aren't two of them, what is true of most
    /// models is taken at the speed of one short row. `token` is any that the model knows.
    ///
    /// # Errors
    /// When a row can't be computed.
    pub fn measure(executor: &mut dyn DecoderExecutor, token: u32, time: Duration) -> Result<Self, RuntimeError> {
        let shape = executor.shape();
        let end = Instant::now() + time;
        let trial = row(TRIAL.min(shape.context).max(1), 0, token, Vec::new());
        // The first row of all allocates.
        executor.forward(&trial, &Cancellation::new())?;
        let seconds = timed(executor, &trial)?;
        let past_tokens = MEASURED_PAST.min(shape.context / 2).max(1);
        // What a row costs depends on no number, so that nobody has to compute its past.
        let past = Arc::new(KeyValues::zeros(&shape, past_tokens));
        let lengths = affordable(seconds / float(trial.new_tokens()), time).into_iter();
        let mut points = Vec::new();
        for length in lengths.filter(|length| length + past_tokens <= shape.context) {
            if Instant::now() > end {
                break;
            }
            let without = row(length, 0, token, Vec::new());
            let with = row(length, past_tokens, token, vec![Past::all(past.clone())]);
            let seconds = shortest(executor, &without)?;
            let slope = (shortest(executor, &with)? - seconds).max(0.0) / float(past_tokens);
            points.push(Point { new: float(length), seconds, past: slope });
        }
        points.sort_by(|a, b| a.new.total_cmp(&b.new));
        if points.len() < 2 { Ok(Self::assumed_from(trial.new_tokens(), seconds)) } else { Ok(Self { points }) }
    }

    /// What is true of most models, for one whose row of `new` tokens takes so many seconds.
    fn assumed_from(new: usize, seconds: f64) -> Self {
        let assumed = Self::assumed();
        let unit = seconds / assumed.of(new, 0);
        let point = |point: &Point| Point { new: point.new, seconds: point.seconds * unit, past: point.past * unit };
        Self { points: assumed.points.iter().map(point).collect() }
    }

    /// What a row of `new` tokens with a past of `past` costs.
    #[must_use]
    pub(crate) fn of(&self, new: usize, past: usize) -> f64 {
        let new = float(new);
        let cost = |point: &Point| point.seconds + point.past * float(past);
        let after = self.points.partition_point(|point| point.new < new).clamp(1, self.points.len() - 1);
        let (low, high) = (&self.points[after - 1], &self.points[after]);
        let slope = (cost(high) - cost(low)).max(0.0) / (high.new - low.new);
        // Rows below the shortest that was measured read all weights nonetheless.
        (cost(low) + slope * (new - low.new)).max(cost(&self.points[0]) * 0.25)
    }

    /// How many new tokens make the best use of a row with a past of `past`.
    #[must_use]
    pub fn best(&self, past: usize) -> usize {
        let cost_per_token = |point: &Point| (point.seconds + point.past * float(past)) / point.new;
        let mut best = &self.points[0];
        for point in &self.points[1..] {
            if cost_per_token(best) > cost_per_token(point) * GAIN_OF_LONGER_ROWS {
                best = point;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made from a small whole number")]
        let best = best.new as usize;
        best
    }

    /// How many tokens a second a long prompt is computed at, if that was measured.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let best = self.best(MEASURED_PAST);
        (*self != Self::assumed()).then(|| float(best) / self.of(best, MEASURED_PAST))
    }
}

fn row(tokens: usize, position: usize, token: u32, past: Vec<Past>) -> DecoderRow {
    let span = Span {
        tokens: vec![token; tokens],
        position,
        sees_past: std::iter::once(0..position).collect(),
        sees_new: Vec::new(),
    };
    let reads = vec![ReadAt { at: tokens - 1, output: 0, what: Read::Numbers }];
    DecoderRow { past, spans: vec![span], reads, keep: Vec::new() }
}

/// The lengths whose rows, each run twice without a past and twice with one, fit into `time`.
fn affordable(seconds_per_token: f64, time: Duration) -> Vec<usize> {
    let mut left = time.as_secs_f64();
    let mut fits = |length: &usize| {
        left -= 4.0 * seconds_per_token * float(*length);
        left >= 0.0
    };
    MEASURED_LENGTHS.into_iter().take_while(|length| fits(length)).collect()
}

fn timed(executor: &mut dyn DecoderExecutor, row: &DecoderRow) -> Result<f64, RuntimeError> {
    let started = Instant::now();
    executor.forward(row, &Cancellation::new())?;
    Ok(started.elapsed().as_secs_f64())
}

/// The shorter of two runs, the one that was less disturbed.
fn shortest(executor: &mut dyn DecoderExecutor, row: &DecoderRow) -> Result<f64, RuntimeError> {
    Ok(timed(executor, row)?.min(timed(executor, row)?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_interpolated_and_go_on() {
        let point = |new, seconds, past| Point { new, seconds, past };
        let cost = RowCost { points: vec![point(100.0, 10.0, 0.01), point(200.0, 16.0, 0.02)] };
        for (new, past, expected) in
            [(100, 0, 10.0), (150, 0, 13.0), (200, 100, 18.0), (300, 0, 22.0), (50, 0, 7.0), (1, 0, 4.06)]
        {
            assert!((cost.of(new, past) - expected).abs() < 1e-9, "{new} {past}: {}", cost.of(new, past));
        }
    }

    #[test]
    fn what_does_not_fit_into_the_time_is_not_measured_however_slow_the_model_is() {
        let seconds = |seconds| Duration::from_secs_f64(seconds);
        assert_eq!(affordable(0.0001, seconds(2.0)), MEASURED_LENGTHS);
        assert_eq!(affordable(0.001, seconds(2.0)), [256, 128, 32]);
        assert_eq!(affordable(0.005, seconds(2.0)), [0; 0]);
        // A row of 32 tokens takes 1.5 seconds, and longer ones as much more as those of most models do.
        let slow = RowCost::assumed_from(32, 1.5);
        assert!((slow.of(32, 0) - 1.5).abs() < 1e-9 && slow.tokens_per_second().is_some());
        assert_eq!(slow.best(0), RowCost::assumed().best(0));
    }

    #[test]
    fn what_nobody_measured_is_not_sound() {
        assert!(RowCost::assumed().is_sound());
        let point = |new, seconds, past| Point { new, seconds, past };
        let fine = point(32.0, 1.0, 0.1);
        for points in [
            vec![],
            vec![fine],
            vec![fine, fine],
            vec![fine, point(f64::NAN, 2.0, 0.1)],
            vec![fine, point(1e9, 2.0, 0.1)],
            vec![fine, point(64.0, -2.0, 0.1)],
            vec![fine, point(64.0, 2.0, -0.1)],
            vec![point(0.0, 1.0, 0.1), fine],
        ] {
            assert!(!RowCost { points: points.clone() }.is_sound(), "{points:?}");
        }
    }

    #[test]
    fn a_long_row_is_best_unless_it_is_hardly_better() {
        let cost = |seconds: [f64; 3]| {
            let points = [128.0, 256.0, 512.0].into_iter().zip(seconds);
            RowCost { points: points.map(|(new, seconds)| Point { new, seconds, past: 0.0 }).collect() }
        };
        assert_eq!(cost([1.0, 1.8, 3.55]).best(0), 256);
        assert_eq!(cost([1.0, 1.9, 3.0]).best(0), 512);
        assert_eq!(cost([1.0, 2.1, 5.0]).best(0), 128);
        assert_eq!(RowCost::assumed().best(0), 256);
    }
}
