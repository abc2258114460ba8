//! Why a model of the Hub can't be had.

use std::path::PathBuf;

use crate::{ModelId, ModelIdError};

/// Why a model of the Hub can't be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The text is no id.
    #[error(transparent)]
    Id(#[from] ModelIdError),
    /// The cache doesn't hold it, and nothing may be fetched.
    #[error(
        "{id} is not in the cache {cache}, and {reason}; fetch it with `hf download {}`, or put the checkpoint into a folder",
        .id.repository()
    )]
    NotCached {
        /// The model.
        id: ModelId,
        /// Where it was looked for.
        cache: PathBuf,
        /// Why nothing is fetched.
        reason: &'static str,
    },
    /// The Hub doesn't answer.
    #[error(
        "{id} is not in the cache {cache}, and {endpoint} can't be reached: {reason}; check the network and HF_ENDPOINT, \
         or fetch it elsewhere and set HF_HUB_OFFLINE=1"
    )]
    Unreachable {
        /// The model.
        id: ModelId,
        /// Where it was looked for first.
        cache: PathBuf,
        /// The Hub's address.
        endpoint: String,
        /// What the connection said.
        reason: String,
    },
    /// The Hub doesn't let this user read it, or hides that there is none.
    #[error(
        "{endpoint}/{} is gated, private or not there ({status}), and {}; ask for access on its page",
        .id.repository(),
        if *.token {
            "the token in use doesn't open it: check HF_TOKEN"
        } else {
            "there is no token: set HF_TOKEN, or run `hf auth login`"
        }
    )]
    Denied {
        /// The model.
        id: ModelId,
        /// The Hub's address.
        endpoint: String,
        /// The Hub's answer: 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// There is no such model, revision or file.
    #[error("{endpoint} has no {id}: check the name, and behind @ the revision")]
    Missing {
        /// The model.
        id: ModelId,
        /// The Hub's address.
        endpoint: String,
    },
    /// The Hub answers with something else.
    #[error("{endpoint} answered {status} for {id}; try again later")]
    Status {
        /// The model.
        id: ModelId,
        /// The Hub's address.
        endpoint: String,
        /// The status.
        status: u16,
    },
    /// The model has nothing that could be served.
    #[error(
        "{id} has neither safetensors nor *.bin weights beside a config.json or an adapter_config.json: it is no \
         checkpoint of Transformers"
    )]
    NoCheckpoint {
        /// The model.
        id: ModelId,
    },
    /// The disk is too small.
    #[error(
        "{id} takes {} MB more, and {} has {} MB left; make room, or set HF_HUB_CACHE to another disk",
        .needed.div_ceil(1_000_000),
        .cache.display(),
        .free / 1_000_000
    )]
    Space {
        /// The model.
        id: ModelId,
        /// How many bytes are missing of it.
        needed: u64,
        /// How many bytes are free.
        free: u64,
        /// The cache.
        cache: PathBuf,
    },
    /// A transfer broke off.
    #[error("{file} of {id} broke off: {reason}; what came is kept, so start again to go on")]
    BrokeOff {
        /// The model.
        id: ModelId,
        /// The file.
        file: String,
        /// What the connection said.
        reason: String,
    },
    /// What came is not what the Hub says that the file is.
    #[error("{file} of {id} came damaged ({reason}) and was removed; start again")]
    Damaged {
        /// The model.
        id: ModelId,
        /// The file.
        file: String,
        /// What differs.
        reason: String,
    },
    /// A file of the cache can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}
