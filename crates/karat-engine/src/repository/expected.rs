//! `expected.json`: what a model's reference gives for a few texts or images, held against what the model gives.
//!
//! A wrong template, a wrong resize, a wrong pooling rule or weights that were read otherwise make scores that look as good
//! as any. Who has the reference's scores for a few samples lays them beside the model, and it is refused when it gives
//! others.

use std::{
    fs,
    path::{Component, Path},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use karat_rules::domain::{Conversation, ConversationError, Image, Message, Picture, Sample};
use serde::Deserialize;

use super::{GraphForm, LoadError, Model, ModelBody};
use crate::manifest::EXPECTED_FILE;

/// A model isn't ready before all were scored.
const MOST_CASES: usize = 64;

/// How a model's scores compare with the reference's that lie beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct References {
    /// How many samples were compared.
    pub count: usize,
    /// The largest difference between two scores.
    pub largest_difference: f64,
    /// How large it may be.
    pub tolerance: f64,
}

/// What a model says of one sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The score before any transform.
    pub(crate) raw: f64,
    /// The scores of the model's objectives, in its order.
    pub(crate) objectives: Vec<f64>,
    /// The scores of the response's steps, of models that read steps.
    pub(crate) steps: Option<Vec<f64>>,
    /// The tokens, of models that make one input of a sample.
    pub(crate) tokens: Option<Vec<u32>>,
}

/// Scores one sample with a model that takes no requests yet. Blocks.
pub(crate) type Score = fn(&Model, &Sample) -> Result<Answer, String>;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    tolerance: f64,
    /// What gave the scores, for those who read the file.
    #[serde(default, rename = "source")]
    _source: Option<String>,
    cases: Vec<Case>,
}

/// A sample and its score, as the file has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    response: Option<String>,
    text: Option<String>,
    /// An image: a data URI, or a file in the model's folder.
    image: Option<String>,
    /// Images that it should be like.
    reference_images: Option<Vec<String>>,
    reward: Option<f64>,
    steps: Option<Vec<f64>>,
    /// The scores of the model's objectives, in its order.
    objectives: Option<Vec<f64>>,
    /// Where scores differ, whether tokens do tells why.
    tokens: Option<Vec<u32>>,
    #[serde(default, rename = "types")]
    _types: Option<Vec<u32>>,
}

impl Case {
    /// The sample; images lie in `folder`.
    fn sample(&self, folder: &Path) -> Result<Sample, String> {
        if let Some(image) = &self.image {
            if self.messages.is_some() || self.response.is_some() || self.text.is_some() {
                return Err("an \"image\" is the response; write its \"prompt\" alone beside it".to_owned());
            }
            let references = self.reference_images.iter().flatten().map(|file| read(folder, file));
            let references = references.collect::<Result<_, _>>()?;
            let prompt = self.prompt.clone().unwrap_or_default();
            return Ok(Sample::Picture(Picture::new(prompt, references, read(folder, image)?)));
        }
        if self.reference_images.is_some() {
            return Err("there are \"reference_images\" and no \"image\" that should be like them".to_owned());
        }
        let sample = match (&self.messages, &self.prompt, &self.response, &self.text) {
            (Some(messages), None, None, None) => Conversation::new(messages.clone()).map(Sample::Conversation),
            (None, prompt, Some(response), None) => {
                Sample::from_prompt(prompt.clone().unwrap_or_default(), response.clone())
            }
            (None, None, None, Some(text)) => Sample::from_text(text.clone()),
            _ => {
                return Err(
                    "write one of \"messages\", \"text\", and \"response\" or \"image\" with its \"prompt\"".to_owned()
                );
            }
        };
        sample.map_err(|error: ConversationError| error.to_string())
    }

    /// How far an answer is from the reference's.
    fn difference(&self, answer: &Answer) -> Result<f64, String> {
        let (mut wanted, mut found) = match (self.reward, &self.steps) {
            (Some(reward), None) => (vec![reward], vec![answer.raw]),
            (None, Some(steps)) => {
                let found = answer.steps.clone().ok_or("has \"steps\", and the model scores none; write \"reward\"")?;
                (steps.clone(), found)
            }
            _ => return Err("write a \"reward\" or \"steps\", one of them".to_owned()),
        };
        if wanted.len() != found.len() {
            return Err(format!("has {} steps, and the model finds {}", wanted.len(), found.len()));
        }
        if let Some(objectives) = &self.objectives {
            if objectives.len() != answer.objectives.len() {
                let (named, given) = (objectives.len(), answer.objectives.len());
                return Err(format!("has {named} objectives, and the model gives {given}"));
            }
            wanted.extend(objectives);
            found.extend(&answer.objectives);
        }
        let differences = wanted.iter().zip(&found).map(|(wanted, found)| (wanted - found).abs());
        Ok(differences.fold(0.0, f64::max))
    }

