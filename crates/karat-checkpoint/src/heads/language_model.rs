//! A language model's own head: the logits of all tokens.

use crate::{
    graphs::Nodes,
    trunks::{Decoder, Part},
};

pub(super) fn build(nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
    let table = trunk.piece(0, if trunk.tied_embeddings { Part::Embeddings } else { Part::Logits });
    let shape = [trunk.vocabulary, trunk.hidden];
    match trunk.logit_cap {
        None => nodes.linear_into("logits", &table, state, shape, false),
        Some(cap) => {
            let logits = nodes.linear(&table, state, shape, false);
            let capped = nodes.cap(&logits, cap);
            nodes.add_into("logits", "Identity", &[&capped]);
        }
    }
}
