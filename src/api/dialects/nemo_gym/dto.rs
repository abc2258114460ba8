//! Requests and responses of NeMo-Gym's routes.

use karat_engine::engine::Draft;
use karat_rules::domain::{Conversation, Message, Reward, Role, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{
    dialects::parts::{Body, ChatMessage, KnownFields, Prompt, Scored, Scores, Unread, invalid, messages},
    problem::Problem,
};

/// A response with the request that led to it, in the form of `OpenAI`'s Responses API. All else is sent back unread.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct VerifyBody {
    /// What was asked: `input` is a string or a list of messages.
    responses_create_params: CreateParameters,
    /// What was answered.
    response: ModelResponse,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What was asked.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct CreateParameters {
    /// A string or a list of messages.
    #[schemars(with = "Prompt")]
    input: Value,
    /// What the model was told before all else; a turn of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What was answered.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct ModelResponse {
    /// Items of the types `message` and `reasoning`; the text of the messages is scored.
    output: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One item of an output.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputItem {
    /// What was said.
    Message { content: Vec<OutputPart> },
    /// What was thought, which isn't scored.
    Reasoning,
    /// Anything else, such as a call of a tool.
    #[serde(other)]
    Other,
}

/// A part of what was said.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputPart {
    /// Text.
    OutputText { text: String },
    /// Anything else, such as a refusal.
    #[serde(other)]
    Other,
}

impl ModelResponse {
    /// The text of all messages.
    fn text(&self) -> Result<String, String> {
        let mut text = String::new();
        for (index, item) in self.output.iter().enumerate() {
            let item = OutputItem::deserialize(item).map_err(|error| format!("output[{index}]: {error}"))?;
            match item {
                OutputItem::Message { content } => {
                    for part in content {
                        let OutputPart::OutputText { text: part } = part else {
                            return Err(format!("output[{index}]: only parts of the type output_text can be scored"));
                        };
                        text.push_str(&part);
                    }
                }
                OutputItem::Reasoning => {}
                OutputItem::Other => {
                    return Err(format!(
                        "output[{index}]: only items of the types message and reasoning can be scored; a trajectory \
                         with tools must be written out as text"
                    ));
                }
            }
        }
        Ok(text)
    }
}

/// How an answer was to be sampled, which leaves its reward alone. What else stands among the parameters of a response
/// would change what was asked.
const SAMPLING: KnownFields = KnownFields {
    harmless: &[
        "background",
        "include",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ],
    advice: &[
        ("tools", "a template of karat's renders no tools; write them into the input"),
        ("previous_response_id", "nothing is kept from request to request; send the whole conversation as input"),
        ("prompt", "no prompts are kept here; send the whole conversation as input"),
    ],
};

impl Body for VerifyBody {
    /// All else is sent back, and is the data set's own.
    fn unread(&self) -> Option<&Unread> {
        None
    }
}

impl Body for CompareBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}

impl VerifyBody {
    pub(super) fn sample(&self) -> Result<Draft, Problem> {
        let parameters = &self.responses_create_params;
        Unread::from(parameters.rest.clone()).check_as("responses_create_params.", SAMPLING)?;
        let input = Prompt::deserialize(&self.responses_create_params.input)
            .map_err(|error| invalid(format!("responses_create_params.input: {error}")))?;
        let text = match self.response.text() {
            Ok(text) => text,
            Err(reason) => return Ok(Err(format!("response.{reason}"))),
        };
        let system = parameters.instructions.iter().filter(|said| !said.is_empty());
        let mut turns: Vec<Message> =
            system.map(|said| Message { role: Role::System, content: said.clone() }).collect();
        match input {
            Prompt::Text(content) => turns.push(Message { role: Role::User, content }),
            Prompt::Messages(said) => turns.extend(messages("responses_create_params.input", said)?),
        }
        Ok(answered(turns, text).map_err(|error| error.to_string()))
    }
}

fn answered(mut turns: Vec<Message>, response: String) -> Result<Sample, karat_rules::domain::ConversationError> {
    turns.push(Message { role: Role::Assistant, content: response });
    Conversation::new(turns).map(Sample::Conversation)
}