    /// What the tokens say of where a difference comes from.
    fn tokens_differ(&self, answer: &Answer) -> String {
        let (Some(wanted), Some(found)) = (&self.tokens, &answer.tokens) else { return String::new() };
        let place = wanted.iter().zip(found).position(|(wanted, found)| wanted != found);
        match place.or_else(|| (wanted.len() != found.len()).then(|| wanted.len().min(found.len()))) {
            None => "; the tokens are the same".to_owned(),
            Some(place) => {
                let token = |ids: &[u32]| ids.get(place).map_or_else(|| "none".to_owned(), u32::to_string);
                format!(
                    "; its tokens differ, first the one after {place}: {} where the reference has {}",
                    token(found),
                    token(wanted)
                )
            }
        }
    }
}

/// An image that stands in the file itself, or lies in the model's folder.
fn read(folder: &Path, written: &str) -> Result<Image, String> {
    if let Some(uri) = written.strip_prefix("data:") {
        let (_, data) =
            uri.split_once(";base64,").ok_or("the data URI isn't in base64; write data:image/png;base64,…")?;
        let bytes = BASE64_STANDARD.decode(data).map_err(|error| format!("the image's data is not base64: {error}"))?;
        return Ok(Image::new(bytes));
    }
    // What decides whether a model is served lies in its folder.
    if !Path::new(written).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("{written} lies outside the model's folder; put the image into it"));
    }
    let bytes = fs::read(folder.join(written)).map_err(|error| format!("{written} can't be read: {error}"))?;
    Ok(Image::new(bytes))
}

/// Compares a model's scores with those in its folder, if any lie there.
///
/// # Errors
/// When a score differs by more than the file allows, or the file can't be read, or a sample of it not scored.
pub(super) fn check(model: &Model, folder: &Path, score: Score) -> Result<Option<References>, LoadError> {
    let path = folder.join(EXPECTED_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(|source| LoadError::File { path: path.clone(), source })?;
    let compared = serde_json::from_slice(&bytes)
        .map_err(|error| error.to_string())
        .and_then(|expected| compare(model, &expected, folder, score))
        .map_err(|reason| LoadError::Expected { path, reason })?;
    if let ModelBody::Graph(graph) = &model.body {
        // Nobody will send these texts again.
        for unit in &graph.units {
            if let GraphForm::Prefixes(prefixes) = &unit.form {
                prefixes.forget();
            }
        }
    }
    Ok(Some(compared))
}

fn compare(model: &Model, expected: &Expected, folder: &Path, score: Score) -> Result<References, String> {
    let Expected { tolerance, cases, .. } = expected;
    if !tolerance.is_finite() || *tolerance < 0.0 {
        return Err(format!(
            "tolerance: {tolerance} is no distance; write what two scores may differ by, such as 1e-4"
        ));
    }
    if cases.is_empty() || cases.len() > MOST_CASES {
        return Err(format!(
            "cases: there are {}, and all are scored before the model is ready; keep 1 to {MOST_CASES}",
            cases.len()
        ));
    }
    if let Some(name) = learning(model) {
        return Err(format!(
            "the transform {name:?} of one of its models learns from what it scores, so no score is expected; remove the \
             file"
        ));
    }
    let mut differences = Vec::with_capacity(cases.len());
    for (index, case) in cases.iter().enumerate() {
        let failed = |reason: String| format!("case {}: {reason}", index + 1);
        let answer = score(model, &case.sample(folder).map_err(failed)?).map_err(failed)?;
        differences.push((index, case.difference(&answer).map_err(failed)?, answer));
    }
    let far = differences.iter().filter(|(_, difference, _)| difference > tolerance).count();
    // There is one at least.
    let worst = differences.iter().max_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
    let Some((index, largest_difference, answer)) = worst else { return Err("cases: there are none".to_owned()) };
    if far > 0 {
        let case = &cases[*index];
        return Err(format!(
            "{far} of {} scores differ from the reference's by more than {tolerance}: case {} by {largest_difference:.3e}, \
             {} where the reference has {}{}. Mend the text settings or the weights, or record anew what is expected",
            cases.len(),
            index + 1,
            told(Some(answer.raw).filter(|_| case.steps.is_none()), answer.steps.as_deref()),
            told(case.reward, case.steps.as_deref()),
            case.tokens_differ(answer),
        ));
    }
    Ok(References { count: cases.len(), largest_difference: *largest_difference, tolerance: *tolerance })
}

fn told(reward: Option<f64>, steps: Option<&[f64]>) -> String {
    match (reward, steps) {
        (Some(reward), _) => reward.to_string(),
        (None, steps) => format!("{:?}", steps.unwrap_or_default()),
    }
}

/// The transform of a composite's model that learns, if one does; a model's own transforms are left out of the
/// comparison.
fn learning(model: &Model) -> Option<&str> {
    let ModelBody::Composite(members) = &model.body else { return None };
    members.iter().find_map(|member| {
        let transforms = member.transforms.as_ref().unwrap_or(&member.model.transforms);
        transforms.learning().or_else(|| learning(&member.model))
    })
}
