//! What is aggregated: the scores of an ensemble's members, and what a manifest promises about them.

use std::sync::Arc;

use super::AggregationError;
use crate::{
    domain::{NotNegative, Reward},
    numeric::{self, DegreesOfFreedom},
};

/// The scores that an ensemble's members gave one sample, in the members' order.
///
/// Where a model gives several named objectives, the scores of the first objective's members come first, then those
/// of the second's. Invariants: at least one member, every score finite, deviations and objectives fit the count.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    values: Vec<f64>,
    deviations: Option<Vec<f64>>,
    objectives: Option<Arc<[String]>>,
    sensitivity: Option<f64>,
}

impl Members {
    /// Takes the members' scores; `None` when there are none.
    #[must_use]
    pub fn new(rewards: &[Reward]) -> Option<Self> {
        Self::from_values(rewards.iter().map(|reward| reward.get()).collect())
    }

    pub(super) fn from_values(values: Vec<f64>) -> Option<Self> {
        (!values.is_empty()).then_some(Self { values, deviations: None, objectives: None, sensitivity: None })
    }

    /// Adds each member's own standard deviation, as a head with Gaussian outputs gives it; `None` unless there is one
    /// for each score, finite and at least 0.
    #[must_use]
    pub fn with_deviations(mut self, deviations: Vec<f64>) -> Option<Self> {
        let sound = deviations.len() == self.values.len() && deviations.iter().all(|d| d.is_finite() && *d >= 0.0);
        self.deviations = Some(deviations);
        sound.then_some(self)
    }

    /// Adds how much edits of the response that shouldn't matter change the mean; `None` unless it is finite and at least 0.
    #[must_use]
    pub fn with_sensitivity(mut self, sensitivity: f64) -> Option<Self> {
        self.sensitivity = Some(sensitivity);
        (sensitivity.is_finite() && sensitivity >= 0.0).then_some(self)
    }

    /// Names the objectives; `None` unless each has the same number of members, at least one.
    #[must_use]
    pub fn with_objectives(mut self, names: Arc<[String]>) -> Option<Self> {
        let sound = !names.is_empty() && self.values.len().is_multiple_of(names.len());
        self.objectives = Some(names);
        sound.then_some(self)
    }

    /// Arranges the scores of several models that each score the same objectives, one score an objective; `None`
    /// unless there is at least one model and every one has a score for each name.
    #[must_use]
    pub fn of_models(names: Arc<[String]>, models: &[&[Reward]]) -> Option<Self> {
        if models.iter().any(|scores| scores.len() != names.len()) {
            return None;
        }
        let by_objective =
            (0..names.len()).flat_map(|objective| models.iter().map(move |scores| scores[objective].get()));
        Self::from_values(by_objective.collect())?.with_objectives(names)
    }

    /// The scores.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Each member's own standard deviation, where the head gives one.
    #[must_use]
    pub fn deviations(&self) -> Option<&[f64]> {
        self.deviations.as_deref()
    }

    /// How much edits of the response that shouldn't matter change the mean, where that was tried.
    #[must_use]
    pub fn sensitivity(&self) -> Option<f64> {
        self.sensitivity
    }

    /// The names of the objectives, where there are several.
    #[must_use]
    pub fn objectives(&self) -> Option<&[String]> {
        self.objectives.as_deref()
    }

    /// The members of the objective at `index`, without its name; `None` past the last.
    #[must_use]
    pub fn of_objective(&self, index: usize) -> Option<Self> {
        let objectives = self.objectives.as_ref().map_or(1, |names| names.len());
        let each = self.values.len() / objectives;
        let range = index * each..(index + 1) * each;
        let values = self.values.get(range.clone())?.to_vec();
        let deviations = self.deviations.as_ref().map(|deviations| deviations[range].to_vec());
        Some(Self { values, deviations, objectives: None, sensitivity: None })
    }

    /// What these members promise, when they are one of `candidates` for a prompt.
    #[must_use]
    pub fn shape(&self, candidates: usize) -> MembersShape {
        let objectives = self.objectives.as_ref().map_or(1, |names| names.len());
        MembersShape {
            members: self.values.len() / objectives,
            deviations: self.deviations.is_some(),
            objectives: self.objectives.clone(),
            candidates,
        }
    }

