//! Standardises rewards by the mean and deviation of all that were seen so far.
//!
//! `z = (r − μ) / √(v + ε)` with running mean `μ` and population variance `v` (as the ranking reward of ONI, Zheng et
//! al. 2024). A group is counted before it is transformed, so that the first one has statistics too. Equal rewards
//! therefore change from request to request, unless the transform is frozen: then it only reads the state that it was
//! given.

use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Memory, Refusal, Signal, Transform};
use crate::domain::{
    Positive,
    catalogue::{Law, Rule},
};

/// Parameters of the running normalisation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// Keeps the divisor above 0; added to the variance.
    #[serde(default = "epsilon")]
    epsilon: Positive,
    /// Whether to leave the state as it is.
    #[serde(default)]
    frozen: bool,
    /// What was seen before.
    #[serde(default)]
    state: Option<Moments>,
}

fn epsilon() -> Positive {
    const { Positive::constant(1e-8) }
}

/// Count, mean and population variance of the rewards seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Moments {
    /// How many rewards were seen.
    count: u64,
    /// Their mean.
    mean: f64,
    /// Their population variance.
    #[schemars(range(min = 0.0))]
    variance: f64,
}

/// What a running normalisation has learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// How many rewards were seen.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Their population variance.
    #[schemars(range(min = 0.0))]
    pub variance: f64,
    /// Whether it learns no more.
    #[serde(default)]
    pub frozen: bool,
}

impl Moments {
    fn checked(self) -> Result<Self, String> {
        if self.mean.is_finite() && self.variance.is_finite() && self.variance >= 0.0 {
            Ok(self)
        } else {
            Err("the state needs a finite mean and a finite variance of at least 0".to_owned())
        }
    }

    fn with(self, value: f64) -> Self {
        let count = self.count + 1;
        let share = 1.0 / count as f64;
        let from_old = value - self.mean;
        let mean = self.mean + from_old * share;
        // The old sum of squares plus the new square, divided by the new count in a form that never sums large counts.
        let variance = self.variance * (1.0 - share) + from_old * share * (value - mean);
        Self { count, mean, variance }
    }
}

#[derive(Debug)]
pub(super) struct RunningNormalise {
    epsilon: Positive,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    moments: Moments,
    frozen: bool,
}

impl Rule for RunningNormalise {
    const NAME: &'static str = "running_normalise";
    const SUMMARY: &'static str = "Standardises rewards by the mean and deviation of all that were seen so far. Its \
        state can be given and frozen; a frozen one transforms equal rewards alike.";
    const FORMULA: &'static str = "r' = (r - mean) / sqrt(variance + epsilon), over all rewards seen";
    const SOURCE: &'static str = "Welford 1962; Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents \
        from Large Language Model Feedback";
    const EXAMPLES: &'static [&'static str] =
        &["{}", r#"{"frozen": true, "state": {"count": 100, "mean": 0.4, "variance": 2.25}}"#];
    const LAWS: &'static [Law] = &[Law::KeepsOrder];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for RunningNormalise {
    type Error = String;

    fn try_from(Parameters { epsilon, frozen, state }: Parameters) -> Result<Self, String> {
        if frozen && state.is_none() {
            return Err("a frozen normalisation learns nothing; give the state to use, or leave frozen out".to_owned());
        }
        let moments = state.unwrap_or_default().checked()?;
        Ok(Self { epsilon, state: Mutex::new(State { moments, frozen }) })
    }
}

impl Transform for RunningNormalise {
    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        let moments = {
            // The moments are replaced whole, so that those whose holder panicked are still sound.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.frozen {
                let seen =
                    group.iter().flat_map(Signal::numbers).fold(state.moments, |moments, value| moments.with(*value));
                // Statistics that overflowed would spoil every later request; this one is refused instead.
                state.moments = seen.checked().map_err(|_| Refusal("the running variance overflowed".to_owned()))?;
            }
            state.moments
        };
        let deviation = (moments.variance + self.epsilon.get()).sqrt();
        for number in group.iter_mut().flat_map(Signal::numbers_mut) {
            *number = (*number - moments.mean) / deviation;
        }
        Ok(())
    }

    fn memory(&self) -> Option<&dyn Memory> {
        Some(self)
    }
}

impl Memory for RunningNormalise {
    fn learned(&self) -> Learned {
        let State { moments, frozen } = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Learned { count: moments.count, mean: moments.mean, variance: moments.variance, frozen }
    }

    fn replace(&self, learned: Learned) -> Result<(), String> {
        let Learned { count, mean, variance, frozen } = learned;
        let moments = Moments { count, mean, variance }.checked()?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { moments, frozen };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{assert_all_close, chain, outcome};
    use super::*;
    use crate::numeric::{DegreesOfFreedom, mean, variance};

    #[test]
    fn a_frozen_state_transforms_equal_rewards_alike() {
        let frozen = r#"[{"running_normalise":{"frozen":true,"state":{"count":9,"mean":0.4,"variance":4}}}]"#;
        assert_all_close(&[outcome(frozen, 2.4), outcome(frozen, 2.4)], &[1.0, 1.0]);
        assert!(chain(r#"[{"running_normalise":{"frozen":true}}]"#, false).is_err());
        assert!(chain(r#"[{"running_normalise":{"state":{"count":1,"mean":0,"variance":-1}}}]"#, false).is_err());
    }

    #[test]
    fn what_was_learned_can_be_read_replaced_and_frozen() {
        let chain = chain(r#"["running_normalise"]"#, false).unwrap();
        chain.apply(&mut [1.0, 3.0].map(Signal::Outcome)).unwrap();
        let (name, memory) = chain.memories().next().unwrap();
        let learned = Learned { count: 2, mean: 2.0, variance: 1.0, frozen: false };
        assert_eq!((name, memory.learned()), ("running_normalise", learned));
        memory.replace(Learned { variance: 4.0, frozen: true, ..learned }).unwrap();
        let mut later = [Signal::Outcome(4.0)];
        chain.apply(&mut later).unwrap();
        assert_all_close(&[later[0].total()], &[1.0]);
        assert_eq!(memory.learned().count, 2);
        assert!(memory.replace(Learned { variance: -1.0, ..learned }).is_err());
    }

    #[test]
    fn a_single_reward_is_average() {
        assert_all_close(&[outcome(r#"["running_normalise"]"#, 7.0)], &[0.0]);
    }

    proptest! {
        #[test]
        fn the_state_is_that_of_all_rewards_seen(values in prop::collection::vec(-1e3..1e3_f64, 1..50)) {
            let seen = values.iter().fold(Moments::default(), |moments, value| moments.with(*value));
            prop_assert!((seen.mean - mean(&values)).abs() < 1e-9);
            prop_assert!((seen.variance - variance(&values, DegreesOfFreedom::Population).unwrap()).abs() < 1e-6);
        }
    }
}
