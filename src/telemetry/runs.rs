//! What training runs look like from outside: the latest ones only, since their names are chosen by clients and a label
//! must have an end of values.

use karat_runs::registry::Runs;
use karat_runtime::metrics;
use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec};

/// How many runs have series: each has up to two models, and a series for each signal of each.
const SHOWN: usize = 20;

metrics! {
    /// What is counted of runs and jobs.
    pub(super) struct RunMetrics {
        runs: IntGauge = "karat_runs", "Training runs whose statistics are kept";
        bytes: IntGauge = "karat_runs_bytes", "Memory that the statistics of training runs take";
        evicted: IntCounter = "karat_runs_evicted_total", "Training runs that were let go for want of room";
        samples: IntCounter = "karat_run_samples_total", "Samples that were counted for training runs";
        dropped: IntCounter = "karat_run_samples_dropped_total",
            "Samples of training runs that came faster than they could be counted";
        reward: GaugeVec by ["run", "model"] = "karat_run_reward", "Mean reward of a run's latest step, of the latest runs";
        disagreement: GaugeVec by ["run", "model"] = "karat_run_disagreement",
            "Mean deviation of the members in a run's latest step, of the latest runs";
        gap: GaugeVec by ["run", "model"] = "karat_run_worst_case_gap",
            "Mean of the members less the lowest in a run's latest step, of the latest runs";
        length: GaugeVec by ["run", "model"] = "karat_run_response_characters",
            "Mean length of the responses in a run's latest step, of the latest runs";
        value: GaugeVec by ["run", "model", "signal"] = "karat_run_signal",
            "Value of a signal of over-optimisation, of the latest runs";
        firing: IntGaugeVec by ["run", "model", "signal"] = "karat_run_signal_firing",
            "1 where a signal of over-optimisation fires, of the latest runs";
        job_rows: IntGauge = "karat_job_rows", "Rows of jobs that wait to be scored";
        backlog: IntGauge = "karat_backlog_samples", "Samples that wait to be scored after their request was answered";
    }
}

/// What waits beside requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// Rows of jobs.
    pub(crate) job_rows: u64,
    /// Samples whose requests were answered.
    pub(crate) backlog: usize,
    /// Samples that came faster than they could be counted, since the start.
    pub(crate) dropped: u64,
}

impl RunMetrics {
    /// Sets every figure as it is now.
    pub(super) fn show(&self, runs: &Runs, waiting: Waiting) {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (count, bytes) = runs.size();
        let (samples, evicted) = runs.totals();
        self.runs.set(whole(count));
        self.bytes.set(whole(bytes));
        for (counter, total) in [(&self.samples, samples), (&self.evicted, evicted), (&self.dropped, waiting.dropped)] {
            // Two scrapes at once may each have read another total; a counter never falls.
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.job_rows.set(i64::try_from(waiting.job_rows).unwrap_or(i64::MAX));
        self.backlog.set(whole(waiting.backlog));

        for family in [&self.reward, &self.disagreement, &self.gap, &self.length, &self.value] {
            family.reset();
        }
        self.firing.reset();
        for run in runs.latest(SHOWN) {
            for (model, step, signals) in run.figures() {
                let of = [run.name().as_str(), model.as_str()];
                let figures = [
                    (&self.reward, step.mean),
                    (&self.disagreement, step.disagreement),
                    (&self.gap, step.worst_case_gap),
                    (&self.length, step.length),
                ];
                for (family, figure) in figures {
                    if let Some(figure) = figure {
                        family.with_label_values(&of).set(figure);
                    }
                }
                for (signal, reading) in signals {
                    let of = [of[0], of[1], signal.as_str()];
                    self.value.with_label_values(&of).set(reading.value);
                    self.firing.with_label_values(&of).set(i64::from(reading.fires));
                }
            }
        }
    }
}
