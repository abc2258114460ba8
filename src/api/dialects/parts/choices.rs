//! What the query of a dialect's URL can say: clients that only let their users set a URL have no other place for it.

use karat_engine::{
    engine::OnRefused,
    schedule::Priority,
    text::{Ending, Truncation},
};
use karat_rules::domain::{Reward, catalogue::Choice};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::Activation;
use crate::api::runs::RunFields;

/// Choices in the query. A parameter that isn't one of these is refused: misspelled, it would change rewards in silence.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UrlChoices {
    /// The model, unless the path names one.
    pub(crate) model: Option<String>,
    /// How the members' scores become one: a name, or JSON such as `{"uncertainty_weighted":{"lambda":0.5}}`.
    #[serde(default, deserialize_with = "aggregate")]
    #[schemars(with = "Option<String>")]
    pub(crate) aggregate: Option<Choice>,
    /// What happens to the reward after that: names separated by commas, or a JSON list.
    #[serde(default, deserialize_with = "transforms")]
    #[schemars(with = "Option<String>")]
    pub(crate) transforms: Option<Vec<Choice>>,
    /// What happens to samples that are longer than the model takes.
    pub(crate) truncation: Option<Truncation>,
    /// Requests of a higher priority go first.
    pub(crate) priority: Option<Priority>,
    /// After this many milliseconds the request is given up.
    #[schemars(range(min = 1))]
    pub(crate) timeout_ms: Option<u64>,
    /// How rendered text ends: as it was sent, or with exactly one end-of-sequence token.
    pub(crate) ending: Option<Ending>,
    /// Whether scores pass through the logistic function, whatever dialect and body say.
    pub(crate) activation: Option<Activation>,
    /// What becomes of a sample that can't be scored: `fail` refuses the request, and a number stands for that sample's
    /// reward, as it is, while the others are scored. The header `X-Karat-Refused` counts such samples.
    #[serde(default, deserialize_with = "on_refused")]
    #[schemars(with = "Option<String>")]
    pub(crate) on_refused: Option<OnRefused>,
    /// What a prompt that is a string is, on routes that take prompt and response.
    pub(crate) prompt: Option<PromptForm>,
    /// The training run that the request belongs to; or the header `X-Karat-Run`.
    run: Option<String>,
    /// The run's step; or the header `X-Karat-Step`.
    step: Option<u64>,
    /// What the samples are of, where a run has several tasks; or the header `X-Karat-Task`.
    task: Option<String>,
}

impl UrlChoices {
    /// The run that the request belongs to, as the URL says it.
    pub(crate) fn run(&self) -> RunFields {
        RunFields { run: self.run.clone(), step: self.step, task: self.task.clone() }
    }
}

/// What a prompt that is a string is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PromptForm {
    /// What the user said.
    #[default]
    Plain,
    /// Text in a chat template, which the response continues.
    Rendered,
}

fn aggregate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Choice>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with(['{', '"']) {
        return serde_json::from_str(&text).map(Some).map_err(|error| D::Error::custom(format!("aggregate: {error}")));
    }
    Ok(Some(Choice::named(&text)))
}

fn on_refused<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OnRefused>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = match text.as_str() {
        "fail" => Ok(OnRefused::Fail),
        "mark" => Ok(OnRefused::Mark),
        json if json.starts_with('{') => serde_json::from_str(json).map_err(|error| error.to_string()),
        number => match number.parse().map(Reward::new) {
            Ok(Ok(reward)) => Ok(OnRefused::Reward(reward)),
            _ => Err(format!("{number:?} is neither fail nor a finite number")),
        },
    };
    found.map(Some).map_err(|reason| D::Error::custom(format!("on_refused: {reason}")))
}

fn transforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Choice>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with('[') {
        return serde_json::from_str(&text).map(Some).map_err(|error| D::Error::custom(format!("transforms: {error}")));
    }
    Ok(Some(text.split(',').filter(|name| !name.is_empty()).map(Choice::named).collect()))
}