    /// The arithmetic mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        numeric::mean(&self.values)
    }

    /// The smallest score.
    #[must_use]
    pub fn minimum(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The population variance, `(1/k) Σ (Rᵢ − R̄)²`: divided by the number of members, not by one less.
    #[must_use]
    pub fn variance(&self) -> f64 {
        numeric::variance(&self.values, DegreesOfFreedom::Population).unwrap_or(0.0)
    }

    /// `λ · Var(R)` with the given divisor of the variance, 0 for a λ of 0.
    ///
    /// # Errors
    /// When there are too few members.
    pub(super) fn weighted_variance(
        &self,
        lambda: NotNegative,
        ddof: DegreesOfFreedom,
    ) -> Result<f64, AggregationError> {
        let variance = numeric::variance(&self.values, ddof).ok_or_else(|| too_few(self.values.len(), ddof.least()))?;
        // An overflowing variance must not turn lambda = 0 into 0 · ∞.
        Ok(if lambda.get() > 0.0 { lambda.get() * variance } else { 0.0 })
    }
}

/// What is known about members before they are scored: enough to refuse a rule that could never apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersShape {
    /// The number of members, for each objective where there are several.
    pub members: usize,
    /// Whether each member has a deviation of its own.
    pub deviations: bool,
    /// The names of the objectives, where there are several.
    pub objectives: Option<Arc<[String]>>,
    /// How many candidates for one prompt are aggregated together; 1 where samples are scored alone.
    pub candidates: usize,
}

impl MembersShape {
    /// An ensemble of `members` that score samples one by one.
    #[must_use]
    pub fn of(members: usize) -> Self {
        Self { members, deviations: false, objectives: None, candidates: 1 }
    }

    /// How many numbers a rule that isn't nested combines.
    ///
    /// # Errors
    /// When there are several objectives of several members each, which only a nested rule can combine.
    pub fn flat(&self) -> Result<usize, AggregationError> {
        match &self.objectives {
            Some(names) if self.members > 1 && names.len() > 1 => Err(AggregationError::unsuitable(
                format!("there are {} objectives of {} members each", names.len(), self.members),
                r#"write aggregation = { nested = { members = "mean", objectives = … } }"#,
            )),
            Some(names) => Ok(names.len() * self.members),
            None => Ok(self.members),
        }
    }

    /// As [`MembersShape::flat`], and at least `least`.
    pub(super) fn at_least(&self, least: usize) -> Result<usize, AggregationError> {
        let count = self.flat()?;
        if count < least { Err(too_few(count, least)) } else { Ok(count) }
    }
}

fn too_few(found: usize, least: usize) -> AggregationError {
    AggregationError::unsuitable(
        format!("there are {found} members"),
        format!("the rule needs at least {least}; add members, or choose \"mean\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewards(values: &[f64]) -> Vec<Reward> {
        values.iter().map(|value| Reward::new(*value).unwrap()).collect()
    }

    #[test]
    fn there_is_no_ensemble_without_members() {
        assert_eq!(Members::new(&[]), None);
    }

    #[test]
    fn deviations_and_objectives_must_fit() {
        let members = Members::new(&rewards(&[1.0, 2.0, 3.0])).unwrap();
        assert_eq!(members.clone().with_deviations(vec![0.1, 0.1]), None);
        assert_eq!(members.clone().with_deviations(vec![0.1, 0.1, -0.1]), None);
        assert_eq!(members.clone().with_deviations(vec![0.1, 0.1, f64::NAN]), None);
        assert_eq!(members.clone().with_objectives(Arc::from(["a".to_owned(), "b".to_owned()])), None);
        assert!(members.with_deviations(vec![0.1, 0.0, 3.0]).is_some());
    }

    #[test]
    fn scores_of_models_are_arranged_by_objective() {
        let names: Arc<[String]> = Arc::from(["a".to_owned(), "b".to_owned()]);
        let (first, second) = (rewards(&[1.0, 2.0]), rewards(&[3.0, 4.0]));
        let members = Members::of_models(names.clone(), &[&first, &second]).unwrap();
        assert_eq!(members.of_objective(0).unwrap().values(), [1.0, 3.0]);
        assert_eq!(Members::of_models(names.clone(), &[]), None);
        assert_eq!(Members::of_models(names, &[&first[..1]]), None);
    }

    #[test]
    fn objectives_are_taken_apart() {
        let members = Members::new(&rewards(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        let members = members.with_objectives(Arc::from(["a".to_owned(), "b".to_owned()])).unwrap();
        assert_eq!(members.of_objective(1).unwrap().values(), [3.0, 4.0]);
        assert_eq!(members.of_objective(2), None);
        assert_eq!(members.shape(1).members, 2);
        assert!(members.shape(1).flat().is_err());
    }
}
