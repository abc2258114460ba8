//! What a graph is where it follows a contract of causal models: their measures, and sessions of their own kind.

use std::{num::NonZeroUsize, sync::atomic::Ordering};

use karat_rules::domain::TensorSpec;

use super::{
    super::{
        contract::{Contract, PrefixContract},
        decoder::OrtDecoder,
        device::Memory,
        packed::OrtPacked,
    },
    Graph,
};
use crate::{
    DecoderExecutor, DecoderShape, Padding, ProviderKind, Purpose, RuntimeError, TextNeeds,
    packed::{PackedExecutor, PackedModel},
};

impl Graph {
    /// The measures of the model, where the graph follows the contract for sharing prefixes, `rm-prefix/1`.
    #[must_use]
    pub fn decoder_shape(&self) -> Option<DecoderShape> {
        self.prefix().map(|contract| contract.shape)
    }

    /// Where the score of a decoder's text stands, if its metadata name a token that it takes for padding.
    #[must_use]
    pub fn decoder_padding(&self) -> Option<Padding> {
        self.prefix().and_then(|contract| contract.padding)
    }

    /// What a decoder's texts must hold; nothing of a graph that is none.
    #[must_use]
    pub fn decoder_needs(&self) -> TextNeeds {
        match &self.contract {
            Some(Contract::Prefix(contract)) => contract.needs.clone(),
            Some(Contract::Packed(contract)) => contract.model.needs.clone(),
            None => TextNeeds::default(),
        }
    }

    /// The outputs that a decoder gives at each token that is read, of shape `[positions, width]`.
    #[must_use]
    pub fn decoder_outputs(&self) -> &[TensorSpec] {
        self.prefix().map_or(&[], |contract| &contract.outputs)
    }

    /// A session of its own for one worker of a decoder, computing on `threads` threads and reading `outputs`, for that
    /// purpose.
    ///
    /// # Errors
    /// When the graph doesn't follow the contract for sharing prefixes, has no such output, or another session can't
    /// start.
    pub fn decoder_executor(
        &self,
        outputs: &[String],
        threads: NonZeroUsize,
        purpose: Purpose,
    ) -> Result<Box<dyn DecoderExecutor>, RuntimeError> {
        let contract = self.prefix().cloned().ok_or_else(|| RuntimeError::Binding {
            found: "the graph doesn't say that it follows the contract rm-prefix/1".to_owned(),
            advice: "name the model's checkpoint folder instead (checkpoint in [graph]), or use a head that needs no causal model".to_owned(),
        })?;
        self.forget_opening(threads);
        let session = OrtDecoder::new(self.session(threads, self.next_turn())?, contract, outputs)?;
        Ok(match self.provider() {
            ProviderKind::Cpu => Box::new(self.in_turns(session, purpose)),
            ProviderKind::Cuda | ProviderKind::Tensorrt => Box::new(session),
        })
    }

    /// The model, where the graph takes packed rows as the contract `rm-packed/1` says.
    #[must_use]
    pub fn packed_model(&self) -> Option<&PackedModel> {
        match &self.contract {
            Some(Contract::Packed(contract)) => Some(&contract.model),
            _ => None,
        }
    }

    /// A session of its own for one worker of packed rows, with caches of `blocks` blocks that are allocated now,
    /// computing on `threads` threads and reading `outputs`.
    ///
    /// # Errors
    /// When the graph doesn't follow the contract for packed rows, has no such output, another session can't start, or
    /// its device doesn't hold the caches ([`RuntimeError::Blocks`]).
    pub fn packed_executor(
        &self,
        outputs: &[String],
        blocks: NonZeroUsize,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn PackedExecutor>, RuntimeError> {
        let Some(Contract::Packed(contract)) = &self.contract else {
            return Err(RuntimeError::Binding {
                found: "the graph doesn't say that it follows the contract rm-packed/1".to_owned(),
                advice: "serve a checkpoint with form = \"packed\" in [graph]".to_owned(),
            });
        };
        let turn = self.next_turn();
        let memory = match self.provider() {
            ProviderKind::Cpu => Memory::Host,
            ProviderKind::Cuda => Memory::Gpu(self.source.device(turn)),
            ProviderKind::Tensorrt => {
                return Err(RuntimeError::Binding {
                    found: "TensorRT doesn't write into blocks in place".to_owned(),
                    advice: "name the provider \"cuda\", or write form = \"rows\" in [graph]".to_owned(),
                });
            }
        };
        self.forget_opening(threads);
        let session = self.session(threads, turn)?;
        // It is shared by who scores and who writes, so that nobody has it for himself: its weights stay.
        self.is_shared.store(true, Ordering::Relaxed);
        Ok(Box::new(OrtPacked::new(session, contract.clone(), outputs, blocks, memory)?))
    }

    fn prefix(&self) -> Option<&PrefixContract> {
        match &self.contract {
            Some(Contract::Prefix(contract)) => Some(contract),
            _ => None,
        }
    }
}
