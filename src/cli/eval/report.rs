//! How good the scores of preferences are.

use indexmap::IndexMap;
use karat_rules::{
    domain::catalogue::Choice,
    metrics,
    numeric::{mean, sigmoid, wilson_interval},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::items::{Item, Scores};
use crate::cli::CommandError;

/// How sure the intervals are.
const LEVEL: f64 = 0.95;
const HISTOGRAM_BINS: usize = 20;
const CALIBRATION_BINS: usize = 10;
/// The part of the report about the whole file.
pub(super) const OVERALL: &str = "overall";
/// What RewardBench 2 calls prompts with several right responses.
const TIES: &str = "ties";

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The whole file and each of its subsets.
    pub(super) parts: IndexMap<String, Part>,
    /// How often each rule and each member puts every right response above every wrong one, by part.
    pub(super) side_by_side: IndexMap<String, IndexMap<String, Share>>,
    /// Pairs by the margin of the right response over the wrong one.
    pub(super) margins: Vec<Bin>,
    /// Whether the sigmoid of a margin is the probability that it points the right way.
    pub(super) calibration: Calibration,
    /// RewardBench 2's own score, where the file has its shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reward_bench_2: Option<RewardBench2>,
}

/// One part of the file.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    /// How many preferences.
    pub(super) items: usize,
    /// Every right response strictly above every wrong one.
    pub(super) accuracy: Share,
    /// The same where equal scores are good enough.
    pub(super) accuracy_with_ties: Share,
    /// The mean reciprocal rank of the best right response, wrong ones first among equals.
    pub(super) mean_reciprocal_rank: f64,
    /// The mean margin of the lowest right response over the highest wrong one.
    pub(super) mean_margin: f64,
}

/// A share with its 95 % Wilson interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Share {
    pub(super) share: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// One bar of a histogram: pairs from `from` up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bin {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) count: usize,
}

/// Whether probabilities mean what they say. Of each pair the probability is that of its higher response, so that it is
/// from 0.5 to 1, and it came true where that response is the right one.
#[derive(Debug, Serialize)]
pub(super) struct Calibration {
    pub(super) pairs: usize,
    pub(super) expected_calibration_error: f64,
    pub(super) brier: f64,
    pub(super) bins: Vec<CalibrationBin>,
}

/// Pairs of like probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CalibrationBin {
    pub(super) pairs: usize,
    pub(super) mean_probability: f64,
    pub(super) came_true: Share,
}

/// RewardBench 2's score of each subset and their mean.
#[derive(Debug, Serialize)]
pub(super) struct RewardBench2 {
    pub(super) subsets: IndexMap<String, f64>,
    pub(super) mean: f64,
}

/// One way to make a number of a response's scores.
type Rule = (String, Box<dyn Fn(&Scores) -> f64>);

impl Report {
    /// # Errors
    /// When there are no items, or a margin is not finite.
    pub(super) fn of(items: &[Item]) -> Result<Self, CommandError> {
        if items.is_empty() {
            return Err("there are no preferences to evaluate".into());
        }
        let parts = parts(items);
        let rules = rules(items);
        let side_by_side = rules.iter().map(|(name, rule)| {
            let shares = parts.iter().map(|(part, items)| (part.clone(), accuracy(items, rule)));
            (name.clone(), shares.collect())
        });
        let margins = pair_margins(items);
        if margins.iter().any(|margin| !margin.is_finite()) {
            return Err("the difference of two scores is not finite; scale the scores down".into());
        }
        Ok(Self {
            side_by_side: side_by_side.collect(),
            parts: parts.iter().map(|(name, items)| Ok((name.clone(), part(items)?))).collect::<Result<_, String>>()?,
            calibration: calibration(&margins)?,
            margins: histogram(&margins),
            reward_bench_2: reward_bench_2(items)?,
        })
    }
}

/// The whole file first, then its subsets in the order in which they appear; one alone isn't told twice.
fn parts(items: &[Item]) -> IndexMap<String, Vec<&Item>> {
    let mut subsets: IndexMap<String, Vec<&Item>> = IndexMap::new();
    for item in items {
        subsets.entry(item.label.subset.clone()).or_default().push(item);
    }
    let mut parts = IndexMap::from([(OVERALL.to_owned(), items.iter().collect())]);
    if subsets.len() > 1 {
        parts.extend(subsets);
    }
    parts
}

