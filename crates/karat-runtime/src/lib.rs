//! Runs graphs: what a model computes, behind one small trait.
//!
//! [`Executor`] is all that the scheduler knows of a runtime: a batch of token ids goes in, one row for each sample
//! and output comes out, padding removed. [`ort`] implements it with ONNX Runtime, [`fake`] without any graph.
//! [`PixelBinding`] says how a graph takes images.
//! [`DecoderExecutor`] runs decoders row by row; [`prefix`] shares on top of it what samples begin with. Passes that
//! score and passes that write take turns on the processor, by their [`Purpose`].
//! A [`Provider`] is the hardware path that a manifest asks for; [`libraries`] finds what those of GPUs need.

mod batch;
mod cancellation;
mod chain;
mod decoder;
mod devices;
mod error;
pub mod fake;
mod file_identity;
mod free_memory;
mod give_back;
pub mod libraries;
mod memory;
pub mod ort;
pub mod packed;
mod pixels;
pub mod prefix;
mod profile;
mod provider;
mod readout;
mod shapes;
pub mod telemetry;
#[cfg(test)]
mod testing;
mod turns;

use std::{fmt, sync::Arc};

use karat_rules::domain::RowTensor;

pub use batch::TokenBatch;
pub use cancellation::{Cancellation, Registration};
pub use decoder::{
    DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, KeyValues, Numbers, Padding, Past, Read, ReadAt, Span,
    TextNeeds,
};
pub(crate) use devices::Devices;
pub use error::RuntimeError;
pub use file_identity::FileIdentity;
pub use free_memory::free_memory;
pub use give_back::give_back_memory;
pub use memory::MemoryBound;
pub use pixels::{PixelBinding, PixelLayout, Scale};
pub use profile::{BatchLimits, Shape, ShapeProfile};
pub(crate) use provider::Arena;
pub use provider::{CudaOptions, Provider, ProviderKind, SkippedProvider, TensorrtOptions};
pub use readout::{Readout, ScoresAt};
pub use shapes::Shapes;
pub use turns::Purpose;
pub(crate) use turns::{InTurns, Turns};

/// Something that runs a graph: one session, owned by one thread.
pub trait Executor: Send {
    /// Runs one forward pass; blocks until it is done or cancelled.
    ///
    /// Returns, for each sample in the batch's order, one tensor for each bound output in the binding's order, with
    /// the batch axis and the positions of padding removed: `[B]` gives `[1]`, `[B, K]` gives `[K]`, `[B, S, V]`
    /// gives `[Sᵢ, V]` for a sample of `Sᵢ` tokens.
    ///
    /// # Errors
    /// [`RuntimeError::Cancelled`] when `cancel` was used, another error when the pass failed. The executor can be
    /// used again after either.
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError>;

    /// Whether samples are padded to the longest of their batch.
    fn pads(&self) -> bool {
        true
    }

    /// The device that it shares with others, each of which makes its next pass ready while another's runs; `None` where it
    /// has one of its own.
    fn device(&self) -> Option<Arc<dyn SharedDevice>> {
        None
    }

    /// How many passes the device's memory didn't hold, and which it tried again in smaller ones by itself, since this was
    /// last asked.
    fn take_retries(&mut self) -> usize {
        0
    }

    /// The few shapes that its passes are rounded up to, where a new one is dear; `None` where they run as they are.
    fn shapes(&self) -> Option<Shapes> {
        None
    }

    /// Says whether a pass's shape may be rounded up, where that makes it faster: then samples are padded that are
    /// computed alone, too. Allowed unless this says otherwise.
    fn allow_rounding(&mut self, _allowed: bool) {}
}

impl<E: Executor + ?Sized> Executor for Box<E> {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        (**self).run(batch, cancel)
    }

    fn pads(&self) -> bool {
        (**self).pads()
    }

    fn device(&self) -> Option<Arc<dyn SharedDevice>> {
        (**self).device()
    }

    fn take_retries(&mut self) -> usize {
        (**self).take_retries()
    }

    fn shapes(&self) -> Option<Shapes> {
        (**self).shapes()
    }

    fn allow_rounding(&mut self, allowed: bool) {
        (**self).allow_rounding(allowed);
    }
}

/// A device with what several executors share on it.
pub trait SharedDevice: fmt::Debug + Send + Sync {
    /// How many of the tokens that a text begins with need not be computed there.
    fn known(&self, ids: &[u32]) -> usize;
}

/// How a graph's inputs and outputs are used: which input takes what, and which outputs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphBinding {
    /// The input that takes the token ids.
    pub input_ids: String,
    /// The input that marks tokens with 1 and padding with 0.
    pub attention_mask: Option<String>,
    /// The input that takes the segment of each token.
    pub token_type_ids: Option<String>,
    /// The input that takes the position of each token, counted from 0.
    pub position_ids: Option<String>,
    /// The wanted outputs, in the order in which an executor returns them; at least one.
    pub outputs: Vec<String>,
    /// The token id that fills up shorter samples.
    pub pad_id: u32,
}