/// The request, with its reward.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerifyReply {
    responses_create_params: CreateParameters,
    response: ModelResponse,
    #[serde(flatten)]
    rest: Map<String, Value>,
    /// The aggregate after all transforms.
    reward: Reward,
    /// Why the response wasn't scored and has the number that the URL states; left out when it was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// What the reward is made of; sums to it.
    reward_components: Components,
}

/// Where a reward comes from.
#[derive(Debug, Serialize, JsonSchema)]
struct Components {
    /// The mean of the members.
    ensemble_mean: f64,
    /// What the aggregation adds to the mean: 0 for `mean`, negative for conservative ones.
    aggregation: f64,
    /// What the transforms add to the aggregate.
    transforms: f64,
}

impl VerifyReply {
    pub(super) fn new(body: VerifyBody, result: &Scored) -> Self {
        let VerifyBody { responses_create_params, response, mut rest } = body;
        // A reward that was in the request would stand twice in the reply.
        rest.shift_remove("reward");
        rest.shift_remove("reward_components");
        rest.shift_remove("refused");
        let ensemble_mean = result.ensemble.mean.get();
        let aggregation = result.raw.get() - ensemble_mean;
        let transforms = result.reward.get() - (ensemble_mean + aggregation);
        Self {
            responses_create_params,
            response,
            rest,
            reward: result.reward,
            refused: result.refused.clone(),
            reward_components: Components { ensemble_mean, aggregation, transforms },
        }
    }
}

/// Responses to one conversation.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct CompareBody {
    /// The turns before the responses.
    conversation_history: Vec<ChatMessage>,
    /// The responses.
    response_objs: Vec<ModelResponse>,
    /// Refused unless it is null or empty: a reward model takes no instructions.
    #[serde(default)]
    principle: Option<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl CompareBody {
    pub(super) fn into_samples(self) -> Result<Vec<Draft>, Problem> {
        if self.principle.is_some_and(|principle| !principle.trim().is_empty()) {
            return Err(invalid("a reward model judges by what it was trained on, not by a principle; leave it out"));
        }
        let history = messages("conversation_history", self.conversation_history)?;
        let responses = self.response_objs.iter().enumerate();
        let samples = responses.map(|(index, response)| {
            let sample = response.text();
            let sample = sample.and_then(|text| answered(history.clone(), text).map_err(|error| error.to_string()));
            sample.map_err(|reason| format!("response_objs[{index}].{reason}"))
        });
        Ok(samples.collect())
    }
}

/// The rewards of a group.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CompareReply {
    /// One reward for each response, in order.
    rewards: Vec<Reward>,
    /// Each pair of responses.
    comparison_results: Vec<Comparison>,
    metrics: GroupMetrics,
}

/// A pair of responses.
#[derive(Debug, Serialize, JsonSchema)]
struct Comparison {
    response_i: usize,
    response_j: usize,
    score_1: Reward,
    score_2: Reward,
}

/// What the rewards of a group have in common.
#[derive(Debug, Serialize, JsonSchema)]
struct GroupMetrics {
    /// Their mean.
    mean_individual_score: f64,
    /// Their population standard deviation.
    std_individual_score: f64,
}

impl CompareReply {
    pub(super) fn new(report: &Scores) -> Self {
        let rewards: Vec<Reward> = report.results.iter().map(|result| result.reward).collect();
        let pairs = (0..rewards.len()).flat_map(|one| (one + 1..rewards.len()).map(move |other| (one, other)));
        let comparison_results = pairs
            .map(|(one, other)| Comparison {
                response_i: one,
                response_j: other,
                score_1: rewards[one],
                score_2: rewards[other],
            })
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2^52 responses")]
        let count = rewards.len() as f64;
        let mean = rewards.iter().map(|reward| reward.get()).sum::<f64>() / count;
        let variance = rewards.iter().map(|reward| (reward.get() - mean).powi(2)).sum::<f64>() / count;
        let metrics = GroupMetrics { mean_individual_score: mean, std_individual_score: variance.sqrt() };
        Self { rewards, comparison_results, metrics }
    }
}
