//! What every scoring route takes: samples in their shapes, and the options that stand beside them.

use std::{borrow::Cow, time::Instant};

use karat_engine::{
    engine::{Draft, OnRefused, ScoreRequest},
    schedule::Priority,
    text::Truncation,
};
use karat_rules::{
    aggregate,
    domain::{Conversation, Message, ModelName, Picture, Role, Sample, catalogue::Choice},
    transform::{self, Context},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::turn::{self, Response, Turn};
use crate::api::{
    body, checks,
    images::ImageSource,
    problem::{Problem, invalid},
    runs::RunFields,
};

/// What stands beside the samples on every scoring route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct Options {
    /// The model's name: `GET /v1/models` lists them.
    model: String,
    /// How the members' scores become one; by default as the model's manifest says.
    #[serde(default)]
    #[schemars(schema_with = "aggregate_schema")]
    aggregate: Option<Choice>,
    /// What happens to the reward after that, in order; by default as the model's manifest says, and nothing when the
    /// list is empty.
    #[serde(default)]
    #[schemars(schema_with = "transforms_schema")]
    transforms: Option<Vec<Choice>>,
    /// What happens to samples that are longer than the model takes; by default as the model's manifest says.
    #[serde(default)]
    truncation: Option<Truncation>,
    /// Requests of a higher priority go first.
    #[serde(default)]
    priority: Priority,
    /// After this many milliseconds the request is given up.
    #[serde(default)]
    #[schemars(range(min = 1))]
    timeout_ms: Option<u64>,
    /// What becomes of a sample that can't be scored: `"fail"` refuses the request; with `"mark"` the others are scored
    /// and this one has null for its reward and the reason beside it; with `{"reward": -1}` that number, as it is, instead
    /// of null. Such samples are compared with no others.
    #[serde(default)]
    on_refused: OnRefused,
    /// Rewards of other responses to the prompt, for transforms that are centred at them.
    #[serde(default)]
    references: Vec<f64>,
    /// How often each response was seen, this time included, for transforms that count.
    #[serde(default)]
    counts: Vec<u64>,
    /// The margin of each response over another, for transforms that scale by it.
    #[serde(default)]
    margins: Vec<f64>,
    /// Whether each response reached the right result, for transforms that reward that.
    #[serde(default)]
    successes: Vec<bool>,
    /// The training run that the request belongs to, of which statistics are kept: see `GET /v1/runs`. The query of the URL
    /// (`?run=`) and the header `X-Karat-Run` say the same.
    #[serde(default)]
    run: Option<String>,
    /// The run's step; or `?step=`, or `X-Karat-Step`.
    #[serde(default)]
    step: Option<u64>,
    /// What the samples are of, where a run has several tasks; or `?task=`, or `X-Karat-Task`.
    #[serde(default)]
    task: Option<String>,
}

impl Options {
    /// Makes a request of samples none of which may be refused without the others.
    pub(super) fn into_whole_request(self, samples: Vec<Draft>) -> Result<ScoreRequest, Problem> {
        if self.on_refused.spares_others() {
            return Err(invalid(
                "on_refused: what is scored here belongs together and stands or falls as a whole; leave it out",
            ));
        }
        self.into_request(samples, false)
    }

    /// Makes a request of samples; `grouped` when they are candidates for one prompt.
    pub(super) fn into_request(self, samples: Vec<Draft>, grouped: bool) -> Result<ScoreRequest, Problem> {
        let deadline = self.deadline()?;
        let model = self.model_name()?;
        let context = Context::default()
            .with_references(self.references)
            .and_then(|context| context.with_margins(self.margins))
            .and_then(|context| context.with_counts(&self.counts))
            .map_err(invalid)?
            .with_successes(self.successes);
        Ok(ScoreRequest::of(model, samples, self.on_refused)?
            .with_aggregate(self.aggregate)
            .with_transforms(self.transforms)
            .with_truncation(self.truncation)
            .with_priority(self.priority)
            .with_deadline(deadline)
            .with_context(context)
            .as_group(grouped))
    }

    /// Whether samples that can't be scored are to spare the others.
    pub(super) fn spares_others(&self) -> bool {
        self.on_refused.spares_others()
    }

    /// Whether there are lists with an entry for each sample.
    pub(super) fn has_lists(&self) -> bool {
        !(self.counts.is_empty() && self.margins.is_empty() && self.successes.is_empty())
    }

    /// What the body says of the run that it belongs to, which nothing but that needs.
    pub(super) fn take_run_fields(&mut self) -> RunFields {
        RunFields { run: self.run.take(), step: self.step.take(), task: self.task.take() }
    }

    /// The same with what says which run the request belongs to.
    pub(super) fn of_run(self, RunFields { run, step, task }: RunFields) -> Self {
        Self { run, step, task, ..self }
    }

    /// When to give up, if a request that arrives now says so.
    pub(super) fn deadline(&self) -> Result<Option<Instant>, Problem> {
        checks::deadline(self.timeout_ms)
    }

    /// The model's name, if it can be one.
    pub(super) fn model_name(&self) -> Result<ModelName, Problem> {
        checks::model(&self.model)
    }

    /// What happens to samples that are too long, if the request says so.
    pub(super) fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// The same for another model.
    pub(super) fn of_model(self, model: String) -> Self {
        Self { model, ..self }
    }

    /// The same for exactly this version of the model.
    pub(super) fn of_version(self, version: &str) -> Result<Self, Problem> {
        let model = checks::version(&self.model_name()?, version)?.to_string();
        Ok(self.of_model(model))
    }

