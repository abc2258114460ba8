//! From the id of a model on the Hugging Face Hub to a folder with its files.
//!
//! The files lie in the cache that Python's `huggingface_hub` keeps, in its layout and by its settings, so that what one
//! has fetched the other finds:
//!
//! ```text
//! models--org--name/refs/main                      the commit that a branch or tag stands for
//! models--org--name/snapshots/<commit>/config.json a link to …
//! models--org--name/blobs/<digest>                 … the file itself
//! ```
//!
//! [`Hub::find`] looks there, and with the feature `fetch` gets what is missing. A model is always one commit: the Hub is
//! asked once which one a branch stands for, and every file is of that commit. Code that lies beside a model is never
//! fetched.

mod cache;
mod choice;
mod error;
#[cfg(feature = "fetch")]
mod fetch;
mod hub;
mod id;
mod settings;

pub use error::HubError;
pub use hub::{Hub, Snapshot};
pub use id::{ModelId, ModelIdError};
pub use settings::HubSettings;
