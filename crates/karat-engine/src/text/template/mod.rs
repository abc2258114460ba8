//! Chat templates in Jinja, as Hugging Face tokenizers carry them, rendered as Transformers renders them.
//!
//! A template must give the text that the model was trained on, to the letter. What it can't give alike is refused, and
//! where possible when the model is loaded: a template that asks for today's date without a stated one, since a score
//! must not depend on the day, and one that uses what isn't known here.
//! Source: Transformers 5.24, `utils/chat_template_utils.py`.

mod json;
mod python;
mod tags;
mod tokens;

use std::{fmt, fs, ops::Range, path::Path};

use jiff::{civil::Date, fmt::strtime};
use karat_rules::domain::{Message, Role};
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::ValueKind};

use super::{TextConfig, TextError, control::ControlTokens};
pub(super) use tokens::{SpecialTokens, beside};

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    tokens: SpecialTokens,
    /// What control tokens in turns are, where that isn't left to the tokenizer.
    control: Option<ControlTokens>,
}

const NAME: &str = "chat_template";

/// How many instructions a conversation may take: thousands of turns take a tenth, and a template that loops for ever would
/// hold a core for ever.
const MOST_STEPS: u64 = 2_000_000;
/// The function by which a template asks for today's date.
const TODAY: &str = "strftime_now";

impl Template {
    /// Compiles a template and tries it.
    ///
    /// # Errors
    /// When it is no Jinja, asks for a date that isn't stated, doesn't ask for one that is, or can't be rendered for
    /// other reasons than that it refuses the conversation.
    pub(super) fn new(source: &str, tokens: SpecialTokens, date: Option<Date>) -> Result<Self, TextError> {
        let invalid = |error: Error| TextError::Config {
            key: "text.render",
            reason: format!("the chat template is not valid Jinja: {error:#}"),
        };
        let mut environment = environment().map_err(invalid)?;
        environment.add_template_owned(NAME, tags::rewrite(source)).map_err(invalid)?;
        let dated = environment.get_template(NAME).map_err(invalid)?.undeclared_variables(false).contains(TODAY);
        match date {
            None if dated => {
                return Err(refused_date(
                    "the chat template asks for today's date, and a score must not depend on the day: write the one that is \
                     meant, such as date = \"2024-07-26\", into [text] of model.toml (of a checkpoint, karat inspect \
                     FOLDER --write writes one)",
                ));
            }
            Some(_) if !dated => return Err(refused_date("the chat template never asks for a date; leave it out")),
            None => {}
            Some(date) => environment.add_function(TODAY, move |format: &str| {
                strtime::format(format, date.at(0, 0, 0, 0))
                    .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
            }),
        }
        let template = Self { environment, tokens, control: None };
        template.check()?;
        Ok(template)
    }

    /// The template in a file.
    pub(super) fn from_file(path: &Path, tokens: SpecialTokens, date: Option<Date>) -> Result<Self, TextError> {
        Self::new(&read(path)?, tokens, date)
    }

    /// The template that the model came with. Files go before `tokenizer_config.json`; of several templates the one for
    /// chatting is called "default".
    pub(super) fn of_model(folder: &Path, config: &TextConfig, tokens: SpecialTokens) -> Result<Self, TextError> {
        for file in TEMPLATE_FILES.into_iter().rev() {
            let path = tokens::path_beside(folder, config, file);
            if path.exists() {
                return Self::from_file(&path, tokens, config.date);
            }
        }
        let settings = tokens::beside(folder, config, "tokenizer_config.json")?;
        let written = &settings["chat_template"];
        let listed = || {
            let default = written.as_array()?.iter().rfind(|template| template["name"] == "default")?;
            default["template"].as_str()
        };
        let source = written.as_str().or_else(listed).ok_or(TextError::Config {
            key: "text.render",
            reason: "\"chat_template\" needs a chat_template.jinja or a tokenizer_config.json with a chat_template \
                     beside the tokenizer; neither was found. Add one, or write the template as { jinja = \"…\" }"
                .to_owned(),
        })?;
        Self::new(source, tokens, config.date)
    }

