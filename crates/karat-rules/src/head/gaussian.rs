//! Members that say how certain they are: a mean and a standard deviation each.
//!
//! The heads of a Bayesian reward model ensemble (Yan et al. 2024, "Reward-Robust RLHF in LLMs"). Graphs differ in what
//! they export for the spread, so it is named; the server works with standard deviations.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, HeadShape, Layout, finite, layout::arrangement, rewards};
use crate::domain::{Count, NonFinite, RowTensor, TokenizedInput, catalogue::Rule};

/// The gaussian head.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Gaussian {
    /// How many members there are.
    members: Count,
    /// What the graph gives for a member's spread.
    spread: Spread,
}

impl Rule for Gaussian {
    const NAME: &'static str = "gaussian";
    const SUMMARY: &'static str = "K members that each give a mean and a spread, for aggregations that trust the \
        certain ones. Outputs [batch, K] twice, means first, or one [batch, 2K] with all means before all spreads.";
    const FORMULA: &'static str =
        "mu_i and sigma_i, i = 1..K; sigma = s, exp(s), sqrt(s) or exp(s/2) for the spread s that the graph gives";
    const SOURCE: &'static str = "Yan et al. 2024, Reward-Robust RLHF in LLMs";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"members": 5, "spread": "deviation"}"#, r#"{"members": 2, "spread": "log_variance"}"#];

    type Parameters = Self;
}

/// What the graph gives for a member's spread.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Spread {
    /// `σ`.
    Deviation,
    /// `log σ`.
    LogDeviation,
    /// `σ²`.
    Variance,
    /// `log σ²`.
    LogVariance,
}

impl Spread {
    fn deviation(self, spread: f64) -> Result<f64, HeadError> {
        let deviation = match self {
            Self::Deviation | Self::Variance if spread < 0.0 => return Err(HeadError::NegativeSpread(spread)),
            Self::Deviation => spread,
            Self::Variance => spread.sqrt(),
            Self::LogDeviation => spread.exp(),
            Self::LogVariance => (spread / 2.0).exp(),
        };
        if deviation.is_finite() { Ok(deviation) } else { Err(NonFinite(deviation).into()) }
    }
}

impl Head for Gaussian {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        let members = self.members.get();
        vec![vec![Layout::list(members); 2], vec![Layout::list(2 * members)]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape { deviations: true, ..HeadShape::of(self.members.get()) }
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let (means, spreads) = match arrangement(self, input, rows)? {
            0 => (rows[0].values(), rows[1].values()),
            _ => rows[0].values().split_at(self.members.get()),
        };
        let deviations: Result<Vec<f64>, _> =
            finite(spreads)?.into_iter().map(|spread| self.spread.deviation(spread)).collect();
        Ok(HeadOutput::Gaussian { means: rewards(means)?, deviations: deviations? })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{head, input, numbers, output, row},
        *,
    };
    use crate::numeric::testing::assert_all_close;

    fn read(spread: &str, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        head(&format!(r#"{{"gaussian":{{"members":2,"spread":"{spread}"}}}}"#)).unwrap().read(&input(1), rows)
    }

    #[test]
    fn every_parametrisation_gives_deviations() {
        let means = row(&[2], &[1.0, -1.0]);
        for (spread, values) in [
            ("deviation", [2.0_f32, 0.5]),
            ("log_deviation", [2.0_f32.ln(), 0.5_f32.ln()]),
            ("variance", [4.0, 0.25]),
            ("log_variance", [4.0_f32.ln(), 0.25_f32.ln()]),
        ] {
            let two = read(spread, &[means.clone(), row(&[2], &values)]).unwrap();
            assert_all_close(two.deviations().unwrap(), &[2.0, 0.5]);
            assert_all_close(&numbers(two.members()), &[1.0, -1.0]);
            let one = read(spread, &[row(&[4], &[1.0, -1.0, values[0], values[1]])]).unwrap();
            assert_eq!(one, two);
        }
    }

    #[test]
    fn a_negative_or_infinite_spread_is_refused() {
        let rows = |spread: f32| [row(&[2], &[0.0, 0.0]), row(&[2], &[1.0, spread])];
        assert!(matches!(read("variance", &rows(-1.0)), Err(HeadError::NegativeSpread(_))));
        assert!(matches!(read("log_deviation", &rows(1e4)), Err(HeadError::NonFinite(_))));
    }

    #[test]
    fn both_layouts_are_accepted() {
        let head = head(r#"{"gaussian":{"members":2,"spread":"deviation"}}"#).unwrap();
        assert!(head.check(&[&output(&[2]), &output(&[2])]).is_ok());
        assert!(head.check(&[&output(&[4])]).is_ok());
        let error = head.check(&[&output(&[2])]).unwrap_err().to_string();
        assert!(error.contains("[batch, 2] and [batch, 2], or [batch, 4]"), "{error}");
    }
}
