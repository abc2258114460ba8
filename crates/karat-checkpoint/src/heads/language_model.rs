//! A language model's own head: the logits of all tokens.

use crate::{
    graphs::Nodes,
    trunks::{Decoder, Part},
};

pub(super) fn build(nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
    let table = trunk.piece(0, if trunk.tied_embeddings { Part::Embeddings } else { Part::Logits });
    let shape = [trunk.vocabulary, trunk.hidden];
    if trunk.logit_cap.is_none() && trunk.logit_scale.is_none() {
        nodes.linear_into("logits", &table, state, shape, false);
        return;
    }
    let logits = nodes.linear(&table, state, shape, false);
    let mut logits = nodes.scaled(&logits, trunk.logit_scale);
    if let Some(cap) = trunk.logit_cap {
        logits = nodes.cap(&logits, cap);
    }
    nodes.add_into("logits", "Identity", &[&logits]);
}