    /// The same with a say in what control tokens are that turns spell.
    pub(in crate::text) fn with_control(self, control: ControlTokens) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Where in `text`, which the turns became, control tokens stand that are letters.
    ///
    /// # Errors
    /// When there may be none, or the template takes them for its own.
    pub(in crate::text) fn literal(
        &self,
        turns: &[Message],
        opening: bool,
        text: &str,
    ) -> Result<Vec<Range<usize>>, TextError> {
        let Some(control) = &self.control else { return Ok(Vec::new()) };
        let contents: Vec<&str> = turns.iter().map(|turn| turn.content.as_str()).collect();
        control.spelled_in_turns(&contents, text, |contents| {
            let turns = turns.iter().zip(contents).map(|(turn, content)| Message { role: turn.role, content });
            self.render(&turns.collect::<Vec<_>>(), opening)
        })
    }

    /// Renders turns; `opening` leaves the text where the assistant's next turn begins.
    ///
    /// # Errors
    /// When the template refuses the turns.
    pub(super) fn render(&self, turns: &[Message], opening: bool) -> Result<String, TextError> {
        self.text(turns, opening).map_err(|error| TextError::Template(said(&error)))
    }

    fn text(&self, turns: &[Message], opening: bool) -> Result<String, Error> {
        let messages =
            turns.iter().map(|turn| context! { role => turn.role.as_str(), content => turn.content.as_str() });
        let given = context! {
            messages => messages.collect::<Value>(),
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => opening,
        };
        let tokens = Value::from_pairs(self.tokens.iter());
        self.environment.get_template(NAME)?.render(context! { ..given, ..tokens })
    }

    /// Renders a few conversations, so that what can't be rendered is known before the first request.
    fn check(&self) -> Result<(), TextError> {
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let (user, assistant) = (turn(Role::User, "Why?"), turn(Role::Assistant, "So."));
        let guided = [turn(Role::System, "Be brief."), user.clone(), assistant.clone()];
        let longer = [user.clone(), assistant.clone(), user, assistant];
        let trials = [
            (&longer[..2], false),
            (&longer[..], false),
            (&guided[..], false),
            (&longer[..1], true),
            (&guided[..2], true),
        ];
        // A template may refuse any conversation in its own words, and fail at those that it wasn't written for.
        let errors = trials.iter().filter_map(|(turns, opening)| self.text(turns, *opening).err());
        let failed: Vec<Error> = errors.filter(|error| raised(error).is_none()).collect();
        let all = failed.first().filter(|_| failed.len() == trials.len());
        let Some(error) = failed.iter().find(|error| is_unknown(error)).or(all) else { return Ok(()) };
        Err(TextError::Config {
            key: "text.render",
            reason: format!(
                "the chat template can't be rendered: {}. Write it otherwise, as {{ jinja = \"…\" }}",
                said(error)
            ),
        })
    }
}

/// The files that a model's template may lie in; the last that is there counts.
pub(super) const TEMPLATE_FILES: [&str; 2] = ["chat_template.jinja", "additional_chat_templates/default.jinja"];

fn read(path: &Path) -> Result<String, TextError> {
    fs::read_to_string(path).map_err(|error| TextError::File { path: path.to_owned(), reason: error.to_string() })
}

fn refused_date(reason: &str) -> TextError {
    TextError::Config { key: "text.date", reason: reason.to_owned() }
}

/// What Transformers gives to every template.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", json::tojson);
    environment
        .add_filter("trim", |text: &str, letters: Option<&str>| python::strip(text, "strip", letters).to_owned());
    // In Python None is no iterable, and whatever has a length and items is a sequence.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), Map | Seq | String | Undefined)
    });
    environment.add_filter(tags::ITERATED, |value: Value| match value.is_none() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "None is not iterable")),
        false => Ok(value),
    });
    environment.add_function("cycler", minijinja_contrib::globals::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    Ok(environment)
}

/// That a template refused a conversation, in its own words.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raised(error: &Error) -> Option<&Raised> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).find_map(|error| error.downcast_ref())
}

fn said(error: &Error) -> String {
    raised(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn is_unknown(error: &Error) -> bool {
    use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    matches!(error.kind(), UnknownFilter | UnknownFunction | UnknownMethod | UnknownTest)
}

#[cfg(test)]
mod tests;
