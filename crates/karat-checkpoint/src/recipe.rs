//! What a graph is made of, kept so that it can be written in any form.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    classes::Pooling,
    graphs::{self, Element, Form, Graph, Parts},
    heads::{Head, LanguageModel},
    problems::Problems,
    trunks::{Decoder, Part, encoder::Encoder, image::ImageModel, modernbert::ModernBert},
    weights::Weights,
};

/// A trunk and what stands above it.
#[derive(Debug)]
pub(crate) enum Recipe {
    Decoder { trunk: Decoder, head: Head, pad_id: Option<u32>, pooling: Pooling, last_token: Option<String> },
    Encoder { trunk: Encoder, labels: usize },
    Modern { trunk: ModernBert, labels: usize },
    Seeing(ImageModel),
}

impl Recipe {
    /// Writes the graph in a form, of a language model with the logits of `tokens` alone, or of all where there are none.
    /// What stands in the way goes into `problems`.
    pub(crate) fn write(
        &self,
        form: Form,
        tokens: &BTreeSet<u32>,
        weights: &Weights,
        problems: &mut Problems,
    ) -> Option<Graph> {
        if let Some(reason) = self.lacks(form) {
            return problems.add(format!("{reason}; write form = \"rows\" in [graph]"));
        }
        Some(match (self, form) {
            (Self::Decoder { trunk, head, pad_id, pooling, last_token }, _) => {
                let head = reading(head, tokens, trunk.vocabulary, problems)?;
                let parts = Parts {
                    trunk,
                    head: &head,
                    pad_id: *pad_id,
                    pooling: *pooling,
                    last_token: last_token.as_deref(),
                    weights,
                    rounding: if let Form::Rounded(element) = form { Some(element) } else { None },
                };
                match form {
                    Form::Rows | Form::GpuRows | Form::HalfRows => graphs::prefix(&parts, form, problems),
                    Form::Packed(element) => graphs::packed_decoder(&parts, element, problems),
                    Form::Rounded(_) => graphs::packed_decoder(&parts, Element::Float32, problems),
                }
            }
            (Self::Encoder { trunk, labels }, Form::Packed(element) | Form::Rounded(element)) => {
                graphs::packed_encoder(trunk, *labels, element, weights, problems)
            }
            (Self::Encoder { trunk, labels }, _) => graphs::padded(trunk, *labels, form.element(), weights, problems),
            (Self::Modern { trunk, labels }, _) => {
                graphs::modernbert(trunk, *labels, form.element(), weights, problems)
            }
            (Self::Seeing(ImageModel { text: Some(text), .. }), _) => {
                graphs::texts(text, form.element(), weights, problems)
            }
            (Self::Seeing(model), _) => graphs::images(model, form.element(), weights, problems),
        })
    }

    /// Writes the graph of images beside that of texts, of a model that compares the two.
    pub(crate) fn write_images(&self, form: Form, weights: &Weights, problems: &mut Problems) -> Option<Graph> {
        match self {
            Self::Seeing(model) if model.text.is_some() => {
                Some(graphs::images(model, form.element(), weights, problems))
            }
            Self::Decoder { .. } | Self::Encoder { .. } | Self::Modern { .. } | Self::Seeing(_) => None,
        }
    }

    /// Why it hasn't a form.
    pub(crate) fn lacks(&self, form: Form) -> Option<String> {
        let what = match form {
            Form::Rows | Form::GpuRows | Form::Packed(Element::Float32) => "packed rows",
            Form::HalfRows => "padded rows in 16 bits",
            Form::Packed(_) | Form::Rounded(_) => "packed rows in 16 bits",
        };
        self.obstacle(form).map(|obstacle| format!("{obstacle} no form of {what}"))
    }

    /// What of it a form doesn't have, as the beginning of a sentence.
    pub(crate) fn obstacle(&self, form: Form) -> Option<&'static str> {
        let element = match form {
            Form::Rows | Form::GpuRows => return None,
            // What samples begin with in common is shared in 32 bits alone.
            Form::HalfRows => return matches!(self, Self::Decoder { .. }).then_some("decoders have"),
            Form::Packed(element) | Form::Rounded(element) => element,
        };
        if let Self::Seeing(_) = self {
            return Some("models that see have");
        }
        if form == Form::Rounded(element) && !matches!(self, Self::Decoder { .. }) {
            return Some("encoders have");
        }
        // What no other sizes would change comes first.
        match self {
            Self::Encoder { trunk, .. } if trunk.distances.is_some() || trunk.convolution.is_some() => {
                Some("attention to distances has")
            }
            Self::Modern { .. } => Some("windows that look ahead have"),
            _ if element != Element::Float32 && !graphs::takes_heads(self.head_dim()) => {
                Some("heads whose size is no multiple of 8, or above 256, have")
            }
            Self::Decoder { .. } | Self::Encoder { .. } | Self::Seeing(_) => None,
        }
    }

    /// The width of a head.
    fn head_dim(&self) -> usize {
        match self {
            Self::Decoder { trunk, .. } => trunk.head_dim,
            Self::Encoder { trunk, .. } => trunk.hidden / trunk.heads,
            Self::Modern { trunk, .. } => trunk.hidden / trunk.heads,
            // They have no packed form, for which alone it is asked.
            Self::Seeing(_) => 0,
        }
    }

    /// The 16-bit format that suits a model. Decoders are trained in bfloat16, and outside of what half precision holds,
    /// unless their table of embeddings is stored in it; encoders stay within, and are closer to 32 bits in it.
    pub(crate) fn half(&self, weights: &Weights) -> Element {
        match self {
            Self::Decoder { trunk, .. } => {
                let table = format!("{}.weight", trunk.piece(0, Part::Embeddings).tensor);
                if weights.is_half(&table) { Element::Float16 } else { Element::Bfloat16 }
            }
            Self::Encoder { .. } | Self::Modern { .. } | Self::Seeing(_) => Element::Float16,
        }
    }
}

/// A head that gives the logits of `tokens` alone, where it is a language model's.
fn reading<'a>(
    head: &'a Head,
    tokens: &BTreeSet<u32>,
    vocabulary: usize,
    problems: &mut Problems,
) -> Option<Cow<'a, Head>> {
    let (Head::LanguageModel(_), Some(largest)) = (head, tokens.last()) else { return Some(Cow::Borrowed(head)) };
    if usize::try_from(*largest).is_ok_and(|largest| largest < vocabulary) {
        return Some(Cow::Owned(Head::LanguageModel(LanguageModel::of(tokens.clone()))));
    }
    problems.add(format!(
        "the head reads the logit of token {largest}, and the model has {vocabulary} tokens; put the tokenizer beside it that it \
         was trained with"
    ))
}