/// The reward, and what can be made of the members where every response has the same number of them, at least two.
fn rules(items: &[Item]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![("reward".to_owned(), Box::new(|scores: &Scores| scores.reward))];
    let mut counts = items.iter().flat_map(|item| item.chosen.iter().chain(&item.rejected)).map(|s| s.members.len());
    let Some(members) = counts.next().filter(|first| *first > 1 && counts.all(|count| count == *first)) else {
        return rules;
    };
    rules.push(("mean".to_owned(), Box::new(|scores: &Scores| mean(&scores.members))));
    let lowest = |scores: &Scores| scores.members.iter().copied().fold(f64::INFINITY, f64::min);
    rules.push(("worst case".to_owned(), Box::new(lowest)));
    for member in 0..members {
        rules.push((format!("member {member}"), Box::new(move |scores: &Scores| scores.members[member])));
    }
    rules
}

fn lowest(side: &[Scores], rule: impl Fn(&Scores) -> f64) -> f64 {
    side.iter().map(rule).fold(f64::INFINITY, f64::min)
}

fn highest(side: &[Scores], rule: impl Fn(&Scores) -> f64) -> f64 {
    side.iter().map(rule).fold(f64::NEG_INFINITY, f64::max)
}

fn accuracy(items: &[&Item], rule: &dyn Fn(&Scores) -> f64) -> Share {
    Share::of(items.iter().map(|item| lowest(&item.chosen, rule) > highest(&item.rejected, rule)))
}

impl Share {
    fn of(outcomes: impl Iterator<Item = bool>) -> Self {
        let (mut hits, mut trials) = (0_u32, 0_u32);
        for outcome in outcomes {
            trials += 1;
            hits += u32::from(outcome);
        }
        // Of no trials anything is possible.
        let (low, high) = wilson_interval(hits.into(), trials.into(), LEVEL).unwrap_or((0.0, 1.0));
        Self { share: f64::from(hits) / f64::from(trials.max(1)), low, high }
    }
}

fn part(items: &[&Item]) -> Result<Part, String> {
    let rewards = |side: &[Scores]| side.iter().map(|scores| scores.reward).collect::<Vec<f64>>();
    let sides: Vec<Value> = items
        .iter()
        .map(|item| json!({ "chosen": rewards(&item.chosen), "rejected": rewards(&item.rejected) }))
        .collect();
    let ranks = metric("reward_math", json!({ "items": sides }))?;
    let margin = |item: &&Item| lowest(&item.chosen, |s| s.reward) - highest(&item.rejected, |s| s.reward);
    let margins: Vec<f64> = items.iter().map(margin).collect();
    Ok(Part {
        items: items.len(),
        accuracy: Share::of(margins.iter().map(|margin| *margin > 0.0)),
        accuracy_with_ties: Share::of(margins.iter().map(|margin| *margin >= 0.0)),
        mean_reciprocal_rank: number(&ranks, "mean_reciprocal_rank"),
        mean_margin: mean(&margins),
    })
}

/// A metric of the catalogue.
fn metric(name: &str, parameters: Value) -> Result<Value, String> {
    let choice = Choice { name: name.to_owned(), parameters };
    let metric = metrics::CATALOGUE.build(&choice).map_err(|error| error.to_string())?;
    metric.compute().map_err(|error| error.to_string())
}

fn number(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or(f64::NAN)
}

/// The margin of every right response over every wrong one.
fn pair_margins(items: &[Item]) -> Vec<f64> {
    let of_item = |item: &Item| -> Vec<f64> {
        let against = |chosen: &Scores| item.rejected.iter().map(|rejected| chosen.reward - rejected.reward).collect();
        item.chosen.iter().flat_map(|chosen| -> Vec<f64> { against(chosen) }).collect()
    };
    items.iter().flat_map(of_item).collect()
}

/// Equally wide bars from the lowest to the highest margin, one of which begins at 0.
fn histogram(margins: &[f64]) -> Vec<Bin> {
    let (low, high) =
        margins.iter().fold((0.0_f64, 0.0_f64), |(low, high), margin| (low.min(*margin), high.max(*margin)));
    let width = (high - low) / (HISTOGRAM_BINS - 1) as f64;
    if !(width.is_finite() && width > 0.0) {
        return vec![Bin { from: low, to: high, count: margins.len() }];
    }
    let first = (low / width).floor();
    let place = |margin: f64| (((margin / width).floor() - first) as usize).min(HISTOGRAM_BINS);
    let mut counts = vec![0; margins.iter().map(|margin| place(*margin)).max().unwrap_or(0) + 1];
    margins.iter().for_each(|margin| counts[place(*margin)] += 1);
    let edge = |index: usize| (first + index as f64) * width;
    counts
        .iter()
        .enumerate()
        .map(|(index, count)| Bin { from: edge(index), to: edge(index + 1), count: *count })
        .collect()
}