    /// The model's name as the request writes it.
    pub(super) fn model(&self) -> &str {
        &self.model
    }
}

/// Builds one sample a list entry; the reason why one is none names the list and the index.
pub(super) fn samples<T>(list: &str, inputs: Vec<T>, build: impl Fn(T) -> Result<Sample, String>) -> Vec<Draft> {
    let inputs = inputs.into_iter().enumerate();
    inputs.map(|(index, input)| build(input).map_err(|reason| format!("{list}[{index}]: {reason}"))).collect()
}

/// One sample: a prompt and a response, a list of messages, rendered text, or an image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    response: Option<String>,
    #[serde(default, deserialize_with = "body::optional_objects")]
    messages: Option<Vec<Turn>>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image: Option<ImageSource>,
    #[serde(default)]
    reference_images: Option<Vec<ImageSource>>,
}

/// One sample, in one of four shapes.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Input")]
#[expect(dead_code, reason = "only its schema is used: the parser gives better messages than an untagged enum")]
enum InputShapes {
    /// A single turn.
    Pair {
        /// What was asked.
        prompt: String,
        /// The answer to score.
        response: String,
    },
    /// A dialogue that ends with the assistant's message, which is scored.
    Messages {
        /// The turns, oldest first.
        messages: Vec<Turn>,
    },
    /// Text that was rendered already: the model's template is not applied.
    Text {
        /// The text, special tokens included where the model's tokenizer doesn't add them.
        text: String,
    },
    /// An image, of models that see.
    Image {
        /// What was asked for, of models that compare images with texts.
        prompt: Option<String>,
        /// The image: data:image/png;base64,… (also image/jpeg, image/webp and image/gif, whose first frame counts), or a
        /// URL where the operator lets images be fetched.
        image: ImageSource,
        /// Images that it should be like, of models that compare images.
        reference_images: Option<Vec<ImageSource>>,
    },
}

impl JsonSchema for Input {
    fn schema_name() -> Cow<'static, str> {
        InputShapes::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        InputShapes::json_schema(generator)
    }
}

impl Input {
    /// The images that it holds.
    pub(super) fn images(&mut self) -> impl Iterator<Item = &mut ImageSource> {
        let turns = self.messages.iter_mut().flatten().flat_map(Turn::images);
        turns.chain(&mut self.image).chain(self.reference_images.iter_mut().flatten())
    }

    /// The sample, or which shape to write.
    pub(super) fn into_sample(self) -> Result<Sample, String> {
        let sample = match self {
            Self {
                prompt: Some(prompt),
                response: Some(response),
                messages: None,
                text: None,
                image: None,
                reference_images: None,
            } => Sample::from_prompt(prompt, response),
            Self {
                prompt: None,
                response: None,
                messages: Some(turns),
                text: None,
                image: None,
                reference_images: None,
            } => return turn::sample(turns),
            Self {
                prompt: None,
                response: None,
                messages: None,
                text: Some(text),
                image: None,
                reference_images: None,
            } => Sample::from_text(text),
            Self { prompt, response: None, messages: None, text: None, image: Some(image), reference_images } => {
                let references = reference_images.unwrap_or_default().into_iter().map(ImageSource::into_image);
                let references = references.collect::<Result<_, _>>()?;
                return Ok(Sample::Picture(Picture::new(prompt.unwrap_or_default(), references, image.into_image()?)));
            }
            _ => {
                return Err(
                    "write exactly one of {\"prompt\", \"response\"}, {\"messages\"}, {\"text\"} and {\"prompt\", \
                            \"image\"}"
                        .to_owned(),
                );
            }
        };
        sample.map_err(|error| error.to_string())
    }
}

/// The turns before a response that comes apart from them: a prompt, or messages.
pub(super) fn turns(prompt: Option<String>, messages: Option<Vec<Message>>) -> Result<Vec<Message>, String> {
    match (prompt, messages) {
        (Some(content), None) => Ok(vec![Message { role: Role::User, content }]),
        (None, Some(messages)) => Ok(messages),
        _ => Err("write exactly one of \"prompt\" and \"messages\"".to_owned()),
    }
}

/// The turns before a response of either kind, as [`turns`].
pub(super) fn seen_turns(prompt: Option<String>, messages: Option<Vec<Turn>>) -> Result<Vec<Turn>, String> {
    match (prompt, messages) {
        (Some(prompt), None) => Ok(vec![Turn::of_user(prompt)]),
        (None, Some(turns)) => Ok(turns),
        _ => Err("write exactly one of \"prompt\" and \"messages\"".to_owned()),
    }
}

/// A response of either kind after the given turns.
pub(super) fn seen_answer(turns: &[Turn], response: Response) -> Result<Sample, String> {
    turn::sample(turns.iter().cloned().chain([Turn::of_assistant(response)]).collect())
}

/// A response after the given turns.
pub(super) fn answer(turns: &[Message], response: String) -> Result<Sample, String> {
    let mut messages = turns.to_vec();
    messages.push(Message { role: Role::Assistant, content: response });
    Conversation::new(messages).map(Sample::Conversation).map_err(|error| error.to_string())
}

fn aggregate_schema(generator: &mut SchemaGenerator) -> Schema {
    or_null(&aggregate::CATALOGUE.schema(generator))
}

fn transforms_schema(generator: &mut SchemaGenerator) -> Schema {
    or_null(&json_schema!({ "type": "array", "items": transform::CATALOGUE.schema(generator) }))
}

/// A field that may be left out may be null as well.
fn or_null(schema: &Schema) -> Schema {
    json_schema!({ "anyOf": [schema, { "type": "null" }] })
}
