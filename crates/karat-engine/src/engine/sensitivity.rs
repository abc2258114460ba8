//! How much a reward hangs on what shouldn't matter, for an aggregation that weighs by it: each sample's edits are scored
//! beside it, by the same model, and the largest change of the members' mean goes to the aggregation.

use std::sync::Arc;

use karat_rules::{
    aggregate,
    domain::{Sample, catalogue::Choice},
    edit,
};

use super::{
    Engine, OnRefused, Refusal, SampleReport, ScoreError, ScoreRequest, Usage, request::Overrides, reward::RequestRules,
};
use crate::repository::Model;

const NOT_EDITED: &str = "its reward is weighed by how much edits of the response change it, and only a prompt with a \
                          response, or messages, can be edited: send one of these, or choose another aggregation";

impl Engine {
    /// Whether a request's aggregation weighs by sensitivity, so that edits are scored as well. No, where the model takes no
    /// requests.
    #[must_use]
    pub fn needs_sensitivities(&self, request: &ScoreRequest) -> bool {
        self.model(&request.model).is_ok_and(|model| needed(&model, &request.overrides))
    }

    /// The request with each sample's sensitivity, where its aggregation weighs by that; and what it costs then, since each
    /// sample was scored beside its edits, and is known when its turn comes.
    pub(super) async fn with_sensitivities(
        &self,
        model: &Arc<Model>,
        mut request: ScoreRequest,
    ) -> Result<(ScoreRequest, Option<Usage>), ScoreError> {
        if !needed(model, &request.overrides) {
            return Ok((request, None));
        }
        // What its rules don't fit fails before anything is computed.
        RequestRules::resolve(model, request.overrides.clone(), request.samples.len() + request.refused.len())?;
        let places = request.places();
        let mut probed = Vec::with_capacity(places.len());
        let mut all = Vec::new();
        for (place, sample) in places.into_iter().zip(std::mem::take(&mut request.samples)) {
            match edit::of(&sample) {
                Some(edits) => {
                    probed.push((place, sample.clone(), edits.len()));
                    all.extend([sample].into_iter().chain(edits.into_iter().map(|(_, edited)| edited)));
                }
                None => refuse(&mut request, place, NOT_EDITED.to_owned())?,
            }
        }
        let mut sensitivities = vec![0.0; probed.len() + request.refused.len()];
        let mut usage = Usage::default();
        if !all.is_empty() {
            let report = self.answer_by(Arc::clone(model), request.to_probe(all)).await?;
            usage = report.usage;
            let mut outcomes = report.into_outcomes().into_iter();
            for (place, sample, edits) in probed {
                let own = outcomes.next();
                let edited: Vec<_> = outcomes.by_ref().take(edits).collect();
                // What can't be scored itself is refused with its own reason when its turn comes.
                match own.and_then(Result::ok).map_or(Ok(0.0), |own| sensitivity(&own, edited)) {
                    Ok(sensitivity) => {
                        sensitivities[place] = sensitivity;
                        request.samples.push(sample);
                    }
                    Err(reason) => refuse(&mut request, place, reason)?,
                }
            }
        }
        request.refused.sort_by_key(|refusal| refusal.index);
        request.overrides.sensitivities = sensitivities;
        Ok((request, Some(usage)))
    }
}

fn needed(model: &Model, overrides: &Overrides) -> bool {
    match &overrides.aggregate {
        // One that can't be built is refused where the request's rules are.
        Some(choice) => aggregate::CATALOGUE.build(choice).is_ok_and(|rule| rule.needs_sensitivity()),
        None => model.aggregate.needs_sensitivity(),
    }
}

/// Takes a sample out that can't be scored, or fails the request with its reason.
fn refuse(request: &mut ScoreRequest, place: usize, reason: String) -> Result<(), ScoreError> {
    if !request.on_refused.spares_others() {
        return Err(ScoreError::NoSample { index: place, reason: format!("sample {place}: {reason}") });
    }
    request.refused.push(request.on_refused.refusal(place, reason));
    Ok(())
}

/// The largest change of the mean by an edit that can be scored.
fn sensitivity(own: &SampleReport, edited: Vec<Result<SampleReport, Refusal>>) -> Result<f64, String> {
    let (mut largest, mut reason) = (None::<f64>, None);
    for outcome in edited {
        match outcome {
            Ok(edited) => {
                let change = (edited.ensemble.mean.get() - own.ensemble.mean.get()).abs().min(f64::MAX);
                largest = Some(largest.map_or(change, |largest| largest.max(change)));
            }
            Err(refusal) => reason = Some(refusal.reason),
        }
    }
    largest.ok_or_else(|| {
        let reason = reason.unwrap_or_else(|| "no edit changes it".to_owned());
        format!("none of its edits can be scored, by which its reward is to be weighed: {reason}")
    })
}

impl ScoreRequest {
    /// The same for samples and their edits, whose members' means alone are looked at.
    fn to_probe(&self, samples: Vec<Sample>) -> Self {
        Self {
            model: self.model.clone(),
            samples,
            refused: Vec::new(),
            on_refused: OnRefused::Mark,
            overrides: Overrides {
                aggregate: Some(Choice::named("mean")),
                transforms: Some(Vec::new()),
                ..Overrides::default()
            },
            text: self.text,
            urgency: self.urgency,
        }
    }
}
