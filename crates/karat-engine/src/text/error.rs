//! Why a sample can't be scored as it was sent, in words for whoever sent it.

use std::path::PathBuf;

use super::{size::TooManyBytes, truncate::TooLong};

/// Why text can't be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file of the tokenizer can't be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest's text settings contradict each other or the files.
    #[error("{key}: {reason}")]
    Config {
        /// The key in the manifest.
        key: &'static str,
        /// What was found and what to write instead.
        reason: String,
    },
    /// The template refused the conversation.
    #[error("the model's template can't render this conversation: {0}")]
    Template(String),
    /// The tokenizer failed.
    #[error("the tokenizer can't encode this text: {0}")]
    Tokenizer(String),
    /// The text is not in the template that the manifest names.
    #[error(
        "the text is not in the policy's template (text.retemplate): {0}; send text in that template, or the messages \
         themselves"
    )]
    ParseTemplate(String),
    /// One end-of-sequence token is asked of a model that names none.
    #[error("the model names no end-of-sequence token to end the text with; write text.eos_token in its manifest")]
    NoEndToken,
    /// A token id isn't one of the model's tokenizer.
    #[error("{0} is no token of the model's tokenizer; send ids of that tokenizer, or text")]
    UnknownToken(u32),
    /// A pair of responses was sent to a model of single ones.
    #[error("this model scores one response at a time, and this is a pair; send each as an input of its own")]
    Pair,
    /// An image was sent to a model of texts.
    #[error("this model reads text and sees no images; send text, or choose a model that takes images")]
    Image,
    /// A text's likelihood is asked for, and nothing goes before it.
    #[error("nothing goes before the response, so nothing can be said of how likely it is; send a prompt")]
    NothingBefore,
    /// The template changes a text whose tokens or steps are read, by more than white space around it.
    #[error(
        "the template changes the text {0:?}, so it can't be found among the tokens; send it as the template writes \
         it, without what the template takes out"
    )]
    Changed(String),
    /// A sample holds no mark at which a gated head's weights are read.
    #[error(
        "the text holds no {mark:?} (text.gate_mark), where this model reads how it weighs its objectives; send messages \
         that its template renders, or text in that template"
    )]
    NoGate {
        /// The mark.
        mark: String,
    },
    /// The steps of a response have to be tokenised apart or written as turns, and what was sent is text or tokens.
    #[error(
        "this model reads steps that are written one by one, and they can't be told apart in text that is rendered \
         already or in tokens; send {{\"prompt\", \"response\"}} or {{\"messages\"}}"
    )]
    WantsTurns,
    /// A response, or a text that the caller rendered, holds the token of the step mark where no step ends.
    #[error(
        "the step mark stands at byte {at} of the response (or of the text, if that was sent rendered), where no step ends \
         as text.step_end says; send the steps as a list, and without the mark"
    )]
    StrayMark {
        /// The byte at which it stands.
        at: usize,
    },
    /// A step of a list holds what ends a step.
    #[error("step {step} holds {end:?}, which ends a step here; send it as two steps, or without that")]
    SplitStep {
        /// Its place in the list, counted from 0.
        step: usize,
        /// What ends a step.
        end: String,
    },
    /// A word that is asked for isn't one token.
    #[error(
        "the answer {word:?} is {tokens} tokens, and what a language model is asked for is one each; spell it as the \
         model writes it, perhaps with a leading space"
    )]
    Word {
        /// The word.
        word: String,
        /// How many tokens it is.
        tokens: usize,
    },
    /// The tokenizer can't write tokens as text.
    #[error("the tokenizer can't decode what the model wrote: {0}; check the decoder in the model's tokenizer.json")]
    Undecodable(String),
    /// A control token in what a user wrote, where the manifest allows none.
    #[error(
        "the text holds {0:?}, which is a control token of the model's tokenizer, and text.special_tokens_in_text of its \
         manifest is \"refuse\"; send the text without it"
    )]
    ControlToken(String),
    /// Control tokens in what a user wrote can't be told from the template's.
    #[error(
        "the text holds control tokens that the model's template takes for its own, so they can't be read as letters \
         (text.special_tokens_in_text); send the text without them"
    )]
    HiddenControlToken,
    /// The rendered text has no tokens.
    #[error("the response has no tokens once rendered and tokenised; send text that the model's tokenizer knows")]
    NoTokens,
    /// The text is longer than the model or the policy allows.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The text has more bytes than any that the model takes.
    #[error(transparent)]
    TooManyBytes(#[from] TooManyBytes),
}
