//! A sequence of transforms that was checked once and can then be applied to every group.

use super::{Available, CATALOGUE, Context, Memory, Signal, Stage, Transform, TransformError};
use crate::domain::{Reward, catalogue::Choice};

/// Transforms in the order in which they apply.
#[derive(Debug, Default)]
pub struct Chain {
    links: Vec<(String, Box<dyn Transform>)>,
}

impl Chain {
    /// Builds a chain for rewards that come alone, one sample at a time, with steps or without.
    ///
    /// # Errors
    /// When a transform is unknown, its parameters are wrong, or it could never apply to such rewards: better here
    /// than on the thousandth request.
    pub fn build(choices: &[Choice], steps: bool) -> Result<Self, TransformError> {
        Self::build_for(choices, &Available::alone(steps))
    }

    /// Builds a chain for what a request brings.
    ///
    /// # Errors
    /// As [`Chain::build`].
    pub fn build_for(choices: &[Choice], available: &Available) -> Result<Self, TransformError> {
        let links: Result<Vec<_>, TransformError> =
            choices.iter().map(|choice| Ok((choice.name.clone(), CATALOGUE.build(choice)?))).collect();
        let chain = Self { links: links? };
        chain.check(available)?;
        Ok(chain)
    }

    /// Whether rewards are probabilities, from 0 to 1, after all links; `before` says whether they were before them.
    #[must_use]
    pub fn gives_probabilities(&self, before: bool) -> bool {
        self.links.iter().fold(before, |before, (_, transform)| transform.gives_probabilities(before))
    }

    /// Whether every link can act on what `available` promises, in this order.
    ///
    /// # Errors
    /// When one can't; says which and what to change.
    pub fn check(&self, available: &Available) -> Result<(), TransformError> {
        let mut stage = if available.steps { Stage::StepScores } else { Stage::Outcome };
        for (name, transform) in &self.links {
            if !available.steps && transform.stage(Stage::Outcome).is_err() {
                return Err(TransformError::NoSteps(name.clone()));
            }
            stage = transform.stage(stage).map_err(|reason| TransformError::Order { name: name.clone(), reason })?;
            if let Some(missing) = available.lacks(transform.needs()) {
                return Err(TransformError::Missing { name: name.clone(), missing });
            }
        }
        Ok(())
    }

    /// Applies every transform in order to the signals of one group, with nothing beside them.
    ///
    /// # Errors
    /// When a result is not finite, or a link needs a context.
    pub fn apply(&self, group: &mut [Signal]) -> Result<Vec<bool>, TransformError> {
        self.apply_with(group, &Context::default())
    }

    /// Applies every transform in order to the signals of one group: the samples of one prompt. Tells of each whether some
    /// link holds it at a bound.
    ///
    /// # Errors
    /// When a result is not finite, or the group and the context lack what a link needs.
    pub fn apply_with(&self, group: &mut [Signal], context: &Context) -> Result<Vec<bool>, TransformError> {
        let mut held = vec![false; group.len()];
        for (name, transform) in &self.links {
            // Steps are looked at by the link itself; they don't change what else is there.
            if let Some(missing) = context.available(true, group.len()).lacks(transform.needs()) {
                return Err(TransformError::Missing { name: name.clone(), missing });
            }
            transform
                .apply(group, context)
                .map_err(|refusal| TransformError::Refused { name: name.clone(), reason: refusal.0 })?;
            for number in group.iter().flat_map(Signal::numbers) {
                if let Err(source) = Reward::new(*number) {
                    return Err(TransformError::NonFinite { name: name.clone(), source });
                }
            }
            for (signal, held) in group.iter().zip(&mut held) {
                *held |= signal.numbers().iter().any(|number| transform.holds_at(*number));
            }
        }
        Ok(held)
    }

    /// What each link that learns keeps, by the link's name.
    pub fn memories(&self) -> impl Iterator<Item = (&str, &dyn Memory)> {
        self.links.iter().filter_map(|(name, transform)| Some((name.as_str(), transform.memory()?)))
    }

    /// The first link that learns from the rewards it sees, by its name.
    #[must_use]
    pub fn learning(&self) -> Option<&str> {
        self.links.iter().find(|(_, transform)| transform.memory().is_some()).map(|(name, _)| name.as_str())
    }

    /// Whether the chain changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_all_close, chain, choices, outcome},
        *,
    };

    #[test]
    fn a_chain_applies_in_order() {
        assert_all_close(&[outcome(r#"[{"affine":{"scale":2}},{"clip":{"max":3}}]"#, 2.0)], &[3.0]);
        assert_all_close(&[outcome(r#"[{"clip":{"max":3}},{"affine":{"scale":2}}]"#, 2.0)], &[4.0]);
        assert_all_close(&[outcome("[]", 2.0)], &[2.0]);
    }

    #[test]
    fn a_reward_at_a_clips_bound_is_told() {
        let mut group = [0.5, 3.0, 9.0].map(Signal::Outcome);
        let chain = chain(r#"[{"clip":{"min":-1,"max":3}},{"affine":{"scale":2}}]"#, false).unwrap();
        assert_eq!(chain.apply(&mut group).unwrap(), [false, true, true]);
    }

    #[test]
    fn an_overflow_is_refused_and_names_its_transform() {
        let mut group = [Signal::Outcome(1e300)];
        let error = chain(r#"[{"affine":{"scale":1e300}}]"#, false).unwrap().apply(&mut group).unwrap_err();
        assert!(matches!(error, TransformError::NonFinite { name, .. } if name == "affine"));
    }

    #[test]
    fn unknown_transforms_and_parameters_are_refused() {
        for bad in [r#"["squash"]"#, r#"[{"clip":{"minimum":0}}]"#, r#"["clip"]"#, r#"[{"affine":{"scale":null}}]"#] {
            assert!(matches!(chain(bad, true), Err(TransformError::Choice(_))), "{bad}");
        }
    }

    #[test]
    fn what_could_never_apply_is_refused_when_it_is_read() {
        let no_steps = [r#"["delta"]"#, r#"[{"step_clip":{"eta":0.7}}]"#, r#"[{"process_total":{"alpha":1}}]"#];
        for bad in no_steps {
            assert!(matches!(chain(bad, false), Err(TransformError::NoSteps(_))), "{bad}");
        }
        let wrong_order = [
            r#"["delta",{"clip_then_delta":{"eta":0.7}}]"#,
            r#"["delta",{"step_clip":{"eta":0.7}}]"#,
            r#"["delta","delta"]"#,
            r#"[{"reduce":{"by":"min"}},"delta"]"#,
            r#"["rloo"]"#,
        ];
        for bad in wrong_order {
            let built = Chain::build_for(&choices(bad), &Available { group: 4, ..Available::alone(true) });
            assert!(matches!(built, Err(TransformError::Order { .. })), "{bad}: {built:?}");
        }
        for bad in [r#"["grpo"]"#, r#"["rloo"]"#, r#"["rank"]"#, r#"["novelty_decay"]"#] {
            assert!(matches!(chain(bad, false), Err(TransformError::Missing { .. })), "{bad}");
        }
        assert!(chain(r#"["delta",{"clip":{"min":-1}}]"#, true).is_ok());
    }

    #[test]
    fn what_a_request_fails_to_bring_is_refused_when_it_is_applied() {
        let group_of_two = Available { group: 2, ..Available::alone(false) };
        let chain = Chain::build_for(&choices(r#"["rloo"]"#), &group_of_two).unwrap();
        let error = chain.apply(&mut [Signal::Outcome(1.0)]).unwrap_err();
        assert!(matches!(error, TransformError::Missing { .. }), "{error}");
    }
}
