//! What the file of a rule says of it, and how its parameters are read.

use std::fmt::Display;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A rule as its file writes it: what it is called, what it computes and where that comes from.
///
/// A rule whose fields are its parameters names itself as [`Rule::Parameters`]. One that holds something else than is
/// written, such as an index in place of a label, names what is written and is made of it by `TryFrom`, where it says
/// what is wrong.
pub trait Rule: TryFrom<Self::Parameters, Error: Display> + 'static {
    /// The name in manifests and requests, in `snake_case`.
    const NAME: &'static str;
    /// One sentence for the reader of the documentation: what it does and when to want it.
    const SUMMARY: &'static str;
    /// The formula in plain text.
    const FORMULA: &'static str;
    /// Where the formula comes from.
    const SOURCE: &'static str;
    /// Usable parameters as JSON objects, at least one: the documentation shows them and the laws are tested with them.
    const EXAMPLES: &'static [&'static str] = &["{}"];
    /// What holds for every input, with the parameters of every example.
    const LAWS: &'static [Law] = &[];

    /// What is written in a manifest or request. Unknown keys must be refused.
    type Parameters: DeserializeOwned + JsonSchema;

    /// Whether the parameters fit each other, which none of their types can tell.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    fn check_parameters(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What a rule is called, for messages about it; every [`Rule`] is.
pub trait Named {
    /// The name in manifests and requests.
    fn name(&self) -> &'static str;
}

impl<R: Rule> Named for R {
    fn name(&self) -> &'static str {
        R::NAME
    }
}

/// Builds a rule from its parameters, an empty object standing for all defaults.
pub(super) fn build<R: Rule>(value: Value) -> Result<R, String> {
    let rule = R::try_from(parameters(value)?).map_err(|reason| reason.to_string())?;
    rule.check_parameters()?;
    Ok(rule)
}

/// Reads parameters.
///
/// # Errors
/// When a key is unknown or missing, or a value is none that the parameter takes; the text says which.
fn parameters<P: DeserializeOwned>(value: Value) -> Result<P, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let reason = error.inner().to_string();
        // A parameter's own type can't know how the parameter is called.
        if reason.starts_with("must ") { format!("{} {reason}", error.path()) } else { reason }
    })
}

/// The schema of a rule's parameters.
///
/// The types that parameters are made of are written out in place: their names mean something in their own file only,
/// and would collide among the definitions of a whole API.
pub(super) fn schema<R: Rule>(generator: &mut SchemaGenerator) -> Schema {
    let settings = generator.settings().clone().with(|settings| settings.inline_subschemas = true);
    R::Parameters::json_schema(&mut settings.into_generator())
}

/// A property that holds whatever the input, up to rounding. Tests run each declared law over random and extreme input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// The order of the members, or of the candidates, doesn't matter.
    PermutationInvariant,
    /// One member's score comes back as it went in.
    OneMemberIsIdentity,
    /// The result lies between the lowest and the highest member.
    WithinMembers,
    /// Raising a member never lowers the result.
    MonotoneInMembers,
    /// The transform never reverses the order of two rewards.
    KeepsOrder,
    /// Every result lies in −1…1.
    Bounded,
    /// The results of one group sum to zero.
    SumsToZero,
    /// The steps sum to zero or less, however many there are.
    StepsSumToAtMostZero,
    /// Two or more steps sum to the first step's score, however many follow.
    StepsSumToTheFirst,
    /// Every result lies in 0…1.
    Probability,
}

impl Law {
    /// The law as a sentence for the documentation.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::PermutationInvariant => "The order of what goes in doesn't matter.",
            Self::OneMemberIsIdentity => "One member's score comes back as it went in.",
            Self::WithinMembers => "The result lies between the lowest and the highest member.",
            Self::MonotoneInMembers => "Raising a member never lowers the result.",
            Self::KeepsOrder => "The order of two rewards is never reversed.",
            Self::Bounded => "Every result lies in -1 to 1.",
            Self::SumsToZero => "The results of one group sum to zero.",
            Self::StepsSumToAtMostZero => "The steps sum to zero or less, however many there are.",
            Self::StepsSumToTheFirst => "Two or more steps sum to the first step's score, however many follow.",
            Self::Probability => "Every result lies in 0 to 1.",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::domain::{Count, Share};

    #[derive(Debug, Deserialize)]
    struct Written {
        #[expect(dead_code, reason = "only its refusal is read")]
        shares: Vec<Share>,
        #[expect(dead_code, reason = "only its refusal is read")]
        count: Option<Count>,
    }

    #[test]
    fn a_refusal_names_the_parameter_wherever_it_stands() {
        let refusal = |value| parameters::<Written>(value).unwrap_err();
        assert_eq!(refusal(json!({"shares": [0.5, 1.5]})), "shares[1] must lie in 0 to 1, found 1.5");
        assert_eq!(refusal(json!({"shares": [], "count": 0})), "count must be at least 1, found 0");
        assert_eq!(refusal(json!({})), "missing field `shares`");
    }
}
