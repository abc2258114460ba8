//! A language model's own head: the logits of all tokens, or of the few that somebody reads.

use std::collections::BTreeSet;

use crate::{
    graphs::Nodes,
    trunks::{Decoder, Part, Piece},
};

/// `W h`, or rows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LanguageModel {
    /// The tokens whose logits are given, in this order; all where there are none.
    tokens: BTreeSet<u32>,
}

impl LanguageModel {
    /// The logits of these tokens alone; of all where there are none.
    pub(crate) fn of(tokens: BTreeSet<u32>) -> Self {
        Self { tokens }
    }

    /// Whether it gives the logits of all tokens, whose matrix is as large as many layers.
    pub(crate) fn is_whole(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many logits it gives.
    pub(super) fn width(&self, trunk: &Decoder) -> usize {
        if self.is_whole() { trunk.vocabulary } else { self.tokens.len() }
    }

    /// The ids of its tokens as a graph's metadata have them; `None` where it gives all.
    pub(crate) fn columns(&self) -> Option<String> {
        let ids: Vec<String> = self.tokens.iter().map(u32::to_string).collect();
        (!self.is_whole()).then(|| ids.join(" "))
    }

    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        let table = trunk.piece(0, if trunk.tied_embeddings { Part::Embeddings } else { Part::Logits });
        // A row lies in memory, which has fewer places than the type.
        let row = |token: &u32| usize::try_from(*token).map_or(usize::MAX..usize::MAX, |row| row..row + 1);
        let piece = Piece { rows: self.tokens.iter().map(row).collect(), ..table };
        let shape = [self.width(trunk), trunk.hidden];
        if trunk.logit_cap.is_none() && trunk.logit_scale.is_none() {
            nodes.linear_into("logits", &piece, state, shape, false);
            return;
        }
        let logits = nodes.linear(&piece, state, shape, false);
        let mut logits = nodes.scaled(&logits, trunk.logit_scale);
        if let Some(cap) = trunk.logit_cap {
            logits = nodes.cap(&logits, cap);
        }
        nodes.add_into("logits", "Identity", &[&logits]);
    }
}