fn calibration(margins: &[f64]) -> Result<Calibration, String> {
    // Without a margin there is nothing to be sure of, and no response that is higher.
    let decided: Vec<f64> = margins.iter().copied().filter(|margin| *margin != 0.0).collect();
    if decided.is_empty() {
        return Ok(Calibration { pairs: 0, expected_calibration_error: 0.0, brier: 0.0, bins: Vec::new() });
    }
    let probabilities: Vec<f64> = decided.iter().map(|margin| sigmoid(margin.abs())).collect();
    let outcomes: Vec<bool> = decided.iter().map(|margin| *margin > 0.0).collect();
    let parameters = json!({ "probabilities": probabilities, "outcomes": outcomes, "bins": 2 * CALIBRATION_BINS });
    let errors = metric("calibration", parameters)?;
    let bin = |p: f64| (((p - 0.5) * 2.0 * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
    let bins = (0..CALIBRATION_BINS).filter_map(|index| {
        let members: Vec<usize> = (0..decided.len()).filter(|pair| bin(probabilities[*pair]) == index).collect();
        let probabilities: Vec<f64> = members.iter().map(|pair| probabilities[*pair]).collect();
        (!members.is_empty()).then(|| CalibrationBin {
            pairs: members.len(),
            mean_probability: mean(&probabilities),
            came_true: Share::of(members.iter().map(|pair| outcomes[*pair])),
        })
    });
    Ok(Calibration {
        pairs: decided.len(),
        expected_calibration_error: number(&errors, "expected_calibration_error"),
        brier: number(&errors, "brier"),
        bins: bins.collect(),
    })
}

/// RewardBench 2's score where the file has its shape: one right response against several, and ties in a subset whose
/// ids name reference prompts (`ref:`) and prompts with several right responses (`tied:`).
fn reward_bench_2(items: &[Item]) -> Result<Option<RewardBench2>, String> {
    let mut subsets: IndexMap<&str, Vec<&Item>> = IndexMap::new();
    for item in items {
        subsets.entry(&item.label.subset).or_default().push(item);
    }
    let rewards = |side: &[Scores]| side.iter().map(|scores| scores.reward).collect::<Vec<f64>>();
    let mut found = IndexMap::new();
    for (subset, items) in subsets {
        let score = if subset.eq_ignore_ascii_case(TIES) {
            let mut pairs: IndexMap<&str, (Option<&Item>, Option<&Item>)> = IndexMap::new();
            for item in items {
                match item.label.id.as_deref().and_then(|id| id.split_once(':')) {
                    Some(("ref", number)) => pairs.entry(number).or_default().0 = Some(item),
                    Some(("tied", number)) => pairs.entry(number).or_default().1 = Some(item),
                    _ => return Ok(None),
                }
            }
            let sides = |item: &Item| json!({ "right": rewards(&item.chosen), "wrong": rewards(&item.rejected) });
            let whole = pairs.into_values().filter_map(|(reference, tied)| Some((reference?, tied?)));
            let ties: Vec<Value> = whole.map(|(r, t)| json!({ "reference": sides(r), "tied": sides(t) })).collect();
            if ties.is_empty() {
                return Ok(None);
            }
            number(&metric("reward_bench_2", json!({ "ties": ties }))?["ties"], "score")
        } else {
            if items.iter().any(|item| item.chosen.len() != 1 || item.rejected.len() < 2) {
                return Ok(None);
            }
            let best_of: Vec<Value> = items
                .iter()
                .map(|item| json!({ "right": item.chosen[0].reward, "wrong": rewards(&item.rejected) }))
                .collect();
            number(&metric("reward_bench_2", json!({ "best_of": best_of }))?, "best_of")
        };
        found.insert(subset.to_owned(), score);
    }
    let mean = mean(&found.values().copied().collect::<Vec<f64>>());
    Ok(Some(RewardBench2 { subsets: found, mean }))
}

#[cfg(test)]
mod tests {
    use super::{super::items::Label, *};

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-6, "{actual} is not {expected}");
    }

    fn item(subset: &str, id: &str, chosen: &[f64], rejected: &[f64]) -> Item {
        let side = |rewards: &[f64]| {
            rewards.iter().map(|reward| Scores { reward: *reward, members: vec![*reward, -reward] }).collect()
        };
        let label = Label { subset: subset.to_owned(), id: Some(id.to_owned()) };
        Item { label, chosen: side(chosen), rejected: side(rejected) }
    }

    /// The values of RewardMATH's published items; the intervals are those of SciPy 1.17's
    /// `binomtest(k, n).proportion_ci(method="wilson")`.
    #[test]
    fn accuracy_ranks_and_intervals_are_those_of_independent_sources() {
        let items = [
            item("a", "0", &[0.9], &[0.85, 0.2]),
            item("a", "1", &[0.6], &[0.7, 0.65]),
            item("b", "2", &[0.5], &[0.5, 0.1]),
        ];
        let report = Report::of(&items).unwrap();
        let overall = &report.parts[OVERALL];
        assert_close(overall.accuracy.share, 1.0 / 3.0);
        assert_close(overall.accuracy_with_ties.share, 2.0 / 3.0);
        assert_close(overall.mean_reciprocal_rank, (1.0 + 1.0 / 3.0 + 0.5) / 3.0);
        assert_eq!(report.parts.keys().collect::<Vec<_>>(), [OVERALL, "a", "b"]);
        let many = Share::of((0..515).map(|index| index < 333));
        assert_close(many.low, 0.604370);
        assert_close(many.high, 0.686663);
        // A member that turns the scores around is right where the other one is wrong.
        assert_close(report.side_by_side["member 0"]["a"].share, 0.5);
        assert_close(report.side_by_side["member 1"]["a"].share, 0.5);
        assert_close(report.side_by_side["worst case"][OVERALL].share, 1.0 / 3.0);
    }

    #[test]
    fn every_pair_is_in_one_bar_and_no_bar_spans_zero() {
        for margins in [vec![-1.0, -0.2, 0.0, 0.1, 3.0], vec![0.5, 0.7], vec![-2.0], vec![1.0, 1e300], vec![0.0]] {
            let bars = histogram(&margins);
            assert_eq!(bars.iter().map(|bar| bar.count).sum::<usize>(), margins.len(), "{margins:?} {bars:?}");
            assert!(bars.len() <= HISTOGRAM_BINS + 1, "{margins:?}");
            for bar in &bars {
                assert!(bar.from * bar.to >= 0.0 && bar.from <= bar.to, "{margins:?} {bar:?}");
            }
        }
    }

    /// By hand: σ(ln 3) = 0.75 of four pairs, three of which point the right way, is perfectly calibrated.
    #[test]
    fn a_margin_that_keeps_its_word_is_calibrated() {
        let ln3 = 3.0_f64.ln();
        let perfect = calibration(&[ln3, ln3, ln3, -ln3, 0.0]).unwrap();
        assert_eq!(perfect.pairs, 4);
        assert_close(perfect.expected_calibration_error, 0.0);
        assert_close(perfect.brier, (3.0 * 0.0625 + 0.5625) / 4.0);
        assert_close(perfect.bins[0].came_true.share, 0.75);
        assert_close(calibration(&[ln3, -ln3]).unwrap().expected_calibration_error, 0.25);
        assert_eq!(calibration(&[0.0]).unwrap().pairs, 0);
    }

    /// The second subset by hand, as in the metric's own tests: 0.3 + 0.3 + 0.2 + 0.2 + 0.01 · tanh(1).
    #[test]
    fn reward_bench_2_has_its_own_score() {
        let items = [
            item("Math", "0", &[0.9], &[0.1, 0.9, 0.3]),
            item("Math", "1", &[0.9], &[0.1, 0.2, 0.3]),
            item("Ties", "ref:7", &[2.0], &[0.0, 1.0]),
            item("Ties", "tied:7", &[3.0, 2.5], &[1.0, 0.0]),
        ];
        let score = Report::of(&items).unwrap().reward_bench_2.unwrap();
        assert_close(score.subsets["Math"], 0.75);
        assert_close(score.subsets["Ties"], 1.00761594);
        assert_close(score.mean, f64::midpoint(0.75, 1.00761594));
        assert!(Report::of(&[item("a", "0", &[1.0], &[0.0])]).unwrap().reward_bench_2.is_none());
        assert!(Report::of(&[]).is_err());
    }
}
