//! What a graph is made of, kept so that it can be written in any form.

use crate::{
    graphs::{self, Element, Form, Graph, Parts},
    heads::{Head, Kind},
    problems::Problems,
    trunks::{Decoder, encoder::Encoder, modernbert::ModernBert},
    weights::Weights,
};

/// A trunk and what stands above it.
#[derive(Debug)]
pub(crate) enum Recipe {
    Decoder { trunk: Decoder, head: Head, kind: Kind, pad_id: Option<u32> },
    Encoder { trunk: Encoder, labels: usize },
    Modern { trunk: ModernBert, labels: usize },
}

impl Recipe {
    /// Writes the graph in a form; what stands in the way goes into `problems`.
    pub(crate) fn write(&self, form: Form, weights: &Weights, problems: &mut Problems) -> Option<Graph> {
        match (self, form) {
            (Self::Decoder { trunk, head, kind, pad_id }, _) => {
                let parts = Parts { trunk, head, kind: *kind, pad_id: *pad_id, weights };
                Some(match form {
                    Form::Rows => graphs::prefix(&parts, problems),
                    Form::Packed(element) => graphs::packed_decoder(&parts, element, problems),
                })
            }
            (Self::Encoder { trunk, labels }, Form::Rows) => Some(graphs::padded(trunk, *labels, weights, problems)),
            (Self::Encoder { trunk, labels }, Form::Packed(element)) if trunk.distances.is_none() => {
                Some(graphs::packed_encoder(trunk, *labels, element, weights, problems))
            }
            (Self::Modern { trunk, labels }, Form::Rows) => Some(graphs::modernbert(trunk, *labels, weights, problems)),
            (Self::Encoder { .. }, Form::Packed(_)) => {
                problems.add("attention to distances has no form of packed rows; write form = \"rows\" in [graph]")
            }
            (Self::Modern { .. }, Form::Packed(_)) => {
                problems.add("windows that look ahead have no form of packed rows; write form = \"rows\" in [graph]")
            }
        }
    }

    /// Whether there is a form of packed rows.
    pub(crate) fn packs(&self) -> bool {
        match self {
            Self::Decoder { .. } => true,
            Self::Encoder { trunk, .. } => trunk.distances.is_none(),
            Self::Modern { .. } => false,
        }
    }

    /// The 16-bit format that suits a model whose weights are stored in these types. Decoders are trained in bfloat16, and
    /// outside of what half precision holds; encoders stay within, and are closer to 32 bits in it.
    pub(crate) fn half(&self, stored_in_half: bool) -> Element {
        match self {
            Self::Decoder { .. } if !stored_in_half => Element::Bfloat16,
            Self::Decoder { .. } | Self::Encoder { .. } | Self::Modern { .. } => Element::Float16,
        }
    }
}
