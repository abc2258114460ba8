//! The vocabulary that every other layer speaks: conversations, rewards, tokens, tensors, names.
//!
//! Nothing here does I/O. Each type is checked when it is built, so that the layers above hold values that
//! cannot be wrong: a [`Reward`] is finite, a [`Conversation`] ends with a response, a [`ModelName`] is safe
//! in a path and in a metric label.

pub mod catalogue;
mod conversation;
mod ids;
mod image;
mod number;
mod pattern;
mod reading;
mod reward;
mod tensor;
mod tokens;
mod unique_keys;

pub use conversation::{Conversation, ConversationError, Message, Pair, RenderedText, Role, Sample, dialogue_text};
pub use ids::{ModelName, ModelNameError, ModelVersion};
pub use image::{Image, ImageId, Picture, Pixels};
pub use number::{Count, NotNegative, Number, Positive, Range, Share};
pub use pattern::Pattern;
pub use reading::{After, Probe, Reading};
pub use reward::{NonFinite, Reward};
pub use tensor::{Dimension, ElementType, GraphSignature, RowTensor, TensorSpec};
pub use tokens::{Cut, TokenizedInput};
