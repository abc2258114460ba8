//! Scores a sample with a model that takes no requests yet, to hold it against what is expected of it.

use std::sync::Arc;

use karat_rules::domain::{Reward, Sample};

use super::{
    ScoreError,
    compute::Outputs,
    request::{Overrides, Urgency},
    reward::{self, RequestRules},
    tokenize::Inputs,
};
use crate::{
    repository::{Answer, Model},
    schedule::Admission,
};

/// What a model says of one sample, before any transform of its own. Blocks.
///
/// # Errors
/// In words: the sample can't be tokenised or computed.
pub(super) fn answer(model: &Model, sample: &Sample) -> Result<Answer, String> {
    score(model, sample).map_err(|error| error.to_string())
}

fn score(model: &Model, sample: &Sample) -> Result<Answer, ScoreError> {
    if model.gives_embeddings() {
        return Err(ScoreError::ScoresNothing { model: model.name.clone() });
    }
    let rules = RequestRules::resolve(model, Overrides { transforms: Some(Vec::new()), ..Overrides::default() }, 1)?;
    let leaves = model.leaves();
    let inputs = leaves.iter().map(|leaf| Inputs::of(leaf, sample).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let tokens = match inputs.as_slice() {
        [leaf] => leaf.only().map(|input| input.ids().to_vec()),
        _ => None,
    };
    let urgency = Urgency { admission: Admission::Always, ..Urgency::default() };
    let computed = futures_executor::block_on(Outputs::new(0).compute(&leaves, inputs, urgency, false))?;
    let mut report = reward::report(model, &rules, &computed.leaves)?;
    // One result a sample.
    let result = report.results.pop().ok_or(ScoreError::Panicked)?;
    let objectives = result.detail().objectives.iter().map(|(_, score)| score.get()).collect();
    Ok(Answer {
        raw: Reward::get(result.raw),
        objectives,
        steps: result.detail.and_then(|detail| detail.steps),
        tokens,
    })
}
