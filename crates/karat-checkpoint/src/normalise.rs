//! Rewards that a checkpoint gives as distances from a mean, in deviations.

use serde_json::Value;

use crate::{config::Config, problems::Problems, weights::Weights};

/// What safe-rlhf adds to a deviation before it divides by it.
const EPSILON: f64 = 1e-8;

/// `(score − mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalisation {
    pub(crate) mean: f64,
    /// Above 0.
    pub(crate) deviation: f64,
}

/// What the configuration says of the scores, where they are to be normalised.
pub(crate) fn read(config: &Config, weights: &Weights, problems: &mut Problems) -> Option<Normalisation> {
    let openrlhf = openrlhf(config, problems);
    openrlhf.or_else(|| safe_rlhf(config, weights, problems))
}

/// OpenRLHF's `normalize_reward`.
fn openrlhf(config: &Config, problems: &mut Problems) -> Option<Normalisation> {
    let (mean, deviation) = (config.number("mean"), config.number("std"));
    if !config.is_on("normalize_reward") {
        return None;
    }
    match mean.zip(deviation).filter(|(_, deviation)| *deviation > 0.0) {
        Some((mean, deviation)) => Some(Normalisation { mean, deviation }),
        None => problems.add(
            "config.json: normalize_reward wants a mean and a std above 0; write both, or remove it to serve rewards as they \
             are",
        ),
    }
}

/// safe-rlhf's `do_normalize` (Dai et al. 2023, "Safe RLHF"): a reward loses its mean, a cost keeps it.
fn safe_rlhf(config: &Config, weights: &Weights, problems: &mut Problems) -> Option<Normalisation> {
    if !weights.has("score_head.weight") {
        return None;
    }
    config.know(&["score_dim", "bias", "normalizer_type", "momentum"]);
    let kind = config.text("score_type").unwrap_or("reward");
    let first = |key: &str| config.get(key).and_then(Value::as_array).and_then(|list| list.first()?.as_f64());
    let written = [first("mean"), first("var")];
    if !config.is_on("do_normalize") || kind == "critic" {
        return None;
    }
    // Loading a checkpoint sets what its tensors hold over what its configuration says.
    let mut held = |name: &str| {
        let name = format!("normalizer.{name}");
        let numbers = weights.has(&name).then(|| problems.take(weights.numbers(&name))).flatten();
        numbers.and_then(|numbers| numbers.first().copied()).map(f64::from)
    };
    let mean = held("mean").or(written[0]).unwrap_or(0.0);
    let deviation = held("var").or(written[1]).unwrap_or(1.0).max(0.0).sqrt() + EPSILON;
    match kind {
        "reward" => Some(Normalisation { mean, deviation }),
        "cost" => Some(Normalisation { mean: 0.0, deviation }),
        _ => problems.add(format!("config.json: score_type is {kind:?}; known are reward, cost and critic")),
    }
}
