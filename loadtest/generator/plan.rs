//! Every request of a run, written before the clock starts.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;

use crate::{
    Failure,
    dialect::{CandidateDetails, Dialect},
    workload::{self, Sample},
};

/// How samples become requests.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanOptions {
    /// The samples, one JSON object a line
    #[arg(long)]
    pub(crate) workload: PathBuf,
    /// Take only the first so many samples
    #[arg(long)]
    pub(crate) samples: Option<usize>,
    /// How many samples go into one request
    #[arg(long, default_value_t = 1, conflicts_with = "groups")]
    pub(crate) batch: usize,
    /// Send each Best-of-N group as one request
    #[arg(long)]
    pub(crate) groups: bool,
    /// The share of requests that repeat an earlier one
    #[arg(long, default_value_t = 0.0)]
    pub(crate) duplicates: f64,
    /// The share of requests whose client leaves before the reply
    #[arg(long, default_value_t = 0.0)]
    pub(crate) hang_up: f64,
    /// The longest that such a client stays, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub(crate) hang_up_within_ms: u64,
    /// The priority that requests ask for, where the server has priorities
    #[arg(long)]
    pub(crate) priority: Option<String>,
    /// The time that requests give the server, where it takes one
    #[arg(long)]
    pub(crate) timeout_ms: Option<u64>,
    /// What everything random is drawn from
    #[arg(long, default_value_t = 29)]
    pub(crate) seed: u64,
}

/// One request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) body: Bytes,
    pub(crate) samples: u64,
    pub(crate) tokens: u64,
    /// When its client leaves, counted from the sending; most never do.
    pub(crate) leaves_after: Option<Duration>,
}

/// Writes the requests of one pass over the workload.
pub(crate) fn build(options: &PlanOptions, dialect: Dialect, model: &str) -> Result<Vec<Request>, Failure> {
    let mut samples = workload::read(&options.workload)?;
    samples.truncate(options.samples.unwrap_or(usize::MAX));
    let details = CandidateDetails { priority: options.priority.clone(), timeout_ms: options.timeout_ms };
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut requests: Vec<Request> = Vec::with_capacity(samples.len());
    for together in divide(&samples, options) {
        let body = serde_json::to_vec(&dialect.body(model, &together, &details)?)?;
        let tokens = together.iter().map(|sample| sample.tokens()).sum();
        requests.push(Request {
            body: body.into(),
            samples: together.len() as u64,
            tokens,
            leaves_after: leaves_after(options, &mut random),
        });
        while random.f64() < options.duplicates {
            let earlier = requests[random.usize(..requests.len())].clone();
            requests.push(Request { leaves_after: leaves_after(options, &mut random), ..earlier });
        }
    }
    Ok(requests)
}

fn leaves_after(options: &PlanOptions, random: &mut fastrand::Rng) -> Option<Duration> {
    (random.f64() < options.hang_up).then(|| Duration::from_millis(random.u64(..=options.hang_up_within_ms)))
}

/// The samples of each request.
fn divide<'a>(samples: &'a [Sample], options: &PlanOptions) -> Vec<Vec<&'a Sample>> {
    if options.groups {
        samples.chunk_by(|one, next| one.group == next.group).map(|group| group.iter().collect()).collect()
    } else {
        samples.chunks(options.batch.max(1)).map(|batch| batch.iter().collect()).collect()
    }
}
